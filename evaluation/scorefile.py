"""Read scores files (written by evaluation.score) and group them by run and set."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from evaluation.metrics import Moments, merge_all
from runtime import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Participant:
    """One scored participant."""

    session: str
    role: str
    moments: Moments


@dataclass(frozen=True)
class SetScores:
    """Scores of one run and seed on one set (dataset/split)."""

    participants: tuple[Participant, ...]
    n_excluded: int

    def sessions(self) -> dict[str, Moments]:
        """Moments per session, roles merged; sessions without a labelled frame left out."""
        grouped: dict[str, list[Moments]] = defaultdict(list)
        for p in self.participants:
            if p.moments.n:
                grouped[p.session].append(p.moments)
        return {name: merge_all(parts) for name, parts in grouped.items()}

    def pooled(self) -> Moments:
        """Moments of all frames of all sessions and roles."""
        return merge_all(p.moments for p in self.participants)


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


def seeds_of(by_seed: dict[int, SetScores], run: str, name: str) -> list[dict[str, Moments]]:
    """Session moments per seed, in order of seeds; InputError when seeds saw different sessions."""
    seeds = [by_seed[k].sessions() for k in sorted(by_seed)]
    for k, sessions in zip(sorted(by_seed), seeds, strict=True):
        if set(sessions) != set(seeds[0]):
            differing = sorted(set(sessions) ^ set(seeds[0]))
            raise InputError(
                f"run {run}, seed {k} was scored on other sessions of {name} than its other seeds ({differing[0]})",
                "score all seeds again with the same sheet",
            )
    return seeds


def _read(path: Path) -> tuple[str, int, dict[str, SetScores]]:
    cure = f"delete it and run again, it will be remade: rm '{path}'"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file") from e
    except (ValueError, UnicodeDecodeError) as e:
        raise InputError(f"{path} is not a scores file ({str(e)[:80]})", cure) from e
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is not a scores file of schema {SCHEMA_VERSION}", cure)
    try:
        sets = {}
        for split, found in record["splits"].items():
            participants = tuple(
                Participant(p["session"], p["role"], Moments.from_dict(p["moments"]))
                for p in found["participants"]
            )
            sets[f"{record['dataset']}/{split}"] = SetScores(participants, found["n_excluded"])
        return str(record["run"]), int(record["seed"]), sets
    except (KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{path} lacks {e}", cure) from e
