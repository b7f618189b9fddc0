"""Settings of training."""

from dataclasses import dataclass
from typing import ClassVar

from model.configs.base import Checked
from runtime import InputError


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """Training; defaults are the paper's numbers where the paper gives them.

    optimiser : `adamw`, or `adam`, whose weight decay is added to the gradient (L2) as in torch
    schedule : after a linear warm-up `cosine` to 0, `constant`, or `step`: times `step_gamma` every
        `step_epochs` epochs
    precision : of the forward pass; `bf16` is autocast, with the scan and all losses in fp32
    """

    epochs: int = 40
    steps: int = 0  # optimiser steps in all instead of `epochs`; 0 = by epochs
    batch: int = 128  # target windows
    window: int = 96  # frames
    core: int = 32  # predicted frames in the centre; also the step of windows in prediction
    stride: int = 0  # frames from one training window to the next; 0 = core
    optimiser: str = "adamw"
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_steps: int = 500
    schedule: str = "cosine"
    step_epochs: int = 50
    step_gamma: float = 0.5
    precision: str = "fp32"
    grad_clip: float = 5.0
    ema: float = 0.999
    score_loss: str = "ccc"
    score_weight: float = 1.0
    alignment_weight: float = 0.4  # InfoNCE of da_mamba
    mmd_weight: float = 0.1  # kernel distance of align_mamba
    transport_weight: float = 0.1  # optimal-transport cost of align_mamba v2
    mse_weight: float = 0.0  # added to any score loss
    smoothness_weight: float = 0.0  # mean squared step between frames
    loss_frames: str = "core"
    partners: str = "own"
    selection: str = "last"
    validate_every: int = 1  # epochs
    pool_gb: float = 4.0

    CHOICES: ClassVar = {
        "optimiser": ("adamw", "adam"),
        "schedule": ("cosine", "constant", "step"),
        "precision": ("fp32", "bf16"),
        "score_loss": ("ccc", "mse", "cross_entropy"),
        "loss_frames": ("core", "window"),
        "partners": ("own", "shuffled"),
        "selection": ("last", "best_val"),
    }
    MINIMUM: ClassVar = {
        "epochs": 1,
        "steps": 0,
        "batch": 1,
        "window": 1,
        "core": 1,
        "stride": 0,
        "learning_rate": 0,
        "weight_decay": 0,
        "warmup_steps": 0,
        "step_epochs": 1,
        "step_gamma": 0,
        "grad_clip": 1e-9,
        "ema": 0,
        "score_weight": 0,
        "alignment_weight": 0,
        "mmd_weight": 0,
        "transport_weight": 0,
        "mse_weight": 0,
        "smoothness_weight": 0,
        "validate_every": 1,
        "pool_gb": 1e-6,
    }
    PRESETS: ClassVar = {
        "paper": {},
        "demo": {
            "epochs": 12,
            "batch": 32,
            "learning_rate": 4e-3,
            "warmup_steps": 10,
            "ema": 0.95,
            "loss_frames": "window",
            "validate_every": 4,
        },
    }

    def checked(self) -> "TrainingConfig":
        """These settings; InputError where keys disagree."""
        if self.core > self.window or (self.window - self.core) % 2:
            raise InputError(
                f"training.window {self.window} does not hold {self.core} frames in its centre",
                "choose window >= core with an even difference, for example 96 and 32",
            )
        if not self.ema < 1:
            raise InputError(f"training.ema is {self.ema}", "choose 0 (off) to below 1")
        return self
