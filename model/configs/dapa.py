"""Settings of DAPA."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, check_heads, complete_groups
from runtime import InputError


@dataclass(frozen=True)
class DapaConfig(ModelConfig):
    """DAPA (arXiv 2508.14448) with the pooling of several partners of its successor UniEE.

    stream_width : width of a stream's token; d : width of a person, half of it per direction
    layers : exchanges between target and partner; heads : of every attention
    fusion_hidden : feed-forward width of the fusion of streams, frame by frame
    mixer : `bilstm`, or `mamba` (one Mamba block per direction; state, conv and expand are its)
    horizon : a state hears its partner's states of the whole `window`, or, `directed`, the forward
        states only those up to now and the backward states only those from now on
    """

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    stream_width: int = 384
    d: int = 384
    layers: int = 3
    heads: int = 8
    fusion_hidden: int = 768
    mixer: str = "bilstm"
    state: int = 16
    conv: int = 4
    expand: int = 2
    horizon: str = "window"
    dropout: float = 0.1
    input_clip: float = 5.0
    prompts: int = 8
    prompt_dropout: float = 0.1

    CHOICES: ClassVar = {"mixer": ("bilstm", "mamba"), "horizon": ("window", "directed")}
    MINIMUM: ClassVar = {
        "stream_width": 1,
        "d": 2,
        "layers": 1,
        "heads": 1,
        "fusion_hidden": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "stream_width": 24,
            "d": 48,
            "layers": 2,
            "heads": 4,
            "fusion_hidden": 64,
            "dropout": 0.5,
            "input_shift": 0.5,
            "state": 8,
            "prompts": 2,
        },
    }
    TRAINING: ClassVar = {
        "paper": {  # of UniEE's public code; DAPA's own are not known
            "window": 512,
            "core": 128,
            "stride": 64,
            "batch": 32,
            "learning_rate": 1e-4,
            "warmup_steps": 1000,
            "weight_decay": 1e-4,
            "grad_clip": 1.0,
            "mse_weight": 0.3,
            "smoothness_weight": 0.05,
            "loss_frames": "window",
        },
        "demo": {},
    }

    def checked(self, features: list[str]) -> "DapaConfig":
        """Completed settings; InputError where keys disagree."""
        super().checked(features)
        if self.d % 2:
            raise InputError(
                f"model.d is {self.d}, but each direction of time takes half of it",
                "choose an even number",
            )
        widths = {"a stream's token": self.stream_width, "a direction of time": self.d // 2}
        check_heads(self.heads, widths)
        if self.d // 2 < 2 * self.heads:
            raise InputError(
                f"model.heads {self.heads} leave a direction of time (width {self.d // 2}) one channel"
                " each, too few to tell time",
                "choose fewer heads or a larger model.d",
            )
        return dataclasses.replace(self, groups=complete_groups(self.groups, features))


Config = DapaConfig
