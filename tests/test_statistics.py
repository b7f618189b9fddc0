"""Statistics of a run against numpy over all frames at once, and the bounds of their file."""

import json
import math

import h5py
import numpy as np
import pytest
from model_data import write_session

from runtime import InputError
from store.moments import RunningMoments
from store.session_spec import parse_specs
from training import statistics as module
from training.statistics import check_described, compute, read_statistics, spread, statistics

RNG = np.random.default_rng(5)


def unit(count, mean, std):
    """What moments of these numbers state as the unit of a dimension."""
    moments = RunningMoments((1,))
    moments.n, moments.mean, moments.squares = (
        count,
        np.array([mean]),
        np.array([std**2 * count]),
    )
    return spread(moments)[0]


@pytest.mark.parametrize(
    ("mean", "border"),
    # A millionth of the size, at least of 1: large values of both signs, and small ones.
    [(5e3, 5e-3), (-5e3, 5e-3), (2.0, 2e-6), (0.25, 1e-6), (0.0, 1e-6)],
)
def test_a_constant_dimension_is_left_at_unit_scale(mean, border):
    assert unit(50, mean, border * 1.01) == pytest.approx(border * 1.01, rel=1e-12)
    assert unit(50, mean, border * 0.99) == unit(50, mean, 0.0) == 1.0


def test_rounding_of_float32_is_no_spread():
    moments = RunningMoments((3,))
    for _ in range(4):
        noise = 1e4 + RNG.random(50)
        moments.add(np.stack([np.full(50, 1e4), np.full(50, 0.1), noise], 1).astype("f4"))
    assert spread(moments)[0] == spread(moments)[1] == 1.0 and 0.2 < spread(moments)[2] < 0.4


def test_nothing_and_one_frame_have_unit_scale():
    moments = RunningMoments((2,))
    assert spread(moments).tolist() == [1, 1]
    moments.add(np.array([[3.0, 4.0]]))
    assert spread(moments).tolist() == [1, 1] and moments.mean.tolist() == [3, 4]


# ---- one pass over the sessions ----

N_FRAMES = {"001": 10, "002": 7}
FEATURES = {"egemaps": 3, "flow": 2}


class Reader:
    """Sessions of 10 and 7 frames with an expert, who has labels, and a novice, who has none."""

    dims = FEATURES
    read_parts: list[tuple] = []

    def __init__(self, results, spec, features, frame_rate_hz):
        assert (results, features, frame_rate_hz) == ("results", list(FEATURES), 25.0)
        self.spec, self.n_frames = spec, N_FRAMES[spec.session]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def frames(self, role, name):
        """values (n, D), valid (n,) of a whole recording: invalid frames are NaN."""
        seed = [int(self.spec.session), len(role), len(name)]
        rng = np.random.default_rng(seed)
        values = rng.normal(len(role) + int(self.spec.session), 1, (self.n_frames, self.dims[name]))
        valid = rng.random(self.n_frames) < 0.7
        values[~valid] = np.nan
        return values, valid

    def read(self, role, name, start, stop):
        self.read_parts.append((self.spec.session, role, name, start, stop))
        values, valid = self.frames(role, name)
        return values[start:stop], valid[start:stop]

    def labels(self, role):
        if role == "novice":
            return None
        known = np.arange(self.n_frames) % 3 > 0
        value = np.sqrt(np.arange(self.n_frames)) + int(self.spec.session)
        return np.where(known, value, 0.0), known


SESSIONS = ["noxi/002:expert,novice", "noxi/001:expert,novice"]


@pytest.fixture
def read(monkeypatch):
    monkeypatch.setattr(module, "SessionReader", Reader)
    monkeypatch.setattr(module, "SLICE_FRAMES", 4)
    Reader.read_parts.clear()
    return lambda sessions=SESSIONS: compute("results", sessions, list(FEATURES), 25.0)


