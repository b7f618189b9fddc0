"""Settings of the bidirectional LSTM control."""

from dataclasses import dataclass
from typing import ClassVar

from model.configs.base import ModelConfig


@dataclass(frozen=True)
class BilstmConfig(ModelConfig):
    """A bidirectional LSTM over all streams side by side.

    d : width of a stream's projection; hidden : states per direction; layers : LSTM layers
    partner_fusion : beside the target's streams stands the mean of its partners' streams
    """

    d: int = 128
    hidden: int = 256
    layers: int = 2
    partner_fusion: bool = True
    dropout: float = 0.2

    MINIMUM: ClassVar = {"d": 1, "hidden": 1, "layers": 1}
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {"d": 16, "hidden": 52, "layers": 1, "dropout": 0.5, "input_shift": 0.5},
    }


Config = BilstmConfig
