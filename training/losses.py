"""Losses: of the score over the labelled frames of a batch, and InfoNCE between two groups.

Glossary (code name: symbol in arXiv 2509.17711)
    ccc_loss: L_CCC = 1 - CCC   alignment_loss: L_align (symmetric InfoNCE)   temperature: tau
All of them are finite, with finite gradients, for constant input, one frame, or no frame at all.
They are fp32 under autocast, and of the global batch in data-parallel training (training.distributed).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.batch import Batch
from model.layers.blockwise import in_blocks
from model.precision import full_precision
from training.config import TrainingConfig
from training.distributed import mean, total

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
    that hold parts of the frames (training.distributed), for frames that lie apart.
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


@full_precision
def alignment_loss(a: Tensor, b: Tensor, mask: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric frame-wise InfoNCE within each window.

    a, b : (B, L, E) embeddings of the two groups; mask : (B, L) frames that count.
    Positive: the same frame of the other group. Negatives: the other valid frames of the window.
    Returns the mean of both directions over all valid frames (0 when there is none).
    """
    a, b = F.normalize(a, dim=-1, eps=1e-6), F.normalize(b, dim=-1, eps=1e-6)  # (B, L, E)
    outside = torch.finfo(a.dtype).min / 2  # finite: a fully masked row keeps finite gradients

    def log_total(x: Tensor, y: Tensor) -> Tensor:
        """(B, L) log of the sum over the valid frames of y, for every frame of x."""

        def of(rows: slice) -> Tensor:
            logits = torch.matmul(x[:, rows], y.transpose(1, 2)) / temperature  # (B, l, L)
            return logits.masked_fill(~mask.unsqueeze(1), outside).logsumexp(2)  # (B, l)

        return in_blocks(of, x.shape[1], y.shape[1], dim=1)

    positive = (a * b).sum(-1) / temperature  # (B, L)
    both = positive - (log_total(a, b) + log_total(b, a)) / 2  # (B, L)
    return -mean(torch.where(mask, both, 0.0).sum(), mask.sum())
