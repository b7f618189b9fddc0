"""Attention-like computations over long windows without keeping all pairs of frames.

What a block of queries needs is computed again in the backward pass, so memory grows with the length
and no longer with its square; the time still does. Short windows are one block and nothing is
computed twice.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Pairs of frames of one window that are kept at once: a window of 512 frames and one partner.
PAIRS = 512 * 512


def in_blocks(function: Callable[[slice], Tensor], length: int, others: int, dim: int) -> Tensor:
    """Concatenate `function(block)` along `dim` over blocks of `length` queries.

    function : slice of queries -> result for them, the same whatever the block; others : frames that
    each query is compared with.
    """
    if length * others <= PAIRS:
        return function(slice(0, length))
    block = max(1, PAIRS // others)
    parts = []
    for start in range(0, length, block):
        rows = slice(start, min(start + block, length))
        if torch.is_grad_enabled():
            part = checkpoint(function, rows, use_reentrant=False, preserve_rng_state=False)
        else:
            part = function(rows)
        parts.append(part)
    return torch.cat(parts, dim=dim)
