"""Fairness figures of MultiMediate '25 and '26: conditional demographic disparity (CDD).

    python -m evaluation.fairness --predictions P.h5 --results results --sheet sessions.tsv
    snakemake results/tables/main/fairness.csv        # of the runs of a table, mean over seeds

Frames are put into 10 equal-width bins of their label (0..1). With m(g, b) the mean prediction of
group g in bin b:
    CDD_G = mean over bins of m(male, b) - m(female, b)
    CDD_L(language) = mean over bins of m(language, b) - m(everybody whose language is known, b)
Bins in which one of the two has no frame do not count; where no bin counts there is no figure (the
challenge's script says 0). Bins are half open, as in that script: frames with the label 1 lie in none,
and are counted; --last-bin closed puts them into the last.

Participants and frames are counted by group (`of_gender`, `of_language`; in the csv those of the
figure's groups, beside those of the whole set). Who is in no figure is warned of.

Test and val are never mixed: every split of a predictions file has its own figures.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from corpora.sheet import read_sheet
from evaluation.predictions import MAX_BEYOND_S, PredictionFile, matched
from evaluation.render import csv_text
from evaluation.summary import mean_and_std
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store import layout
from store.atomic import write_text
from store.sidecar import write_sidecar

log = get_logger("fairness")

BINS = 10
GENDERS = ("male", "female")
UNKNOWN = "unknown"
LAST_BIN = ("open", "closed")


class Unknown(InputError):
    """Nobody's gender or language is known."""


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
            path = Path(layout.labels(results, f.dataset, session, role))
            person = people.get((f.dataset, session, role))
            if person is None or not path.exists():
                continue
            labels, _, values, _ = matched(f, path, session, role, max_beyond_s)
            truth = labels.values[labels.valid]
            if not len(truth):
                continue
            words = (person.gender, person.language)
            columns = (truth, values, *(np.full(len(truth), w, object) for w in words))
            parts.setdefault(person.split, []).append(columns)
        record = {"run": f.run, "seed": f.seed, "dataset": f.dataset, "last_bin": last_bin}
    if not any((c[2] != "").any() or (c[3] != "").any() for own in parts.values() for c in own):
        raise Unknown(
            f"{predictions}: no participant has both labels and a gender or language",
            f"fill the columns gender and language of {sheet}, and score labelled sets",
        )
    splits = {}
    for split, own in sorted(parts.items()):
        truth, values, gender, language = (np.concatenate(c) for c in zip(*own, strict=True))
        found = cdd(truth, values, gender, language, last_bin)
        counts = {"gender": _counts(own, 2), "language": _counts(own, 3)}
        splits[split] = {
            "participants": len(own),
            "frames": len(truth),
            "frames_in_no_bin": int((bins_of(truth, last_bin) == BINS).sum()),
            "of_gender": counts["gender"],
            "of_language": counts["language"],
            "cdd_gender": _number(found["gender"]),
            "cdd_language": {name: _number(v) for name, v in found["language"].items()},
        }
        for by, used in (("gender", GENDERS), ("language", tuple(found["language"]))):
            left_out = {g: n["participants"] for g, n in counts[by].items() if g not in used}
            if left_out:
                log.warning(
                    "%s: %d of %d participants of %s/%s are in no figure by %s (%s)",
                    predictions.name, sum(left_out.values()), len(own), record["dataset"], split, by,
                    ", ".join(f"{n} {g}" for g, n in left_out.items()),
                )  # fmt: skip
    return record | {"splits": splits}


def _counts(own: list[tuple[np.ndarray, ...]], column: int) -> dict[str, dict[str, int]]:
    """Participants and frames of every group that a column of `own` names."""
    counts: dict[str, dict[str, int]] = {}
    for person in own:
        group = counts.setdefault(person[column][0] or UNKNOWN, {"participants": 0, "frames": 0})
        group["participants"] += 1
        group["frames"] += len(person[column])
    return dict(sorted(counts.items()))


