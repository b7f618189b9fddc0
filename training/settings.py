"""Settings of a run: those of its network (model.settings) and how it is trained.

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

from model.configs import model_config
from model.configs.base import build, check_keys, mapping
from model.settings import TOP_LEVEL, NetworkSettings, parse_network
from runtime import InputError
from training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Settings(NetworkSettings):
    """A resolved run. `canonical()` is the plain dict of `resolve`."""

    training: TrainingConfig

    def canonical(self) -> dict[str, Any]:
        return super().canonical() | {"training": dataclasses.asdict(self.training)}

    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss a model may add, by the loss's name."""
        training, suffix = dataclasses.asdict(self.training), "_weight"
        return {key.removesuffix(suffix): w for key, w in training.items() if key.endswith(suffix)}


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Canonical dict of a run's settings: every key present, presets applied, values checked.

    Resolving a canonical dict gives it back. Raises InputError naming the key and the cure.
    """
    return parse(settings).canonical()


def parse(settings: dict[str, Any]) -> Settings:
    """Like `resolve`, as dataclasses."""
    check_keys(settings, (*TOP_LEVEL, "training"), "")
    network = parse_network({key: v for key, v in settings.items() if key != "training"})
    preset = settings.get("preset", "paper")
    given = TrainingConfig.PRESETS[preset] | model_config(network.name).TRAINING[preset]
    if network.task == "classification":
        given = given | {"score_loss": "cross_entropy"}
    given = given | mapping(settings.get("training", {}), "training")
    training = build(TrainingConfig, given, "training").checked()
    check_losses(network.task, training)
    fields = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
    return Settings(**fields, training=training)


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
