"""The pool of slices: every frame stands where its row says, whoever reads it, on any device."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training import pool as pool_module
from training.pool import Pool

DIMS = {"egemaps": 3, "flow": 2}
ROLES = ("expert", "novice")


def value(session, role, name, frame):
    """(D,) a number for every place: session, role, stream, frame and dimension."""
    place = 1e6 * session + 1e5 * ROLES.index(role) + 1e4 * list(DIMS).index(name) + frame
    return np.float32(place) + np.arange(DIMS[name], dtype=np.float32) / 4


class Reader:
    """A session of 100 frames whose every third frame of `flow` is not valid."""

    spec = SimpleNamespace(roles=ROLES)
    opened: list[int] = []

    def __init__(self, session):
        self.session = session
        self.opened.append(session)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, role, name, lo, hi):
        assert 0 <= lo < hi <= 100
        rows = [value(self.session, role, name, frame) for frame in range(lo, hi)]
        return np.stack(rows), np.arange(lo, hi) % 3 != (0 if name == "flow" else 3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pool_module, "BLOCK_FRAMES", 8)
    Reader.opened.clear()


SPANS = {(7, 1, 0): (20, 43), (2, 0, 1): (0, 5), (7, 0, 3): (90, 100)}


def rows_of(pool, key):
    """What the pool holds of a slice, by stream."""
    lo, hi = SPANS[key]
    rows = np.arange(pool.start[key], pool.start[key] + hi - lo)[None]
    return pool.cut(rows, np.ones_like(rows, dtype=bool)), range(lo, hi)


def check(pool):
    for key in SPANS:
        (streams, valid, frames), span = rows_of(pool, key)
        assert frames.all()
        for name in DIMS:
            expected = np.stack([value(key[0], ROLES[key[1]], name, f) for f in span])
            np.testing.assert_array_equal(streams[name][0].numpy(), expected)
            there = [f % 3 != 0 or name != "flow" for f in span]
            assert valid[name][0].tolist() == there


def test_every_slice_lies_where_its_start_says():
    pool = Pool(DIMS)
    assert pool.device == torch.device("cpu") and pool.values == pool.valid == pool.start == {}
    pool.load(SPANS, Reader)
    assert sorted(pool.start.values()) == [0, 23, 28]
    assert {name: tuple(v.shape) for name, v in pool.values.items()} == {
        "egemaps": (38, 3),
        "flow": (38, 2),
    }
    assert all(v.shape == (38,) and v.dtype == torch.bool for v in pool.valid.values())
    assert Reader.opened == [2, 7]  # each session once
    check(pool)


def test_what_is_held_is_not_read_again():
    pool = Pool(DIMS)
    pool.load(SPANS, Reader)
    pool.load(SPANS, Reader)
    pool.load({(2, 0, 1): (0, 5)}, Reader)
    assert Reader.opened == [2, 7]
    pool.load({**SPANS, (3, 0, 0): (0, 2)}, Reader)
    assert Reader.opened == [2, 7, 2, 3, 7] and len(pool.values["flow"]) == 40


def test_streams_are_read_side_by_side_by_as_many_threads_as_torch_may_use(monkeypatch):
    asked = []
    threads = pool_module.ThreadPoolExecutor
    monkeypatch.setattr(pool_module, "ThreadPoolExecutor", lambda n: asked.append(n) or threads(n))
    Pool(DIMS).load(SPANS, Reader)
    assert asked == [torch.get_num_threads()]


def test_a_device_that_is_no_cpu_takes_the_same_frames():
    """The way of a GPU, through tensors that lie here."""
    pool = Pool(DIMS)
    pool.load(SPANS, Reader)
    for held in (*pool.values.values(), *pool.valid.values()):
        held.zero_()
    pool.device = SimpleNamespace(type="elsewhere")
    for key, (lo, hi) in SPANS.items():
        for name in DIMS:
            pool._read(Reader(key[0]), key, name, lo, hi)
    index = torch.tensor([[0, 5, 37], [37, 1, 1]])
    for held in (pool.values["egemaps"], pool.valid["flow"]):
        assert torch.equal(pool._take(held, index), held[index])
    pool.device = torch.device("cpu")
    check(pool)


def test_a_frame_outside_the_recording_is_never_valid():
    pool = Pool(DIMS)
    pool.load(SPANS, Reader)
    rows, inside = np.array([[1, 2, 3]]), np.array([[True, False, True]])
    streams, valid, frames = pool.cut(rows, inside)
    assert frames.tolist() == inside.tolist() == valid["egemaps"].tolist()
    assert torch.equal(streams["egemaps"][0, 1], pool.values["egemaps"][2])
