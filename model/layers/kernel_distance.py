"""Maximum mean discrepancy between two sets of tokens, with a Gaussian kernel.

Glossary (code name: symbol in AlignMamba, arXiv 2412.00833, eqs. 7-9)
    mmd: MMD^2, the biased estimate of eq. 8   variance: sigma^2 of the kernel, eq. 9
    x, y: the two sets   n_x, n_y: how many tokens count
"""

import math

import torch
from torch import Tensor

SAMPLE = 1 << 18  # distances the median is taken over; more are thinned evenly


def squared_distances(z: Tensor) -> Tensor:
    """All pairs of (..., T, d) -> (..., T, T), never negative."""
    square = (z * z).sum(-1)  # (..., T)
    product = torch.matmul(z, z.transpose(-1, -2))  # (..., T, T)
    return (square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * product).clamp(min=0)


def median_variance(distances: Tensor, pairs: Tensor) -> Tensor:
    """Half the median of the squared distances that count; a scalar without gradient.

    With it the kernel of a median pair is exp(-1), whatever the width of the tokens. distances and
    pairs (bool), (..., T, T) both. 1 where no pair counts.
    """
    step = max(1, distances.numel() // SAMPLE)
    while math.gcd(step, distances.shape[-1]) > 1:  # else it would meet few of the columns only
        step += 1
    thin = slice(None, None, step)
    values = torch.where(
        pairs.flatten()[thin], distances.detach().flatten()[thin], torch.nan
    )  # (n,)
    median = values.nanmedian()  # not a choice of values: their number would have to be waited for
    return torch.where(median.isnan(), 1.0, median.clamp(min=1e-6) / 2)


def mmd(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, sigma: float = 0.0
) -> tuple[Tensor, Tensor]:
    """MMD^2 of each pair of sets: x (..., I, d), y (..., J, d), masks (..., I), (..., J).

    sigma: bandwidth, 0 = median heuristic over all pairs of distinct tokens of the call. Returns (...)
    values, 0 where a set is empty, and (...) whether both sets have a token. Biased estimate:
    a token's kernel with itself counts, so the value is never negative.
    """
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        mask = torch.cat([x_mask, y_mask], dim=-1)  # (..., T), T = I + J
        z = torch.cat([x, y], dim=-2).to(dtype)  # (..., T, d)
        z = torch.where(mask.unsqueeze(-1), z, 0.0)
        n_x, n_y = x_mask.sum(-1), y_mask.sum(-1)  # (...)
        defined = (n_x > 0) & (n_y > 0)  # (...)
        distances = squared_distances(z)  # (..., T, T)
        if sigma:
            variance = distances.new_tensor(sigma**2)
        else:
            apart = ~torch.eye(z.shape[-2], dtype=torch.bool, device=z.device)  # (T, T)
            counts = mask & defined.unsqueeze(-1)  # (..., T)
            pairs = counts.unsqueeze(-1) & counts.unsqueeze(-2) & apart  # (..., T, T)
            variance = median_variance(distances, pairs)
        kernel = torch.exp(-distances / (2 * variance))  # (..., T, T)
        # The three means of eq. 8 at once: w^T K w with w = 1 / n_x on x and -1 / n_y on y.
        x_weight = x_mask.to(dtype) / n_x.clamp(min=1).unsqueeze(-1)  # (..., I)
        y_weight = y_mask.to(dtype) / n_y.clamp(min=1).unsqueeze(-1)  # (..., J)
        weight = torch.cat([x_weight, -y_weight], dim=-1)  # (..., T)
        value = torch.einsum("...i,...ij,...j->...", weight, kernel, weight)  # (...)
        return torch.where(defined, value, 0.0), defined
