"""Precomputed streams as features: times, rates, what is not valid, what is refused."""

import json

import numpy as np
import pytest
from stream_trees import EGEMAPS, openface, put, truncate, values

from extractors.stream import extract, first_detected, hold, main
from formats import stream_files
from formats.ssi import export
from formats.ssi.stream import open_stream, write_stream
from runtime import InputError
from store.features import read_features


def run(tmp_path, x, rate=25.0, rows=None, **options):
    path = put(tmp_path, "novice", "clip", x, rate, rows)
    out = tmp_path / "clip.h5"
    counts = extract(str(path), str(out), "clip", options.pop("references", {}), **options)
    return read_features(out), counts


def test_rows_times_and_names(tmp_path):
    x = values(5000, 4)
    features, counts = run(tmp_path, x)
    np.testing.assert_array_equal(features.values, x)
    np.testing.assert_allclose(features.time, np.arange(5000) / 25)
    assert features.valid.all() and counts["rows"] == 5000
    assert features.dim_names == ["clip0", "clip1", "clip2", "clip3"]
    assert features.attributes["native_rate_hz"] == 25
    taken = {"name": "clip", "drop": 0, "invalid_value": None, "max_abs": 1e12, "dtype": "float32"}
    assert json.loads(features.attributes["settings"]) == taken


def test_a_second_chunk_keeps_its_own_start(tmp_path):
    write_stream(tmp_path / "x.clip.stream", values(6, 2), 25.0, chunks=[(0.0, 2), (3.0, 4)])
    extract(str(tmp_path / "x.clip.stream"), str(tmp_path / "o.h5"), "clip", {})
    expected = [0, 0.04, 3.0, 3.04, 3.08, 3.12]
    np.testing.assert_allclose(read_features(tmp_path / "o.h5").time, expected)


def with_chunks(path, rate, *chunks):
    """Replace the header's chunks by (from in s, rows)."""
    head = path.read_text().partition("  <chunk")[0]
    lines = [
        f'  <chunk from="{a:.3f}" to="{a + n / rate:.3f}" byte="0" num="{n}" />\n'
        for a, n in chunks
    ]
    path.write_text(head + "".join(lines) + "</stream>\n")
    return path


def test_a_pause_keeps_rate_and_times(tmp_path):
    """0 to 25 s and 35 to 60 s at 30 Hz, beside 60 s of sound: 1500 rows are no 60 s at 25 Hz."""
    truth = np.concatenate([np.arange(750) / 30, 35 + np.arange(750) / 30])
    path = put(tmp_path, "novice", "clip", np.stack([truth, 2 * truth], 1).astype(np.float32), 30.0)
    with_chunks(path, 30, (0.0, 750), (35.0, 750))
    sound = {n: str(put(tmp_path, "novice", n, values(1500, 3))) for n in (EGEMAPS, "audio.w2v")}
    counts = extract(str(path), str(tmp_path / "o.h5"), "clip", sound)
    made = read_features(tmp_path / "o.h5")
    assert counts["rate_hz"] == 30
    np.testing.assert_allclose(made.time, truth, atol=1e-9)
    found = stream_files.lengths(tmp_path / "novice")
    assert {n: round(s.seconds(), 6) for n, s in found.items()} == dict.fromkeys(found, 60.0)
    assert stream_files.shifted(tmp_path / "novice") == {}


@pytest.mark.parametrize(("second", "start"), [(9.97, 10.0), (10.0, 10.0), (10.02, 10.02)])
def test_chunks_that_touch_within_a_row_go_on(tmp_path, second, start):
    path = with_chunks(put(tmp_path, "n", "clip", values(500, 2)), 25, (0.0, 250), (second, 250))
    extract(str(path), str(tmp_path / "o.h5"), "clip", {})
    expected = [*(np.arange(250) / 25), *(start + np.arange(250) / 25)]
    np.testing.assert_allclose(read_features(tmp_path / "o.h5").time, expected)


def test_chunks_that_overlap_are_refused_by_name(tmp_path):
    path = with_chunks(put(tmp_path, "n", "clip", values(500, 2)), 25, (0.0, 250), (9.9, 250))
    with pytest.raises(InputError, match=r"n\.clip\.stream: chunk from=9\.900 .*from=0\.000") as e:
        extract(str(path), str(tmp_path / "o.h5"), "clip", {})
    assert "remux" not in e.value.cure and "header" in e.value.cure


