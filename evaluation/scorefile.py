"""Read scores files (written by evaluation.score) and group them by run and set."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from evaluation.confusion import Confusion
from evaluation.metrics import Moments, Statistics, merge_all
from runtime import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Participant:
    """One scored participant. statistics: moments of values, the confusion matrix of classes."""

    session: str
    role: str
    statistics: Statistics


@dataclass(frozen=True)
class SetScores:
    """Scores of one run and seed on one set (dataset/split). classes: what they are called, if any."""

    participants: tuple[Participant, ...]
    n_excluded: int
    classes: tuple[str, ...] = ()

    def sessions(self) -> dict[str, Statistics]:
        """Statistics per session, roles merged; sessions without a labelled frame left out."""
        grouped: dict[str, list[Statistics]] = defaultdict(list)
        for p in self.participants:
            if p.statistics.n:
                grouped[p.session].append(p.statistics)
        return {name: merge_all(parts) for name, parts in grouped.items()}

    def pooled(self) -> Statistics:
        """Statistics of all frames of all sessions and roles."""
        return merge_all(p.statistics for p in self.participants)


# run -> "dataset/split" -> seed -> scores
Scores = dict[str, dict[str, dict[int, SetScores]]]


def read_scores(paths: list[Path]) -> Scores:
    """Read scores files; raises InputError on a damaged file or a run, seed and set given twice."""
    scores: Scores = {}
    origin: dict[tuple[str, int, str], Path] = {}
    for path in paths:
        run, seed, sets = _read(Path(path))
        for name, found in sets.items():
            key = (run, seed, name)
            if key in origin:
                raise InputError(
                    f"{path} and {origin[key]} both hold scores of run {run}, seed {seed} on {name}",
                    "give each run, seed and dataset once",
                )
            origin[key] = Path(path)
            scores.setdefault(run, {}).setdefault(name, {})[seed] = found
    return scores


def seeds_of(by_seed: dict[int, SetScores], run: str, name: str) -> list[dict[str, Statistics]]:
    """Session statistics per seed, in order of seeds.

    Raises InputError when seeds saw different sessions, or were scored by different metrics.
    """
    metrics = {s.pooled().metric for s in by_seed.values() if s.pooled().n}
    if len(metrics) > 1:
        raise InputError(
            f"run {run} was scored on {name} by {' and by '.join(sorted(metrics))}",
            "train and score all seeds of a run with the same task",
        )
    seeds = [by_seed[k].sessions() for k in sorted(by_seed)]
    for k, sessions in zip(sorted(by_seed), seeds, strict=True):
        if set(sessions) != set(seeds[0]):
            differing = sorted(set(sessions) ^ set(seeds[0]))
            raise InputError(
                f"run {run}, seed {k} was scored on other sessions of {name} than its other seeds ({differing[0]})",
                "score all seeds again with the same sheet",
            )
    return seeds


def _classes(statistics: Statistics) -> int:
    return len(statistics.counts) if isinstance(statistics, Confusion) else 0


def read_statistics(record: dict) -> Statistics:
    """Statistics of a participant's record: its confusion matrix or its moments."""
    if "confusion" in record:
        return Confusion.from_rows(record["confusion"])
    return Moments.from_dict(record["moments"])


def _read(path: Path) -> tuple[str, int, dict[str, SetScores]]:
    cure = f"delete it and run again, it will be remade: rm '{path}'"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is not a scores file ({str(e)[:80]})", cure) from e
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a scores file of schema {SCHEMA_VERSION}", cure)
    try:
        sets = {}
        for split, found in record["splits"].items():
            participants = tuple(
                Participant(p["session"], p["role"], read_statistics(p))
                for p in found["participants"]
            )
            if len({(p.statistics.metric, _classes(p.statistics)) for p in participants}) > 1:
                raise ValueError("participants are scored by different metrics or classes")
            classes = tuple(map(str, found.get("classes", ())))
            if classes and any(_classes(p.statistics) != len(classes) for p in participants):
                raise ValueError("the names of classes are not as many as the classes")
            sets[f"{record['dataset']}/{split}"] = SetScores(
                participants, found["n_excluded"], classes
            )
        return str(record["run"]), int(record["seed"]), sets
    except KeyError as e:
        raise InputError(f"{path} lacks {e}", cure) from e
    except (TypeError, AttributeError, ValueError, ArithmeticError) as e:
        raise InputError(f"{path} is not a scores file ({str(e)[:80]})", cure) from e
