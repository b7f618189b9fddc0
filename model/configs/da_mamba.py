"""Settings of DA-Mamba."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, check_heads, complete_groups


@dataclass(frozen=True)
class DaMambaConfig(ModelConfig):
    """DA-Mamba; defaults are the paper preset (d chosen to meet the paper's 28.7 M parameters)."""

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    d: int = 184
    depth: int = 4
    state: int = 16
    conv: int = 4
    expand: int = 2
    chunk: int = 32
    heads: int = 8
    mixer: str = "mamba"
    merge: str = "gate"
    modality_fusion: bool = True
    partner_fusion: bool = True
    partner_context: str = "concat"
    context_width: int = 0  # 0 = all groups side by side (5 d)
    temperature: float = 0.07

    CHOICES: ClassVar = {
        "mixer": ("mamba", "bimamba"),
        "merge": ("gate", "sum", "concat"),
        "partner_context": ("concat", "separate"),
    }
    MINIMUM: ClassVar = {
        "d": 1,
        "depth": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
        "chunk": 1,
        "heads": 1,
        "context_width": 0,
        "temperature": 1e-4,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "d": 16,
            "depth": 1,
            "state": 8,
            "heads": 4,
            "partner_context": "separate",
            "context_width": 48,
            "dropout": 0.5,
            "input_shift": 0.5,
        },
    }

    def checked(self, features: list[str]) -> "DaMambaConfig":
        super().checked(features)
        groups = complete_groups(self.groups, features)
        widths = {f"group {g}": self.d * len(m) for g, m in groups.items()}
        if not self.modality_fusion:
            widths = {}
        if self.partner_fusion:
            widths["the partner context"] = self.context_width or self.d * len(features)
        check_heads(self.heads, widths)
        return dataclasses.replace(self, groups=groups)


Config = DaMambaConfig
