"""Settings of the constant baseline."""

from dataclasses import dataclass
from typing import ClassVar

from model.configs.base import ModelConfig


@dataclass(frozen=True)
class ConstantConfig(ModelConfig):
    """The mean of the training labels, for every frame."""

    SEES_TIME: ClassVar = False


Config = ConstantConfig
