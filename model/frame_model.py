"""The base of every architecture: from a batch to one value per frame.

The contract
    __init__(config, dims): dims maps feature -> dimension
    load_statistics(statistics, label): normalisation from the training sessions, kept in buffers
    forward(batch) -> {"engagement": (B, L), "losses": {name: scalar}}: the score loss is the
        training loop's; `losses` holds what a model adds, weighted by training.<name>_weight.
        For classification {"engagement": (B, L) the likeliest class, "logits": (B, L, classes)}.
    parts() -> {part: [modules]}: for `python -m model describe`
    dialogue: whether partners change the result
"""

import torch
from torch import Tensor, nn

from model.batch import Batch
from model.configs.base import ModelConfig
from model.layers.inputs import Normalise
from model.missing import drop_in_training
from model.prompts import Prompts


class FrameModel(nn.Module):
    """Label buffers, statistics and the result every architecture ends with.

    outputs: columns of the score, 1 for regression, the number of classes for classification.
    """

    dialogue = True

    def __init__(self, config: ModelConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__()
        self.config, self.dims, self.outputs = config, dims, outputs
        self.prompts: Prompts | None = None
        # Scores are in units of the training labels, so that training starts at a sensible place.
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_std", torch.ones(()))

    def add_prompts(self, domains: tuple[str, ...]) -> None:
        """Give the model its domain prompts, if its settings ask for them."""
        if self.config.prompts:
            self.prompts = Prompts(self.config, self.dims, domains)

    def load_statistics(self, statistics: dict[str, dict], label: dict[str, float]) -> None:
        """Take over mean and std (training sessions only) of the streams and of the labels."""
        for module in self.modules():
            if isinstance(module, Normalise):
                module.mean.copy_(torch.as_tensor(statistics[module.feature]["mean"]))
                module.std.copy_(torch.as_tensor(statistics[module.feature]["std"]))
        self.label_mean.fill_(label["mean"])
        self.label_std.fill_(label["std"])

    def forward(self, batch: Batch) -> dict:
        """batch -> the result of the contract above."""
        if self.training and self.config.absent_rate:
            batch = drop_in_training(batch, self.config.absent_rate, list(self.dims))
        if self.prompts is None:
            return self.estimate(batch)
        return self.prompts.cut(self.estimate(self.prompts(batch)))

    def estimate(self, batch: Batch) -> dict:
        """What an architecture implements; ends in `return self.result(score, losses)`."""
        raise NotImplementedError

    def result(self, score: Tensor, losses: dict[str, Tensor] | None = None) -> dict:
        """score (B, L, outputs) -> what `forward` returns."""
        losses = losses or {}
        score = score.to(self.label_mean.dtype)  # bf16 has 0.002 between scores around 0.5
        if self.outputs == 1:
            engagement = self.label_mean + self.label_std * score.squeeze(-1)  # (B, L)
            return {"engagement": engagement, "losses": losses}
        engagement = score.argmax(-1).to(score.dtype)  # (B, L)
        return {"engagement": engagement, "logits": score, "losses": losses}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        raise NotImplementedError
