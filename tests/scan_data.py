"""Random inputs of the scans and their gradients, shared by the scan tests."""

import torch
from torch import Tensor

from model.scan import selective_scan


def scan_inputs(B=2, L=11, D=3, N=4, dtype=torch.float64, seed=0) -> dict[str, Tensor]:
    """All inputs of `selective_scan`, drawn in float64 and rounded to `dtype`."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return {
        "x": normal(B, L, D),
        "dt": torch.nn.functional.softplus(normal(B, L, D)),
        "A": -normal(D, N).abs() - 0.1,
        "B": normal(B, L, N),
        "C": normal(B, L, N),
        "D": normal(D),
        "z": normal(B, L, D),
        "h0": normal(B, D, N),
    }


def results(backend: str, tensors: dict[str, Tensor], reverse=False) -> dict[str, Tensor]:
    """y, the last state and the gradient of every input, under a fixed weighting of both outputs."""
    leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    y, state = selective_scan(**leaves, reverse=reverse, return_state=True, backend=backend)
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(y)
    ((y * weight).sum() + (state**2).sum()).backward()
    out = {"y": y.detach(), "state": state.detach()}
    return out | {f"d{name}": t.grad for name, t in leaves.items()}


def error(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|."""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def part(tensors: dict[str, Tensor], frames: slice) -> dict[str, Tensor]:
    """Some frames of every sequence among the inputs."""
    sequences = ("x", "dt", "B", "C", "z")
    return {k: v[:, frames] if k in sequences else v for k, v in tensors.items()}
