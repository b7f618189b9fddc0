"""Settings of a run: presets, checks, and one canonical form for the fingerprint.

A run's settings are a dict:
    {"preset": "paper" | "demo",
     "task": "regression" | "classification", "classes": 0,
     "model": {"name": "da_mamba", ...},
     "training": {...}, "features": [...], "frame_rate_hz": 25}
`resolve` fills in the preset and the defaults, checks every key and value, and returns a plain dict
in which nothing is left implicit. This module imports no torch, so that the workflow may use it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from inference.config import PredictionConfig
from model.configs import model_config, model_names
from model.configs.base import ModelConfig, build, check_choice, check_keys, mapping, number
from runtime import InputError
from training.config import TrainingConfig

FEATURES = ("egemaps", "wav2vec2", "clip_face", "flow", "flow_magnitude")
PRESETS = ("paper", "demo")
TASKS = ("regression", "classification")
TOP_LEVEL = ("preset", "task", "classes", "model", "training", "features", "frame_rate_hz")


@dataclass(frozen=True)
class Settings:
    """A resolved run. `canonical()` is the plain dict of `resolve`."""

    name: str
    model: ModelConfig
    training: TrainingConfig
    features: tuple[str, ...]
    frame_rate_hz: float
    task: str = "regression"
    classes: int = 0

    @property
    def outputs(self) -> int:
        """Columns of a model's head: 1, or one per class."""
        return self.classes if self.task == "classification" else 1

    def canonical(self) -> dict[str, Any]:
        return {
            "model": {"name": self.name, **dataclasses.asdict(self.model)},
            "training": dataclasses.asdict(self.training),
            "features": list(self.features),
            "frame_rate_hz": self.frame_rate_hz,
            "task": self.task,
            "classes": self.classes,
        }


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Canonical dict of a run's settings: every key present, presets applied, values checked.

    Resolving a canonical dict gives it back. Raises InputError naming the key and the cure.
    """
    return parse(settings).canonical()


def parse(settings: dict[str, Any]) -> Settings:
    """Like `resolve`, as dataclasses."""
    check_keys(settings, TOP_LEVEL, "")
    preset = settings.get("preset", "paper")
    check_choice("preset", preset, PRESETS)
    model = dict(mapping(settings.get("model", {}), "model"))
    name = model.pop("name", "da_mamba")
    check_choice("model.name", name, tuple(model_names()))
    kind = model_config(name)
    features = settings.get("features", list(FEATURES))
    if (
        not isinstance(features, list | tuple)
        or not features
        or not all(isinstance(f, str) for f in features)
        or len(set(features)) != len(features)
    ):
        raise InputError(
            f"features is {features!r}",
            f"give a list of distinct feature names, for example [{', '.join(FEATURES)}]",
        )
    config = build(kind, kind.PRESETS[preset] | model, "model").checked(list(features))
    task = settings.get("task", "regression")
    check_choice("task", task, TASKS)
    given = TrainingConfig.PRESETS[preset] | kind.TRAINING[preset]
    if task == "classification":
        given = given | {"score_loss": "cross_entropy"}
    given = given | mapping(settings.get("training", {}), "training")
    training = build(TrainingConfig, given, "training").checked()
    rate = number("frame_rate_hz", settings.get("frame_rate_hz", 25.0), float)
    if not rate > 0:
        raise InputError(f"frame_rate_hz is {rate}", "choose a positive rate, usually 25 or 100")
    check_losses(task, training)
    classes = number("classes", settings.get("classes", 0), int)
    if (classes >= 2) != (task == "classification"):
        raise InputError(
            f"task is {task} with classes: {classes}",
            "classification needs classes of at least 2, regression classes: 0",
        )
    return Settings(name, config, training, tuple(features), rate, task, classes)


def check_losses(task: str, training: TrainingConfig) -> None:
    """InputError for a loss that does not fit the task."""
    if (training.score_loss == "cross_entropy") != (task == "classification"):
        raise InputError(
            f"training.score_loss is {training.score_loss}, but task is {task}",
            "leave score_loss out: regression takes ccc or mse, classification cross_entropy",
        )
    if training.mse_weight and task == "classification":
        raise InputError(
            f"training.mse_weight is {training.mse_weight}, but classes have no distance",
            "choose mse_weight: 0",
        )


def parse_prediction(settings: dict[str, Any]) -> PredictionConfig:
    """Checked settings of prediction; `dataclasses.asdict` gives the canonical dict."""
    return build(PredictionConfig, mapping(settings, "prediction"), "prediction").checked()


REGULARISATION = ("dropout", "prompt_dropout", "absent_rate", "input_shift")


def other_network(one: Settings, other: Settings) -> str:
    """The first key in which two runs have different networks; "" when weights can move over.

    Keys of regularisation may differ: they change no tensor and nothing at prediction.
    """
    a, b = one.canonical(), other.canonical()
    for key in ("features", "task", "classes", "frame_rate_hz"):
        if a[key] != b[key]:
            return key
    if one.name != other.name:
        return "model.name"
    for key in a["model"]:
        if key not in REGULARISATION and a["model"][key] != b["model"][key]:
            return f"model.{key}"
    return ""
