"""Label files: session time, missing is masked and never 0, lengths that disagree are refused."""

import json

import numpy as np
import pytest
from aligned_files import probe_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment import labels
from runtime import InputError
from store.features import check_features, read_features


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_missing_values_are_masked_and_zero_stays_a_value(tmp_path):
    lines = ["0", "0.25", "", "nan", "-nan(ind)", "1.0"] + ["0.5"] * 94
    out = tmp_path / "l.h5"
    counts = labels.convert(write(tmp_path / "l.csv", lines), out, probe_record(duration_s=4.0))
    assert counts == {"rows": 100, "missing": 3}
    assert check_features(out) == []
    read = read_features(out)
    assert read.valid[:6].tolist() == [True, True, False, False, False, True]
    assert np.isnan(read.values[2:5, 0]).all()
    assert read.values[[0, 1, 5], 0].tolist() == [0.0, 0.25, 1.0]
    assert read.dim_names == ["engagement"]
    assert read.attributes["native_rate_hz"] == 25.0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=60),
    st.sampled_from([10.0, 25.0, 30.0]),
    st.floats(0, 100),
)
def test_any_labels_come_back_at_their_own_times(tmp_path, values, rate, offset):
    csv = write(tmp_path / "l.csv", ["" if v is None else repr(v) for v in values])
    probe = probe_record(duration_s=len(values) / rate, offset=offset)
    labels.convert(csv, tmp_path / "l.h5", probe, rate, offset)
    read = read_features(tmp_path / "l.h5")
    np.testing.assert_allclose(read.time, [k / rate + offset for k in range(len(values))])
    for value, row, ok in zip(values, read.values[:, 0], read.valid, strict=True):
        assert ok == (value is not None)
        assert np.isnan(row) if value is None else row == np.float32(value)


def test_all_missing_is_a_file_without_a_valid_row(tmp_path):
    labels.convert(
        write(tmp_path / "l.csv", [""] * 50), tmp_path / "l.h5", probe_record(duration_s=2)
    )
    assert not read_features(tmp_path / "l.h5").valid.any()


@pytest.mark.parametrize(("rows", "fits"), [(700, True), (800, True), (699, False), (801, False)])
def test_length_tolerance_names_both(tmp_path, rows, fits):
    csv = write(tmp_path / "l.csv", ["0.5"] * rows)
    probe = probe_record("novice", duration_s=30.0, session="020")
    if fits:
        labels.convert(csv, tmp_path / "l.h5", probe, length_tolerance_s=2.0)
    else:
        with pytest.raises(InputError, match=r"l\.csv.*noxi/020/novice lasts 30\.00 s"):
            labels.convert(csv, tmp_path / "l.h5", probe, length_tolerance_s=2.0)
        assert not (tmp_path / "l.h5").exists()


@pytest.mark.parametrize(
    ("line", "word"), [("1.5", "outside"), ("abc", "not a number"), ("-0.1", "")]
)
def test_bad_values_are_refused_with_their_line(tmp_path, line, word):
    csv = write(tmp_path / "l.csv", ["0.5"] * 10 + [line])
    with pytest.raises(InputError, match=rf"line 11.*{word}"):
        labels.convert(csv, tmp_path / "l.h5", probe_record(duration_s=0.44))


def test_attributes_of_the_file(tmp_path):
    csv, out = write(tmp_path / "l.csv", ["0.5", "", "1"]), tmp_path / "l.h5"
    labels.convert(csv, out, probe_record(duration_s=6.0), 0.5, 2.0, 0.0, "version=1")
    read = read_features(out)
    assert read.time.tolist() == [2.0, 4.0, 6.0] and read.values.shape == (3, 1)
    assert {k: v for k, v in read.attributes.items() if k != "schema_version"} == {
        "feature": "engagement",
        "native_rate_hz": 0.5,
        "window_s": 0.0,
        "hop_s": 2.0,
        "dim_names": '["engagement"]',
        "extractor": "alignment.labels",
        "model_id": "",
        "model_revision": "",
        "precision": "fp32",
        "fingerprint": "version=1",
        "settings": "{}",
        "offset_s": 2.0,
    }


def test_defaults_are_25_labels_a_second_from_the_sessions_zero(tmp_path):
    csv, out = write(tmp_path / "l.csv", ["0.5"] * 50), tmp_path / "l.h5"
    labels.convert(csv, out, probe_record(duration_s=4.0))  # 2 s shorter: as much as is allowed
    attributes = read_features(out).attributes
    assert read_features(out).time.tolist() == [k / 25 for k in range(50)]
    assert (attributes["hop_s"], attributes["offset_s"], attributes["fingerprint"]) == (0.04, 0, "")
    with pytest.raises(InputError, match="lasts 4.01 s"):
        labels.convert(csv, out, probe_record(duration_s=4.01))


def test_words_become_their_places(tmp_path):
    csv, out = write(tmp_path / "l.csv", ["high", "low", "nan", "low"]), tmp_path / "l.h5"
    probe = probe_record(duration_s=0.16)
    assert labels.convert(csv, out, probe, classes=("low", "mid", "high"))["missing"] == 1
    read = read_features(out)
    assert read.values[[0, 1, 3], 0].tolist() == [2, 0, 0] and not read.valid[2]
    assert read.attributes["classes"].tolist() == ["low", "mid", "high"]


@pytest.mark.parametrize("rate", [0.0, -25.0, np.inf, np.nan])
def test_a_rate_that_is_none(tmp_path, rate):
    with pytest.raises(InputError, match=f"label rate {rate} Hz"):
        labels.convert(tmp_path / "l.csv", tmp_path / "l.h5", probe_record(), rate)


def test_a_single_label(tmp_path):
    csv, out = write(tmp_path / "l.csv", ["0.25"]), tmp_path / "l.h5"
    assert labels.convert(csv, out, probe_record(duration_s=1.0), 1.0) == {"rows": 1, "missing": 0}
    assert (read_features(out).values, read_features(out).time) == (0.25, 0.0)


def test_command_line_equal_bytes_and_sidecar(tmp_path, capsys):
    csv = write(tmp_path / "l.csv", ["0.5"] * 99 + ["nan"])
    probe = tmp_path / "p.json"
    probe.write_text(json.dumps(probe_record(duration_s=4.0)))
    outs = [tmp_path / "a" / "l.h5", tmp_path / "b" / "l.h5"]
    for out in outs:
        arguments = [
            "--labels",
            str(csv),
            "--probe",
            str(probe),
            "--offset",
            "2.5",
            "--out",
            str(out),
        ]
        assert labels.main(arguments) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    record = json.loads(outs[0].with_suffix(".json").read_text())
    assert record["counts"] == {"rows": 100, "missing": 1}
    assert record["settings"]["offset_s"] == 2.5
    assert read_features(outs[0]).time[0] == 2.5
    csv.unlink()
    capsys.readouterr()
    assert labels.main(arguments) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3
