"""Quality records: numbers known by construction; the picture; the table of all sessions."""

import json

import numpy as np
import pytest
import soundfile
from aligned_files import results_folder

from alignment import qc
from runtime import InputError
from store.session_spec import parse_spec


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = results_folder(tmp_path_factory.mktemp("results"))
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal(16000 * 6)
    sound[16000:32000] = 0.0  # one second of silence of six
    sound[40000:40960] = 1.0  # 960 clipped samples of 96,000
    soundfile.write(folder / "expert.wav", sound, 16000, subtype="PCM_16")
    left = np.zeros(16000 * 5)
    soundfile.write(
        folder / "no#vice.wav", np.stack([left, 0.1 + left], 1), 16000, subtype="PCM_16"
    )
    return folder


def arguments(results, out):
    return [
        *("session", "--session", "noxi/001:expert,novice", "--results", str(results)),
        *("--features", "clip_face", "wav2vec2", "--faces", "--labels-roles", "expert", "--audio"),
        f"expert={results / 'expert.wav'}",
        f"novice={results / 'no#vice.wav'}#1",
        *("--out", str(out / "q.json"), "--plot", str(out / "q.png")),
    ]


def test_numbers_of_a_session(results, tmp_path):
    assert qc.main(arguments(results, tmp_path)) == 0
    record = json.loads((tmp_path / "q.json").read_text())
    expert, novice = record["participants"]
    # Rows 50..74 have no face; between row 49 (tick 196) and row 75 (tick 300) nothing stands.
    assert expert["features"]["clip_face"]["coverage"] == round(1 - 103 / 600, 6)
    assert expert["features"]["clip_face"]["longest_gap_s"] == 1.03
    assert expert["features"]["wav2vec2"]["coverage"] == 1.0
    assert expert["faces"] == {"frames": 150, "face_rate": round(125 / 150, 6)}
    assert expert["labels"] == {"rows": 150, "missing": round(10 / 150, 6)}
    assert expert["length_spread_s"] == 0.0
    assert expert["audio"]["clipped"] == 0.01
    assert expert["audio"]["silent"] == round(20 / 120, 6)
    # The novice starts 1.5 s later: coverage counts its own recording only.
    assert novice["features"]["clip_face"]["coverage"] == 1.0
    assert novice["length_spread_s"] == 0.4
    assert novice["audio"]["silent"] == 0.0 and "labels" not in novice
    assert novice["audio"]["peak"] == pytest.approx(0.1, abs=0.02)


def test_record_and_picture_are_equal_bytes_and_name_no_folder(results, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert qc.main(arguments(results, tmp_path / name)) == 0
    for name in ("q.json", "q.png"):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert str(results).encode() not in content
    assert (tmp_path / "a" / "q.png").read_bytes()[:4] == b"\x89PNG"


def test_timeline_shows_the_hole_and_nothing_but_validity(results):
    _, timeline = qc.session_quality(parse_spec("noxi/001:expert,novice"), results, ["clip_face"])
    assert list(timeline) == ["expert clip_face", "novice clip_face"]
    assert all(v.dtype == bool and v.shape == (650,) for v in timeline.values())
    assert np.flatnonzero(~timeline["expert clip_face"][:600])[[0, -1]].tolist() == [197, 299]
    assert not timeline["novice clip_face"][:150].any()


def test_summary_has_a_row_per_participant(results, tmp_path):
    assert qc.main(arguments(results, tmp_path)) == 0
    other = json.loads((tmp_path / "q.json").read_text())
    other["dataset"], other["participants"] = "mpiigi", other["participants"][1:]
    other["participants"][0]["features"] = {"egemaps": {"coverage": 0.5}}
    (tmp_path / "r.json").write_text(json.dumps(other))
    inputs = [str(tmp_path / "q.json"), str(tmp_path / "r.json")]
    assert qc.main(["summary", "--inputs", *inputs, "--out", str(tmp_path / "qc.tsv")]) == 0
    table = [line.split("\t") for line in (tmp_path / "qc.tsv").read_text().splitlines()]
    rows = [dict(zip(table[0], line, strict=True)) for line in table[1:]]
    assert [(r["dataset"], r["role"]) for r in rows] == [
        ("mpiigi", "novice"), ("noxi", "expert"), ("noxi", "novice"),
    ]  # fmt: skip
    assert rows[0]["coverage_egemaps"] == "0.5" and rows[0]["coverage_clip_face"] == ""
    assert rows[1]["labels_missing"] == str(round(10 / 150, 6)) and rows[2]["labels_missing"] == ""


@pytest.mark.parametrize("size", [1, 7, 160, 799, 800, 16000, 50000])
def test_audio_quality_does_not_depend_on_block_size(size):
    rng = np.random.default_rng(4)
    sound = (rng.standard_normal(50000) * np.repeat([1e-5, 0.5], 25000)).astype(np.float32)
    if size == 1:
        sound = sound[20000:30000]
    found = qc.audio_quality(sound[i : i + size] for i in range(0, len(sound), size))
    pieces = [sound[i : i + 800].astype(float) for i in range(0, len(sound) // 800 * 800, 800)]
    silent = sum(np.sqrt((p**2).mean()) < 1e-3 for p in pieces) / len(pieces)
    assert found["silent"] == silent
    assert found["clipped"] == (np.abs(sound) >= 0.99).mean()
    assert found["peak"] == np.abs(sound).max()


@pytest.mark.parametrize(
    ("valid", "gap"), [("111", 0), ("000", 3), ("1001", 2), ("0110001", 3), ("", 0), ("10", 1)]
)
def test_longest_gap(valid, gap):
    assert qc.longest_gap(np.array([c == "1" for c in valid], bool)) == gap


def test_audio_arguments():
    parse = qc.parse_audio
    assert parse(["a=x.wav", "b=d#1/y.wav#0"]) == {"a": ("x.wav", None), "b": ("d#1/y.wav", 0)}
    assert parse(["a=x#y.wav"]) == {"a": ("x#y.wav", None)}
    for bad in ("x.wav", "=x.wav", "a="):
        with pytest.raises(InputError, match="role=path"):
            parse([bad])


def test_missing_and_foreign_inputs_are_named(results, tmp_path, capsys):
    spec = parse_spec("noxi/001:expert,third")
    with pytest.raises(InputError, match=r"third\.json"):
        qc.session_quality(spec, results, ["clip_face"])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(InputError, match=r"x\.json"):
        qc.write_summary([str(tmp_path / "x.json")], tmp_path / "t.tsv")