def test_valid_frames_of_everybody_and_known_labels(read, caplog):
    with caplog.at_level("INFO"):
        moments, label = read()
    readers = [Reader("results", spec, list(FEATURES), 25.0) for spec in parse_specs(SESSIONS)]
    for name, dim in FEATURES.items():
        parts = [r.frames(role, name) for r in readers for role in ("expert", "novice")]
        rows = np.concatenate([values[valid] for values, valid in parts])
        assert moments[name].n == len(rows) and rows.shape[1] == dim
        np.testing.assert_allclose(moments[name].mean, rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(spread(moments[name]), rows.std(0), rtol=1e-13)
    # Frames 1, 2, 4, 5, 7, 8 of session 001 and 1, 2, 4, 5 of 002.
    known = [1 + math.sqrt(k) for k in (1, 2, 4, 5, 7, 8)]
    known += [2 + math.sqrt(k) for k in (1, 2, 4, 5)]
    assert label.n == 10
    assert label.mean[0] == pytest.approx(np.mean(known), rel=1e-13)
    assert spread(label)[0] == pytest.approx(np.std(known), rel=1e-13)
    assert list(moments) == list(FEATURES)
    said = [r.getMessage() for r in caplog.records]
    assert sum("novice has no labels" in text for text in said) == 2
    assert any(text.startswith("statistics done: 2 sessions in") for text in said)


def test_a_recording_is_read_once_in_slices(read):
    read()
    spans = {"001": [(0, 4), (4, 8), (8, 10)], "002": [(0, 4), (4, 7)]}
    assert Reader.read_parts == [
        (session, role, name, *span)
        for session, parts in spans.items()
        for role in ("expert", "novice")
        for span in parts
        for name in FEATURES
    ]


def test_what_has_no_statistics_is_refused(read, monkeypatch):
    def of(**attributes):
        for name, value in attributes.items():
            monkeypatch.setattr(Reader, name, value)
        with pytest.raises(InputError) as e:
            read()
        monkeypatch.undo()
        monkeypatch.setattr(module, "SessionReader", Reader)
        monkeypatch.setattr(module, "SLICE_FRAMES", 4)
        return e.value.problem

    assert "no label at any frame" in of(labels=lambda self, role: None)
    flow = FEATURES["flow"]

    def lost(self, role, name, start, stop):
        n = stop - start
        return np.ones((n, self.dims[name])), np.full(n, name != "flow")

    assert "flow is valid at no frame" in of(read=lost)
    wider = property(lambda self: FEATURES | {"flow": flow + int(self.spec.session) - 1})
    assert "noxi/002: flow has 3 dimensions, other sessions have 2" in of(dims=wider)


def test_one_label_and_one_valid_frame_are_enough(read, monkeypatch):
    monkeypatch.setattr(Reader, "labels", lambda self, role: (np.ones(7), np.arange(7) == 3))
    first = lambda self, role, name, start, stop: (  # noqa: E731
        np.ones((stop - start, self.dims[name])),
        (np.arange(start, stop) == 0) & (role == "expert"),
    )
    monkeypatch.setattr(Reader, "read", first)
    moments, label = read(["noxi/002:expert"])
    assert label.n == moments["flow"].n == 1 and label.mean[0] == 1.0


# ---- the file ----


def test_the_file_says_what_was_computed_of_whom(tmp_path):
    dims = {"wav2vec2": 3, "clip_face": 2}  # not in the order of the alphabet
    specs = [
        write_session(tmp_path, "noxi", session, ("expert", "novice"), 5.0, 1, dims)
        for session in ("002", "001")
    ]
    out = tmp_path / "s.h5"
    counts = statistics(tmp_path, specs, list(dims), 25, out, "version=1")
    # 125 frames of four people; frames 40 to 59 have no face, 100 to 109 no label.
    assert counts == {"labelled_frames": 4 * 115, "wav2vec2": 4 * 125, "clip_face": 4 * 105}
    assert list(counts) == ["labelled_frames", "clip_face", "wav2vec2"]
    moments, label = compute(tmp_path, specs, list(dims), 25)
    with h5py.File(out) as f:
        assert dict(f.attrs) == {
            "schema_version": 1,
            "frame_rate_hz": 25.0,
            "sessions": '["noxi/001:expert,novice", "noxi/002:expert,novice"]',
            "fingerprint": "version=1",
        }
        assert sorted(f) == ["clip_face", "label", "wav2vec2"]
        assert sorted(f["label"].attrs) == ["count", "mean", "std"]
        for name, dim in dims.items():
            group = f[name]
            assert group["mean"].shape == group["std"].shape == (dim,)
            text = group.attrs["identity"]
            assert text == json.dumps(json.loads(text), sort_keys=True)
    features, read_label = read_statistics(out)
    assert read_label == {"mean": label.mean[0], "std": spread(label)[0], "count": 460.0}
    for name, dim in dims.items():
        assert features[name]["count"] == moments[name].n
        np.testing.assert_array_equal(features[name]["mean"], moments[name].mean)
        np.testing.assert_array_equal(features[name]["std"], spread(moments[name]))
        identity = features[name]["identity"]
        assert identity["extractor"] == "test" and identity["dims"] == dim
    statistics(tmp_path, specs, list(dims), 25.0, out)
    with h5py.File(out) as f:
        assert f.attrs["fingerprint"] == ""


def written(path, label=None, flow=None):
    """A hand-made file of two features."""
    columns = {"mean": [0.5, -2.0], "std": [0.1, 3.0], "count": 1} | (flow or {})
    with h5py.File(path, "w") as f:
        for name, values in (("flow", columns), ("rms", {"mean": [1.0], "std": [2.0], "count": 9})):
            group = f.create_group(name)
            group["mean"], group["std"] = np.array(values["mean"]), np.array(values["std"])
            group.attrs["count"] = values["count"]
        f["rms"].attrs["identity"] = '{"extractor": "extractors.rms"}'
        f.create_group("label").attrs.update({"mean": 0.5, "std": 0.25, "count": 1} | (label or {}))
    return path


def test_a_file_is_read_as_it_stands(tmp_path):
    """One counted frame is enough; a file of an earlier version has no identity."""
    features, label = read_statistics(written(tmp_path / "s.h5"))
    assert label == {"mean": 0.5, "std": 0.25, "count": 1.0}
    assert sorted(features) == ["flow", "rms"] and "identity" not in features["flow"]
    assert features["flow"]["mean"].tolist() == [0.5, -2.0]
    assert features["flow"]["std"].tolist() == [0.1, 3.0]
    assert (features["flow"]["count"], features["rms"]["count"]) == (1, 9)
    assert type(features["rms"]["count"]) is int
    assert features["rms"]["identity"] == {"extractor": "extractors.rms"}


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"mean": [0.5, math.nan]},
        {"mean": [math.inf, 0.5]},
        {"std": [0.1, math.nan]},
        {"std": [math.inf, 0.1]},
        {"std": [0.1, 0.0]},
        {"std": [-0.1, 1.0]},
        {"std": [0.1]},
        {"mean": [0.5]},
        {"mean": [[0.5, 1.0]], "std": [[0.1, 1.0]]},
    ],
)
def test_numbers_that_no_data_have(tmp_path, change):
    path = written(tmp_path / "s.h5", flow=change)
    with pytest.raises(InputError, match="s.h5: mean and std of flow are no statistics"):
        read_statistics(path)


@pytest.mark.parametrize("change", [{"count": 0}, {"mean": math.nan}, {"std": 0.0}])
def test_labels_that_no_data_have(tmp_path, change):
    path = written(tmp_path / "s.h5", label=change)
    with pytest.raises(InputError, match="s.h5: mean and std of label are no statistics"):
        read_statistics(path)


def test_a_damaged_file_is_named(tmp_path):
    path = written(tmp_path / "s.h5")
    with h5py.File(path, "r+") as f:
        del f["flow"].attrs["count"]
    with pytest.raises(InputError, match="s.h5"):
        read_statistics(path)


def test_statistics_describe_every_stream_of_a_run(tmp_path):
    features, _ = read_statistics(written(tmp_path / "s.h5"))
    check_described("s.h5", features, {"flow": 2})
    check_described("s.h5", features, {"flow": 2, "rms": 1})
    for dims in ({"rms": 1, "flow": 3}, {"flow": 1}, {"rms": 1, "audio": 2}):
        name, dim = next(reversed(dims.items()))
        with pytest.raises(InputError, match=f"s.h5 does not describe {name} with {dim} dim"):
            check_described("s.h5", features, dims)
