"""Settings of the plain ways of fusing modality groups."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, check_heads, complete_groups


@dataclass(frozen=True)
class FusionConfig(ModelConfig):
    """Equal encoders per group, then one of four ways to join them (docs/align_mamba.md).

    method : `average` of a person's tokens of a frame; `concat` of them; `mamba` over the
        interleaved tokens; `cross_attention` of each group to all other tokens of the window
    participants : the partners' groups are modalities too; false: the target's groups only
    encoder_layers : Mamba layers of each group before the fusion, shared by all persons
    fusion_layers : layers of `mamba` or `cross_attention`
    """

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    method: str = "concat"
    participants: bool = False
    d: int = 128
    stream_width: int = 256
    encoder_layers: int = 3
    fusion_layers: int = 1
    state: int = 64
    conv: int = 4
    expand: int = 2
    heads: int = 8

    CHOICES: ClassVar = {"method": ("average", "concat", "mamba", "cross_attention")}
    MINIMUM: ClassVar = {
        "d": 1,
        "stream_width": 1,
        "encoder_layers": 0,
        "fusion_layers": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
        "heads": 1,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "participants": True,
            "d": 44,
            "stream_width": 16,
            "encoder_layers": 2,
            "state": 16,
            "heads": 4,
            "dropout": 0.5,
            "input_shift": 0.5,
        },
    }
    # The course of training of Coupled Mamba, whose table these are rows of.
    TRAINING: ClassVar = {
        "paper": {
            "optimiser": "adam",
            "learning_rate": 5e-4,
            "weight_decay": 5e-4,
            "schedule": "step",
            "step_epochs": 50,
            "step_gamma": 0.5,
            "warmup_steps": 0,
            "epochs": 150,
        },
        "demo": {},
    }

    def checked(self, features: list[str]) -> "FusionConfig":
        super().checked(features)
        if self.method == "cross_attention":
            check_heads(self.heads, {"a token": self.d})
        return dataclasses.replace(self, groups=complete_groups(self.groups, features))


Config = FusionConfig
