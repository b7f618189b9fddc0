"""bf16 autocast, and what stays in fp32 inside it.

Under autocast matrix products and convolutions run in bf16 (8 bits of mantissa), everything
elementwise in the type it is given. In fp32 stay: normalisation of the inputs, the scan with its
state, the step Delta (its softplus turns the rounding of a bf16 bias of -5 into 1.5 % of the step),
scores in label units, and all losses.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Context of a forward pass; precision: `training.precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: without autocast, with half-precision tensors among the arguments as fp32."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            kwargs = {name: _widen(value) for name, value in kwargs.items()}
            return function(*map(_widen, args), **kwargs)

    return run


def _widen(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
