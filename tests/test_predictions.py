"""Predictions files, and values at the labels' times, against a loop over single times."""

import json

import h5py
import numpy as np
import pytest
from evaluation_data import write_labels, write_predictions

from evaluation.confusion import Confusion
from evaluation.metrics import Moments
from evaluation.predictions import (
    PredictionFile,
    Series,
    agreement,
    beyond,
    check_finite,
    matched,
    read_labels,
    sample,
)
from runtime import InputError

RNG = np.random.default_rng(4)
TIME = np.array([0.5, 0.54, 0.58, 1.0, 1.1])
VALUES = np.array([0.1, 0.3, 0.2, 0.9, 0.4])


@pytest.fixture
def file(tmp_path):
    people = {("9", "novice"): (TIME, VALUES), ("10", "expert"): (TIME, VALUES[::-1])}
    return write_predictions(tmp_path / "p.h5", people, seed=7, split="val")


def change(path, **attributes):
    with h5py.File(path, "r+") as f:
        for name, value in attributes.items():
            f.attrs.pop(name, None)
            if value is not None:
                f.attrs[name] = value


# ---- the file ----


def test_what_a_file_says_of_itself(file):
    with PredictionFile(str(file)) as f:
        assert (f.path, f.run, f.seed, f.dataset, f.classes) == (file, "da_mamba", 7, "noxi", 0)
        assert f.participants() == [("10", "expert"), ("9", "novice")]
        assert f.sessions() == ["10", "9"]
        assert f.split("9") == "val"
        series = f.read("9", "novice")
    for found, expected in ((series.time, TIME), (series.values, VALUES.astype(np.float32))):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float64
    assert series.valid.tolist() == [True] * 5 and series.valid.dtype == bool
    assert (series.classes, series.words) == (0, ())
    assert not f._file  # closed


def test_a_file_without_splits_and_with_classes(file):
    change(file, classes=3)
    with h5py.File(file, "r+") as f:
        del f["9"].attrs["split"]
        f["9/novice/probability"] = np.full((5, 3), 1 / 3, np.float16)
        f["10/expert/probability"] = np.ones((5, 2))
    with PredictionFile(file) as f:
        assert f.split("9") == "" and f.classes == 3 and f.read("9", "novice").classes == 3
        found = f.probability("9", "novice")
        assert found.shape == (5, 3) and found.dtype == np.float64
        with pytest.raises(InputError, match="keeps no probabilities of 10/expert"):
            f.probability("10", "expert")
    with h5py.File(file, "r+") as f:
        del f["9/novice/probability"]
        f["10/expert"].pop("probability")
        f["10/expert/probability"] = np.ones(3)
    with PredictionFile(file) as f:
        for place in (("9", "novice"), ("10", "expert")):
            with pytest.raises(InputError, match="keeps no probabilities of " + "/".join(place)):
                f.probability(*place)


@pytest.mark.parametrize("name", ["run", "seed", "dataset", "schema_version"])
def test_a_file_that_does_not_say_what_it_is_is_refused(file, name):
    change(file, **{name: None})
    with pytest.raises(InputError) as e:
        PredictionFile(file)
    assert f"not a predictions file of schema 1 (attributes missing: {name})" in str(e.value)
    assert f"rm '{file}'" in "\n".join(e.value.lines())


def test_several_missing_attributes_and_another_schema(file):
    change(file, run=None, seed=None)
    with pytest.raises(InputError, match=r"\(attributes missing: run, seed\)"):
        PredictionFile(file)
    change(file, run="r", seed=1, schema_version=2)
    with pytest.raises(InputError) as e:
        PredictionFile(file)
    assert str(e.value).splitlines()[0].endswith("of schema 1")


@pytest.mark.parametrize(
    ("dataset", "content", "says"),
    [
        ("time", np.zeros(0), "9/novice is empty or its datasets differ in length"),
        ("engagement", VALUES[:4], "9/novice is empty or its datasets differ in length"),
        ("engagement", VALUES[:, None], "9/novice is empty or its datasets differ in length"),
        ("valid", np.ones(6, bool), "9/novice is empty or its datasets differ in length"),
        ("time", TIME[[0, 1, 1, 3, 4]], "the time of 9/novice does not increase"),
        ("time", [0.5, 0.54, np.nan, 1.0, 1.1], "the time of 9/novice does not increase"),
        ("time", [0.5, 0.54, 0.58, 1.0, np.inf], "the time of 9/novice does not increase"),
    ],
)
def test_unsound_series_are_refused(file, dataset, content, says):
    with h5py.File(file, "r+") as f:
        del f[f"9/novice/{dataset}"]
        f[f"9/novice/{dataset}"] = content
    with PredictionFile(file) as f:
        with pytest.raises(InputError) as e:
            f.read("9", "novice")
        assert str(file) in str(e.value) and says in str(e.value)
        assert f"rm '{file}'" in "\n".join(e.value.lines())
        assert len(f.read("10", "expert").time) == 5
        with pytest.raises(InputError, match="holds no predictions for 9/expert"):
            f.read("9", "expert")


