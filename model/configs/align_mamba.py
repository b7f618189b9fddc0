"""Settings of AlignMamba."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, complete_groups, did_you_mean
from runtime import InputError


@dataclass(frozen=True)
class AlignMambaConfig(ModelConfig):
    """AlignMamba; defaults are the paper preset (docs/align_mamba.md: what it leaves open).

    version : 1 moves tokens to the anchor's frames; 2 keeps them and aligns by losses only
    participants : the partners' groups are modalities too; false: the target's groups only, as in
        the paper
    anchor : group to which the others are aligned; empty = visual, as the paper does without
        language, or the first group where there is no visual one
    band : frames between a token and its anchor at most, 0 = any; causal : no anchor before its token
    sigma : bandwidth of the kernel distance, 0 = median heuristic
    streams : interleaved (the model), or single / multi (other ways through Mamba, for comparison)
    """

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    version: int = 1
    d: int = 256
    stream_width: int = 256
    layers: int = 4
    state: int = 16
    conv: int = 4
    expand: int = 2
    mixer: str = "mamba"
    participants: bool = False
    anchor: str = ""
    local_alignment: bool = True
    global_alignment: bool = True
    normalise: str = "column"
    fill: str = "nearest"
    band: int = 0
    causal: bool = False
    sigma: float = 0.0
    streams: str = "interleaved"

    CHOICES: ClassVar = {
        "mixer": ("mamba", "bimamba"),
        "normalise": ("paper", "column", "soft"),
        "fill": ("nearest", "zero"),
        "streams": ("interleaved", "single", "multi"),
    }
    MINIMUM: ClassVar = {
        "version": 1,
        "d": 1,
        "stream_width": 1,
        "layers": 1,
        "state": 1,
        "conv": 1,
        "expand": 1,
        "band": 0,
        "sigma": 0,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "participants": True,
            "d": 46,
            "stream_width": 16,
            "normalise": "soft",
            "band": 12,
            "dropout": 0.5,
            "input_shift": 0.5,
        },
    }

    @property
    def compares_groups(self) -> bool:
        return len(self.groups) > 1

    def checked(self, features: list[str]) -> "AlignMambaConfig":
        super().checked(features)
        if self.version > 2:
            raise InputError(f"model.version is {self.version}", "choose 1 or 2")
        if self.version == 2 and self.streams != "interleaved":
            raise InputError(
                f"model.streams is {self.streams} with version: 2",
                "its modality-aware projections need streams: interleaved; or choose version: 1",
            )
        groups = complete_groups(self.groups, features)
        anchor = self.anchor or ("visual" if "visual" in groups else next(iter(groups)))
        if anchor not in groups:
            raise InputError(
                f"model.anchor {anchor} is no group", did_you_mean(anchor, tuple(groups))
            )
        return dataclasses.replace(self, groups=groups, anchor=anchor)


Config = AlignMambaConfig
