"""A step of training never makes the CPU wait for the device.

Reading a number (`float(tensor)`, `if tensor:`) and operations whose shape depends on values
(boolean indexing, `nonzero`) stop the CPU until a GPU has finished. They show on a CPU as well, as
calls of the operators below, so this needs no GPU.
"""

import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.configs import model_names
from model.cost import conversation
from model.registry import build
from training.optim import MovingAverage, make_optimiser
from training.resume import State
from training.settings import parse
from training.train import optimise, read_losses

DIMS = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
# cuDNN takes the lengths of packed sequences from the CPU (a baseline only).
ALLOWED = ("model/layers/recurrent.py",)
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "unique2", "equal"} | {
    "is_nonzero"
}


class Waits(TorchDispatchMode):
    """Notes every operator that would wait for a GPU, with the line that called it."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        boolean = name in ("index", "index_put", "index_put_") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1]
        )
        if name in WAITS or boolean:
            stack = traceback.extract_stack()[:-1]
            if not any(
                "torch/optim" in f.filename for f in stack
            ):  # its step counts lie on the CPU
                ours = [f for f in stack if "site-packages" not in f.filename]
                if not ours[-1].filename.endswith(ALLOWED):
                    self.seen.append(f"{name} at {ours[-1].filename}:{ours[-1].lineno}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def state_of():
    def make(name: str, precision: str = "fp32"):
        settings = parse(
            {"model": {"name": name}, "training": {"precision": precision}, "preset": "demo"}
        )
        torch.manual_seed(0)
        model = build(settings, DIMS, ("noxi",) if settings.model.prompts else ())
        state = State(model, MovingAverage(model, 0.9), make_optimiser(model, settings.training))
        return state, settings

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(set(model_names()) - {"constant"}))
def test_a_step_reads_nothing_from_the_device(state_of, name, precision):
    state, settings = state_of(name, precision)
    batch = conversation(DIMS, 4, 2, settings.training.window)
    optimise(state, batch, settings, 1e-3)  # the first step makes what is kept
    with Waits() as waits:
        optimise(state, batch, settings, 1e-3)
    assert waits.seen == []


def test_the_probe_sees_what_waits():
    x = torch.arange(4.0)
    with Waits() as waits:
        float(x[0])
        x[x > 1]
        bool((x > 1).any())
    assert len(waits.seen) == 3, waits.seen


def test_losses_read_together_are_those_read_step_by_step(state_of):
    """Bit by bit, whatever is read when."""
    sums = []
    for every in (1, 3, 7):
        state, settings = state_of("da_mamba")
        torch.manual_seed(1)
        for step in range(7):
            batch = conversation(DIMS, 4, 2, settings.training.window)
            optimise(state, batch, settings, 1e-3)
            if (step + 1) % every == 0:
                read_losses(state)
        read_losses(state)
        assert state.unread == []
        sums.append(state.sums)
    assert sums[0] == sums[1] == sums[2]
    assert all(isinstance(v, float) for v in sums[0].values())
