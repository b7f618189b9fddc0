"""Score a submission as the MultiMediate challenge does, from its csv files and the true labels.

    python -m evaluation.official --year 2024 --submission submission.zip \\
        --truth noxi-base=noxi/test-base --truth noxi-additional=noxi/test-additional ...

One score per folder of the submission: CCC over the frames of all sessions and roles concatenated
(population variances). PInSoRo is rated in two ways, task and social engagement: Cohen's kappa of each,
pooled in the same way, in files of their own (``purple.task_engagement.engagement.prediction.csv``, one
word a line, as the baseline of 2026 writes them); the folder's score is the mean of the two. `pairing`:
    positional  line k of the prediction belongs to line k of the labels; lines without a label do
                not count (the frames are the same frames)
    compact     lines without a label are taken out of the labels first and line i of what remains is
                paired with line i of the prediction, as the challenge's table script does: right
                only for predictions written for labelled frames alone

Where the challenge's script has no number (nothing varies; one class throughout), this one has 0. That
script also scores what is there of a prediction that is too short; here that is an error.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluation.confusion import Confusion
from evaluation.handed_in import Submission
from evaluation.layouts import LAYOUTS, Layout
from evaluation.metrics import Moments, merge_all
from formats.label_csv import read_labels
from formats.numbers import decimal
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job

log = get_logger("official")

SHOWN = 5  # files in a warning
PAIRINGS = ("positional", "compact")
# The two ratings of PInSoRo, in the order of the challenge's own configs.
KINDS = {
    "task_engagement": ("goaloriented", "aimless", "adultseeking", "noplay"),
    "social_engagement": ("solitary", "onlooker", "parallel", "associative", "cooperative"),
}


def pair(truth: np.ndarray, prediction: np.ndarray, pairing: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of label and prediction. truth (n,) with NaN where unknown, prediction (m,).

    Raises ValueError when the prediction is too short: nothing is scored on part of a session.
    """
    known = np.isfinite(truth)
    if pairing == "compact":
        truth = truth[known]
        if len(prediction) < len(truth):
            raise ValueError(f"{len(prediction)} predictions for {len(truth)} labelled frames")
        return truth, prediction[: len(truth)]
    if len(prediction) < len(truth) and known[len(prediction) :].any():
        raise ValueError(f"{len(prediction)} predictions for {len(truth)} frames")
    n = min(len(truth), len(prediction))
    return truth[:n][known[:n]], prediction[:n][known[:n]]


def combined(scores: dict[str, float], layout: Layout) -> float:
    """The ranking score of a year; raises InputError when a part of it is missing."""
    missing = [name for name in layout.weights if name not in scores]
    if missing:
        raise InputError(
            f"the combined score of {layout.year} needs {missing[0]}, which was not scored",
            "give --truth for every folder, or look at the single scores",
        )
    return sum(weight * scores[name] for name, weight in layout.weights.items())


def truth_files(root: Path, name: str) -> Iterator[tuple[str, str, Path]]:
    """(session, role, label file) of root/<session>/<role>.<name>."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", "give the folder that holds <session>/")
    for path in sorted(root.glob(f"*/*.{name}")):
        yield path.parent.name, path.name.removesuffix(f".{name}"), path


def numbers(lines: list[str], place: str) -> np.ndarray:
    """Predicted values (m,), all finite; InputError names file and line."""
    values = np.empty(len(lines))
    for i, line in enumerate(lines):
        try:
            values[i] = decimal(line)
        except ValueError:
            values[i] = math.nan
        if not math.isfinite(values[i]):
            raise InputError(f"{place} line {i + 1}: {line[:40]!r} is no number", "make it again")
    return values


def places(lines: list[str], classes: tuple[str, ...], place: str) -> np.ndarray:
    """Predicted classes (m,) as places in `classes`; InputError names file and line."""
    values = np.empty(len(lines))
    for i, line in enumerate(lines):
        if line.strip() not in classes:
            raise InputError(
                f"{place} line {i + 1}: {line[:40]!r} is no class",
                f"write one of {', '.join(classes)} in every line",
            )
        values[i] = classes.index(line.strip())
    return values


def pairs(
    submission: Submission, folder: str, root: Path, pairing: str, kind: str = ""
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(label, prediction) of every labelled participant of a folder, (n,) each; of `kind` places.

    Raises InputError for a file that is missing, too short or no prediction.
    """
    layout, found, surplus, whole = submission.layout, [], [], []
    name = f"{kind}.annotation.csv" if kind else layout.label
    for session, role, path in truth_files(root, name):
        role = f"{role}.{kind}" if kind else role
        lines = submission.lines(folder, session, role)
        place = f"{submission.path}: {layout.member(folder, session, role)}"
        truth = read_labels(path, KINDS[kind] if kind else ())
        values = places(lines, KINDS[kind], place) if kind else numbers(lines, place)
        try:
            found.append(pair(truth, values, pairing))
        except ValueError as e:
            raise InputError(f"{place}: {e}", "one line per frame") from e
        if len(values) > (len(truth) if pairing == "positional" else len(found[-1][0])):
            surplus.append(place)
        if pairing == "compact" and len(values) == len(truth) > len(found[-1][0]):
            whole.append(place)
    if surplus:
        log.warning(
            "%d of %d files of %s have lines beyond the last label, which count for nothing (%s)",
            len(surplus), len(found), folder, surplus[0],
        )  # fmt: skip
    if whole:
        log.warning(
            "%d of these have a line per frame: compact pairs them with other frames after the first"
            " missing label (%s)", len(whole), whole[0],
        )  # fmt: skip
    return found


