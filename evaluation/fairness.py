"""Fairness figures of MultiMediate '25 and '26: conditional demographic disparity (CDD).

    python -m evaluation.fairness --predictions P.h5 --results results --sheet sessions.tsv

Frames are put into 10 equal-width bins of their label (0..1). With m(g, b) the mean prediction of
group g in bin b:
    CDD_G = mean over bins of m(male, b) - m(female, b)
    CDD_L(language) = mean over bins of m(language, b) - m(everybody whose language is known, b)
Bins in which one of the two has no frame do not count; where no bin counts there is no figure (the
challenge's script says 0). Bins are half open, as in that script: frames with the label 1 lie in none,
and are counted; --last-bin closed puts them into the last.

Test and val are never mixed: every split of a predictions file has its own figures.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from corpora.sheet import read_sheet
from evaluation.predictions import MAX_BEYOND_S, PredictionFile, label_path, matched
from runtime import InputError
from runtime.job import add_job_arguments, run_job

BINS = 10
GENDERS = ("male", "female")
LAST_BIN = ("open", "closed")


def bins_of(truth: np.ndarray, last_bin: str = "open") -> np.ndarray:
    """Bin of every label (n,), 0..BINS-1; BINS, which is none, for the label 1 unless closed."""
    edges = np.linspace(0, 1, BINS + 1)[1:]
    # In single precision, as label files keep them and the challenge's script compares them.
    single = np.asarray(truth, np.float32).astype(np.float64)
    which = np.searchsorted(edges, single, side="right")
    return np.minimum(which, BINS - 1) if last_bin == "closed" else which


def bin_means(which: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(BINS,) mean prediction per bin, NaN where no frame lies. which, prediction: (n,)."""
    count = np.bincount(which, minlength=BINS + 1)[:BINS]
    total = np.bincount(which, weights=prediction, minlength=BINS + 1)[:BINS]
    return np.divide(total, count, out=np.full(BINS, np.nan), where=count > 0)


def disparity(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of a - b over the bins that both have; NaN when they share none. a, b: (BINS,)."""
    both = np.isfinite(a) & np.isfinite(b)
    return float((a - b)[both].mean()) if both.any() else math.nan


def cdd(
    truth: np.ndarray,
    prediction: np.ndarray,
    gender: np.ndarray,
    language: np.ndarray,
    last_bin: str = "open",
) -> dict[str, object]:
    """CDD of frames (n,) each; gender and language are words, "" where unknown."""
    which = bins_of(truth, last_bin)
    by_gender = [bin_means(which[gender == g], prediction[gender == g]) for g in GENDERS]
    known = language != ""
    everybody = bin_means(which[known], prediction[known])
    languages = {
        name: disparity(bin_means(which[language == name], prediction[language == name]), everybody)
        for name in sorted(set(language[known].tolist()))
    }
    return {"gender": disparity(*by_gender), "language": languages}


def fairness(
    predictions: Path,
    results: Path,
    sheet: Path,
    media_root: Path | None = None,
    last_bin: str = "open",
    max_beyond_s: float = MAX_BEYOND_S,
) -> dict[str, object]:
    """CDD of every split of one predictions file, and how many frames and participants it rests on.

    Raises InputError for predictions of classes or that are no number, and when no predicted
    participant has labels and metadata.
    """
    people = {
        (p.dataset, p.session, p.role): p
        for p in read_sheet(sheet, media_root, check_files=False)
        if not p.exclude
    }
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    with PredictionFile(predictions) as f:
        if f.classes:
            raise InputError(
                f"{predictions} holds classes, which have no mean to compare",
                "give the predictions of a run of values",
            )
        for session, role in f.participants():
            path = label_path(results, f.dataset, session, role)
            person = people.get((f.dataset, session, role))
            if person is None or not path.exists():
                continue
            labels, _, values, _ = matched(f, path, session, role, max_beyond_s)
            truth = labels.values[labels.valid]
            words = (person.gender.casefold(), person.language)
            columns = (truth, values, *(np.full(len(truth), w, object) for w in words))
            parts.setdefault(person.split, []).append(columns)
        record = {"run": f.run, "seed": f.seed, "dataset": f.dataset, "last_bin": last_bin}
    if not any((c[2] != "").any() or (c[3] != "").any() for own in parts.values() for c in own):
        raise InputError(
            f"{predictions}: no participant has both labels and a gender or language",
            f"fill the columns gender and language of {sheet}, and score labelled sets",
        )
    splits = {}
    for split, own in sorted(parts.items()):
        truth, values, gender, language = (np.concatenate(c) for c in zip(*own, strict=True))
        odd = sorted({g for g in gender.tolist() if g} - set(GENDERS))
        found = cdd(truth, values, gender, language, last_bin)
        splits[split] = {
            "participants": len(own),
            "frames": len(truth),
            "frames_in_no_bin": int((bins_of(truth, last_bin) == BINS).sum()),
            "frames_of_gender": {g: int((gender == g).sum()) for g in (*GENDERS, *odd)},
            "cdd_gender": _number(found["gender"]),
            "cdd_language": {name: _number(v) for name, v in found["language"].items()},
        }
    return record | {"splits": splits}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.fairness",
        description="Conditional demographic disparity by gender and language, as JSON.",
    )
    add = parser.add_argument
    add("--predictions", type=Path, required=True, help="predictions file (.h5)")
    add("--results", type=Path, default=Path("results"), help="results folder")
    add("--sheet", type=Path, required=True, help="sessions sheet with metadata")
    add("--media-root", type=Path, help="folder its paths start from")
    add("--last-bin", choices=LAST_BIN, default="open", help="closed: the label 1 lies in it")
    add("--max-beyond-s", type=float, default=MAX_BEYOND_S, help="as of evaluation.score")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        found = fairness(
            args.predictions, args.results, args.sheet, args.media_root, args.last_bin,
            args.max_beyond_s,
        )  # fmt: skip
        print(json.dumps(found, indent=1, ensure_ascii=False))

    return run_job("evaluation.fairness", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
