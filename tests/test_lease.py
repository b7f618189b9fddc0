"""One job per GPU: fake devices (the variable GPUS), real processes, locks and kill -9."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.chunks import plan
from extractors.halving import Halving
from extractors.wav2vec2 import encode_chunks
from runtime import InputError, lease
from runtime.gpus import gpus_visible, visible

ROOT = Path(__file__).resolve().parent.parent
CLEAN = ("CUDA_VISIBLE_DEVICES", "GPUS", lease.HELD, lease.RANK, *lease.SCHEDULERS)
HOLDER = """
import os, sys, time
from runtime.lease import lease_gpu
device = lease_gpu(0.05)
print(device, os.environ.get("CUDA_VISIBLE_DEVICES"), "torch" in sys.modules, flush=True)
if "fork" in sys.argv:
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
time.sleep(float(sys.argv[1]))
"""


def environment(folder, **extra) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in CLEAN}
    return kept | {"GPU_LEASE_DIR": str(folder), "PYTHONPATH": str(ROOT)} | extra


@pytest.fixture
def start(tmp_path):
    """Start a process that asks for a GPU and holds it for some seconds."""
    running = []

    def run(seconds=30, *words, **extra):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(seconds), *words],
            env=environment(tmp_path / "leases", **extra), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()


def answer(process) -> list[str]:
    return process.stdout.readline().split()


def waits(process, seconds=0.6) -> bool:
    import select

    return not select.select([process.stdout], [], [], seconds)[0]


def test_every_process_gets_a_gpu_of_its_own_and_sees_no_other(start):
    holders = [start(GPUS="2") for _ in range(2)]
    answers = [answer(p) for p in holders]
    assert {a[0] for a in answers} == {"0", "1"}
    assert all(a[0] == a[1] for a in answers)
    assert all(a[2] == "False" for a in answers), "torch is not needed for a lease"


@pytest.mark.parametrize("forked", [(), ("fork",)])
def test_a_killed_holder_gives_its_gpu_to_one_of_those_who_wait(start, forked):
    """kill -9; children that outlive the holder (loader processes) keep nothing."""
    first = start(30, *forked, GPUS="1")
    assert answer(first)[0] == "0"
    waiting = [start(GPUS="1") for _ in range(2)]
    assert all(waits(p) for p in waiting)
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 5
    while time.monotonic() < end and all(waits(p, 0.05) for p in waiting):
        pass
    got = [p for p in waiting if not waits(p, 0.05)]
    assert len(got) == 1 and answer(got[0])[0] == "0"
    assert waits(next(p for p in waiting if p is not got[0])), "one GPU, one holder"


def test_a_gpu_is_free_again_after_its_holder_ends(start):
    assert answer(start(0, GPUS="1"))[0] == "0"
    assert answer(start(GPUS="1"))[0] == "0"


@pytest.mark.parametrize(
    "extra",
    [
        {"GPUS": "0"},
        {"GPUS": "2", "CUDA_VISIBLE_DEVICES": ""},
        {"GPUS": "2", "CUDA_VISIBLE_DEVICES": "-1"},
        {"GPUS": "2", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"},
        {"GPUS": "2", "SLURM_JOB_GPUS": "1"},
        {"GPUS": "2", "SLURM_JOB_ID": "7"},
        {"GPUS": "2", "LOCAL_RANK": "1", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"},
        {"GPUS": "2", "GPU_LEASE": "1", "CUDA_VISIBLE_DEVICES": "1"},
    ],
    ids=lambda e: " ".join(f"{k}={v}" for k, v in e.items()),
)
def test_nothing_is_leased_without_gpus_under_a_scheduler_or_below_a_holder(start, tmp_path, extra):
    before = extra.get("CUDA_VISIBLE_DEVICES", "None")
    out = start(0, **extra).communicate()[0]
    assert out.split(" ")[0] == "None" and out.split(" ")[1] == before
    assert "True" not in out, "no torch"
    assert not (tmp_path / "leases").exists(), "no lock"


def test_a_users_own_choice_of_gpus_is_shared_out(start):
    """CUDA_VISIBLE_DEVICES=3,5 in the shell: these two, one job each."""
    holders = [start(CUDA_VISIBLE_DEVICES="3,GPU-1a/../x") for _ in range(2)]
    assert {answer(p)[0] for p in holders} == {"3", "GPU-1a/../x"}
    assert waits(start(CUDA_VISIBLE_DEVICES="3,GPU-1a/../x"))


def test_devices_that_one_job_of_a_scheduler_has_are_shared_out_within_it(start):
    """Snakemake inside a job with two GPUs; a job beside it has two of its own of the same names."""
    inside = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}
    holders = [start(**inside) for _ in range(2)]
    assert {answer(p)[0] for p in holders} == {"0", "1"}
    assert waits(start(**inside))
    assert answer(start(**inside | {"SLURM_JOB_ID": "8"})) == ["0", "0", "False"]


@pytest.mark.parametrize(
    "stated, expected",
    [("0,0", ["0"]), ("2, 1", ["2", "1"]), ("0,-1,1", ["0"]), ("MIG-a/1/0,MIG-b", ["MIG-a/1/0", "MIG-b"])],
)  # fmt: skip
def test_devices_are_read_as_cuda_reads_them(monkeypatch, stated, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", stated)
    assert visible() == expected


def test_a_folder_that_takes_no_locks_is_an_error_and_not_a_wait(tmp_path, monkeypatch):
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUS", "1")
    monkeypatch.setenv("GPU_LEASE_DIR", "/proc/none")
    with pytest.raises(InputError, match="no GPU can be leased in /proc/none"):
        lease.lease_gpu()

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("GPU_LEASE_DIR", str(tmp_path / "nfs"))
    monkeypatch.setattr("fcntl.lockf", no_locks)
    with pytest.raises(InputError, match="No locks available"):
        lease.lease_gpu()


def test_the_lease_comes_before_torch_looks_for_devices(tmp_path):
    code = (
        "import os, torch\nfrom runtime.device import pick_device\n"
        "asked = []\nreal = torch.cuda.is_available\n"
        "torch.cuda.is_available = lambda: asked.append(os.environ.get('CUDA_VISIBLE_DEVICES')) or real()\n"
        "pick_device(); pick_device()\nprint(asked)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path / "l", GPUS="2"), capture_output=True, text=True
    )  # fmt: skip
    assert done.stdout.strip() == "['0', '0']", done.stderr


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("GPU_LEASE_DIR", str(tmp_path / "link"))
    with pytest.raises(InputError, match="not a folder of yours"):
        lease.folder()


def test_gpus_are_counted(monkeypatch):
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUS", "4")
    assert gpus_visible() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert gpus_visible() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_visible() == 0


JOB = """
import json, os, sys, time
from runtime.lease import lease_gpu
device = lease_gpu(0.05)
begin = time.time()
time.sleep(0.5)
json.dump([device, begin, time.time()], open(sys.argv[1], "w"))
"""
SNAKEFILE = """
import sys
sys.path.insert(0, {root!r})
from workflow.environment import one_job_per_gpu
rule all:
    input: expand("{{i}}.json", i=range(6)), expand("{{i}}.cpu", i=range(6))
