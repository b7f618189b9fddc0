"""The feature contract, atomic writing, sidecars, describe and validate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from aligned_files import feature_file, results_folder

from runtime import InputError
from store import __main__ as store_command
from store import describe, sidecar
from store.atomic import atomic_path, write_text
from store.features import FeatureAttributes, FeatureWriter, check_features, read_features
from store.sidecar import file_identity, sha256, write_sidecar

ROOT = Path(__file__).resolve().parent.parent


def attributes(dim=2, **change):
    base = {"feature": "x", "native_rate_hz": 25.0, "window_s": 0.04, "hop_s": 0.04,
            "dim_names": [f"d{i}" for i in range(dim)], "extractor": "extractors.x"}  # fmt: skip
    return FeatureAttributes(**(base | change))


# ---- feature files ----


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_pieces_give_the_bytes_content_of_one_write(tmp_path, pieces):
    rng = np.random.default_rng(0)
    values, time = rng.standard_normal((200, 2)), np.arange(200) / 25
    valid = rng.random(200) > 0.2
    with FeatureWriter(tmp_path / "x.h5", attributes(), "float16", {"c": ("f4", (3,))}) as writer:
        for part in np.array_split(np.arange(200), pieces):
            extra = np.repeat(time[part, None], 3, 1)
            writer.append(values[part], time[part], valid[part], c=extra)
    read = read_features(tmp_path / "x.h5")
    assert np.array_equal(read.valid, valid) and np.array_equal(read.time, time)
    assert np.array_equal(read.values[valid], values[valid].astype("float16"))
    assert np.isnan(read.values[~valid]).all()
    assert read.extra["c"].shape == (200, 3) and read.dim_names == ["d0", "d1"]


def test_equal_input_gives_equal_bytes(tmp_path):
    values, time = np.random.default_rng(0).standard_normal((500, 40)), np.arange(500) / 25
    for name in ("a.h5", "b.h5"):
        feature_file(tmp_path / name, values, time, dtype="float16")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("values", "time", "word"),
    [
        ([[1, 2], [3, 70000]], [0, 1], "does not fit into float16"),
        ([[1, 2], [3, 4]], [1, 1], "does not increase"),
        ([[1, 2], [3, np.nan]], [0, 1], "not finite"),
        ([[1, 2], [3, np.inf]], [0, 1], "not finite"),
    ],
)
def test_writer_refuses_and_leaves_nothing(tmp_path, values, time, word):
    with (
        pytest.raises(InputError, match=word),
        FeatureWriter(tmp_path / "x.h5", attributes(), "float16") as writer,
    ):
        writer.append(np.array(values, float), np.array(time, float), np.ones(2, bool))
    assert list(tmp_path.iterdir()) == []


def test_writer_refuses_time_that_falls_between_pieces(tmp_path):
    with (
        pytest.raises(InputError, match="row 2"),
        FeatureWriter(tmp_path / "x.h5", attributes()) as writer,
    ):
        writer.append(np.ones((2, 2)), np.array([0.0, 1.0]), np.ones(2, bool))
        writer.append(np.ones((1, 2)), np.array([0.5]), np.ones(1, bool))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda f: f.__delitem__("time"), "time"),
        (lambda f: f.attrs.__delitem__("hop_s"), "hop_s"),
        (lambda f: f.attrs.__setitem__("schema_version", 9), "schema version 9"),
        (lambda f: f["values"].__setitem__(3, np.nan), "not finite"),
        (lambda f: f["time"].__setitem__(3, 0.0), "increasing"),
        (lambda f: f["valid"].resize(5, axis=0), "lengths differ"),
        (lambda f: f.attrs.__setitem__("dim_names", '["a"]'), "columns"),
    ],
)
def test_check_and_validate_name_what_is_wrong(tmp_path, damage, word, capsys):
    path = feature_file(tmp_path / "x.h5", np.ones((10, 2)), np.arange(10) / 25)
    assert check_features(path) == []
    with h5py.File(path, "r+") as f:
        damage(f)
    assert word in check_features(path)[0]
    with pytest.raises(InputError):
        read_features(path)
    assert store_command.main(["validate", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 3 and "x.h5" in lines[0] and word in lines[0]


# ---- atomic, sidecar ----


def test_atomic_path_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["x.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_sidecar_holds_provenance_and_no_absolute_path(tmp_path):
    source, out = tmp_path / "in" / "a.wav", tmp_path / "out.h5"
    write_text(source, "abc")
    write_text(out, "x")
    records = []
    for seconds in (1.0, 2.0):
        path = write_sidecar(
            out, inputs={"audio": source}, settings={"k": 1}, fingerprint="code=1",
            packages=["numpy", "no-such-package"], command="python -m x", seconds=seconds,
        )  # fmt: skip
        records.append(json.loads(path.read_text()))
    assert path == tmp_path / "out.json"
    runs = [r.pop("run") for r in records]
    assert records[0] == records[1] and runs[0] != runs[1]
    assert records[0]["inputs"]["audio"] == file_identity(source)
    assert file_identity(source)["name"] == "in/a.wav"
    # sha256("abc"), FIPS 180-2
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_identity(source)["sha256"] == expected == sha256(source)
    assert records[0]["versions"] == {"numpy": np.__version__}
    assert str(tmp_path) not in path.read_text()


# ---- describe, validate ----


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = results_folder(tmp_path_factory.mktemp("results"))
    predictions, statistics = root / "p.h5", root / "s.h5"
    with h5py.File(predictions, "w") as f:
        f.attrs.update(run="r", seed=0, dataset="noxi", fingerprint="x", schema_version=1)
        group = f.create_group("001/expert")
        group["time"], group["engagement"] = np.arange(5) / 25, np.full(5, 0.5, "f4")
        group["valid"] = np.array([1, 1, 0, 1, 1], bool)
        f["001"].attrs["split"] = "val"
    with h5py.File(statistics, "w") as f:
        f.attrs.update(frame_rate_hz=25.0, sessions="[]", fingerprint="x", schema_version=1)
        f.create_group("label").attrs.update(mean=0.5, std=0.1, count=10)
        f["flow/mean"], f["flow/std"] = np.zeros(3), np.ones(3)
        f["flow"].attrs["count"] = 10
    with h5py.File(root / "foreign.h5", "w") as f:
        f["data"] = np.arange(3)
    return {
        "feature": root / "features/noxi/001/expert/clip_face.h5",
        "faces": root / "faces/noxi/001/expert.h5",
        "labels": root / "labels/noxi/001/expert.h5",
        "aligned": root / "aligned/noxi/001/novice/wav2vec2.h5",
        "predictions": predictions,
        "statistics": statistics,
        "foreign": root / "foreign.h5",
    }


SHOWN = {
    "feature": ["150 x 4 float16", "25 Hz", "0.000 .. 5.960 s", "125 of 150 rows (83.3 %)"],
    "labels": ["engagement", "150 x 1", "140 of 150", "0 .. 0.99"],
    "aligned": ["650 ticks at 100 Hz (6.50 s), linear", "250 x 3", "500 of 650", "offset_s", "1.5"],
    "predictions": ["run         r, seed 0", "001/expert", "5 frames, 4 valid"],
    "statistics": ["mean 0.5000, std 0.1000, 10 frames", "flow", "3 dims"],
    "foreign": ["not a file of this workflow", "data"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_describe_fits_a_screen_and_shows_the_facts(files, name):
    text = describe.describe(files[name])
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 140
    for word in SHOWN[name]:
        assert word in text


def test_validate_accepts_every_kind(files, capsys):
    sound = [str(path) for name, path in files.items() if name != "foreign"]
    assert store_command.main(["validate", *sound]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith("ok  ") for line in lines)
    assert store_command.main(["validate", sound[0], str(files["foreign"])]) == 1
    assert "foreign.h5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("predictions", lambda f: f["001/expert/engagement"].__setitem__(0, np.nan), "not finite"),
        ("predictions", lambda f: f["001/expert"].__delitem__("valid"), "valid missing"),
        ("predictions", lambda f: f["001/expert/time"].__setitem__(1, 0.0), "increasing"),
        ("statistics", lambda f: f["flow/std"].__setitem__(0, 0.0), "not positive"),
        ("statistics", lambda f: f["flow/mean"].__setitem__(0, np.nan), "not finite"),
        ("statistics", lambda f: f["flow"].attrs.__delitem__("count"), "count"),
    ],
)
def test_validate_names_what_is_wrong(files, name, damage, word):
    path = files[name]
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as f:
        damage(f)
    kind, problems = describe.validate(copy)
    assert kind == name and word in " ".join(problems)


@pytest.mark.parametrize("command", ["describe", "validate"])
def test_damaged_and_missing_files_end_in_two_lines(tmp_path, command):
    path = feature_file(tmp_path / "x.h5", np.ones((4000, 20)), np.arange(4000) / 25)
    content = path.read_bytes()
    for name, text in (("empty.h5", b""), ("text.h5", b"hello"), ("cut.h5", content[:-5000])):
        (tmp_path / name).write_bytes(text)
    for name in ("empty.h5", "text.h5", "cut.h5", "absent.h5"):
        done = subprocess.run(
            [sys.executable, "-m", "store", command, str(tmp_path / name)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 2 and name in done.stderr


def test_commands_in_sidecars_name_no_folder_of_a_machine():
    command = (
        "python -m x.y --video '/data/my corpus/noxi/001/expert.mp4' --out=/r/f.h5 --n 3 a/b.h5"
    )
    assert sidecar.relative_command(command) == (
        "python -m x.y --video 001/expert.mp4 --out=r/f.h5 --n 3 a/b.h5"
    )
