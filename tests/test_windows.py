"""The frame grid, labels on it, windows, and the order in which training sees them."""

import dataclasses

import numpy as np
import pytest
import torch
from model_data import DIMS, DYAD, write_corpus, write_feature, write_session

from alignment.aligned import AlignedFeature
from runtime import InputError
from store.session_spec import parse_spec, parse_specs
from training import windows as windows_module
from training.sessions import SessionReader, labels_on_grid
from training.settings import parse
from training.windows import Windows, foreign_sessions

torch.set_num_threads(1)
SMALL = {"egemaps": 2, "wav2vec2": 3}
GROUP = ("subjectPos1", "subjectPos2", "subjectPos3", "subjectPos4")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three dyads of 12, 12 and 7.4 s and a group of four."""
    results = tmp_path_factory.mktemp("windows")
    specs = write_corpus(results, 2, 12.0, dims=SMALL)
    specs.append(write_session(results, "noxi", "003", DYAD, 7.4, 0, SMALL))
    specs.append(write_session(results, "mpiigi", "008", GROUP, 7.4, 0, SMALL))
    return results, specs


def settings(rate=25, **training):
    return parse(
        {
            "preset": "demo",
            "features": list(SMALL),
            "frame_rate_hz": rate,
            "training": {"batch": 7, **training},
        }
    )


def make(corpus, labelled=True, specs=None, partners="own", seed=0, rate=25, **training):
    results, every = corpus
    return Windows(
        results, parse_specs(specs or every), settings(rate, **training), labelled, partners, seed
    )


@pytest.mark.parametrize("rate", [25, 100])
def test_reader_takes_the_ticks_of_the_grid(corpus, rate):
    results, specs = corpus
    spec = parse_spec(specs[0])
    path = results / "aligned/noxi/001/novice/wav2vec2.h5"
    with SessionReader(results, spec, list(SMALL), rate) as reader, AlignedFeature(path) as file:
        values, valid = reader.read("novice", "wav2vec2", 3, 50)
        step = 100 // rate
        expected, ok = file.read(0, file.n_ticks, step)
        assert reader.n_frames == 12 * rate == len(reader.times()) == len(expected)
        np.testing.assert_array_equal(valid, ok[3:50])
        np.testing.assert_array_equal(values, expected[3:50])
        assert reader.times()[50] == 50 / rate


def test_a_grid_that_does_not_fit_the_clock(corpus):
    with pytest.raises(InputError, match="30 Hz"):
        make(corpus, rate=30)


def test_labels_go_to_the_nearest_instant_within_half_a_hop(tmp_path):
    time = np.array([0.0, 0.04, 0.08, 0.16, 0.20]) + 0.005
    values = np.array([0.1, 0.2, 0.3, 0.5, 0.6], np.float32)[:, None]
    valid = np.array([True, True, False, True, True])
    write_feature(tmp_path / "a.h5", "engagement", values, time, valid, 25)
    label, known = labels_on_grid(tmp_path / "a.h5", np.arange(8) * 0.04)
    # 0.08 is missing, 0.12 has no line at all, 0.24 and later lie after the last label.
    np.testing.assert_array_equal(known, [1, 1, 0, 0, 1, 1, 0, 0])
    np.testing.assert_allclose(label, [0.1, 0.2, 0, 0, 0.5, 0.6, 0, 0])
    fine, known = labels_on_grid(tmp_path / "a.h5", np.arange(12) * 0.01)
    np.testing.assert_array_equal(known, [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(fine[:7], [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2])


def test_every_frame_is_predicted_once_and_reads_its_own_instant(corpus):
    w = make(corpus, labelled=False)
    results, _ = corpus
    for session, spec in enumerate(w.specs):
        seen = {role: np.zeros(w.n_frames[session], int) for role in spec.roles}
        with SessionReader(results, spec, list(SMALL), 25) as reader:
            whole = {
                role: reader.read(role, "egemaps", 0, reader.n_frames)[0] for role in spec.roles
            }
        for targets, batch in w.in_order(session, 5):
            for i in range(len(targets)):
                role = spec.roles[targets.role[i]]
                first = int(targets.window[i]) * 32 - 32
                row = int(batch.target[i])
                for k in range(96):
                    frame = first + k
                    inside = 0 <= frame < w.n_frames[session]
                    assert bool(batch.frames[row, k]) == inside
                    if inside:
                        got = batch.streams["egemaps"][row, k].numpy()
                        np.testing.assert_array_equal(got, whole[role][frame])
                        seen[role][frame] += 32 <= k < 64
        assert all((n == 1).all() for n in seen.values())


def test_nothing_is_valid_outside_the_recording(corpus):
    """The first window begins 32 frames before the recording, the last one ends behind it."""
    w = make(corpus, labelled=False)
    outside = 0
    for session, n in enumerate(w.n_frames):
        for targets, batch in w.in_order(session, 5):
            for i, row in enumerate(batch.target.tolist()):
                frame = 32 * int(targets.window[i]) - 32 + np.arange(96)
                beyond = (frame < 0) | (frame >= n)
                outside += beyond.sum()
                for name, valid in batch.valid.items():
                    assert not valid[row].numpy()[beyond].any(), name
                    assert valid[row].numpy()[~beyond].all(), name
    assert outside > 0


def test_partners_are_everybody_else_in_cyclic_seat_order(corpus):
    w = make(corpus, labelled=False)
    session = next(i for i, s in enumerate(w.specs) if s.dataset == "mpiigi")
    targets, batch = next(w.in_order(session, 4))
    assert len(set(batch.target.tolist())) == 4 and batch.frames.shape[0] == 4  # stored once
    row = {int(r): int(batch.target[i]) for i, r in enumerate(targets.role)}
    for i, seat in enumerate(targets.role):
        expected = [row[(int(seat) + k) % 4] for k in (1, 2, 3)]
        assert batch.partners[i].tolist() == expected


def test_missing_labels_and_context_frames_do_not_count(corpus):
    dyads = [s for s in corpus[1] if s.startswith("noxi")]
    core = make(corpus, specs=dyads, loss_frames="core")
    whole = make(corpus, specs=dyads, loss_frames="window")
    # write_session leaves labels 100..109 out; window 3 covers frames 64..159, its core 96..127.
    _, counts = core.label(0, 3, "expert")
    assert counts.tolist() == [
        64 + k in range(96, 128) and not 100 <= 64 + k < 110 for k in range(96)
    ]
    value, counts = whole.label(0, 3, "expert")
    assert counts.tolist() == [not 100 <= 64 + k < 110 for k in range(96)]
    assert (value[~counts] == 0).all()


@pytest.mark.parametrize("pool_gb", [4.0, 1e-6])
def test_an_epoch_sees_every_target_once_whatever_the_memory(corpus, pool_gb, monkeypatch):
    monkeypatch.setattr(windows_module, "SLICE_FRAMES", 3 * 32)
    w = make(corpus, pool_gb=pool_gb)
    orders = []
    for epoch in (0, 1):
        pools = w.epoch_pools(epoch, seed=5)
        rows = np.concatenate(pools)
        assert sorted(rows) == list(range(len(w.targets)))
        orders.append(rows.tolist())
        assert (len(pools) == 1) == (pool_gb > 1)
        sizes = [len(b) for pool in w.epoch_batches(epoch, 5) for b in pool]
        assert max(sizes) <= 7 and sum(sizes) == len(w.targets)
        assert sum(1 for _ in w.training_batches(epoch, 5)) == w.steps(2, 5)[epoch]
    assert orders[0] != orders[1]
    if pool_gb < 1:  # one slice at a time in memory: its persons, three windows and the context
        held = {key[0] for key in w._pool.start}
        assert len(held) == 1
    assert not np.array_equal(
        np.concatenate(w.epoch_pools(0, 5)), np.concatenate(w.epoch_pools(0, 6))
    )


@pytest.mark.parametrize("skip", [1, 4, 9])
def test_skipped_batches_leave_the_rest_unchanged(corpus, skip, monkeypatch):
    monkeypatch.setattr(windows_module, "SLICE_FRAMES", 4 * 32)
    w = make(corpus, pool_gb=1e-4)
    full = list(w.training_batches(2, 1))
    rest = list(w.training_batches(2, 1, skip))
    assert len(rest) == len(full) - skip > 0
    for a, b in zip(full[skip:], rest, strict=True):
        assert torch.equal(a.label, b.label) and torch.equal(a.partners, b.partners)
        for name in SMALL:
            assert torch.equal(
                a.streams[name].nan_to_num(), b.streams[name].nan_to_num()
            ) and torch.equal(a.valid[name], b.valid[name])


def test_shuffled_partners_come_from_another_session(corpus):
    results, specs = corpus
    dyads = [s for s in specs if s.startswith("noxi")]
    own, foreign = make(corpus, specs=dyads), make(corpus, specs=dyads, partners="shuffled", seed=3)
    for session in range(3):
        other = {p[0] for p in foreign.persons(session, 0)}
        assert other and session not in other
        assert {p[0] for p in own.persons(session, 0)} == {session}
    again = foreign_sessions(parse_specs(dyads), 3)
    assert again == foreign_sessions(parse_specs(dyads[::-1]), 3) and sorted(again) == [0, 1, 2]
    targets, batch = next(foreign.in_order(0, 4))
    there = foreign._foreign[0]
    with SessionReader(results, foreign.specs[there], list(SMALL), 25) as reader:
        values = reader.read("novice", "egemaps", 0, 64)[0]
    row = int(batch.partners[0, 0])  # partner of the expert in window 0: frames -32..63
    np.testing.assert_array_equal(batch.streams["egemaps"][row, 32:].numpy(), values)
    with pytest.raises(InputError, match="alone"):
        make(corpus, specs=dyads[:1], partners="shuffled")


def test_a_partner_whose_recording_is_shorter_is_absent(corpus):
    results, specs = corpus
    w = make(corpus, labelled=False, specs=[specs[0], specs[2]], partners="shuffled")
    long = w.n_frames.index(300)
    last = [batch for _, batch in w.in_order(long, 2)][-1]
    assert (last.partners == -1).all() or last.partners.shape[1] == 0


def test_a_participant_without_labels_is_partner_only(tmp_path):
    spec = write_session(tmp_path, "noxi", "001", DYAD, 8.0, 0, SMALL)
    (tmp_path / "labels/noxi/001/novice.h5").unlink()
    w = Windows(tmp_path, parse_specs([spec]), settings(), True)
    assert {w.specs[0].roles[r] for r in w.targets.role} == {"expert"}
    assert (next(w.training_batches(0, 0)).partners >= 0).all()


@pytest.mark.parametrize(
    "text", ["noxi", "noxi/1", "noxi/1:", "noxi/1:a,", "noxi/1:a,a", "/1:a", "noxi/1:a@", "a/b/c:d"]
)
def test_specs_that_cannot_be_read(text):
    with pytest.raises(InputError, match="session"):
        parse_spec(text)


def test_specs():
    spec = parse_spec("noxi/014:novice,expert@test")
    assert dataclasses.astuple(spec) == ("noxi", "014", ("expert", "novice"), "test")
    assert parse_specs(["b/2:x", "a/1:x"]) == parse_specs(["a/1:x", "b/2:x"])
    with pytest.raises(InputError, match="twice"):
        parse_specs(["a/1:x", "a/1:y"])
    assert set(SMALL) < set(DIMS)


@pytest.mark.parametrize(
    "stride, window, core", [(8, 96, 32), (48, 96, 32), (0, 40, 8), (7, 20, 4)]
)
@pytest.mark.parametrize("slice_frames", [50, 4096])
def test_training_windows_step_by_the_stride(
    corpus, stride, window, core, slice_frames, monkeypatch
):
    """Every window, at whatever stride and slice size, holds the frames that its index says."""
    monkeypatch.setattr(windows_module, "SLICE_FRAMES", slice_frames)
    results, specs = corpus
    config = settings(window=window, core=core, stride=stride, pool_gb=1e-6)
    w = Windows(results, parse_specs(specs), config, True, stride=stride)
    step, context = stride or core, (window - core) // 2
    whole = {}
    for s, spec in enumerate(w.specs):
        assert w.n_windows(s) == len(range(0, w.n_frames[s], step))
        with SessionReader(results, spec, list(SMALL), 25) as reader:
            for r, role in enumerate(spec.roles):
                whole[s, r] = reader.read(role, "egemaps", 0, reader.n_frames)[0]
    seen = 0
    for batch in w.training_batches(0, 0):
        for row, (s, r, index) in enumerate(batch.person.tolist()):
            instants = index * step - context + np.arange(window)
            inside = (instants >= 0) & (instants < w.n_frames[s])
            np.testing.assert_array_equal(batch.frames[row].numpy(), inside)
            np.testing.assert_array_equal(
                batch.streams["egemaps"][row].numpy()[inside], whole[s, r][instants[inside]]
            )
        seen += len(batch.target)
    assert seen == len(w.targets) > 0


def test_windows_longer_than_the_session(corpus):
    """2048 frames on sessions of 300 and 185: one long window, absent outside the recording."""
    w = make(corpus, labelled=True, window=2048, core=32, loss_frames="window")
    for batch in w.training_batches(0, 0):
        assert batch.frames.shape[1] == 2048
        known = batch.frames.sum(1)
        assert set(known.tolist()) <= {300, 185}
        assert (batch.label_mask.sum(1) <= known[batch.target] - 10).all()
    w = make(corpus, labelled=False, window=2048, core=2048)
    assert len(w.targets) == 10  # one window per participant