rule job:
    output: "{{i}}.json"
    resources: gpu=1
    shell: "{python} job.py {{output}}"
rule cpu:
    output: "{{i}}.cpu"
    shell: "touch {{output}}"
onstart: one_job_per_gpu(workflow)
"""


@pytest.mark.parametrize("gpus", [1, 2])
def test_sixteen_cores_and_two_gpus_neither_collide_nor_idle(tmp_path, gpus):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(root=str(ROOT), python=sys.executable))
    (tmp_path / "job.py").write_text(JOB)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "16", "--workflow-profile", "none", "--scheduler", "greedy"],
        cwd=tmp_path, env=environment(tmp_path / "l", GPUS=str(gpus)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    times = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(6)]
    events = sorted([(begin, 1) for _, begin, _ in times] + [(end, -1) for *_, end in times])
    level, most = 0, 0
    for _, step in events:
        level += step
        most = max(most, level)
    assert most == gpus, "as many at a time as there are GPUs"
    assert {d for d, *_ in times} == {str(i) for i in range(gpus)}
    for device in range(gpus):
        own = sorted(t[1:] for t in times if t[0] == str(device))
        assert all(a[1] <= b[0] for a, b in zip(own, own[1:], strict=False)), "two jobs on one GPU"


# ---- out of memory ----


def limited(most: int, calls: list[int]):
    def function(batch):
        calls.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return batch * 2.0

    return function


def test_a_batch_that_does_not_fit_is_halved_and_said(caplog):
    calls: list[int] = []
    run = Halving(limited(5, calls), "pictures")
    batch = np.arange(32.0).reshape(16, 2)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(run(batch), batch * 2)
        np.testing.assert_array_equal(run(batch[:7]), batch[:7] * 2)
    assert calls == [16, 8, 4, 4, 4, 4, 4, 3]
    assert [r.message for r in caplog.records] == [
        "out of memory: going on with 8 pictures at a time",
        "out of memory: going on with 4 pictures at a time",
    ]


def test_one_item_that_does_not_fit_is_an_error_and_other_errors_pass():
    with pytest.raises(InputError, match="one of the chunks alone"):
        Halving(limited(0, []), "chunks")(np.zeros((3, 2)))

    def broken(batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Halving(broken, "chunks")(np.zeros((3, 2)))


class FakeEncoder:
    stride, receptive, n_samples, dim = 4, 4, 4 * 1000, 2

    def __init__(self, most):
        self.most, self.calls = most, []

    def __call__(self, chunks):
        self.calls.append(len(chunks))
        if len(chunks) > self.most:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
                if len(self.calls) == 1
                else "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            )
        return np.stack([c.reshape(-1, 4)[:, :2] for c in chunks])


def test_an_extraction_gives_the_same_rows_with_halved_batches():
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    whole, halved = FakeEncoder(8), FakeEncoder(3)
    rows = [
        np.concatenate(list(encode_chunks(e, [samples], plan(1000, 100, 10), 8)))
        for e in (whole, halved)
    ]
    np.testing.assert_array_equal(*rows)
    assert (
        len(rows[0]) == 1000 and max(whole.calls) == 8 and 4 in halved.calls and 2 in halved.calls
    )
