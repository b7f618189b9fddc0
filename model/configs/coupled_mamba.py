"""Settings of Coupled Mamba."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from model.configs.base import ModelConfig, complete_groups
from runtime import InputError


@dataclass(frozen=True)
class CoupledMambaConfig(ModelConfig):
    """Coupled Mamba; defaults are the paper preset.

    groups : modality groups of a participant; each is a stream
    participants : the partners' groups are streams too, so that coupling carries partner state;
        false: the target's groups only, as in the paper
    coupling : `state` alpha = 1, pi = 1 / M; `state_leaky` learned alpha and pi; `feature` linear
        maps between layers, as in the published code; `none`; `literal` is refused
    readout : `target` reads the target's streams, `all` also the mean over the partners'
    bidirectional : a second coupled mixer from the last frame to the first, added
    state : N; dt_rank : rank of the Delta projection, 0 = state / 8 (the paper), rounded up
    hidden : width inside the embedding of a group
    """

    groups: dict[str, list[str]] = field(default_factory=dict)  # {} = audio and visual, by name
    participants: bool = False
    coupling: str = "state"
    readout: str = "target"
    bidirectional: bool = False
    width: int = 128
    hidden: int = 256
    depth: int = 3
    state: int = 64
    dt_rank: int = 0
    conv: int = 4
    expand: int = 2

    CHOICES: ClassVar = {
        "coupling": ("state", "state_leaky", "feature", "none", "literal"),
        "readout": ("target", "all"),
    }
    MINIMUM: ClassVar = {
        "width": 2,
        "hidden": 1,
        "depth": 1,
        "state": 1,
        "dt_rank": 0,
        "conv": 1,
        "expand": 1,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "participants": True,
            "readout": "all",
            "width": 52,
            "hidden": 16,
            "depth": 2,
            "state": 8,
            "dropout": 0.3,
            "input_shift": 0.5,
        },
    }
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
        # What the streams tell each other is learned late (docs/coupled_mamba.md); a cosine over so
        # few steps would end before.
        "demo": {"schedule": "constant", "learning_rate": 6e-3},
    }

    def checked(self, features: list[str]) -> "CoupledMambaConfig":
        super().checked(features)
        if self.coupling == "literal":
            raise InputError(
                "model.coupling is 'literal': equation (6) of Coupled Mamba sums the states of all "
                "streams without weights, so its gates add up to more than 1 (2.99 for three "
                "streams at the usual initialisation) and the state grows at every frame, beyond "
                "what fp32 holds within a window of 96 frames",
                "choose coupling: state (the same sum with weights 1/M) or state_leaky",
            )
        if self.participants and self.coupling == "none" and self.readout == "target":
            raise InputError(
                "model.participants is true, but with coupling 'none' and readout 'target' no "
                "partner could change a result",
                "choose readout: all, a coupling, or participants: false",
            )
        return dataclasses.replace(self, groups=complete_groups(self.groups, features))


Config = CoupledMambaConfig
