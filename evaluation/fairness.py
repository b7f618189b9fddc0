"""Fairness figures of MultiMediate '25 and '26: conditional demographic disparity (CDD).

    python -m evaluation.fairness --predictions P.h5 --results results --sheet sessions.tsv

Frames are put into 10 equal-width bins of their label (0..1). With m(g, b) the mean prediction of
group g in bin b:
    CDD_G = mean over bins of m(male, b) - m(female, b)
    CDD_L(language) = mean over bins of m(language, b) - m(everybody, b)
Bins in which one of the two has no frame do not count; nothing is 0 because nobody was there.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from corpora.sheet import read_sheet
from evaluation.predictions import PredictionFile, label_path, read_labels, sample
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job

log = get_logger("fairness")

BINS = 10
GENDERS = ("male", "female")


def bins_of(truth: np.ndarray) -> np.ndarray:
    """Bin of every label (n,), 0..BINS-1; the label 1 belongs to the last."""
    return np.clip((np.asarray(truth) * BINS).astype(int), 0, BINS - 1)


def bin_means(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(BINS,) mean prediction per label bin, NaN where no frame lies."""
    which = bins_of(truth)
    count = np.bincount(which, minlength=BINS)
    total = np.bincount(which, weights=prediction, minlength=BINS)
    return np.divide(total, count, out=np.full(BINS, np.nan), where=count > 0)


def disparity(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of a - b over the bins that both have; NaN when they share none. a, b: (BINS,)."""
    both = np.isfinite(a) & np.isfinite(b)
    return float((a - b)[both].mean()) if both.any() else math.nan


def cdd(
    truth: np.ndarray, prediction: np.ndarray, gender: np.ndarray, language: np.ndarray
) -> dict[str, object]:
    """CDD of frames (n,) each; gender and language are words, "" where unknown."""
    means = {g: bin_means(truth[gender == g], prediction[gender == g]) for g in GENDERS}
    everybody = bin_means(truth, prediction)
    languages = sorted(set(language.tolist()) - {""})
    of_language = {
        name: disparity(bin_means(truth[language == name], prediction[language == name]), everybody)
        for name in languages
    }
    return {"gender": disparity(means["male"], means["female"]), "language": of_language}


def fairness(predictions: Path, results: Path, sheet: Path, media_root: Path | None) -> dict:
    """CDD of one predictions file, and how many frames and participants it rests on.

    Raises InputError when no predicted participant has labels or metadata.
    """
    people = {
        (p.dataset, p.session, p.role): p for p in read_sheet(sheet, media_root, check_files=False)
    }
    columns: list[tuple[np.ndarray, ...]] = []
    with PredictionFile(predictions) as f:
        for session, role in f.participants():
            path = label_path(results, f.dataset, session, role)
            person = people.get((f.dataset, session, role))
            if person is None or not path.exists():
                continue
            labels = read_labels(path)
            values, _ = sample(f.read(session, role), labels.time[labels.valid])
            n = len(values)
            columns.append(
                (
                    labels.values[labels.valid],
                    values,
                    np.full(n, person.gender, object),
                    np.full(n, person.language, object),
                )
            )
        dataset = f.dataset
    if not columns or not any((c[2] != "").any() or (c[3] != "").any() for c in columns):
        raise InputError(
            f"{predictions}: no participant has both labels and a gender or language",
            f"fill the columns gender and language of {sheet}, and score labelled sets",
        )
    truth, values, gender, language = (np.concatenate(c) for c in zip(*columns, strict=True))
    record = cdd(truth.astype(float), values.astype(float), gender, language)
    return {
        "dataset": dataset,
        "participants": len(columns),
        "frames": len(truth),
        "cdd_gender": None if math.isnan(record["gender"]) else record["gender"],
        "cdd_language": record["language"],
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.fairness",
        description="Conditional demographic disparity by gender and language.",
    )
    parser.add_argument("--predictions", type=Path, required=True, help="predictions file (.h5)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    parser.add_argument("--sheet", type=Path, required=True, help="sessions sheet with metadata")
    parser.add_argument("--media-root", type=Path, help="folder its paths start from")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.fairness",
        build_parser(),
        lambda a: print(
            json.dumps(fairness(a.predictions, a.results, a.sheet, a.media_root), indent=1)
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
