"""The Triton kernels on a CPU: their numbers in the interpreter, their compilation for a GPU.

Both run in processes of their own: Triton reads TRITON_INTERPRET when it is imported.
"""

import importlib.util
import json
import os
import subprocess
import sys
import types

import pytest
import torch

from model import scan
from model.scan import gated_scan, selective_scan, triton_engine
from tests.scan_data import error, results, scan_inputs

torch.set_num_threads(1)  # small tensors: threads only wait for each other

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is not installed"
)

NUMBERS = """
import itertools, json, torch
from model.scan import gated_scan, selective_scan
from tests.scan_data import error, part, results, scan_inputs
torch.set_num_threads(1)
found = {}
for length, width, states, reverse in [
    (1, 3, 4, False), (2, 33, 3, True), (16, 5, 4, False), (33, 40, 5, True)
]:
    t = scan_inputs(1, length, width, states, torch.float32)
    want = results("reference", {k: v.double() for k, v in t.items()}, reverse)
    for dtype in (torch.float32, torch.float64):
        got = results("triton", {k: v.to(dtype) for k, v in t.items()}, reverse)
        for name in want:
            found[f"{dtype} {length} {width} {reverse} {name}"] = error(got[name], want[name])
t = {k: v for k, v in scan_inputs(L=5).items() if k not in ("D", "z", "h0")}
want, got = results("reference", t), results("triton", t)
found |= {f"float64 plain {name}": error(got[name], want[name]) for name in want}
t = scan_inputs(L=21)
whole = selective_scan(**t, backend="triton")
first, state = selective_scan(**part(t, slice(0, 9)), return_state=True, backend="triton")
second = selective_scan(**(part(t, slice(9, None)) | {"h0": state}), backend="triton")
found["float64 halves"] = error(torch.cat([first, second], 1), whole)
low = {k: v.bfloat16() for k, v in scan_inputs(L=5).items()}
y = selective_scan(**low, backend="triton")
want = selective_scan(**{k: v.float() for k, v in low.items()}, backend="triton")
assert torch.equal(y, want.bfloat16())
for reverse in (False, True):
    gated = [t["x"].sigmoid().repeat(1, 1, 50), t["z"].repeat(1, 1, 50), t["h0"][:, :, 0].repeat(1, 50)]
    outcome = {}
    for backend in ("reference", "triton"):
        leaves = [v.clone().requires_grad_() for v in gated]
        states, last = gated_scan(*leaves, reverse=reverse, return_state=True, backend=backend)
        (states * torch.linspace(-1, 1, 150)).sum().add((last**2).sum()).backward()
        outcome[backend] = [states, last, *(v.grad for v in leaves)]
    for i, (a, b) in enumerate(zip(outcome["triton"], outcome["reference"])):
        found[f"float64 gated {reverse} {i}"] = error(a, b)
leaves = [v.requires_grad_() for v in scan_inputs(B=1, L=3, D=2, N=2).values()]
found["gradcheck"] = 0.0 if torch.autograd.gradcheck(
    lambda *a: selective_scan(*a, reverse=True, return_state=True, backend="triton"), leaves
) else 1.0
print(json.dumps(found))
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from model.scan import triton_kernels
options = dict(Q=16, REVERSE=True, SKIP=True, GATED=True, CHANNELS=32, STATES=16)
jobs = {
    "scan_forward": options | {"KEEP": True},
    "scan_backward": options,
    "gated_forward": {"WIDE": 128},
    "gated_backward": {"WIDE": 128},
}
for name, fixed in jobs.items():
    kernel = getattr(triton_kernels, name)
    kinds = {n: "i32" if n in ("batch", "L", "width", "N", "K") else "*fp32" for n in kernel.arg_names}
    kinds |= {n: "constexpr" for n in fixed}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=fixed)
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    print(name, len(binary.asm["ptx"]))
"""


def run(code: str, tmp_path, interpret: bool) -> str:
    """Standard output of `code` in a fresh interpreter."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_triton
def test_every_result_and_gradient_in_the_interpreter(tmp_path):
    found = json.loads(run(NUMBERS, tmp_path, interpret=True).splitlines()[-1])
    assert len(found) == 4 * 2 * 10 + 7 + 2 + 2 * 5
    for name, value in found.items():
        assert value <= (1e-12 if "float64" in name else 1e-5), name


@needs_triton
def test_the_kernels_compile_for_a_gpu_without_having_one(tmp_path):
    lines = run(COMPILE, tmp_path, interpret=False).splitlines()
    names = ["scan_forward", "scan_backward", "gated_forward", "gated_backward"]
    assert [line.split()[0] for line in lines] == names
    assert all(int(line.split()[1]) > 1000 for line in lines)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@needs_triton
@pytest.mark.parametrize("length, states", [(1, 4), (33, 16), (96, 16), (1000, 5), (40, 64)])
def test_on_a_gpu_against_the_float64_loop(length, states):
    t = scan_inputs(3, length, 70, states, torch.float32)
    expected = results("reference", {k: v.double() for k, v in t.items()})
    got = results("triton", {k: v.cuda() for k, v in t.items()})
    for name, want in expected.items():
        difference = (got[name].cpu().double() - want).abs().max() / want.abs().max()
        assert difference <= 1e-5, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@needs_triton
def test_gated_scan_on_a_gpu():
    t = scan_inputs(2, 70, 300, dtype=torch.float32)
    a, b = t["x"].sigmoid(), t["z"]
    expected = gated_scan(a.double(), b.double(), backend="reference")
    got = gated_scan(a.cuda(), b.cuda(), backend="triton").cpu()
    assert error(got, expected) <= 1e-5


def test_auto_takes_it_on_a_gpu_and_only_there(monkeypatch):
    tensor = types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    A = torch.zeros(4, 16)
    monkeypatch.setattr(triton_engine, "available", lambda: True)
    assert scan._choose(tensor, A, torch.zeros(1, 4, 16), True) == "triton"
    assert scan._choose(tensor, torch.zeros(4, 300), None, False) == "torch"
    assert scan._choose(torch.zeros(1, 2, 4), A, None, False) == "native"
    assert scan._choose_gated(tensor) == "triton"
    assert scan._choose_gated(torch.zeros(1, 2, 4)) == "native"
    monkeypatch.setattr(triton_engine, "available", lambda: False)
    assert scan._choose(tensor, A, None, False) == "torch"
    assert scan._choose_gated(tensor) == "torch"


def test_asked_for_where_it_cannot_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_engine, "available", lambda: True)
    with pytest.raises(ValueError, match="needs a GPU"):
        selective_scan(**scan_inputs(), backend="triton")
    monkeypatch.setattr(triton_engine, "available", lambda: False)
    with pytest.raises(ValueError, match="not installed"):
        selective_scan(**scan_inputs(), backend="triton")
