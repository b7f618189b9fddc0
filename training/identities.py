"""One feature under one name: what participants' files are made with, compared (store.identity).

Training compares all its participants with each other and with the statistics; prediction, and a
training that starts from another model's weights, compare all with what that model was trained on.
"""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from alignment.aligned import AlignedFeature
from runtime import InputError, get_logger
from store import layout
from store.hdf5 import reading
from store.identity import (
    Difference,
    Identity,
    cures,
    differences,
    identity_of,
    in_words,
    unsaid,
)
from store.session_spec import SessionSpec

log = get_logger("identities")
NAMED = 3  # participants that a message names
Person = tuple[str, str, str]  # dataset, session, role


def read_identity(path: str) -> Identity:
    """What made an aligned file. Raises InputError for a missing or damaged file."""
    with AlignedFeature(path) as file, reading(path):
        return identity_of(file.attributes, file.dim)


def agreed(
    results: str | Path, specs: list[SessionSpec], features: Iterable[str]
) -> dict[str, Identity]:
    """feature -> its identity, the same for every participant of the sessions.

    Raises InputError naming the feature, the settings and the participants that differ from most
    others. What some files of an earlier version do not say is a warning.
    """
    found: dict[str, Identity] = {}
    for feature in features:
        makes: dict[str, tuple[Identity, list[Person]]] = {}
        for person in _people(specs):
            identity = read_identity(layout.aligned(results, *person, feature))
            key = json.dumps(identity, sort_keys=True)
            makes.setdefault(key, (identity, []))[1].append(person)
        # The first of the largest groups; whoever says more is before who says less.
        most, of_most = max(makes.values(), key=lambda m: ("settings" in m[0], len(m[1])))
        for identity, people in makes.values():
            if odd := differences(feature, identity, most):
                raise _mixed(odd, results, people, of_most)
            _warn(feature, people, unsaid(identity, most), _named(of_most))
        found[feature] = most
    return found


def check_trained(
    results: str | Path, specs: list[SessionSpec], expected: dict[str, Identity], trained: str
) -> None:
    """InputError naming settings, values and file unless every participant's features are `expected`.

    expected : what the file `trained` was trained on. What a file of an earlier version does not say
    is a warning that names it.
    """
    for feature, wanted in expected.items():
        silent: dict[Person, list[str]] = {}
        for person in _people(specs):
            path = layout.aligned(results, *person, feature)
            there = read_identity(path)
            if odd := differences(feature, there, wanted):
                raise InputError(
                    f"{path} is not what {trained} was trained on: {in_words(odd)}",
                    f"in the config, {cures(odd)}, and run again; or train again with these features",
                )
            if names := unsaid(there, wanted):
                silent[person] = names
        _warn(feature, list(silent), sorted(set(chain(*silent.values()))), trained)


def check_statistics_of(
    made: dict[str, Identity], stated: dict[str, Identity], statistics: str | Path
) -> None:
    """InputError unless the statistics were computed of features that are what `made` says."""
    for feature, there in made.items():
        if feature not in stated:
            log.warning(
                "%s is of an earlier version and does not say what made %s: not compared",
                statistics, feature,
            )  # fmt: skip
        elif odd := differences(feature, there, stated[feature]):
            raise InputError(
                f"{statistics} was computed of other features: {in_words(odd)}",
                f"compute it again: rm '{statistics}'; or go back to its features: {cures(odd)}",
            )


def _people(specs: list[SessionSpec]) -> list[Person]:
    return [(*spec.key, role) for spec in specs for role in spec.roles]


def _named(people: list[Person]) -> str:
    """A few participants by name, and how many more there are."""
    names = ", ".join(map("/".join, people[:NAMED]))
    return names + (f" and {len(people) - NAMED} more" if len(people) > NAMED else "")


def _mixed(
    odd: list[Difference], results: str | Path, people: list[Person], of_most: list[Person]
) -> InputError:
    native = layout.feature(results, *people[0], odd[0].feature)
    return InputError(
        f"the sessions mix features that are not made alike: for {_named(people)}, {in_words(odd)} as"
        f" for {_named(of_most)}",
        f"decide on one in the config (the second: {cures(odd)}) and have the others made again:"
        f" rm '{native}'" + (" ..." if len(people) > 1 else ""),
    )


def _warn(feature: str, people: list[Person], names: list[str], other: str) -> None:
    if names and people:
        log.warning(
            "%s cannot be compared in full between %s and %s: only one says %s (a file of an earlier"
            " version?)",
            feature, _named(people), other, ", ".join(names),
        )  # fmt: skip
