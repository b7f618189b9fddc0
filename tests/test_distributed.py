"""Data-parallel training equals one process at the same global batch (2 gloo processes)."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from model_data import DIMS, DYAD, write_corpus, write_session

from model.checkpoint import load_tensors
from model.layers.alignment_loss import alignment_loss
from model.layers.global_batch import alone
from training import distributed
from training import statistics as statistics_module
from training import train as train_module
from training.losses import ccc_loss, cross_entropy_loss, mse_loss, smoothness_loss

torch.set_num_threads(1)
STEPS = 8
ROOT = Path(__file__).resolve().parents[1]
# Without dropout and noise; Adam divides rounding by itself where gradients vanish, hence the rate.
SETTINGS = {
    "preset": "demo",
    "features": list(DIMS),
    "model": {
        "d": 8, "heads": 2, "context_width": 8, "state": 4, "dropout": 0.0, "input_shift": 0.0,
    },
    "training": {
        "epochs": 2, "batch": 7, "learning_rate": 1e-3, "mse_weight": 0.5,
        "smoothness_weight": 1.0, "validate_every": 1,
    },
}  # fmt: skip


def be(rank: int, ports: list[int], *work) -> None:
    """What torchrun would make of process `rank` of two, for one work after the other."""
    torch.set_num_threads(1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for port, (function, *args) in zip(ports, work, strict=True):
        values = (rank, rank, 2, 2, "127.0.0.1", port)
        os.environ |= {name: str(value) for name, value in zip(names, values, strict=True)}
        function(*args)


def two(*work) -> None:
    """Each of `work`, (function, *args), in two processes."""
    sockets = [socket.socket() for _ in work]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    context = multiprocessing.spawn(be, (ports, *work), nprocs=2, join=False)
    end = time.monotonic() + 300
    while not context.join(timeout=1):  # also returns when the first has ended
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes wait for each other")


def joined_compare_losses() -> None:
    with distributed.processes():
        compare_losses()


def compare_losses() -> None:
    """Pooled losses and their gradients on unequal halves, against the whole on one process."""
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(2, 7, 12, generator=generator, dtype=torch.float64)
    mask = torch.rand(7, 12, generator=generator) < 0.7
    w = torch.randn(12, generator=generator, dtype=torch.float64).requires_grad_()
    other = torch.zeros(
        3, dtype=torch.float64, requires_grad=True
    )  # used by the second process only

    def loss(rows: slice) -> torch.Tensor:
        prediction = torch.tanh(x[rows] * w)
        pooled = ccc_loss(prediction, label[rows], mask[rows]) + mse_loss(
            prediction, label[rows], mask[rows]
        )
        pooled = pooled + smoothness_loss(prediction, mask[rows])
        logits = torch.stack([prediction, -2 * prediction, prediction**2], -1)
        pooled = pooled + cross_entropy_loss(logits, (label[rows] > 0).double(), mask[rows])
        embedded = torch.stack([prediction, prediction**2], -1)  # (B, 12, 2)
        pooled = pooled + alignment_loss(embedded, logits[..., 1:], mask[rows])
        of_window = (prediction**2).mean()  # a plain mean over windows
        return pooled + of_window

    with alone():
        whole = loss(slice(0, 7))
        (expected,) = torch.autograd.grad(whole, w)
    rank = distributed.rank()
    rows = (slice(0, 2), slice(2, 7))[rank]
    part = loss(rows)
    if rank:
        part = part + other.sum()
    (part * distributed.weight_of_share(rows.stop - rows.start)).backward()
    unused = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    distributed.average_gradients([w, other, unused])
    torch.testing.assert_close(w.grad, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(other.grad, torch.full((3,), 5 / 7, dtype=torch.float64))
    assert unused.grad is None
    assert distributed.gather(rank) == [0, 1] and distributed.first_says(rank == 0)


def test_pooled_losses_have_the_gradient_of_the_whole_batch(corpus, tmp_path, capfd):
    config = SETTINGS | {"training": SETTINGS["training"] | {"batch": 1}}
    small = arguments(corpus, tmp_path / "run", config)
    two((joined_compare_losses,), (too_small_a_batch, small))
    assert "cannot be shared among 2 processes" in capfd.readouterr().err
    assert not (tmp_path / "run/model.safetensors").exists()


def too_small_a_batch(argv: list[str]) -> None:
    assert train_module.main(argv) == 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_keep_the_targets_of_a_window_together(count):
    rng = np.random.default_rng(count)
    for _ in range(100):
        keys = np.repeat(np.arange(12), rng.integers(1, 5, 12))[: rng.integers(count, 30)]
        parts = distributed.shares(keys, count)
        assert np.concatenate([keys[p] for p in parts]).tolist() == keys.tolist()
        assert all(p.stop > p.start for p in parts)
        if len(set(keys)) >= count:
            assert sum(len(set(keys[p])) for p in parts) == len(set(keys))
            if len(set(keys)) >= 3 * count:
                assert max(p.stop - p.start for p in parts) <= len(keys) / count + 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two dyads and a group of three for training, two dyads for validation; statistics."""
    results = tmp_path_factory.mktemp("distributed")
    seats = ("subjectPos1", "subjectPos2", "subjectPos3")
    train = write_corpus(results, 2, 5.0)
    train.append(write_session(results, "mpiigi", "009", seats, 5.0, 1))
    val = [write_session(results, "noxi", f"10{i}", DYAD, 4.0, 1) for i in range(2)]
    argv = ["--sessions", *train, "--features", *DIMS, "--results", str(results)]
    out = results / "statistics.h5"
    assert statistics_module.main([*argv, "--out", str(out), "--log", str(out) + ".log"]) == 0
    return results, train, val


