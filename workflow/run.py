"""One run: its keys in the config, and what they amount to."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from extractors.declared import EXTRACTORS
from inference.config import check_finish, check_live, parse_prediction
from model.configs import model_config, model_names
from model.configs.base import check_absent_rate, group_of
from runtime import InputError
from training.settings import parse
from workflow.config import merge
from workflow.sets import Sets, as_list


@dataclass(frozen=True)
class Run:
    """One row of a table: a model with its settings, trained once per seed.

    settings : canonical settings of model and training; prediction : canonical settings of
    prediction; compares_groups : whether the model has a similarity of groups to show;
    weights_of : the run whose checkpoints it predicts with, "" for its own; initial : the run whose
    weights training starts from, "" for random ones; members : the runs whose predictions make up
    its own, and how: `folds`, or the mean over `runs` (seed by seed) or over runs and `seeds`.
    """

    name: str
    features: tuple[str, ...]
    train: tuple[str, ...]
    validate: tuple[str, ...]
    evaluate: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict
    prediction: dict
    compares_groups: bool = False
    weights_of: str = ""
    initial: str = ""
    members: tuple[str, ...] = ()
    combines: str = ""

    @property
    def reads_validation(self) -> bool:
        return self.settings["training"].get("selection") == "best_val"

    @property
    def weights(self) -> str:
        """Name of the run that trained the weights."""
        return self.weights_of or self.name


def unknown_run(place: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a run's name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return InputError(
        f"config: {place} names {name}, which is no run", f"{hint}runs are: {', '.join(known)}"
    )


def keys_of(
    name: str, given: dict[str, dict], defaults: dict, before: tuple[str, ...] = ()
) -> dict:
    """All keys of a run: defaults, base, its own. given: the config's runs.

    Raises InputError for a base that is no run, leads back, or has no training of its own.
    """
    own = dict(given[name])
    base = own.pop("base", None)
    if base is None:
        return merge(defaults, own)
    if base not in given:
        raise unknown_run(f"runs.{name}.base", base, list(given))
    if base in (*before, name):
        raise InputError(
            f"config: runs.{name}.base leads back to {base}",
            "let one of these runs stand alone: " + ", ".join((*before, name)),
        )
    if given[base].get("weights_of") or given[base].get("ensemble_of"):
        of = given[base].get("weights_of") or "one of its members"
        raise InputError(
            f"config: runs.{name}.base names {base}, which has no training of its own",
            f"name {of}, whose weights it takes",
        )
    return merge(keys_of(base, given, defaults, (*before, name)), own)


def with_groups(model: dict, features: Sequence[str]) -> dict:
    """The settings of a model with the groups of extractors whose names do not tell their group.

    Unchanged where names tell all, where the config gives groups, and for models without groups.
    """
    told = {f: group_of(f) for f in features}
    declared = told | {f: EXTRACTORS[f].group for f in features if f in EXTRACTORS}
    if declared == told or model.get("groups") or model.get("name") not in model_names():
        return model
    if "groups" not in {f.name for f in dataclasses.fields(model_config(model["name"]))}:
        return model
    groups = {g: [f for f in features if declared[f] == g] for g in ("audio", "visual")}
    return model | {"groups": {g: members for g, members in groups.items() if members}}


def resolved(name: str, keys: dict, features: Sequence[str], sets: Sets) -> Run:
    """A run from all its keys. features: enabled ones; sets: what a set's name means.

    Raises InputError naming the run, the key and the cure.
    """
    for feature in keys["features"]:
        if feature not in features:
            raise InputError(
                f"config: run {name} reads the feature {feature}, which is not enabled",
                f"enable it under `features`, or choose from: {', '.join(features)}",
            )
    for key in ("train", "validate", "evaluate"):
        for t in keys[key]:
            try:
                sets.keys(t)
            except InputError as e:
                raise InputError(f"{e.problem} (`{key}` of run {name})", e.cure) from e
    if not any(t in sets for t in keys["train"]):
        raise InputError(
            f"config: run {name} trains on {', '.join(keys['train'])}, which the sheet does not have",
            f"sets of the sheet: {', '.join(sets)}; to do without this run, take out the table"
            " that names it, as presets/without_noxi.yaml does",
        )
    of = keys["folds"]["of"] if keys.get("folds") else []
    both = (set(keys["train"]) & set(keys["evaluate"])) - set(as_list(of))
    if both:
        raise InputError(
            f"config: run {name} is trained and evaluated on {', '.join(sorted(both))}",
            "take it out of `train` or `evaluate`",
        )
    try:
        settings = parse(
            {
                "preset": keys["preset"],
                "features": list(keys["features"]),
                "frame_rate_hz": keys["frame_rate_hz"],
                "model": with_groups(keys["model"], keys["features"]),
                "training": keys["training"],
            }
            | {key: keys[key] for key in ("task", "classes") if key in keys}
        )
        prediction = dataclasses.asdict(parse_prediction(keys.get("prediction") or {}))
        rate = prediction["absent_rate"]
        check_absent_rate(rate, len(settings.features), "prediction.absent_rate")
        if prediction["mode"] != "window":
            check_live(settings.name, settings.model)
        check_finish(parse_prediction(prediction), settings.frame_rate_hz, settings.classes)
    except InputError as e:
        raise InputError(f"config: run {name}: {e.problem}", e.cure) from e
    run = Run(
        name,
        tuple(keys["features"]),
        tuple(t for t in keys["train"] if t in sets),
        tuple(t for t in keys["validate"] if t in sets),
        tuple(t for t in keys["evaluate"] if t in sets),
        tuple(keys["seeds"]),
        settings.canonical(),
        prediction,
        settings.model.compares_groups,
        initial=keys.get("initial") or "",
    )
    if run.reads_validation and not run.validate:
        raise InputError(
            f"config: run {name} selects by best_val, and none of its `validate` sets is in the sheet",
            f"sets of the sheet: {', '.join(sets)}",
        )
    return run


def check_classes(name: str, members: list[Run]) -> None:
    """Predictions that shall be averaged must be of one kind, and classes have probabilities."""
    kinds = {(m.settings["task"], m.settings["classes"]) for m in members}
    if len(kinds) > 1:
        raise InputError(
            f"config: the members of run {name} predict different things (task, classes)",
            "let all members have the same task and classes",
        )
    for m in members:
        if m.settings["task"] == "classification" and m.prediction["mode"] == "stream":
            raise InputError(
                f"config: run {name} averages {m.name}, and mode: stream keeps no probabilities",
                "choose mode: window or carry",
            )
