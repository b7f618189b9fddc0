"""Score the predictions of one run and seed on one dataset against its labels.

One CCC per split over all labelled frames of all sessions and roles pooled, on the labels' own
time stamps, as the MultiMediate challenge scores; each participant's CCC, Pearson's r and mean
absolute error beside it, and the moments from which tables resample sessions (evaluation.metrics).
Runs of classes are scored by Cohen's kappa, pooled in the same way, with accuracy and the confusion
matrix beside it (evaluation.confusion).

Which frames count: every frame whose label is valid. Where the target had no input at all the
model's output is scored nevertheless (a run may not shrink its own test set) and counted as
``n_without_input``. Participants without labels are not scored, and counted as ``n_unlabelled``.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from evaluation.confusion import Confusion
from evaluation.metrics import TITLES, Moments, Statistics, merge_all
from evaluation.predictions import (
    MAX_BEYOND_S,
    PredictionFile,
    agreement,
    matched,
)
from evaluation.scorefile import SCHEMA_VERSION, read_statistics
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store import layout
from store.atomic import write_text
from store.session_spec import SessionSpec, parse_spec
from store.sidecar import file_identity

log = get_logger("score")
SPLITS = ("train", "val", "test")
BESIDE = ("bias", "sd_ratio")  # of whole sets of values only


def number(value: float) -> float | None:
    """A float for JSON: null instead of NaN."""
    return None if math.isnan(value) else value


def numbers_of(statistics: Statistics) -> dict[str, object]:
    """What the scores file says of a set of frames: its score, others beside it."""
    if isinstance(statistics, Confusion):
        return {
            "kappa": number(statistics.kappa),
            "accuracy": number(statistics.accuracy),
            "confusion": statistics.rows(),
        }
    return {name: number(getattr(statistics, name)) for name in ("ccc", "pearson", "mae")}


def score_participant(
    predictions: PredictionFile,
    results: Path,
    session: str,
    role: str,
    max_beyond_s: float = MAX_BEYOND_S,
) -> dict[str, object] | None:
    """Score one participant; None without a label file.

    Raises InputError when the labels reach more than `max_beyond_s` outside the predictions (up to
    there the first or last prediction is held) or a prediction is not a number.
    """
    path = Path(layout.labels(results, predictions.dataset, session, role))
    if not path.exists():
        return None
    labels, series, values, with_input = matched(predictions, path, session, role, max_beyond_s)
    at = labels.time[labels.valid]
    found = agreement(predictions, f"{session}/{role}", path, labels, values)
    record = {
        "session": session,
        "role": role,
        "n": found.n,
        "n_masked": int((~labels.valid).sum()),
        "n_without_input": int((~with_input).sum()),
        "n_beyond": int(((at < series.time[0]) | (at > series.time[-1])).sum()),
        **numbers_of(found),
    }
    if predictions.classes:
        return record | {"classes": list(labels.words)}
    return record | {"moments": found.to_dict()}


def score_split(
    predictions: PredictionFile,
    results: Path,
    specs: list[SessionSpec],
    n_excluded: int,
    max_beyond_s: float = MAX_BEYOND_S,
) -> dict[str, object]:
    """Score all sessions of one split; see the module docstring for what is counted."""
    participants, unlabelled = [], 0
    for spec in sorted(specs, key=lambda s: s.session):
        for role in sorted(spec.roles):
            scored = score_participant(predictions, results, spec.session, role, max_beyond_s)
            if scored is None:
                unlabelled += 1
                log.info("%s/%s has no labels: not scored", spec.session, role)
            else:
                participants.append(scored)
    start = Confusion.empty(predictions.classes) if predictions.classes else Moments()
    pooled = merge_all([start, *(read_statistics(p) for p in participants)])
    labelled = {p["session"] for p in participants if p["n"]}
    if predictions.classes:
        more: dict[str, object] = {"classes": class_names(predictions, participants)}
    else:
        more = {k: number(getattr(pooled, k)) for k in BESIDE}
    return {
        **numbers_of(pooled),
        **more,
        "n_sessions": len(labelled),
        "n_participants": sum(p["n"] > 0 for p in participants),
        "n_frames": pooled.n,
        "n_excluded": n_excluded,
        "n_unlabelled": unlabelled,
        "n_masked": sum(p["n_masked"] for p in participants),
        "n_without_input": sum(p["n_without_input"] for p in participants),
        "participants": participants,
    }


def class_names(predictions: PredictionFile, participants: list[dict]) -> list[str]:
    """What the classes are called, the same for all; takes the names out of the participants.

    Raises InputError where the labels of two participants have other words, or in another order.
    """
    found: dict[tuple[str, ...], str] = {}
    for p in participants:
        found.setdefault(tuple(p.pop("classes")), f"{p['session']}/{p['role']}")
    if len(found) > 1:
        (a, of_a), (b, of_b) = list(found.items())[:2]
        raise InputError(
            f"the labels of {predictions.dataset}/{of_a} have the classes {', '.join(a) or 'unnamed'}, "
            f"those of {of_b} {', '.join(b) or 'unnamed'}",
            "convert the labels of all sessions with the same labels.classes",
        )
    names = next(iter(found), ())
    return list(names) or [f"class {i}" for i in range(predictions.classes)]


def parse_excluded(texts: list[str]) -> dict[str, int]:
    """Parse ``split=N`` pairs; raises InputError."""
    counts = {}
    for text in texts:
        split, _, n = text.rpartition("=")
        if not split or not n.isdigit():
            raise InputError(f"--excluded {text} is not split=N", "write for example test=2")
        counts[split] = int(n)
    return counts


def score(
    predictions_path: Path,
    results: Path,
    sessions: list[str],
    sets: list[str] | None,
    excluded: list[str],
    out: Path,
    fingerprint: str = "",
    max_beyond_s: float = MAX_BEYOND_S,
) -> dict[str, object]:
    """Score a predictions file and write the scores JSON; returns the record written."""
    specs = [parse_spec(text, with_split=True) for text in sessions]
    # A session has one split; sets that the config selects may overlap.
    names = [(s.dataset, s.session, "" if s.split in SPLITS else s.split) for s in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"session {'/'.join(name[:2])} is given twice", "name each session once per set"
            )
    with PredictionFile(predictions_path) as predictions:
        dataset = predictions.dataset
        wanted = sets or sorted({f"{s.dataset}/{s.split}" for s in specs})
        for name in [*wanted, *(f"{s.dataset}/{s.split}" for s in specs)]:
            if name.partition("/")[0] != dataset:
                raise InputError(
                    f"{name} does not belong to {predictions_path}, which holds predictions for {dataset}",
                    "score each dataset with its own predictions file",
                )
            if name not in wanted:
                raise InputError(
                    f"--sessions names a session of {name}, which --sets does not",
                    f"add {name} to --sets",
                )
        n_excluded = parse_excluded(excluded)
        metric = Confusion.metric if predictions.classes else Moments.metric
        splits = {}
        for split in sorted(name.partition("/")[2] for name in wanted):
            own = [s for s in specs if s.split == split]
            splits[split] = score_split(
                predictions, results, own, n_excluded.get(split, 0), max_beyond_s
            )
            s = splits[split]
            value = s[metric]
            log.info(
                "%s seed %d on %s/%s: %s %s over %d frames of %d sessions",
                predictions.run,
                predictions.seed,
                dataset,
                split,
                TITLES[metric],
                "undefined" if value is None else f"{value:.4f}",
                s["n_frames"],
                s["n_sessions"],
            )
        record = {
            "schema_version": SCHEMA_VERSION,
            "run": predictions.run,
            "seed": predictions.seed,
            "dataset": dataset,
            "metric": metric,
            "fingerprint": fingerprint,
            "predictions": file_identity(predictions_path),
            "splits": splits,
        }
    write_text(out, json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return record


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.score",
        description="Score one run and seed on one dataset: pooled CCC (kappa of classes) per split, and per participant.",
    )
    parser.add_argument("--predictions", required=True, type=Path, help="predictions file (.h5)")
    parser.add_argument(
        "--results", default=Path("results"), type=Path, help="results folder that holds labels/"
    )
    parser.add_argument(
        "--sets",
        nargs="*",
        metavar="DATASET/SPLIT",
        help="sets to score, also when empty (default: those of --sessions)",
    )
    parser.add_argument(
        "--sessions",
        nargs="*",
        default=[],
        metavar="SPEC",
        help="dataset/session:role1,role2@split, excluded participants left out",
    )
    parser.add_argument(
        "--excluded",
        nargs="*",
        default=[],
        metavar="SPLIT=N",
        help="participants the sheet excludes, per split (reported in the tables)",
    )
    parser.add_argument(
        "--max-beyond-s",
        type=float,
        default=MAX_BEYOND_S,
        help="seconds by which labels may outlast the predictions (the last value is held)",
    )
    parser.add_argument("--out", required=True, type=Path, help="scores file to write (.json)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.score",
        build_parser(),
        lambda a: score(
            a.predictions,
            a.results,
            a.sessions,
            a.sets,
            a.excluded,
            a.out,
            a.fingerprint,
            a.max_beyond_s,
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
