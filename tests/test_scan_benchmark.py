"""The scan benchmark: what it counts, what it refuses, how it times a GPU."""

import pytest
import torch

from benchmarks import scan as bench
from model.scan import selective_scan
from runtime import InputError

torch.set_num_threads(1)
SMALL = ["--batch", "2", "--length", "12", "--width", "32", "--state", "4", "--repeats", "1"]


def arguments(*more):
    return bench.build_parser().parse_args([*SMALL, *more])


@pytest.mark.parametrize("gate", [False, True])
def test_bytes_are_those_of_the_tensors_that_autograd_sees(gate):
    """Each sequence once: inputs and output forward; inputs, gradients in and out backward."""
    shape = (2, 12, 32, 4)
    leaves = bench.inputs(*shape, gate)
    sequences = [t.requires_grad_() for t in leaves if t is not None and t.ndim == 3]  # no A, no D
    y = selective_scan(*leaves, backend="torch")
    forward = sum(t.nbytes for t in [*sequences, y])
    y.backward(torch.ones_like(y))
    backward = sum(t.nbytes + t.grad.nbytes for t in sequences) + y.nbytes
    assert bench.least_bytes(shape, True, gate) == forward
    assert bench.least_bytes(shape, False, gate) == forward + backward


def test_rows_by_device(monkeypatch):
    assert bench.rows_of("cpu", None) == (list(bench.ROWS["cpu"]), [])
    with pytest.raises(InputError, match="triton does not run on cpu"):
        bench.rows_of("cpu", ["triton"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU"):
        bench.rows_of("cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench.triton_engine, "available", lambda: True)
    monkeypatch.setattr(bench, "compiled_scan", lambda: None)
    assert bench.rows_of("cuda", None) == (["reference", "torch", "triton"], ["mamba_ssm"])
    with pytest.raises(InputError, match="mamba_ssm: it is not installed"):
        bench.rows_of("cuda", ["torch", "mamba_ssm"])
    with pytest.raises(InputError, match="native does not run on cuda"):
        bench.rows_of("cuda", ["native"])
    monkeypatch.setattr(bench, "compiled_scan", lambda: print)
    assert bench.rows_of("cuda", ["triton", "mamba_ssm"]) == (["triton", "mamba_ssm"], [])


def test_a_refused_device_is_one_error_on_screen(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main([*SMALL, "--device", "cuda"]) == 1
    screen = capsys.readouterr().err
    assert "cure:" in screen and "Traceback" not in screen
    with pytest.raises(SystemExit):
        bench.main(["--device", "tpu"])


def test_a_gpu_is_timed_by_events(monkeypatch):
    """Milliseconds between two events over `INNER` runs, the best of the repeats, in seconds."""
    runs, at = [], []
    length = iter([7.0, 5.0, 9.0])  # ms of one run, per repeat

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            at.append(len(runs))

        def synchronize(self):
            at.append("synchronised")

        def elapsed_time(self, end):
            assert at[-1] == "synchronised" and at[-2] - at[-3] == bench.INNER
            return bench.INNER * next(length)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert bench.seconds_of(lambda: runs.append(1), "cuda", 3) == pytest.approx(5e-3)
    assert len(runs) == 3 * bench.INNER


def test_shares_and_ratios_of_the_table():
    results = {
        "reference": {"seconds": 0.4, "megabytes": 100.0},
        "triton": {"seconds": 0.01, "megabytes": 25.0},
        "mamba_ssm": {"seconds": 0.02, "megabytes": 0.0},
    }
    lines = bench.table(results, bytes_moved=10**9, bytes_per_s=4e11)
    assert lines[0].split()[-1] == "mamba_ssm"
    assert lines[2].split() == ["triton", "10.000", "40.00x", "25", "0.25", "25.0%", "2.00x"]
    assert lines[3].split()[-1] == "1.00x"
    del results["mamba_ssm"]
    assert "mamba_ssm" not in bench.table(results, 10**9, 4e11)[0]


def test_rows_that_differ_are_an_error():
    bench.check_equal({"a": {"checksums": [1.0, 2.0]}, "b": {"checksums": [1.00001, 2.0]}})
    for wrong in (1.001, float("nan")):
        with pytest.raises(RuntimeError, match="b computes something else"):
            bench.check_equal({"a": {"checksums": [1.0]}, "b": {"checksums": [wrong]}})


@pytest.mark.parametrize("more", [("--gate",), ("--forward",), ()])
def test_engines_and_packages_compute_the_same(more):
    """Rows measured in this process, with and without skip and gate."""
    found = {}
    for row in ("reference", "torch", "native", "mambapy"):
        found[row] = bench.measure(arguments("--one", row, *more))
        assert found[row]["seconds"] > 0
    bench.check_equal(found)
    assert len(found["torch"]["checksums"]) == (1 if more == ("--forward",) else 6 + 2 * len(more))


def test_the_cpu_goes_the_same_way(capsys):
    """A whole run: copy rate, rows in processes of their own, one line each."""
    assert bench.main([*SMALL, "--rows", "reference", "torch", "--forward"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "GB/s" in lines[1] and [x.split()[0] for x in lines[3:]] == ["reference", "torch"]
    assert all(x.endswith("%") for x in lines[3:])
