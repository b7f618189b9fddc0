"""Settings of a network: presets, checks, and one canonical form.

They are a dict:
    {"preset": "paper" | "demo",
     "task": "regression" | "classification", "classes": 0,
     "model": {"name": "da_mamba", ...}, "features": [...], "frame_rate_hz": 25}
A run adds how it is trained (training.settings). This module imports no torch, so that the workflow
may use it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from model.configs import model_config, model_names
from model.configs.base import ModelConfig, build, check_choice, check_keys, mapping, number
from runtime import InputError

FEATURES = ("egemaps", "wav2vec2", "clip_face", "flow", "flow_magnitude")
PRESETS = ("paper", "demo")
TASKS = ("regression", "classification")
TOP_LEVEL = ("preset", "task", "classes", "model", "features", "frame_rate_hz")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """A resolved network; everything that `model.registry.build` needs but the dimensions."""

    name: str
    model: ModelConfig
    features: tuple[str, ...]
    frame_rate_hz: float
    task: str = "regression"
    classes: int = 0

    @property
    def outputs(self) -> int:
        """Columns of a model's head: 1, or one per class."""
        return self.classes if self.task == "classification" else 1

    def canonical(self) -> dict[str, Any]:
        """Plain dict in which nothing is left implicit; parsing it gives the same settings."""
        return {
            "model": {"name": self.name, **dataclasses.asdict(self.model)},
            "features": list(self.features),
            "frame_rate_hz": self.frame_rate_hz,
            "task": self.task,
            "classes": self.classes,
        }


def parse_network(settings: dict[str, Any]) -> NetworkSettings:
    """Settings of a network from a dict; InputError names the key and the cure."""
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
    rate = number("frame_rate_hz", settings.get("frame_rate_hz", 25.0), float)
    if not rate > 0:
        raise InputError(f"frame_rate_hz is {rate}", "choose a positive rate, usually 25 or 100")
    classes = number("classes", settings.get("classes", 0), int)
    if (classes >= 2) != (task == "classification"):
        raise InputError(
            f"task is {task} with classes: {classes}",
            "classification needs classes of at least 2, regression classes: 0",
        )
    return NetworkSettings(
        name=name,
        model=config,
        features=tuple(features),
        frame_rate_hz=rate,
        task=task,
        classes=classes,
    )


REGULARISATION = ("dropout", "prompt_dropout", "absent_rate", "input_shift")


def other_network(one: NetworkSettings, other: NetworkSettings) -> str:
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
