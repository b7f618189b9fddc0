"""The engine `mamba_ssm`: the CUDA scan of the package mamba_ssm, where it was built.

Never required: the package's default build has no Mamba-1 scan any more. Its scan takes no initial
state and gives the last state no gradient, so it is chosen only where neither is wanted.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

MAX_STATE = 256  # of its kernel


@cache
def compiled_scan() -> Callable | None:
    """`selective_scan_fn` of mamba_ssm if its kernel can be loaded, else None."""
    try:
        import selective_scan_cuda  # noqa: F401
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except (ImportError, OSError):  # not installed, built without the scan, or for another torch
        return None
    return selective_scan_fn


def fits(x: Tensor, A: Tensor, h0: Tensor | None, return_state: bool) -> bool:
    """Whether the compiled scan exists and can do this call."""
    wants_gradient = torch.is_grad_enabled()
    return (
        x.device.type == "cuda"
        and x.dtype != torch.float64
        and h0 is None
        and not (return_state and wants_gradient)
        and A.shape[1] <= MAX_STATE
        and compiled_scan() is not None
    )


def cuda_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N), which carries no gradient."""
    scan = compiled_scan()
    if scan is None:
        raise ValueError("backend 'mamba_ssm': its compiled scan is not installed; use 'auto'")
    if h0 is not None:
        raise ValueError("backend 'mamba_ssm' takes no initial state; use 'auto'")
    # It wants time last: (B, D, L) and (B, N, L).
    sequences = [None if t is None else t.transpose(1, 2) for t in (x, dt, B, C, z)]
    if reverse:
        sequences = [None if t is None else t.flip(2) for t in sequences]
    u, step, b, c, gate = (None if t is None else t.contiguous() for t in sequences)
    y, state = scan(u, step, A, b, c, D=D, z=gate, return_last_state=True)
    y = (y.flip(2) if reverse else y).transpose(1, 2)
    return y, state.detach()
