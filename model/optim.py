"""AdamW groups, learning-rate schedule and exponential moving average of the weights."""

import math

import torch
from torch import Tensor, nn

NO_DECAY = ("A_log", "D", "absent", "gate", "log_slope")


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


def learning_rate(step: int, total: int, peak: float, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then a cosine to 0 at step `total`; step counts from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


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
