"""Folds: a run with `folds` becomes one training per fold, and one set of predictions of all.

    da_mamba_mpiigi:
      train: [mpiigi/val]
      evaluate: [mpiigi/val, mpiigi/test]
      folds: {of: mpiigi/val, by: session}

Fold 008 is the run da_mamba_mpiigi.fold-008: it trains on what the run trains on without the held
out session 008, and predicts that session and the run's other evaluated sets. The predictions of
da_mamba_mpiigi are, for every session of `of`, those of the one fold that did not see it, and for
other sets (mpiigi/test) the mean over all folds. So the score of mpiigi/val is one score, pooled
over all held-out sessions.

`by`: session, language (of the sheet), a number of folds (sessions of one person stay together), a
list of lists of sessions, or a mapping of a fold's name to sessions.
"""

import re
from collections.abc import Sequence

from runtime import InputError
from workflow.sets import Key, Sets, as_list


def fold_run(run: str, fold: str) -> str:
    """Name of the run that trains a fold."""
    return f"{run}.fold-{fold}"


def expand(run: str, keys: dict, sets: Sets) -> dict[str, dict]:
    """Keys of the run of each fold; raises InputError naming the run's key.

    keys : all keys of the run (defaults and base included), with `folds`.
    """
    of = as_list(keys["folds"]["of"])
    present = [name for name in of if name in sets]
    if not present:
        raise InputError(
            f"config: runs.{run}.folds.of names {', '.join(of)}, which the sheet does not have",
            f"sets of the sheet: {', '.join(sets)}",
        )
    for key in ("train", "evaluate"):
        for name in present:
            if name not in keys[key]:
                raise InputError(
                    f"config: runs.{run}.folds.of names {name}, which `{key}` of the run does not",
                    f"write it there as well: {key}: [{', '.join([*keys[key], name])}]",
                )
    folds = groups(run, keys["folds"]["by"], present, sets)
    runs = {}
    for fold, held in folds.items():
        own = dict(keys) | {"folds": None}
        own["train"] = _without(run, fold, keys["train"], present, held, sets)
        own["evaluate"] = _only(run, fold, keys["evaluate"], present, held, sets)
        runs[fold_run(run, fold)] = own
    return runs


def _without(run, fold, names, of, held, sets) -> list[str]:
    """The training sets with the held-out sessions taken out of the sets of `of`."""
    parts = []
    for name in names:
        if name in of:
            rest = [k for k in sets.keys(name) if k not in held]
            name = sets.add(f"{name}.{run}.without-{fold}", rest) if rest else ""
        parts.append(name)
    return [p for p in parts if p]


def _only(run, fold, names, of, held, sets) -> list[str]:
    """The evaluated sets with the sets of `of` reduced to the held-out sessions."""
    parts = []
    for name in names:
        if name in of:
            here = [k for k in sets.keys(name) if k in held]
            name = sets.add(f"{name}.{fold_run(run, fold)}", here) if here else ""
        parts.append(name)
    return [p for p in parts if p]


def groups(run: str, by, of: Sequence[str], sets: Sets) -> dict[str, set[Key]]:
    """Fold -> its held-out sessions; every session of the sets in exactly one of them."""
    place = f"runs.{run}.folds.by"
    keys = sets.union(of)
    for a in of:
        for b in of[of.index(a) + 1 :]:
            if both := set(sets.keys(a)) & set(sets.keys(b)):
                raise InputError(
                    f"config: runs.{run}.folds.of: {a} and {b} share session {'/'.join(min(both))}",
                    "name one of them",
                )
    if by == "session":
        several = len({dataset for dataset, _ in keys}) > 1
        folds = {".".join(k) if several else k[1]: {k} for k in keys}
    elif by == "language":
        folds = {}
        for k in keys:
            word = re.sub(r"[^a-z0-9_-]+", "_", sets.language(k, place).casefold())
            folds.setdefault(word, set()).add(k)
    elif isinstance(by, int):
        if by > len(keys):
            raise InputError(
                f"config: {place} asks for {by} folds of {len(keys)} sessions", "ask for fewer"
            )
        folds = _dealt(run, by, keys, sets)
    else:
        named = by.items() if isinstance(by, dict) else enumerate(by, 1)
        everybody = [k for name in of for k in sets.everybody(name)]
        folds = {str(n): sets.match(f"{place}.{n}", s, everybody) & set(keys) for n, s in named}
        _check_complete(place, folds, keys)
    if len(folds) < 2:
        raise InputError(
            f"config: {place} makes {len(folds)} fold of {', '.join(of)}, nothing is left to train on",
            "folds need at least two groups of sessions",
        )
    return folds


def _dealt(run: str, count: int, keys: Sequence[Key], sets: Sets) -> dict[str, set[Key]]:
    """Sessions dealt out in turn; those that share a person lie in one fold, the largest first."""
    together = sorted(sets.together(keys), key=len, reverse=True)
    if len(together) < count:
        raise InputError(
            f"config: runs.{run}.folds.by asks for {count} folds, but the people of `identity` "
            f"leave {len(together)} groups of sessions without a person in common",
            "ask for fewer",
        )
    folds: list[set[Key]] = [set() for _ in range(count)]
    for group in together:
        min(folds, key=len).update(group)
    return {str(i + 1): held for i, held in enumerate(folds)}


def _check_complete(place: str, folds: dict[str, set[Key]], keys: Sequence[Key]) -> None:
    for name, held in folds.items():
        if not held:
            raise InputError(
                f"config: {place}.{name}: all its sessions are excluded in the sheet",
                "take the fold out",
            )
    for key in keys:
        among = [name for name, held in folds.items() if key in held]
        if len(among) != 1:
            where = f"in the folds {' and '.join(among)}" if among else "in no fold"
            raise InputError(
                f"config: {place}: session {'/'.join(key)} is {where}",
                "every session of `of` must be held out by exactly one fold",
            )