# ---- values at times ----


def plain(series, t):
    """Value and validity at one time, written from the docstring of `sample`."""
    apart = [abs(x - t) for x in series.time]
    near = apart.index(min(apart))
    if series.classes or apart[near] <= 1e-6 or t < series.time[0] or t > series.time[-1]:
        return series.values[near], series.valid[near]
    after = next(i for i, x in enumerate(series.time) if x > t)
    share = (t - series.time[after - 1]) / (series.time[after] - series.time[after - 1])
    value = series.values[after - 1] + share * (series.values[after] - series.values[after - 1])
    return value, series.valid[after - 1] and series.valid[after]


@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("classes", [0, 3])
def test_sampling_equals_the_plain_loop(classes, gap):
    valid = np.arange(5) != gap
    values = np.array([2.0, 0.0, 1.0, 2.0, 0.0]) if classes else VALUES
    series = Series(TIME, values, valid, classes)
    near = np.concatenate([TIME + d for d in (0, 0.9e-6, -0.9e-6, 1.1e-6, -1.1e-6, 1e-3, -1e-3)])
    between = np.array([0.52, 0.56, 0.79, 1.05, 0.0, 0.4999, 1.1001, 9.0])
    at = np.concatenate([near, between, RNG.uniform(0.4, 1.2, 200)])
    value, ok = sample(series, at)
    expected = [plain(series, t) for t in at]
    np.testing.assert_allclose(value, [v for v, _ in expected], atol=1e-12)
    assert ok.tolist() == [bool(k) for _, k in expected]
    assert not ok.all() and ok.any()


def test_of_two_frames_equally_near_a_class_is_the_earlier_ones():
    series = Series(np.array([0.0, 1.0, 2.0]), np.array([5.0, 7.0, 6.0]), np.ones(3, bool), 9)
    assert sample(series, np.array([0.5, 1.5, 1.75]))[0].tolist() == [5.0, 7.0, 6.0]


def test_one_frame_holds_everywhere():
    series = Series(np.array([1.0]), np.array([0.3]), np.array([True]))
    value, ok = sample(series, np.array([0.0, 1.0, 5.0]))
    assert value.tolist() == [0.3] * 3 and ok.tolist() == [True] * 3


def test_seconds_beyond_the_series():
    series = Series(TIME, VALUES, np.ones(5, bool))
    for at, expected in (
        ([0.5, 1.1], 0.0),
        ([0.2, 1.0], 0.3),
        ([0.6, 1.5], 0.4),
        ([0.4, 1.5], 0.4),
    ):
        assert beyond(series, np.array(at)) == pytest.approx(expected)
    assert beyond(series, np.zeros(0)) == 0.0
    assert beyond(series, np.array([0.7, 0.8])) == 0.0


# ---- labels and agreement ----


def test_labels_at_their_own_times(tmp_path):
    path, time = write_labels(tmp_path, "noxi", "9", "novice", [0.1, np.nan, 0.3], start=0.5)
    series = read_labels(path)
    np.testing.assert_allclose(series.time, time)
    np.testing.assert_array_equal(series.values, np.array([0.1, np.nan, 0.3], np.float32))
    assert series.values.dtype == np.float64 and series.valid.tolist() == [True, False, True]
    assert (series.classes, series.words) == (0, ())
    path, _ = write_labels(tmp_path, "noxi", "9", "expert", [0, 1], classes=("low", "high"))
    series = read_labels(path)
    assert (series.classes, series.words) == (2, ("low", "high"))


def test_labels_have_one_column(tmp_path):
    path, _ = write_labels(tmp_path, "noxi", "9", "novice", [0.1, 0.2])
    with h5py.File(path, "r+") as f:
        values = f["values"][()]
        del f["values"]
        f["values"] = np.repeat(values, 2, axis=1)
        f.attrs["dim_names"] = json.dumps([*json.loads(f.attrs["dim_names"]), "more"])
    with pytest.raises(InputError, match="columns"):
        read_labels(path)