def test_chunks_without_a_pause_stay_one_run_at_the_inferred_rate(tmp_path):
    """A header of 40 Hz for 25 Hz computes its chunks' starts from 40, too."""
    other = put(tmp_path, "novice", EGEMAPS, values(500, 88))
    path = put(tmp_path, "novice", "clip", values(500, 4), 40.0)
    with_chunks(path, 40, (0.0, 200), (5.0, 300))
    assert (
        extract(str(path), str(tmp_path / "o.h5"), "clip", {EGEMAPS: str(other)})["rate_hz"] == 25
    )
    np.testing.assert_allclose(read_features(tmp_path / "o.h5").time, np.arange(500) / 25)


def test_a_wrong_rate_is_corrected_by_the_other_streams(tmp_path):
    other = put(tmp_path, "novice", EGEMAPS, values(500, 88))
    references = {EGEMAPS: str(other)}
    features, counts = run(tmp_path, values(500, 4), rate=40.0, references=references)
    assert counts["rate_hz"] == 25
    np.testing.assert_allclose(features.time, np.arange(500) / 25)
    # Without anything to compare with, the header stands.
    assert run(tmp_path, values(500, 4), rate=40.0)[1]["rate_hz"] == 40


def test_a_truncated_body_keeps_its_rate_and_loses_only_its_end(tmp_path):
    other = put(tmp_path, "novice", EGEMAPS, values(500, 88))
    path = put(tmp_path, "novice", "clip", values(500, 4), 40.0)
    truncate(path, 0.82, 4)
    counts = extract(str(path), str(tmp_path / "o.h5"), "clip", {EGEMAPS: str(other)})
    assert (counts["rows"], counts["declared_rows"], counts["rate_hz"]) == (410, 500, 25)
    np.testing.assert_allclose(read_features(tmp_path / "o.h5").time, np.arange(410) / 25)


def test_fills_and_nan_are_not_valid(tmp_path):
    x = values(300, 4)
    x[5], x[9, 2], x[20] = 3.7e19, np.nan, 9e5
    features, counts = run(tmp_path, x)
    assert np.flatnonzero(~features.valid).tolist() == [5, 9] and counts["valid"] == 298
    np.testing.assert_array_equal(features.values[20], x[20])


def test_a_doubled_body_is_refused_until_told_which_half(tmp_path):
    x = values(600, 4)
    x[300:] += x[:300]  # two microphones in one room
    with pytest.raises(InputError, match="twice the 300 rows"):
        run(tmp_path, x, rows=300)
    np.testing.assert_array_equal(run(tmp_path, x, rows=300, doubled="second")[0].values, x[300:])
    np.testing.assert_array_equal(run(tmp_path, x, rows=300, doubled="first")[0].values, x[:300])


@pytest.mark.parametrize("half", ["left", "right", "first", "second"])
def test_half_of_a_body_that_shows_no_two_microphones_is_never_taken(tmp_path, half):
    with pytest.raises(InputError, match="do not show two microphones") as e:
        run(tmp_path, values(600, 4), rows=300, doubled=half)
    assert "exclude" in e.value.cure


@pytest.mark.parametrize("beside", [True, False])
def test_the_microphone_of_a_doubled_body(tmp_path, beside):
    """Whichever way the two lie in it, and never a mixture of both."""
    rng = np.random.default_rng(0)
    one = np.cumsum(rng.normal(size=(300, 4)), axis=0).astype(np.float32)
    two = one + rng.normal(size=one.shape).astype(np.float32)
    body = np.hstack([one, two]).reshape(600, 4) if beside else np.vstack([one, two])
    names = ("left", "right") if beside else ("first", "second")
    for name, expected in zip(names, (one, two), strict=True):
        features, counts = run(tmp_path, body, rows=300, doubled=name)
        np.testing.assert_array_equal(features.values, expected)
        np.testing.assert_allclose(features.time, np.arange(300) / 25)
    for name in ({"left", "right", "first", "second"} - set(names)) | {"refuse"}:
        with pytest.raises(InputError) as e:
            run(tmp_path, body, rows=300, doubled=name)
        assert " or ".join(names) in e.value.cure
        assert (f"doubled: {name}" in e.value.problem) == (name != "refuse")