def table_lines(records: list[dict]) -> list[list]:
    """Lines of a csv from records of `fairness`: mean and std over seeds of every figure of a run.

    Raises InputError where two records are of the same run, seed and dataset.
    """
    seen: set[tuple] = set()
    found: dict[tuple, list[tuple[float, int, int]]] = {}
    for record in records:
        key = (record["run"], record["seed"], record["dataset"])
        if key in seen:
            raise InputError(
                f"two predictions files are of run {key[0]}, seed {key[1]} on {key[2]}",
                "give each once",
            )
        seen.add(key)
        for split, own in record["splits"].items():
            figures = {("gender", " - ".join(GENDERS)): (own["cdd_gender"], GENDERS)}
            figures |= {("language", name): (v, [name]) for name, v in own["cdd_language"].items()}
            for group, (value, members) in figures.items():
                if value is not None:
                    place = (record["run"], record["dataset"], split, *group)
                    used = [own[f"of_{group[0]}"][name] for name in members]
                    counts = [sum(u[k] for u in used) for k in ("participants", "frames")]
                    everybody = (own["participants"], own["frames"])
                    found.setdefault(place, []).append((value, *counts, *everybody))
    lines: list[list] = [
        [
            "run",
            "dataset",
            "split",
            "by",
            "group",
            "cdd",
            "cdd_std",
            "n_seeds",
            "participants",
            "frames",
            "participants_in_set",
            "frames_in_set",
        ]
    ]
    for place, values in found.items():
        mean, std = mean_and_std([v[0] for v in values])
        numbers = [f"{mean:.6f}", "" if std is None else f"{std:.6f}"]
        lines.append([*place, *numbers, len(values), *values[0][1:]])
    return lines


def make_table(paths: list[Path], out: Path, fingerprint: str, command: str, **options) -> None:
    """Write the csv of several predictions files, and its sidecar.

    Sets without anybody of known gender or language are left out and told; InputError when all are.
    """
    records = []
    for path in paths:
        try:
            records.append(fairness(path, **options))
        except Unknown as e:
            log.info("%s", e.problem)
            last = e
    if not records:
        raise last
    lines = table_lines(records)
    write_text(out, csv_text(lines))
    write_sidecar(
        out,
        inputs={"/".join(p.parts[-3:]): p for p in paths} | {"sheet": options["sheet"]},
        settings={k: options[k] for k in ("last_bin", "max_beyond_s")},
        fingerprint=fingerprint,
        packages=["h5py", "numpy"],
        command=command,
        counts={"predictions": len(paths), "figures": len(lines) - 1},
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.fairness",
        description="Conditional demographic disparity by gender and language, as JSON.",
    )
    add = parser.add_argument
    add("--predictions", nargs="+", type=Path, required=True, help="predictions files (.h5)")
    add("--results", type=Path, default=Path("results"), help="results folder")
    add("--sheet", type=Path, required=True, help="sessions sheet with metadata")
    add("--media-root", type=Path, help="folder its paths start from")
    add("--last-bin", choices=LAST_BIN, default="open", help="closed: the label 1 lies in it")
    add("--max-beyond-s", type=float, default=MAX_BEYOND_S, help="as of evaluation.score")
    add(
        "--out",
        type=Path,
        help="csv to write, mean over seeds (default: JSON of each to the screen)",
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)

    def work(args: argparse.Namespace) -> None:
        names = ("results", "sheet", "media_root", "last_bin", "max_beyond_s")
        options = {name: getattr(args, name) for name in names}
        if args.out:
            command = command_line("evaluation.fairness", argv)
            make_table(args.predictions, args.out, args.fingerprint, command, **options)
            return
        for path in args.predictions:
            print(json.dumps(fairness(path, **options), indent=1, ensure_ascii=False))

    return run_job("evaluation.fairness", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
