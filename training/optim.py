"""Optimiser, learning-rate schedule and exponential moving average of the weights."""

import math

import torch
from torch import Tensor, nn

from training.config import TrainingConfig

NO_DECAY = ("A_log", "D", "absent", "gate", "log_slope", "prompt")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices and convolutions; not biases, norms, nor the SSM's A_log and D."""
    decay, free = [], []
    for name, parameter in model.named_parameters():
        no_decay = parameter.dim() < 2 or name.rsplit(".", 1)[-1] in NO_DECAY
        (free if no_decay else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, t: TrainingConfig) -> torch.optim.Optimizer | None:
    """The optimiser of a run; None for a model without parameters.

    adamw shrinks the weights directly, adam adds weight_decay * weight to the gradient (L2).
    """
    groups = parameter_groups(model, t.weight_decay)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[t.optimiser]
    return kind(groups, lr=t.learning_rate) if groups else None


def learning_rate(t: TrainingConfig, step: int, total: int, epoch: int) -> float:
    """Rate of one step: linear warm-up, then the schedule; step, epoch count from 0.

    total: steps of the whole training, where the cosine reaches 0.
    """
    if step < t.warmup_steps:
        return t.learning_rate * (step + 1) / t.warmup_steps
    if t.schedule == "constant":
        return t.learning_rate
    if t.schedule == "step":
        return t.learning_rate * t.step_gamma ** (epoch // t.step_epochs)
    share = (step - t.warmup_steps) / max(1, total - t.warmup_steps)
    return t.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class MovingAverage:
    """weights <- decay weights + (1 - decay) parameters, after every optimiser step.

    The decay grows as (1 + t) / (10 + t) up to `decay`, so that early averages are not dominated by
    the random start.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter.detach(), 1 - decay)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """Full state dict: averaged parameters and the model's buffers."""
        return {**{n: b.detach() for n, b in model.named_buffers()}, **self.weights}