def test_columns_that_no_model_should_read_are_warned_of(tmp_path, caplog):
    def words(feature, x, **options):
        caplog.clear()
        path = put(tmp_path, "novice", feature, x)
        extract(str(path), str(tmp_path / "o.h5"), feature, {}, **options)
        return "".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING")

    assert "drop: 3" in words("openface2", openface(50))
    assert "drop: 3" in words("video.openface2", openface(50), drop=2)
    assert words("openface2", openface(50), drop=3) == ""
    assert words("openface2", values(50, 714)) == ""
    assert "invalid_value: -1" in words("openpose", values(50, 139, fill=-1))
    assert words("openpose", values(50, 139, fill=-1), invalid_value=-1) == ""
    assert words("openpose", values(50, 139)) == words("clip", values(50, 4, fill=-1)) == ""


def test_leading_columns_can_be_left_out(tmp_path):
    x = values(30, 7)
    features, _ = run(tmp_path, x, drop=3)
    np.testing.assert_array_equal(features.values, x[:, 3:])
    assert features.dim_names == ["clip3", "clip4", "clip5", "clip6"]
    with pytest.raises(InputError, match="leaves nothing"):
        run(tmp_path, x, drop=7)


def naive(x, invalid):
    """Column by column, value by value."""
    out = x.copy()
    for d in range(x.shape[1]):
        seen = [v for v in x[:, d] if v != invalid]
        last = seen[0] if seen else 0.0
        for k in range(len(x)):
            last = x[k, d] if x[k, d] != invalid else last
            out[k, d] = last
    return out


@pytest.mark.parametrize("rows", [1, 40, 4096, 4100, 9000])
def test_undetected_values_hold_the_last_detected_one(tmp_path, rows):
    x = values(rows, 3)
    gone = np.random.default_rng(1).random(x.shape) < 0.4
    gone[:, 2] = rows > 1  # a point that is never there
    x[gone] = -1
    features, counts = run(tmp_path, x, invalid_value=-1)
    present = ~(x == -1).all(axis=1)
    np.testing.assert_array_equal(features.valid, present)
    np.testing.assert_array_equal(features.values[present], naive(x, -1)[present])
    assert counts["held"] == int((x[present] == -1).sum())


def test_hold_and_first():
    x = np.array([[-1.0, 2], [3, -1], [-1, -1]])
    assert first_detected(x, -1).tolist() == [3, 2]
    assert hold(x, x == -1, np.array([9.0, 9])).tolist() == [[9, 2], [3, 2], [3, 2]]


def test_the_command(tmp_path, capsys):
    path = put(tmp_path, "novice", "clip", values(50, 4), 40.0)
    other = put(tmp_path, "novice", EGEMAPS, values(50, 88))
    out = tmp_path / "clip.h5"
    command = ["--stream", str(path), "--out", str(out), "--feature", "clip"]
    assert main([*command, "--references", f"{EGEMAPS}={other}"]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["counts"]["rate_hz"] == 25
    assert main(["--stream", str(tmp_path / "no.stream"), "--out", str(out), "--feature", "x"]) == 1


def test_a_feature_goes_out_as_a_stream_and_comes_back(tmp_path):
    x = values(200, 4)
    x[3] = np.nan
    features, _ = run(tmp_path, x)
    assert export.main([str(tmp_path / "clip.h5"), "--out", str(tmp_path / "y.clip.stream")]) == 0
    stream = open_stream(tmp_path / "y.clip.stream")
    assert stream.agrees and stream.header.rate_hz == 25
    np.testing.assert_array_equal(stream.values, features.values)
    np.testing.assert_allclose(stream.times, features.time)


def test_an_uneven_feature_is_no_stream(tmp_path):
    write_stream(tmp_path / "x.clip.stream", values(6, 2), 25.0, chunks=[(0.0, 2), (3.0, 4)])
    extract(str(tmp_path / "x.clip.stream"), str(tmp_path / "o.h5"), "clip", {})
    with pytest.raises(InputError, match="evenly spaced"):
        export.export(tmp_path / "o.h5", tmp_path / "z.stream")
    assert not (tmp_path / "z.stream").exists()
