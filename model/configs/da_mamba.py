"""Settings of DA-Mamba."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, check_heads, complete_groups
from runtime import InputError


@dataclass(frozen=True)
class DaMambaConfig(ModelConfig):
    """DA-Mamba; defaults are the paper preset (d chosen to meet the paper's 28.7 M parameters)."""

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    d: int = 184
    depth: int = 4
    state: int = 16
    conv: int = 4
    expand: int = 2
    local_chunk: int = 32  # frames of local attention, 0 = no local branch
    heads: int = 8
    mixer: str = "mamba"
    merge: str = "gate"
    modality_fusion: bool = True
    partner_fusion: bool = True
    partner_context: str = "concat"
    partner_encoder: str = "shared"
    alignment: bool = True  # between the target's groups; needs modality_fusion
    causal: bool = False  # local attention and partner attention see no later frame
    context_width: int = 0  # 0 = all groups side by side (5 d)
    temperature: float = 0.07

    CHOICES: ClassVar = {
        "mixer": ("mamba", "bimamba", "transformer"),
        "merge": ("gate", "sum", "concat"),
        "partner_context": ("concat", "interleave", "separate"),
        "partner_encoder": ("shared", "separate"),
    }
    MINIMUM: ClassVar = {
        "d": 1,
        "depth": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
        "local_chunk": 0,
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

    @property
    def compares_groups(self) -> bool:
        return self.alignment and self.modality_fusion and len(self.groups) > 1

    def checked(self, features: list[str]) -> "DaMambaConfig":
        super().checked(features)
        groups = complete_groups(self.groups, features)
        widths = {}
        if self.modality_fusion and (self.local_chunk or self.mixer == "transformer"):
            widths = {f"group {g}": self.d * len(m) for g, m in groups.items()}
        if self.mixer == "transformer":
            widths["a stream"] = self.d
        if self.partner_fusion:
            widths["the partner context"] = self.context_width or self.d * len(features)
        check_heads(self.heads, widths)
        if self.causal and self.mixer != "mamba":
            raise InputError(
                f"model.causal is true, but model.mixer {self.mixer} sees later frames",
                "choose mixer: mamba, or causal: false",
            )
        if self.causal and self.partner_fusion and self.partner_context == "concat":
            raise InputError(
                "model.causal is true, but partner_context: concat puts a partner's last frame "
                "before the next partner's first",
                "choose partner_context: interleave or separate",
            )
        return dataclasses.replace(self, groups=groups)


Config = DaMambaConfig
