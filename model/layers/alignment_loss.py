"""InfoNCE between two groups of streams: L_align of arXiv 2509.17711, `temperature` is its tau."""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.layers.blockwise import in_blocks
from model.layers.global_batch import mean
from model.precision import full_precision


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
