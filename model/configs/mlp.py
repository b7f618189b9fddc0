"""Settings of the per-frame baseline."""

from dataclasses import dataclass
from typing import ClassVar

from model.configs.base import ModelConfig


@dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """The challenge's per-frame baseline: three ReLU layers on the target's features."""

    hidden: int = 256
    layers: int = 3

    SEES_TIME: ClassVar = False
    MINIMUM: ClassVar = {"hidden": 1, "layers": 1}
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {"hidden": 64, "dropout": 0.5, "input_shift": 0.5},
    }


Config = MlpConfig
