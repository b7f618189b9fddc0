"""Numbers of the results table: one `Cell` per run and column, before any formatting.

A column is a set (``noxi/test``) or a mean over datasets. ``Combined`` is the mean over the test
columns that have labels; where no test set has labels, over the val columns. Where both kinds are
shown and at least two val sets have labels, ``Combined val`` is the mean over those. Test and val
are never mixed. A run that lacks one of the averaged columns has no Combined.

A column of values is scored by CCC, one of classes by Cohen's kappa. The two are never averaged:
columns of kappa have their own means, ``Combined kappa`` and ``Combined kappa val``.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import RESAMPLES, SEED, Draws, interval, mean_draws, seed_mean_draws
from evaluation.confusion import Confusion
from evaluation.metrics import TITLES, Moments
from evaluation.scorefile import Scores, seeds_of
from runtime import InputError

COMBINED = {Moments.metric: "Combined", Confusion.metric: "Combined kappa"}


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    mean, std: over seeds (std with n-1; None for a single seed). low, high: 95 % session bootstrap
    of the seed mean (None with fewer than `bootstrap.MIN_SESSIONS` sessions). mean and metric are None where nothing
    was scored.
    """

    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    n_seeds: int = 0
    n_sessions: int = 0
    n_excluded: int = 0
    metric: str | None = None


@dataclass(frozen=True)
class Summary:
    """Cells by run and column.

    averaged: Combined column -> the columns it is the mean of. metrics: the metric of every column
    that has labels.
    """

    runs: list[str]
    columns: list[str]
    averaged: dict[str, list[str]]
    cells: dict[str, dict[str, Cell]]
    metrics: dict[str, str]

    @property
    def all_columns(self) -> list[str]:
        """Columns in the order of the table, Combined last."""
        return [*self.columns, *self.averaged]


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n-1); std is None for one value, not 0."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), std


def split_of(column: str) -> str:
    """The split of ``dataset/split``."""
    return column.rpartition("/")[2]


def summarise(
    scores: Scores,
    runs: list[str],
    columns: list[str],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Summary:
    """Means, stds and intervals for every run and column.

    Raises InputError when a run has no scores at all, different seeds on the averaged datasets, or
    runs were scored by different metrics in one column.
    """
    metrics = _metrics(scores, runs, columns)
    averaged = _averaged(metrics)
    cells: dict[str, dict[str, Cell]] = {}
    for run in runs:
        if run not in scores:
            raise InputError(
                f"no scores file of run '{run}' was given",
                f"runs with scores: {', '.join(sorted(scores)) or 'none'}; correct the name or score it",
            )
        per_seed: dict[str, list[float]] = {}
        draws: dict[str, Draws | None] = {}
        cells[run] = {}
        for column in columns:
            by_seed = scores[run].get(column, {})
            cell = Cell(n_seeds=len(by_seed), n_excluded=_excluded(by_seed))
            if column in metrics and by_seed:
                seeds = seeds_of(by_seed, run, column)
                values = [by_seed[k].pooled().score for k in sorted(by_seed)]
                if seeds[0]:
                    per_seed[column] = values
                    draws[column] = seed_mean_draws(seeds, column, resamples, seed)
                    bounds = interval(draws[column]) or (None, None)
                    cell = Cell(
                        *mean_and_std(values),
                        *bounds,
                        n_seeds=len(values),
                        n_sessions=len(seeds[0]),
                        n_excluded=_excluded(by_seed),
                        metric=metrics[column],
                    )
            cells[run][column] = cell
        for name, parts in averaged.items():
            cells[run][name] = _combine(run, parts, scores, per_seed, draws, cells[run])
    metrics |= {name: metrics[parts[0]] for name, parts in averaged.items()}
    return Summary(runs, columns, averaged, cells, metrics)


def _metrics(scores: Scores, runs: list[str], columns: list[str]) -> dict[str, str]:
    metrics: dict[str, str] = {}
    for column in columns:
        found = {}
        for run in runs:
            by_seed = scores.get(run, {}).get(column, {})
            seeds = seeds_of(by_seed, run, column) if by_seed else []
            found |= {s.metric: run for sessions in seeds for s in sessions.values()}
        if len(found) > 1:
            raise InputError(
                f"{column} is scored "
                + " and ".join(f"by {TITLES[m]} for run {run}" for m, run in sorted(found.items())),
                "one column has one metric: make a table of the runs of values, and one of those of classes",
            )
        if found:
            metrics[column] = next(iter(found))
    return metrics


def _averaged(metrics: dict[str, str]) -> dict[str, list[str]]:
    averaged = {}
    for metric, name in COMBINED.items():
        own = [c for c in metrics if metrics[c] == metric]
        test = [c for c in own if split_of(c) == "test"]
        val = [c for c in own if split_of(c) == "val"]
        if test or val:
            averaged[name] = test or val
        if test and len(val) > 1:
            averaged[f"{name} val"] = val
    return averaged


def _excluded(by_seed: dict) -> int:
    return max((s.n_excluded for s in by_seed.values()), default=0)


def _combine(run, parts, scores, per_seed, draws, cells) -> Cell:
    if any(part not in per_seed for part in parts):
        return Cell()
    used = [sorted(scores[run][part]) for part in parts]
    if any(u != used[0] for u in used):
        raise InputError(
            f"run {run} was scored with seeds {used[0]} on {parts[0]} but others on another dataset",
            "score every seed on every dataset",
        )
    values = [float(np.mean([per_seed[p][k] for p in parts])) for k in range(len(used[0]))]
    # A set with too few sessions has no interval, nor has the mean.
    bounds = interval(mean_draws([draws[p] for p in parts])) or (None, None)
    return Cell(
        *mean_and_std(values),
        *bounds,
        n_seeds=len(values),
        n_sessions=sum(cells[p].n_sessions for p in parts),
        n_excluded=sum(cells[p].n_excluded for p in parts),
        metric=cells[parts[0]].metric,
    )