def arguments(corpus, folder, config=SETTINGS):
    results, train, val = corpus
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["--settings", json.dumps(config), "--train", *train, "--validate", *val]
    argv += ["--results", str(results), "--statistics", str(results / "statistics.h5")]
    argv += ["--seed", "3", "--run", "a", "--out", str(folder / "model.safetensors")]
    return [*argv, "--history", str(folder / "h.jsonl"), "--log", str(folder / "train.log")]


def outcome(folder):
    weights, _ = load_tensors(folder / "model.safetensors")
    return weights, [json.loads(line) for line in (folder / "h.jsonl").read_text().splitlines()]


def train_until(argv: list[str], interrupted: int, expected: int, steps: int) -> None:
    """Train, stopped before step `interrupted` + 1; `steps`: how many there must be."""
    optimise, calls = train_module.optimise, []

    def counted(*args):
        if len(calls) == interrupted:
            raise KeyboardInterrupt
        calls.append(1)
        optimise(*args)

    train_module.optimise = counted
    try:
        assert train_module.main(argv) == expected
    finally:
        train_module.optimise = optimise
    assert len(calls) == steps


def test_two_processes_resume_where_they_stopped(corpus, tmp_path):
    """With dropout: the random numbers of both processes go on too."""
    config = SETTINGS | {"model": SETTINGS["model"] | {"dropout": 0.3, "input_shift": 0.5}}
    extra = ["--checkpoint-dir", str(tmp_path / "cache"), "--save-every-s", "0"]
    stopped = [*arguments(corpus, tmp_path / "stopped", config), *extra]
    whole = arguments(corpus, tmp_path / "whole", config)
    two(
        (train_until, stopped, 3, 130, 3),
        (train_until, stopped, -1, 0, STEPS - 3),
        (train_until, whole, -1, 0, STEPS),
    )
    for name in ("model.safetensors", "h.jsonl"):
        a, b = (tmp_path / folder / name for folder in ("stopped", "whole"))
        assert a.read_bytes() == b.read_bytes()
    assert not list((tmp_path / "cache").iterdir())


def test_torchrun_equals_one_process(corpus, tmp_path):
    assert train_module.main(arguments(corpus, tmp_path / "one")) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "--", "training.train", *arguments(corpus, tmp_path / "two")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (one, history), (two_, history2) = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert history[-1]["steps"] == STEPS
    for name, weight in one.items():
        # A softmax does not see a bias of its keys: its gradient is rounding, which Adam scales up.
        seen = torch.ones_like(weight, dtype=torch.bool)
        if name.endswith("key_value.bias"):
            seen = torch.tensor([False, True]).repeat_interleave(len(weight) // 2)
        if name.endswith("qkv.bias"):
            seen = torch.tensor([True, False, True]).repeat_interleave(len(weight) // 3)
        torch.testing.assert_close(two_[name][seen], weight[seen], rtol=0, atol=1e-5, msg=name)
    for a, b in zip(history, history2, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)
    assert "process 2 of 2" in (tmp_path / "two/train.log.process-2").read_text()
    sidecar = json.loads((tmp_path / "two/model.json").read_text())
    assert sidecar["counts"]["processes"] == 2
