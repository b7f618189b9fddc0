"""Lines of sessions.csv and metrics.csv: the numbers behind and beside a table's cells."""

import math

import numpy as np

from evaluation.confusion import Confusion
from evaluation.metrics import Moments, Statistics, merge_all
from evaluation.scorefile import Scores
from evaluation.summary import mean_and_std
from runtime import InputError

# Numbers of sessions.csv, and of metrics.csv; session_* is the mean of the sessions' own scores.
SESSION_NUMBERS = {Moments: ("ccc", "pearson", "mae"), Confusion: ("kappa", "accuracy")}
SET_NUMBERS = {
    Moments: ("ccc", "session_ccc", "pearson", "mae", "bias", "sd_ratio"),
    Confusion: ("kappa", "session_kappa", "accuracy"),
}


def session_lines(scores: Scores, runs: list[str], columns: list[str]) -> list[list]:
    """Lines of sessions.csv: every participant of every run and seed."""
    names = _names(SESSION_NUMBERS, scores, runs, columns)
    lines: list[list] = [["run", "seed", "dataset", "split", "session", "role", "n", *names]]
    for run, column, seed, found in _each(scores, runs, columns):
        dataset, _, split = column.rpartition("/")
        for p in sorted(found.participants, key=lambda p: (p.session, p.role)):
            numbers = [_decimal(getattr(p.statistics, name, math.nan)) for name in names]
            lines.append([run, seed, dataset, split, p.session, p.role, p.statistics.n, *numbers])
    return lines


def _names(groups: dict, scores: Scores, runs: list[str], columns: list[str]) -> list[str]:
    """Names of the numbers that these sets have: those of values (also without any), of classes."""
    kinds = {
        type(p.statistics) for *_, found in _each(scores, runs, columns) for p in found.participants
    }
    return [
        name for kind, names in groups.items() if kind in (kinds or {Moments}) for name in names
    ]


def metric_lines(scores: Scores, runs: list[str], columns: list[str]) -> list[list]:
    """Lines of metrics.csv: pooled numbers per run and set, mean and std over seeds.

    session_ccc is the mean of the sessions' own CCCs (roles pooled): a diagnostic, not the score.
    """
    names = _names(SET_NUMBERS, scores, runs, columns)
    header = ["run", "dataset", "split", "n_seeds", "n_sessions", "n_frames"]
    lines: list[list] = [[*header, *(f for name in names for f in (name, f"{name}_std"))]]
    for run in runs:
        for column in columns:
            by_seed = scores.get(run, {}).get(column, {})
            seeds = [by_seed[k] for k in sorted(by_seed) if by_seed[k].pooled().n]
            if not seeds:
                continue
            pooled: list[Statistics] = [s.pooled() for s in seeds]
            own = [float(np.mean([m.score for m in s.sessions().values()])) for s in seeds]
            own_name = f"session_{pooled[0].metric}"
            line: list = [run, *column.rsplit("/", 1), len(seeds), len(seeds[0].sessions())]
            line.append(pooled[0].n)
            for name in names:
                values = [getattr(m, name, math.nan) for m in pooled]
                values = own if name == own_name else values
                mean, std = mean_and_std(values)
                line += [_decimal(mean), "" if std is None else _decimal(std)]
            lines.append(line)
    return lines


def confusion_tables(scores: Scores, runs: list[str], columns: list[str]) -> list[tuple[str, list]]:
    """(title, lines) of every run and set of classes: of the frames of each true class, the share
    predicted as each, all seeds together. A line: class, frames of one seed, shares.

    Raises InputError where seeds have other classes.
    """
    tables = []
    for run in runs:
        for column in columns:
            by_seed = scores.get(run, {}).get(column, {})
            found = [s for s in by_seed.values() if isinstance(s.pooled(), Confusion)]
            total = merge_all(s.pooled() for s in found if s.pooled().n)
            if not isinstance(total, Confusion):
                continue
            if len({s.classes for s in found}) > 1:
                raise InputError(
                    f"the seeds of run {run} were scored on {column} with other classes",
                    "score all seeds again with the same labels",
                )
            names = found[0].classes or tuple(f"class {i}" for i in range(len(total.counts)))
            lines: list[list] = [["true class", "frames", *names]]
            for name, row in zip(names, total.counts, strict=True):
                n = int(row.sum())
                shares = [f"{count / n:.2f}" if n else "" for count in row]
                lines.append([name, n // len(found), *shares])
            tables.append((f"{run} on {column}", lines))
    return tables


def _each(scores: Scores, runs: list[str], columns: list[str]):
    for run in runs:
        for column in columns:
            by_seed = scores.get(run, {}).get(column, {})
            for seed in sorted(by_seed):
                yield run, column, seed, by_seed[seed]


def _decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
