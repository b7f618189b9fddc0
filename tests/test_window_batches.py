"""Windows of sessions that are made of numbers: batches, orders and shares against plain loops."""

import numpy as np
import pytest
import torch
from numbered_sessions import (
    DIMS,
    FRAMES,
    SLICE,
    SPECS,
    Reader,
    all_targets,
    check_batch,
    label_rows,
    make,
    partners_of,
    rows,
)

from runtime import InputError
from store.session_spec import parse_specs
from training import distributed
from training import windows as module
from training.windows import Targets, foreign_sessions

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "SessionReader", Reader)
    monkeypatch.setattr(module, "SLICE_FRAMES", SLICE)
    Reader.read_frames.clear()


SHAPES = [
    {"window": 8, "core": 4},
    {"window": 8, "core": 4, "stride": 3, "loss_frames": "window"},
    {"window": 4, "core": 4, "stride": 1},
    {"window": 7, "core": 1, "stride": 5},
    {"window": 64, "core": 2, "stride": 20},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labelled", [False, True])
def test_targets_and_their_batches_in_order(shape, labelled):
    w = make(labelled, **shape)
    expected = all_targets(w, labelled)
    assert rows(w.targets) == expected and len(w.targets) == len(expected)
    assert w.targets.session.dtype == np.int64
    found = []
    for session in range(4):
        before = None
        for targets, batch in w.in_order(session, 3):
            part = rows(targets)
            assert len(part) <= 3 and {s for s, _, _ in part} == {session}
            slices = {window // max(1, SLICE // w.stride) for _, window, _ in part}
            assert len(slices) == 1
            if before and before[0] == slices:  # a batch is full unless its slice ends
                assert before[1] == 3
            before = slices, len(part)
            check_batch(w, targets, batch, labelled)
            found += part
    assert found == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_of_a_window(shape):
    for frames in ("core", "window"):
        w = make(True, **(shape | {"loss_frames": frames}))
        for s, spec in enumerate(SPECS):
            for window in range(w.n_windows(s)):
                for r, role in enumerate(spec.roles):
                    value, counts = w.label(s, window, role)
                    assert value.dtype == np.float32 and counts.dtype == bool
                    pairs = list(zip(value.tolist(), counts.tolist(), strict=True))
                    assert pairs == label_rows(w, s, window, r)


def test_a_slice_is_read_once_and_no_more_of_it_than_its_windows_hold():
    """Windows of 8 frames around cores of 4, three to a slice: frames -2..13, 10..25 of 23 and 20."""
    w = make()
    for session in (0, 1):
        for _ in w.in_order(session, 100):
            pass
    spans = {"008": [(0, 14), (10, 23)], "001": [(0, 14), (10, 20)]}
    assert sorted(Reader.read_frames) == sorted(
        (spec.session, role, name, *span)
        for spec in SPECS[:2]
        for role in spec.roles
        for name in DIMS
        for span in spans[spec.session]
    )


# ---- the order of training ----


def grouped(items, key):
    found = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def pools_of(w, epoch, seed, persons=1):
    """The order of an epoch as its description says: slices, pools of them, windows in each."""
    targets, per_slice = rows(w.targets), max(1, SLICE // w.stride)
    rng = np.random.default_rng([seed, epoch])
    slices = grouped(range(len(targets)), lambda i: (targets[i][0], targets[i][1] // per_slice))
    pools, used = [[]], 0
    for i in rng.permutation(len(slices)):
        spec = w.specs[targets[slices[i][0]][0]]
        frames = min((per_slice - 1) * w.stride + w.window, FRAMES[spec.session])
        size = 4 * frames * len(spec.roles) * persons * sum(DIMS.values())
        if pools[-1] and used + size > w.settings.training.pool_gb * 1e9:
            pools.append([])
            used = 0
        pools[-1] += slices[i]
        used += size
    ordered = []
    for pool in pools:
        windows = grouped(pool, lambda i: targets[i][:2])
        ordered.append([i for k in rng.permutation(len(windows)) for i in windows[k]])
    return ordered


# 4 numbers of 4 bytes, 3 streams, 2 persons of 14 or 16 frames: 336 and 384 bytes; 576 for three.
@pytest.mark.parametrize("pool_bytes", [1, 384, 720, 721, 960, 1343, 1344, 10**9])
@pytest.mark.parametrize("stride", [0, 3, 20])
def test_the_order_of_an_epoch(pool_bytes, stride):
    w = make(True, stride=stride, pool_gb=pool_bytes / 1e9)
    for seed, epoch in ((0, 0), (0, 1), (7, 0)):
        pools = w.epoch_pools(epoch, seed)
        assert [p.tolist() for p in pools] == pools_of(w, epoch, seed)
        batches = w.epoch_batches(epoch, seed)
        for pool, parts in zip(pools, batches, strict=True):
            assert np.concatenate(parts).tolist() == pool.tolist()
            sizes = [len(p) for p in parts]
            assert len(sizes) == -(-len(pool) // 5) and max(sizes) - min(sizes) <= 1
    w = make(True, stride=stride, pool_gb=pool_bytes / 1e9, partners="shuffled", specs=SPECS[1:])
    assert [p.tolist() for p in w.epoch_pools(0, 0)] == pools_of(w, 0, 0, persons=2)


def test_steps_of_epochs_and_of_a_total():
    w = make(True, pool_gb=1e-6)
    each = [sum(map(len, w.epoch_batches(epoch, 3))) for epoch in range(6)]
    assert w.steps(4, 3) == each[:4] and w.steps(0, 3) == []
    for more in (1, each[2] - 1, each[2]):
        assert w.steps(1, 3, each[0] + each[1] + more) == [*each[:2], more]
    assert w.steps(9, 3, 1) == [1]


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5, 100])
def test_batches_of_an_epoch_after_a_skip(skip):
    w = make(True, pool_gb=8e-7)
    wanted = [w.targets[p] for parts in w.epoch_batches(1, 2) for p in parts]
    assert len(w.epoch_batches(1, 2)) > 2
    found = list(w.training_batches(1, 2, skip) if skip else w.training_batches(1, 2))
    assert len(found) == max(0, len(wanted) - skip)
    for targets, batch in zip(wanted[skip:], found, strict=True):
        check_batch(w, targets, batch, True)


def test_processes_share_every_batch(monkeypatch):
    """Each process reads and gets its own part, and a window's targets go to one process."""
    w = make(True, pool_gb=8e-7)
    wanted = [rows(w.targets[p]) for parts in w.epoch_batches(0, 0) for p in parts]
    monkeypatch.setattr(distributed, "size", lambda: 2)
    found = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        of = []
        for batch in w.training_batches(0, 0):
            persons = batch.person[batch.target].tolist()
            of.append([(s, window, r) for s, r, window in persons])
        found.append(of)
    for batch, one, two in zip(wanted, *found, strict=True):
        assert sorted(one + two) == sorted(batch) and one and two
        keys = np.array([s * 1000 + window for s, window, _ in batch])
        assert [one, two] == [batch[share] for share in distributed.shares(keys, 2)]
        assert {x[:2] for x in one}.isdisjoint(x[:2] for x in two)
    # The first windows of 001 and 002, two targets each, have one number: 0.
    w = make()
    first = np.array(
        [i for i, (s, window, _) in enumerate(rows(w.targets)) if s in (1, 2) and window == 0]
    )
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(rows(w.targets[w._share(first)]))
    assert shares == [[(1, 0, 0), (1, 0, 1)], [(2, 0, 0), (2, 0, 1)]]
    monkeypatch.setattr(distributed, "size", lambda: 5)
    with pytest.raises(InputError, match="cannot be shared among 5 processes"):
        w._share(np.arange(4))
    assert len(w._share(np.arange(5))) >= 1


# ---- partners ----


def cycle(members, seed):
    order = np.random.default_rng([seed, 7919]).permutation(len(members))
    return {members[a]: members[b] for a, b in zip(order, [*order[1:], order[0]], strict=True)}


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_sessions_whose_partners_are_lent(seed):
    """One cycle for each dataset: everybody's come from another session, none is used twice."""
    specs = parse_specs([f"{d}/00{i}:a,b" for d, n in (("x", 4), ("y", 2)) for i in range(n)])
    found = foreign_sessions(specs[::-1], seed)
    assert dict(enumerate(found)) == cycle([2, 3, 4, 5], seed) | cycle([0, 1], seed)
    walked, here = [], 2
    for _ in range(4):
        walked.append(here)
        here = found[here]
    assert sorted(walked) == [2, 3, 4, 5] and here == 2
    with pytest.raises(InputError, match="noxi/001 is alone in its dataset"):
        foreign_sessions([SPECS[1], *specs], seed)


@pytest.mark.parametrize("stride", [0, 3])
def test_partners_of_another_session(stride):
    """Of the same dataset; two seats of a group may find one person of a dyad, who is there once."""
    specs = parse_specs(["n/001:a,b", "n/002:a,b,c,d", "n/003:a,b"])
    w = make(True, specs=specs, partners="shuffled", seed=4, stride=stride)
    foreign = foreign_sessions(specs, 4)
    assert foreign == [cycle([0, 1, 2], 4)[i] for i in range(3)]
    units = set()
    for s, window, r in rows(w.targets):
        partners = partners_of(w, s, window, r, foreign)
        units |= {(s, r, window), *partners}
    assert w.person_windows() == units
    for session in range(3):
        for targets, batch in w.in_order(session, 4):
            check_batch(w, targets, batch, True, foreign, (0, 0, 0))
    own = make(True, specs=specs)
    assert own.persons(1, 2) == [(1, 3), (1, 0), (1, 1)]
    assert make(specs=specs, partners="shuffled", seed=4).persons(1, 2) == (
        [(foreign[1], 1), (foreign[1], 0)]
    )


def test_person_windows_of_own_partners():
    w = make(True)
    units = set()
    for s, window, r in rows(w.targets):
        units |= {(s, r, window), *partners_of(w, s, window, r)}
    assert w.person_windows() == units


# ---- what sessions must have in common ----


def test_domains_count_from_one():
    w = make(domains=["mpiigi", "other", "noxi"])
    assert w.domain == [1, 3, 3, 3] and make().domain == [0, 0, 0, 0]
    targets, batch = next(w.in_order(1, 4))
    check_batch(w, targets, batch, False, domain=w.domain)


def test_no_session_and_no_target():
    w = make(specs=[])
    assert len(w.targets) == 0 and w.epoch_pools(0, 0) == [] and w.steps(1, 0) == [0]
    w = make(True, specs=[SPECS[0]])
    assert {r for _, _, r in rows(w.targets)} == {0, 1}  # c has no known label


def test_widths_are_those_of_all_sessions(monkeypatch):
    assert make().dims == DIMS and make().n_frames == [23, 20, 9, 14]
    wider = property(lambda self: DIMS | {"flow": 1 + (self.spec.session == "003")})
    monkeypatch.setattr(Reader, "dims", wider)
    with pytest.raises(InputError, match="noxi/003: flow has 2 dimensions, other sessions have 1"):
        make()


def test_classes_are_checked_where_they_are_known(monkeypatch):
    def labels(self, role):
        odd = 3.0 if (self.spec.session, role) == ("002", "novice") else 2.0
        return np.array([odd, 99.0], np.float32), np.array([True, False])

    monkeypatch.setattr(Reader, "labels", labels)
    monkeypatch.setattr(Reader, "n_frames", 2, raising=False)
    monkeypatch.setitem(FRAMES, "002", 2)
    specs = [SPECS[2]]
    assert len(make(True, specs=specs, task="classification", classes=4).targets) == 2
    with pytest.raises(InputError, match="results/labels/noxi/002/novice.h5: label 3 is none"):
        make(True, specs=specs, task="classification", classes=3)
    assert len(make(True, specs=specs).targets) == 2  # values of a regression may be any
    make(False, specs=specs, task="classification", classes=3)  # prediction reads no label


def test_where_batches_are_made():
    assert make()._pool.device == torch.device("cpu")
    w = make(True, device="meta")
    batch = next(w.training_batches(0, 0))
    for held in (batch.target, batch.partners, batch.label, batch.person, batch.domain):
        assert held.device.type == "meta"


def test_the_seed_of_shuffled_partners():
    specs = parse_specs([f"n/{session}:a,b" for session in FRAMES])
    w = make(specs=specs, partners="shuffled")
    assert w._foreign == foreign_sessions(specs, 0) != foreign_sessions(specs, 1)


def test_columns_of_targets():
    t = Targets(np.arange(3), np.arange(3) + 10, np.arange(3) + 20)
    assert len(t) == 3 and rows(t[np.array([2, 0])]) == [(2, 12, 22), (0, 10, 20)]
