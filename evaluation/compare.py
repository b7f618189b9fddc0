"""Is one run better than another on the same sessions? Paired session bootstrap of the difference.

    python -m evaluation.compare --scores-a results/scores/da_mamba/seed-*/*.json \\
                                 --scores-b results/scores/egemaps_mlp/seed-*/*.json

Per set: pooled CCC (Cohen's kappa of classes) of A and of B (each the mean over its seeds), their difference, and its 95 %
interval over resamples of sessions that are the same for both. ``mean`` is the mean over sets.
The interval speaks about other sessions, not about other seeds.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation.bootstrap import RESAMPLES, SEED, interval, mean_draws, seed_mean_draws, too_few
from evaluation.metrics import TITLES, Moments, Statistics, merge_all
from evaluation.scorefile import Scores, read_scores, seeds_of
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text

MEAN = "mean"


@dataclass(frozen=True)
class Difference:
    """a - b of seed-mean pooled scores; low and high are None with too few sessions."""

    name: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    n_sessions: int
    metric: str

    def line(self) -> str:
        """One line of text."""
        bounds = f"({self.n_sessions} sessions)"
        if self.low is not None:
            bounds = f"95 % [{self.low:+.3f}, {self.high:+.3f}]  {bounds}"
        elif self.name == MEAN:
            bounds += "  no interval: a set has none"
        else:
            bounds = f"({too_few(self.n_sessions)})"
        return f"{self.name:<16} {self.a:6.3f} - {self.b:6.3f} = {self.difference:+.3f}  {bounds}"


def seed_mean_score(seeds: list[dict[str, Statistics]]) -> float:
    """Mean over seeds of the score (CCC, kappa of classes) pooled over all sessions."""
    return float(np.mean([merge_all(s.values()).score for s in seeds]))


def paired_difference(
    a: dict[str, list[dict[str, Statistics]]],
    b: dict[str, list[dict[str, Statistics]]],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Difference]:
    """Differences per set, then their mean over sets when there is more than one.

    a, b: set name -> one mapping session -> statistics per seed. Both need the same sets and sessions
    with the same number of labelled frames, all scored by one metric; raises InputError otherwise.
    """
    metric = metric_of([*a.values(), *b.values()])
    found, draws = [], []
    for name in a:
        _check_same_sessions(name, a[name][0], b.get(name, [{}])[0])
        draws_a = seed_mean_draws(a[name], name, resamples, seed)
        draws_b = seed_mean_draws(b[name], name, resamples, seed)
        draws.append(None if draws_a is None or draws_b is None else draws_a - draws_b)
        low, high = interval(draws[-1]) or (None, None)
        of_a, of_b = seed_mean_score(a[name]), seed_mean_score(b[name])
        found.append(Difference(name, of_a, of_b, of_a - of_b, low, high, len(a[name][0]), metric))
    if len(found) > 1:
        low, high = interval(mean_draws(draws)) or (None, None)
        of_a, of_b = (float(np.mean([getattr(f, k) for f in found])) for k in ("a", "b"))
        n = sum(f.n_sessions for f in found)
        found.append(Difference(MEAN, of_a, of_b, of_a - of_b, low, high, n, metric))
    return found


def metric_of(sets: list[list[dict[str, Statistics]]]) -> str:
    """The metric of all sets; raises InputError when there are several: they have no mean."""
    metrics = {m.metric for seeds in sets for sessions in seeds for m in sessions.values()}
    if len(metrics) > 1:
        raise InputError(
            "some sets are scored by CCC, others by Cohen's kappa",
            "compare runs of one task, or choose --sets of one task",
        )
    return next(iter(metrics), Moments.metric)


def _check_same_sessions(name: str, a: dict[str, Statistics], b: dict[str, Statistics]) -> None:
    frames_a, frames_b = ({k: m.n for k, m in x.items()} for x in (a, b))
    if frames_a != frames_b:
        differing = sorted(set(frames_a.items()) ^ set(frames_b.items()))[0][0]
        raise InputError(
            f"the runs were not scored on the same frames of {name}: session {differing} differs",
            "score both with the same sheet and labels; a paired comparison needs the same sessions",
        )


def _only_run(scores: Scores, option: str) -> str:
    if len(scores) != 1:
        raise InputError(
            f"{option} holds scores of {len(scores)} runs ({', '.join(sorted(scores))})",
            "give the scores of one run, all its seeds",
        )
    return next(iter(scores))


def compare(
    paths_a: list[Path],
    paths_b: list[Path],
    sets: list[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[str, str, list[Difference]]:
    """Read scores and compare; `sets` defaults to all labelled sets of A. Returns names, differences."""
    scores_a, scores_b = read_scores(paths_a), read_scores(paths_b)
    run_a, run_b = _only_run(scores_a, "--scores-a"), _only_run(scores_b, "--scores-b")
    grouped = []
    for run, scores in ((run_a, scores_a[run_a]), (run_b, scores_b[run_b])):
        names = sets or [
            n for n in scores_a[run_a] if any(s.sessions() for s in _all(scores_a[run_a], n))
        ]
        missing = [n for n in names if not any(s.sessions() for s in _all(scores, n))]
        if missing or not names:
            raise InputError(
                f"run {run} has no scored session on {missing[0] if missing else 'any set'}",
                "choose other --sets, or score the run there",
            )
        grouped.append({n: seeds_of(scores[n], run, n) for n in names})
    return run_a, run_b, paired_difference(*grouped, resamples, seed)


def _all(sets: dict, name: str):
    return sets.get(name, {}).values()


def report(
    paths_a: list[Path],
    paths_b: list[Path],
    sets: list[str] | None,
    resamples: int,
    seed: int,
    out: Path | None,
) -> None:
    """Compare, print, and write a JSON when `out` is given."""
    run_a, run_b, found = compare(paths_a, paths_b, sets, resamples, seed)
    print(f"pooled {TITLES[found[0].metric]}, {run_a} - {run_b}")
    for difference in found:
        print("  " + difference.line())
    if out:
        record = {"a": run_a, "b": run_b, "differences": [asdict(d) for d in found]}
        write_text(out, json.dumps(record, indent=1, sort_keys=True) + "\n")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.compare",
        description="Difference of pooled CCC between two runs with a paired session-bootstrap interval.",
    )
    add = parser.add_argument
    add("--scores-a", nargs="+", type=Path, required=True, help="scores of run A, all seeds")
    add("--scores-b", nargs="+", type=Path, required=True, help="scores of run B, all seeds")
    add("--sets", nargs="+", metavar="DATASET/SPLIT", help="sets to compare on (default: all of A)")
    add("--resamples", type=int, default=RESAMPLES, help="bootstrap resamples of sessions")
    add("--bootstrap-seed", type=int, default=SEED, help="seed of the bootstrap")
    add("--out", type=Path, help="also write the numbers to this JSON file")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.compare",
        build_parser(),
        lambda a: report(a.scores_a, a.scores_b, a.sets, a.resamples, a.bootstrap_seed, a.out),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
