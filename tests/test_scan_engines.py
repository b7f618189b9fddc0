"""Which engine runs, on how many threads, from which cache."""

import logging
import subprocess
import sys
import types

import pytest
import torch

from model import scan
from model.scan import compiled_cuda, compiling, gated_scan, native, selective_scan
from tests.scan_data import error, results, scan_inputs


@pytest.fixture
def threads():
    """Set torch's threads inside a test; one again afterwards."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def test_auto_takes_the_compiled_kernel_on_the_cpu_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(scan, "_logged", set())
    t = scan_inputs(dtype=torch.float32)
    with caplog.at_level(logging.INFO):
        first = selective_scan(**t)
        selective_scan(**t)
        gated_scan(t["x"], t["z"])
    assert [r.message for r in caplog.records] == [
        "selective scan engine native (cpu, float32)",
        "gated scan engine native (cpu, float32)",
    ]
    assert torch.equal(first, selective_scan(**t, backend="native"))


def test_auto_without_numba_is_torch(monkeypatch, caplog):
    monkeypatch.setattr(scan, "_logged", set())
    monkeypatch.setattr(native, "available", lambda: False)
    t = scan_inputs()
    with caplog.at_level(logging.INFO):
        got = selective_scan(**t)
        gated_scan(t["x"], t["z"])
    assert ["engine torch" in r.message for r in caplog.records] == [True, True]
    assert torch.equal(got, selective_scan(**t, backend="torch"))


def fake_mamba_ssm(monkeypatch):
    """A package that looks like mamba_ssm with its compiled scan, and counts its calls."""
    calls = []

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, return_last_state=False):
        calls.append(tuple(u.shape))
        back = [None if t is None else t.transpose(1, 2) for t in (u, delta, B, C, z)]
        x, dt, b, c, gate = back
        y, state = selective_scan(x, dt, A, b, c, D, gate, return_state=True, backend="reference")
        return (y.transpose(1, 2), state) if return_last_state else y.transpose(1, 2)

    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    modules = {
        "selective_scan_cuda": types.ModuleType("selective_scan_cuda"),
        "mamba_ssm": types.ModuleType("mamba_ssm"),
        "mamba_ssm.ops": types.ModuleType("mamba_ssm.ops"),
        "mamba_ssm.ops.selective_scan_interface": interface,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    compiled_cuda.compiled_scan.cache_clear()
    return calls


@pytest.fixture
def forget_mamba_ssm():
    yield
    compiled_cuda.compiled_scan.cache_clear()


def cuda_tensor(dtype=torch.float32):
    """What the choice looks at, without a GPU."""
    return types.SimpleNamespace(device=torch.device("cuda"), dtype=dtype)


def test_mamba_ssm_is_chosen_only_where_it_can_do_the_call(monkeypatch, forget_mamba_ssm):
    A, h0 = torch.zeros(4, 16), torch.zeros(1, 4, 16)
    choose = scan._choose
    without = choose(cuda_tensor(), A, None, False)
    assert without != "mamba_ssm"
    fake_mamba_ssm(monkeypatch)
    assert choose(cuda_tensor(), A, None, False) == "mamba_ssm"
    assert choose(cuda_tensor(torch.bfloat16), A, None, False) == "mamba_ssm"
    assert choose(cuda_tensor(torch.float64), A, None, False) != "mamba_ssm"
    assert choose(cuda_tensor(), A, h0, False) != "mamba_ssm"
    assert choose(cuda_tensor(), torch.zeros(4, 300), None, False) != "mamba_ssm"
    assert choose(cuda_tensor(), A, None, True) != "mamba_ssm"  # the state has no gradient there
    with torch.no_grad():
        assert choose(cuda_tensor(), A, None, True) == "mamba_ssm"
    assert choose(torch.zeros(1, 2, 4), A, None, False) == "native"


@pytest.mark.parametrize("reverse", [False, True])
def test_mamba_ssm_gets_its_layout_and_order(monkeypatch, forget_mamba_ssm, reverse):
    calls = fake_mamba_ssm(monkeypatch)
    t = {k: v for k, v in scan_inputs(L=9, D=5).items() if k != "h0"}
    got, state = selective_scan(**t, reverse=reverse, return_state=True, backend="mamba_ssm")
    expected, last = selective_scan(**t, reverse=reverse, return_state=True, backend="reference")
    assert calls == [(2, 5, 9)]
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(state, last)
    with pytest.raises(ValueError, match="no initial state"):
        selective_scan(**t, h0=torch.zeros(2, 5, 4), backend="mamba_ssm")


def test_mamba_ssm_asked_for_but_absent(monkeypatch, forget_mamba_ssm):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    compiled_cuda.compiled_scan.cache_clear()
    with pytest.raises(ValueError, match="not installed"):
        selective_scan(**(scan_inputs() | {"h0": None}), backend="mamba_ssm")


def test_without_a_backward_pass_no_states_are_kept(monkeypatch):
    kept = []
    run = native._run

    def spy(kernel, arrays, *rest):
        kept.append(arrays[8].size)
        run(kernel, arrays, *rest)

    monkeypatch.setattr(native, "_run", spy)
    t = scan_inputs(2, 40, 32, 4, torch.float32)
    t["D"].requires_grad_()  # a parameter; inference runs under no_grad
    selective_scan(**t, backend="native")
    with torch.no_grad():
        selective_scan(**t, backend="native")
    selective_scan(**(t | {"D": t["D"].detach()}), backend="native")
    assert kept == [2 * 3 * 32 * 4, 0, 0]  # batch, pieces of 16 frames, channels, states


@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_bytes_whatever_the_threads(threads, batch):
    t = scan_inputs(batch, 192, 96, 16, torch.float32)
    assert t["x"].numel() * 16 > native.SERIAL_WORK  # otherwise one thread does it all
    threads(1)
    expected = results("native", t)
    for count in (2, 3, 2):
        threads(count)
        for name, tensor in results("native", t).items():
            assert torch.equal(tensor, expected[name]), name
    assert error(results("torch", t)["dB"], expected["dB"]) <= 1e-5
    a, b = t["x"].sigmoid().repeat(1, 20, 1), t["z"].repeat(1, 20, 1)
    two = gated_scan(a, b, backend="native")
    threads(1)
    assert torch.equal(two, gated_scan(a, b, backend="native"))


def test_as_many_threads_as_torch_may_use(threads, monkeypatch):
    asked = []
    pool = native._pool
    monkeypatch.setattr(native, "_pool", lambda n: asked.append(n) or pool(n))
    t = scan_inputs(3, 192, 96, 16, torch.float32)
    threads(1)
    selective_scan(**t, backend="native")
    assert asked == []
    threads(3)
    selective_scan(**t, backend="native")
    assert asked == [2, 2]  # the caller is the third
    asked.clear()
    selective_scan(**scan_inputs(dtype=torch.float32), backend="native")
    assert asked == []  # too little to do


def test_kernels_are_compiled_without_a_place_for_the_cache(monkeypatch):
    real = compiling.njit

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(compiling, "njit", njit)
    assert compiling.compiled(lambda a: a + 1)(2) == 3


CHILD = """
import os, torch
torch.set_num_threads(2)
from model.scan import native_kernels
from tests.scan_data import error, results, scan_inputs
t = scan_inputs(4, 192, 96, 16, torch.float32)
got, want = results("native", t), results("torch", t)
assert max(error(got[k], want[k]) for k in want) < 1e-5
hits = native_kernels.scan_forward_32.stats.cache_hits
print("hits", sum(hits.values()))
expected = got["y"].numpy()
child = os.fork()  # a data loader's worker: the parent's threads are gone there
if child == 0:
    torch.set_num_threads(2)
    from model.scan import selective_scan
    y = selective_scan(**t, backend="native")
    # numpy compares: torch's own threads do not survive a fork either
    os._exit(0 if (y.numpy() == expected).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_processes_that_compile_at_once_then_one_that_need_not(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def start():
        return subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)

    first = [start(), start()]
    outputs = [p.communicate(timeout=60)[0] for p in first]
    assert [p.returncode for p in first] == [0, 0], outputs
    third = start()
    assert third.communicate(timeout=60)[0].strip() == "hits 1" and third.returncode == 0
