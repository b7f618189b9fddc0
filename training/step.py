"""One step of training by itself, for whoever measures what it costs."""

from collections.abc import Callable

from torch import nn

from model.batch import Batch
from training.losses import score_losses
from training.optim import make_optimiser
from training.settings import Settings


def training_step(model: nn.Module, settings: Settings, batch: Batch) -> Callable[[], None]:
    """One step of training as a function: forward, losses, backward, optimiser.

    Gradients are kept from step to step, so that only the first call allocates them.
    """
    optimiser = make_optimiser(model, settings.training)
    weights = settings.loss_weights()

    def step() -> None:
        model.train()
        out = model(batch)
        losses = score_losses(out, batch, settings.training) | out["losses"]
        if optimiser is None:
            return  # nothing to learn
        optimiser.zero_grad(set_to_none=False)
        sum(weights[name] * value for name, value in losses.items()).backward()
        optimiser.step()

    return step
