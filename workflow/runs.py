"""The runs of a config: what each trains on, with which settings, and how it predicts.

A run's keys are `defaults`, with the keys of the run that it names as `base` on top, and its own on
top of those. A run with `weights_of: other` trains nothing: it is the other run in all but the
settings of prediction, and predicts with its checkpoints.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import parse, parse_prediction
from model.configs.base import check_absent_rate
from model.configs.prediction import check_live
from runtime import InputError
from workflow.config import merge

# A run of these keys has other weights than the run named by `weights_of`.
OF_TRAINING = (
    "features",
    "train",
    "validate",
    "frame_rate_hz",
    "preset",
    "model",
    "training",
    "task",
    "classes",
)


@dataclass(frozen=True)
class Run:
    """One row of a table: a model with its settings, trained once per seed.

    settings : canonical settings of model and training; prediction : canonical settings of
    prediction; compares_groups : whether the model has a similarity of groups to show;
    weights_of : the run whose checkpoints it predicts with, "" for its own.
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


class Runs:
    """Reads the runs of a config one at a time, so that a wrong one harms only who needs it.

    config : checked config; features : enabled features; sets : dataset/split of the sheet.
    """

    def __init__(self, config: dict, features: Sequence[str], sets: Sequence[str]):
        self.given = {n: keys for n, keys in config["runs"].items() if keys is not None}
        self.defaults = config["defaults"]
        self.features, self.sets = list(features), list(sets)
        self._read: dict[str, Run | InputError] = {}

    def __iter__(self):
        return iter(self.given)

    def get(self, name: str) -> Run:
        """A run by its name; raises InputError naming the run, the key and the cure."""
        if name not in self._read:
            try:
                self._read[name] = self._run(name)
            except InputError as e:
                self._read[name] = e
        found = self._read[name]
        if isinstance(found, InputError):
            raise found
        return found

    def _keys(self, name: str, before: tuple[str, ...] = ()) -> dict:
        """All keys of a run: defaults, base, its own."""
        own = dict(self.given[name])
        base = own.pop("base", None)
        if base is None:
            return merge(self.defaults, own)
        if base not in self.given:
            raise unknown_run(f"runs.{name}.base", base, list(self.given))
        if base in (*before, name):
            raise InputError(
                f"config: runs.{name}.base leads back to {base}",
                "let one of these runs stand alone: " + ", ".join((*before, name)),
            )
        if self.given[base].get("weights_of"):
            raise InputError(
                f"config: runs.{name}.base names {base}, which has no training of its own",
                f"name {self.given[base]['weights_of']}, whose weights it takes",
            )
        return merge(self._keys(base, (*before, name)), own)

    def _run(self, name: str) -> Run:
        if self.given[name].get("weights_of"):
            return self._run_with_weights_of(name)
        return self._resolved(name, self._keys(name))

    def _run_with_weights_of(self, name: str) -> Run:
        own = dict(self.given[name])
        source_name = own.pop("weights_of")
        if source_name not in self.given:
            raise unknown_run(f"runs.{name}.weights_of", source_name, list(self.given))
        if "base" in own or self.given[source_name].get("weights_of"):
            raise InputError(
                f"config: run {name} does not say plainly whose weights it takes",
                "let weights_of name a run that is trained, and leave `base` out",
            )
        source = self.get(source_name)
        run = self._resolved(name, merge(self._keys(source_name), own))
        for key in OF_TRAINING:
            if key in own and self._of_training(run) != self._of_training(source):
                raise InputError(
                    f"config: run {name} takes the weights of {source_name}, but has other {key}",
                    f"take `{key}` out of runs.{name}, or train it: take weights_of out",
                )
        more = sorted(set(run.seeds) - set(source.seeds))
        if more:
            raise InputError(
                f"config: run {name} takes the weights of {source_name}, which is not trained with seed {more[0]}",
                f"take seeds out of runs.{name}, or choose from: {', '.join(map(str, source.seeds))}",
            )
        return dataclasses.replace(run, weights_of=source_name)

    @staticmethod
    def _of_training(run: Run) -> tuple:
        return run.features, run.train, run.validate, run.settings

    def _resolved(self, name: str, keys: dict) -> Run:
        for feature in keys["features"]:
            if feature not in self.features:
                raise InputError(
                    f"config: run {name} reads the feature {feature}, which is not enabled",
                    f"enable it under `features`, or choose from: {', '.join(self.features)}",
                )
        if not any(t in self.sets for t in keys["train"]):
            raise InputError(
                f"config: run {name} trains on {', '.join(keys['train'])}, which the sheet does not have",
                f"sets of the sheet: {', '.join(self.sets)}",
            )
        both = set(keys["train"]) & set(keys["evaluate"])
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
                    "model": keys["model"],
                    "training": keys["training"],
                }
                | {key: keys[key] for key in ("task", "classes") if key in keys}
            )
            prediction = dataclasses.asdict(parse_prediction(keys.get("prediction") or {}))
            rate = prediction["absent_rate"]
            check_absent_rate(rate, len(settings.features), "prediction.absent_rate")
            if prediction["mode"] != "window":
                check_live(settings.name, settings.model)
        except InputError as e:
            raise InputError(f"config: run {name}: {e.problem}", e.cure) from e
        run = Run(
            name,
            tuple(keys["features"]),
            tuple(t for t in keys["train"] if t in self.sets),
            tuple(t for t in keys["validate"] if t in self.sets),
            tuple(t for t in keys["evaluate"] if t in self.sets),
            tuple(keys["seeds"]),
            settings.canonical(),
            prediction,
            settings.model.compares_groups,
        )
        if run.reads_validation and not run.validate:
            raise InputError(
                f"config: run {name} selects by best_val, and none of its `validate` sets is in the sheet",
                f"sets of the sheet: {', '.join(self.sets)}",
            )
        return run
