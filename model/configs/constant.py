"""Settings of the constant baseline."""

from dataclasses import dataclass

from model.configs.base import ModelConfig


@dataclass(frozen=True)
class ConstantConfig(ModelConfig):
    """The mean of the training labels, for every frame."""


Config = ConstantConfig