def test_agreement_of_values_and_of_classes(file, tmp_path):
    labels = Series(TIME, np.array([0, 1, np.nan, 2, 1]), np.array([1, 1, 0, 1, 1], bool))
    values = np.array([0.0, 2.0, 2.0, 1.0])
    with PredictionFile(file) as f:
        found = agreement(f, "9/novice", file, labels, values)
        assert found == Moments.of(np.array([0.0, 1, 2, 1]), values)
        worded = Series(labels.time, labels.values, labels.valid, 3, ("low", "mid", "high"))
        with pytest.raises(InputError) as e:
            agreement(f, "9/novice", file, worded, values)
        assert (
            "9/novice is rated by 3 words (low, mid, high), but run da_mamba predicts values, no"
            in str(e.value)
        )
        assert "classes: 3" in "\n".join(e.value.lines())
    change(file, classes=3)
    with PredictionFile(file) as f:
        for rated in (labels, worded):
            found = agreement(f, "9/novice", file, rated, values)
            assert isinstance(found, Confusion)
            assert found.rows() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
        two = Series(labels.time, labels.values, labels.valid, 2, ("low", "high"))
        with pytest.raises(
            InputError, match=r"2 words \(low, high\), but run da_mamba predicts 3 cl"
        ):
            agreement(f, "9/novice", file, two, values)
        with pytest.raises(
            InputError, match="p.h5: 9/novice holds 3, which is none of the 3 classes"
        ):
            agreement(f, "9/novice", tmp_path / "l.h5", labels, values + [0, 1, 0, 0])
        wrong = Series(labels.time, labels.values + 0.5, labels.valid)
        with pytest.raises(
            InputError, match="l.h5: 9/novice holds 0.5, which is none of the 3"
        ) as e:
            agreement(f, "9/novice", tmp_path / "l.h5", wrong, values)
        assert "from 0 to 2" in "\n".join(e.value.lines())


def test_labels_are_matched_with_predictions_at_the_valid_labels(file, tmp_path):
    path, _ = write_labels(tmp_path, "noxi", "9", "novice", [0.1, np.nan, 0.3, 0.2], start=0.5)
    with PredictionFile(file) as f:
        labels, series, values, with_input = matched(f, path, "9", "novice", 0.5)
        assert len(labels.time) == 4 and len(series.time) == 5
        expected, _ = sample(series, np.array([0.5, 0.58, 0.62]))
        np.testing.assert_allclose(values, expected)
        assert with_input.tolist() == [True] * 3
        late, _ = write_labels(tmp_path, "noxi", "9", "late", [0.1] * 3, start=1.5)
        with pytest.raises(InputError) as e:
            matched(f, late, "9", "novice", 0.4799)
        assert "labels cover 1.50 to 1.58 s but the predictions of 9/novice" in str(e.value)
        assert "cover 0.50 to 1.10 s" in str(e.value)
        assert (
            matched(f, late, "9", "novice", 0.48001)[2].tolist()
            == [f.read("9", "novice").values[-1]] * 3
        )


def test_one_frame_is_enough_and_nothing_beyond_needs_no_tolerance(tmp_path):
    people = {("9", "novice"): ([0.5], [0.25]), ("9", "expert"): ([0.5, 0.54], [0.25, np.nan])}
    file = write_predictions(tmp_path / "one.h5", people)
    path, _ = write_labels(tmp_path, "noxi", "9", "novice", [0.1], start=0.5)
    both, _ = write_labels(tmp_path, "noxi", "9", "expert", [0.1, 0.2], start=0.5)
    with PredictionFile(file) as f:
        assert matched(f, path, "9", "novice", 0.0)[2].tolist() == [0.25]
        with pytest.raises(InputError, match="one.h5: the prediction of 9/expert at 0.54 s is not"):
            matched(f, both, "9", "expert", 0.0)


def test_a_prediction_that_is_not_a_number_is_named_with_its_time(file):
    at = np.array([0.5, 0.54, 0.58])
    with PredictionFile(file) as f:
        check_finite(f, "9/novice", at, np.zeros(3))
        with pytest.raises(InputError, match="of 9/novice at 0.54 s is not a number"):
            check_finite(f, "9/novice", at, np.array([0.0, np.nan, np.inf]))