def score(
    submission: Submission, truths: dict[str, Path], pairing: str = "positional"
) -> dict[str, object]:
    """Scores per folder, and what they were computed on; "combined" when all are there.

    "kappa" and "frames" of PInSoRo are named folder/kind of rating. A folder of which one kind has no
    labels has no score.
    """
    layout = submission.layout
    scores: dict[str, float] = {}
    frames: dict[str, int] = {}
    kappas: dict[str, float] = {}
    for folder, root in truths.items():
        if folder not in layout.folders:
            raise InputError(
                f"--truth {folder}: no folder of a {layout.year} submission",
                f"folders: {', '.join(layout.folders)}",
            )
        if folder not in layout.classes:
            parts = [Moments.of(*p) for p in pairs(submission, folder, Path(root), pairing)]
            frames[folder] = sum(m.n for m in parts)
            if frames[folder]:
                scores[folder] = merge_all(parts).ccc
        else:
            for kind, words in KINDS.items():
                found = pairs(submission, folder, Path(root), pairing, kind)
                total = merge_all([Confusion.of(*p, len(words)) for p in found])
                if total.n:
                    frames[f"{folder}/{kind}"], kappas[f"{folder}/{kind}"] = total.n, total.score
            own = [kappas[f"{folder}/{k}"] for k in KINDS if f"{folder}/{k}" in kappas]
            if len(own) == len(KINDS):
                scores[folder] = sum(own) / len(own)
            elif own:
                log.warning("%s: labels of one kind only, so no score of the folder", folder)
        if not any(n for name, n in frames.items() if name.partition("/")[0] == folder):
            label = (
                f"{next(iter(KINDS))}.annotation.csv" if folder in layout.classes else layout.label
            )
            raise InputError(
                f"{root} holds no label for {folder}", f"it needs <session>/<role>.{label}"
            )
    if surplus := submission.of_nobody(truths):
        shown = ", ".join(map(repr, surplus[:SHOWN])) + (" ..." if len(surplus) > SHOWN else "")
        log.warning("%d files belong to nobody with labels: %s", len(surplus), shown)
    result: dict[str, object] = {"year": layout.year, "pairing": pairing, "scores": scores}
    result |= ({"kappa": kappas} if kappas else {}) | {"frames": frames}
    if set(layout.weights) <= set(scores):
        result["combined"] = combined(scores, layout)
    return result


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.official",
        description="Score a challenge submission against the true labels.",
    )
    parser.add_argument("--submission", required=True, type=Path, help="zip, or its folder")
    parser.add_argument("--year", type=int, choices=sorted(LAYOUTS), default=max(LAYOUTS))
    parser.add_argument(
        "--truth",
        action="append",
        required=True,
        metavar="FOLDER=ROOT",
        help="folder of the submission, and the tree of its labels: ROOT/<session>/<role>...csv",
    )
    parser.add_argument("--pairing", choices=PAIRINGS, default="positional", help="see --help")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        truths = {}
        for item in args.truth:
            folder, _, root = item.partition("=")
            if not root:
                raise InputError(f"--truth {item} names no tree", "write FOLDER=ROOT")
            truths[folder] = Path(root)
        submission = Submission(args.submission, LAYOUTS[args.year])
        print(json.dumps(score(submission, truths, args.pairing), indent=1))

    return run_job("evaluation.official", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
