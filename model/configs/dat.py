"""Settings of DAT."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from model.configs.base import ModelConfig, complete_groups
from runtime import InputError

# Sizes of the published variants: what a key that is not given takes.
VARIANTS: dict[str, dict[str, Any]] = {
    "M": {
        "width": 512,
        "stream_heads": 8,
        "stream_head_width": 64,
        "stream_hidden": 512,
        "group_heads": 8,
        "group_head_width": 128,
        "group_hidden": 1024,
        "input_dropout": 0.1,
        "dropout": 0.1,
    },
    "L": {
        "width": 512,
        "stream_heads": 8,
        "stream_head_width": 128,
        "stream_hidden": 1024,
        "group_heads": 8,
        "group_head_width": 256,
        "group_hidden": 1024,
        "input_dropout": 0.2,
        "dropout": 0.3,
    },
    "mpiigi": {
        "width": 512,
        "stream_heads": 4,
        "stream_head_width": 128,
        "stream_hidden": 512,
        "group_heads": 8,
        "group_head_width": 128,
        "group_hidden": 1024,
        "fused_width": 768,
        "input_dropout": 0.0,
        "dropout": 0.1,
    },
}
UNSET = {"input_dropout": -1.0, "dropout": -1.0}  # 0 for every other key


@dataclass(frozen=True)
class DatConfig(ModelConfig):
    """DAT (arXiv 2410.08470); defaults are variant M with the sound choice for each of its quirks.

    variant : `M`, `L` (target and partners) or `mpiigi` (no partner: audio asks, visual answers).
        It gives every size and dropout that is not set (0; -1 for the dropouts)
    positions : frames of the learned position tables; other window lengths interpolate them
    query : `target` asks and partners answer (published code), or `partner` asks and the target
        answers (published figure)
    keys : cross-attention answers from `normalised` or `raw` frames (published)
    head : `linear`, or `selu` on the engagement itself (published)
    inputs : `zscore` by the training sessions, or `raw` values (published)
    mask : absent frames are left out; false: they count as frames of zeros (published)
    smooth : `batch` smooths predictions over the batch axis in training (published), `none` does not
    learned_absent : a learned vector per stream for absent frames (more parameters)
    """

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    variant: str = "M"
    width: int = 0
    stream_heads: int = 0
    stream_head_width: int = 0
    stream_hidden: int = 0
    group_heads: int = 0
    group_head_width: int = 0
    group_hidden: int = 0
    fused_width: int = 0
    input_dropout: float = -1.0
    dropout: float = -1.0
    positions: int = 96
    query: str = "target"
    keys: str = "normalised"
    head: str = "linear"
    inputs: str = "zscore"
    mask: bool = True
    smooth: str = "none"
    learned_absent: bool = False

    CHOICES: ClassVar = {
        "variant": tuple(VARIANTS),
        "query": ("target", "partner"),
        "keys": ("normalised", "raw"),
        "head": ("linear", "selu"),
        "inputs": ("zscore", "raw"),
        "smooth": ("none", "batch"),
    }
    MINIMUM: ClassVar = {
        "width": 0,
        "stream_heads": 0,
        "stream_head_width": 0,
        "stream_hidden": 0,
        "group_heads": 0,
        "group_head_width": 0,
        "group_hidden": 0,
        "fused_width": 0,
        "input_dropout": -1,
        "dropout": -1,
        "positions": 1,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "width": 8,
            "stream_heads": 4,
            "stream_head_width": 8,
            "stream_hidden": 16,
            "group_heads": 4,
            "group_head_width": 16,
            "group_hidden": 48,
            "dropout": 0.3,
            "input_shift": 0.5,
            "learned_absent": True,
        },
    }
    PUBLISHED: ClassVar = {
        "variant L": {"variant": "L"},
        "variant mpiigi": {"variant": "mpiigi", "query": "target"},
    }
    TRAINING: ClassVar = {
        "paper": {
            "optimiser": "adam",
            "schedule": "constant",
            "learning_rate": 5e-5,
            "warmup_steps": 400,
            "weight_decay": 0.0,
            "grad_clip": 1e9,  # the published training does not clip
            "ema": 0.99,
            "score_weight": 0.5,
            "loss_frames": "window",
        },
        "demo": {},
    }

    def checked(self, features: list[str]) -> "DatConfig":
        """Completed settings; InputError where keys disagree."""
        given = dataclasses.asdict(self)
        sizes = {k: v for k, v in VARIANTS[self.variant].items() if given[k] == UNSET.get(k, 0)}
        config = dataclasses.replace(self, **sizes, groups=complete_groups(self.groups, features))
        ModelConfig.checked(config, features)
        for key in UNSET:
            if not 0 <= getattr(config, key) < 1:
                raise InputError(
                    f"model.{key} is {getattr(config, key)}",
                    "choose 0 to below 1, or -1 for the variant's",
                )
        if self.variant == "mpiigi":
            if len(config.groups) != 2:
                raise InputError(
                    f"model.variant mpiigi fuses two groups of streams, not {list(config.groups)}",
                    "name two groups in model.groups (the first asks), or choose variant M or L",
                )
            if self.query == "partner":
                raise InputError(
                    "model.variant mpiigi hears no partner, but model.query is partner",
                    "choose query: target, or variant M or L",
                )
        elif config.fused_width:
            raise InputError(
                f"model.fused_width is {config.fused_width}, but variant {self.variant} has no such layer",
                "leave it 0, or choose variant mpiigi",
            )
        return config


Config = DatConfig
