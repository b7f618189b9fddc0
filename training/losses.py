"""Losses of the score over the labelled frames of a batch; L_CCC of arXiv 2509.17711 is `ccc_loss`.

Losses that belong to a network (InfoNCE, kernel distance) stand with its layers. All of them are finite, with finite gradients, for constant input, one frame, or no frame at all.
They are fp32 under autocast, and of the global batch in data-parallel training (model.layers.global_batch).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from model.layers.global_batch import mean, total
from model.precision import full_precision
from training.config import TrainingConfig

EPSILON = 1e-8  # far below the variance of any usable label (0.01 of the scale squared is 1e-4)


@full_precision
def ccc(
    prediction: Tensor,
    label: Tensor,
    mask: Tensor,
    total: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Concordance correlation coefficient over the frames where mask is true, pooled.

    prediction, label, mask (any equal shape) -> scalar. Population variances, as the challenge
    scores; a constant prediction gives 0, and so does an empty mask. total: sum over the processes
    that hold parts of the frames (model.layers.global_batch), for frames that lie apart.
    """
    weight = mask.to(prediction.dtype)  # same shape
    p = torch.where(mask, prediction, 0.0)
    t = torch.where(mask, label, 0.0).to(p.dtype)
    sums = total(torch.stack([weight.sum(), p.sum(), t.sum()]))  # (3,)
    n = sums[0].clamp(min=1.0)
    mean_p, mean_t = sums[1] / n, sums[2] / n
    dp, dt = (p - mean_p) * weight, (t - mean_t) * weight  # same shape
    moments = total(torch.stack([(dp * dt).sum(), (dp**2).sum(), (dt**2).sum()])) / n  # (3,)
    spread = moments[1] + moments[2] + (mean_p - mean_t) ** 2
    return 2 * moments[0] / (spread + EPSILON)


def ccc_loss(prediction: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """1 - CCC over the masked frames of the whole batch; shapes as in `ccc`."""
    return 1 - ccc(prediction, label, mask, total)


@full_precision
def mse_loss(prediction: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the masked frames of the whole batch; 0 for an empty mask."""
    error = torch.where(mask, prediction - label, 0.0)
    return mean((error**2).sum(), mask.sum())


@full_precision
def smoothness_loss(prediction: Tensor, frames: Tensor) -> Tensor:
    """Mean squared step of the prediction between consecutive frames of the recording.

    prediction (B, L) or (B, L, C), summed over C; frames (B, L) inside the recording -> scalar, 0
    when no two frames follow each other.
    """
    both = frames[:, 1:] & frames[:, :-1]  # (B, L - 1)
    step = prediction[:, 1:] - prediction[:, :-1]  # (B, L - 1) or (B, L - 1, C)
    squared = step**2 if step.dim() == 2 else (step**2).sum(-1)  # (B, L - 1)
    return mean(torch.where(both, squared, 0.0).sum(), both.sum())


@full_precision
def cross_entropy_loss(logits: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the masked frames of the whole batch; 0 for an empty mask.

    logits (B, L, C); label (B, L) class indices as floats, anything where mask (B, L) is false.
    """
    classes = torch.where(mask, label, 0.0).long()  # (B, L)
    loss = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none")  # (B L,)
    return mean(torch.where(mask.flatten(), loss, 0.0).sum(), mask.sum())


def cohen_kappa(prediction: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Cohen's kappa over the frames where mask is true, pooled: agreement above chance.

    prediction, label, mask (any equal shape), classes as whole numbers -> scalar. 0 where chance
    alone agrees fully (both always the same class), and for an empty mask.
    """
    p, t = prediction[mask].long(), label[mask].long()  # (n,) each
    classes = int(torch.cat([p, t]).max()) + 1 if len(p) else 1
    pairs = torch.bincount(p * classes + t, minlength=classes**2).double().view(classes, classes)
    shares = pairs / max(1, len(p))  # (C, C) predicted x true
    agreed, chance = shares.trace(), (shares.sum(1) * shares.sum(0)).sum()
    return torch.where(chance < 1, (agreed - chance) / (1 - chance), 0.0)


SCORE_LOSSES = {"ccc": ccc_loss, "mse": mse_loss}
# What decides which epoch is best, by task, and its name in the history.
VALIDATION = {"regression": ("ccc", ccc), "classification": ("kappa", cohen_kappa)}


def score_losses(out: dict, batch: Batch, training: TrainingConfig) -> dict[str, Tensor]:
    """Losses of the prediction itself, unweighted: `score`, and `mse` and `smoothness` if wanted.

    out: result of a model's forward for this batch. A weight of 0 computes nothing.
    """
    label, mask = batch.label, batch.label_mask  # (B, L) each
    score = out["engagement"]  # (B, L)
    if training.score_loss == "cross_entropy":
        losses = {"score": cross_entropy_loss(out["logits"], label, mask)}
        score = out["logits"].softmax(-1)  # (B, L, C), for the smoothness
    else:
        losses = {"score": SCORE_LOSSES[training.score_loss](score, label, mask)}
    if training.mse_weight:
        losses["mse"] = mse_loss(score, label, mask)
    if training.smoothness_weight:
        losses["smoothness"] = smoothness_loss(score, batch.frames[batch.target])
    return losses
