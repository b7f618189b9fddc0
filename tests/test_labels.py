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
    assert labels.main([*arguments, "--log", str(tmp_path / "log")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3
