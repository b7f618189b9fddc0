"""Faults end in a sentence and lose nothing: damaged and exchanged files, full and read-only disks,
killed writers, two calls at once, sessions that fail."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from aligned_files import feature_file
from face_files import write_crops

from evaluation.predictions import PredictionFile
from extractors.crops import read_crops
from inference import predict
from runtime import InputError
from store.atomic import write_text
from store.features import read_features
from store.hdf5 import create_hdf5
from store.intact import check_intact, read_sidecar
from store.session_spec import parse_spec
from store.sidecar import write_sidecar
from store.verify import verify
from tests.model_data import write_corpus
from training import statistics, train
from training.model_file import load_model
from training.sessions import SessionReader

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "preset": "demo",
    "model": {"name": "mlp"},
    "features": ["egemaps"],
    "training": {"epochs": 1},
}


def sidecar(path, beside=()):
    write_sidecar(path, inputs={}, settings={}, fingerprint="f", packages=[], command="python -m x", beside=beside)  # fmt: skip
    return path


@pytest.fixture
def results(tmp_path):
    """Aligned features and labels of two dyads with their sidecars, as the jobs leave them."""
    root = tmp_path / "results"
    write_corpus(root, dyads=2, seconds=8.0, dims={"egemaps": 4})
    for path in root.rglob("*.h5"):
        sidecar(path)
    return root


def flip(path, at=None):
    """Turn one bit of the content round, size and time stamps kept."""
    about = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def exchange(path):
    """The file of the other participant, sound in itself."""
    other = path.with_name("novice") / path.name if path.parent.name != "expert" else path
    other = Path(str(path).replace("expert", "novice"))
    shutil.copy2(other, path)


def exchange_both(path):
    """File and sidecar of another feature: each fits the other, not the name."""
    other = path.with_name("other.h5")
    shutil.copy2(path, other)
    with h5py.File(other, "r+") as f:
        f.attrs["x"] = 1
    sidecar(other)
    shutil.copy2(other, path)
    shutil.copy2(other.with_suffix(".json"), path.with_suffix(".json"))


def exchange_pairs(path):
    """Two participants' files together with their sidecars: each pair is sound in itself."""
    other = Path(str(path).replace("expert", "novice"))
    assert other != path
    for a, b in ((path, other), (path.with_suffix(".json"), other.with_suffix(".json"))):
        held = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(held)


def spoil_sidecar(path):
    path.with_suffix(".json").write_text('{"file": "')


def empty_sidecar(path):
    path.with_suffix(".json").write_text("{}")


def edit_sidecar(path):
    """What it says of the making is changed, the checksum of the file stays."""
    about = path.with_suffix(".json")
    record = json.loads(about.read_text())
    about.write_text(json.dumps(record | {"fingerprint": "another"}))


DAMAGES = [flip, truncate, exchange, exchange_both, exchange_pairs, edit_sidecar, spoil_sidecar, empty_sidecar]  # fmt: skip


def train_words(results, out):
    specs = ["noxi/001:expert,novice", "noxi/002:expert,novice"]
    return ["--settings", json.dumps(SETTINGS), "--train", *specs, "--results", str(results),
            "--statistics", str(results / "statistics.h5"), "--out", str(out / "m.safetensors"),
            "--history", str(out / "h.jsonl"), "--seed", "1"]  # fmt: skip


def count(results):
    specs = ["noxi/001:expert,novice", "noxi/002:expert,novice"]
    return ["--sessions", *specs, "--features", "egemaps", "--results", str(results), "--out", str(results / "statistics.h5")]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("kind", ["aligned", "labels"])
def test_damaged_and_exchanged_files_are_never_trained_on(results, tmp_path, capsys, damage, kind):
    assert statistics.main(count(results)) == 0
    assert train.main(train_words(results, tmp_path)) == 0
    (tmp_path / "m.safetensors").unlink()
    name = {"aligned": "aligned/noxi/001/expert/egemaps.h5", "labels": "labels/noxi/001/expert.h5"}[
        kind
    ]
    damage(results / name)
    capsys.readouterr()
    assert train.main(train_words(results, tmp_path)) == 1
    said = capsys.readouterr().err
    assert Path(name).stem in said and "cure:" in said and "rm '" in said
    assert not (tmp_path / "m.safetensors").exists()
    assert statistics.main(count(results)) == 1


@pytest.mark.parametrize("damage", DAMAGES[:2] + DAMAGES[5:], ids=lambda d: d.__name__)
def test_a_damaged_checkpoint_is_never_predicted_with(results, tmp_path, capsys, damage):
    statistics.main(count(results))
    train.main(train_words(results, tmp_path))
    model = tmp_path / "m.safetensors"
    assert load_model(model).dims == {"egemaps": 4}
    words = ["--checkpoint", str(model), "--sessions", "noxi/001:expert,novice@val", "--results", str(results), "--out", str(tmp_path / "p.h5")]  # fmt: skip
    assert predict.main(words) == 0
    (tmp_path / "p.h5").unlink()
    damage(model)
    assert predict.main(words) == 1
    assert (
        "m.json" if "sidecar" in damage.__name__ else "m.safetensors"
    ) in capsys.readouterr().err
    assert not (tmp_path / "p.h5").exists()


def test_every_flipped_bit_of_a_file_is_found(tmp_path):
    """Schema checks see some of them; the checksum sees all."""
    path = sidecar(feature_file(tmp_path / "f.h5", np.ones((40, 2)), np.arange(40) / 25))
    read_features(path)
    size = path.stat().st_size
    for at in range(0, size, max(1, size // 60)):
        flip(path, at)
        os.utime(path)  # a checksum is taken once per version of a file
        with pytest.raises(InputError, match="sha256 differs"):
            read_features(path)
        flip(path, at)
        os.utime(path)
    read_features(path)


def test_every_flipped_bit_of_a_sidecar_is_found(tmp_path):
    path = sidecar(feature_file(tmp_path / "f.h5", np.ones((40, 2)), np.arange(40) / 25))
    about = path.with_suffix(".json")
    check_intact(path)
    whole = about.read_bytes()
    for at in range(len(whole)):
        for bit in (0, 5):
            about.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                assert json.loads(about.read_bytes()) != json.loads(whole)
            except ValueError:
                pass
            except AssertionError:
                continue  # white space
            with pytest.raises(InputError):
                read_sidecar(about)


def test_files_may_be_moved_and_copied_out_of_a_results_folder(tmp_path):
    """The place is compared within a results folder alone: whoever publishes a model moves it."""
    model = tmp_path / "results/runs/a/seed-1/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    sidecar(model)
    for target in ("published/a", "other/runs/a/seed-1"):
        folder = tmp_path / target
        shutil.copytree(model.parent, folder)
        check_intact(folder / model.name)
    shutil.copytree(model.parent, tmp_path / "results/runs/b/seed-1")
    with pytest.raises(InputError, match="was made as runs/a/seed-1"):
        check_intact(tmp_path / "results/runs/b/seed-1" / model.name)


def test_crops_of_another_person_or_damaged_are_noticed(tmp_path):
    folder = tmp_path / "results/faces/noxi/001"
    folder.mkdir(parents=True)
    for i, role in enumerate(("expert", "novice")):
        crops = write_crops(
            folder / f"{role}.crops.mkv", [np.full((32, 32, 3), 40 * i, np.uint8)] * 3
        )
        (folder / f"{role}.h5").write_bytes(b"faces")
        sidecar(folder / f"{role}.h5", beside=[crops])
        assert len(list(read_crops(crops, expected=3))) == 3
    assert verify(tmp_path / "results") == "4 files checked, 0 removed"
    own, other = folder / "expert.crops.mkv", folder / "novice.crops.mkv"
    kept = own.read_bytes()
    shutil.copy2(other, own)
    with pytest.raises(InputError, match="sha256 differs"):
        list(read_crops(own, expected=3))
    own.write_bytes(kept)
    for name in ("crops.mkv", "h5", "json"):  # both with their sidecars
        a, b = folder / f"expert.{name}", folder / f"novice.{name}"
        a.rename(folder / "x")
        b.rename(a)
        (folder / "x").rename(b)
    with pytest.raises(InputError, match="sidecar of novice.h5"):
        list(read_crops(own, expected=3))
    said = verify(tmp_path / "results", remove=True)
    assert said.startswith("4 files checked, 4 removed") and not list(folder.iterdir())


def test_a_prediction_file_of_another_dataset_is_noticed(tmp_path):
    from tests.evaluation_data import write_predictions

    time_ = np.arange(5) / 25
    a, b = (
        sidecar(write_predictions(tmp_path / f"{n}.h5", {("1", "r"): (time_, time_)}, dataset=n))
        for n in ("noxi", "mpiigi")
    )
    shutil.copy2(b, a)
    with pytest.raises(InputError, match="sha256 differs"):
        PredictionFile(a)


def test_files_without_a_sidecar_are_read_and_a_check_costs_one_reading(results, monkeypatch):
    spec = parse_spec("noxi/001:expert,novice")
    reads = []
    import hashlib

    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, how: reads.append(f.name) or real(f, how))
    for path in results.rglob("*.h5"):
        os.utime(path)
    for _ in range(3):
        with SessionReader(results, spec, ["egemaps"], 25.0):
            pass
    assert len(reads) == len(set(reads)) == 2
    (results / "aligned/noxi/001/expert/egemaps.json").unlink()
    check_intact(results / "aligned/noxi/001/expert/egemaps.h5")


# ---- disks ----


@pytest.mark.parametrize("limit", [2_000])
def test_training_on_a_full_disk_says_so_and_leaves_nothing(results, tmp_path, limit):
    """A file-size limit ends writes as a full disk does (EFBIG instead of ENOSPC)."""
    statistics.main(count(results))
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "training.train", *train_words(results, out)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={k: v for k, v in os.environ.items() if k != "DEBUG"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no space left" in done.stderr and "Traceback" not in done.stderr
    assert list(out.iterdir()) == []


FULL = """
import argparse, resource, sys, zipfile
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from extractors.crops import CropWriter
from runtime.job import run_job
from formats.ssi.stream import write_stream
from store.atomic import atomic_path

def crops(path):
    with CropWriter(path, 224) as writer:
        for _ in range(20):
            writer.write(np.random.randint(0, 255, (224, 224, 3), dtype=np.uint8))

def figure(path):
    figure = Figure(figsize=(10, 10))
    figure.subplots().imshow(np.random.rand(900, 900))
    with atomic_path(path, ".png") as temporary:
        figure.savefig(temporary)

def archive(path):
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as new:
        new.writestr("a", bytes(100_000))

def stream(path):
    write_stream(path, np.random.rand(50_000, 2).astype(np.float32), 25.0)

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for write, name in ((crops, "c.mkv"), (figure, "f.png"), (archive, "z.zip"), (stream, "s.stream")):
    path = Path(sys.argv[1]) / name
    print(run_job("m", argparse.ArgumentParser(), lambda args: write(path), []))
"""


def test_every_kind_of_file_says_what_found_no_space(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == ["1"] * 4, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for line, name in zip(said, ("c.mkv", "f.png", "z.zip", "s.stream~"), strict=True):
        assert line == f"error: no space left while writing {tmp_path / name}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a tmpfs")
def test_a_full_tmpfs_keeps_what_was_there(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)  # fmt: skip
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        feature_file(disk / "f.h5", np.ones((50, 2)), np.arange(50) / 25)
        before = (disk / "f.h5").read_bytes()
        with pytest.raises(OSError, match="space"):
            feature_file(disk / "f.h5", np.random.rand(200_000, 4), np.arange(200_000) / 25)
        with pytest.raises(OSError, match="space"):
            write_text(disk / "f.h5", "x" * 400_000)
        assert (disk / "f.h5").read_bytes() == before
        assert [p.name for p in disk.iterdir()] == ["f.h5"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def read_only(path, readonly=True):
    """A bind mount, because root may write into any folder."""
    if readonly:
        subprocess.run(["mount", "--bind", str(path), str(path)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True, capture_output=True)  # fmt: skip
    else:
        subprocess.run(["umount", str(path)], check=True)


def test_a_read_only_results_folder_is_named(results, tmp_path, capsys):
    statistics.main(count(results))
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    if os.getuid() == 0:
        try:
            read_only(results)
        except subprocess.CalledProcessError:
            pytest.skip("no bind mount here")
    else:
        os.chmod(results, 0o500)
    try:
        assert statistics.main(count(results)) == 1
        said = capsys.readouterr().err
        assert "no permission" in said and "writable" in said and len(said.splitlines()) <= 3 + 20
        assert "Traceback" not in said
    finally:
        read_only(results, False) if os.getuid() == 0 else os.chmod(results, 0o700)
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


# ---- killed writers ----

WRITER = """
import sys, time
from store.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writer(path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    process = start_writer(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    write_text(path, "new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_living_writer_is_left_alone(tmp_path):
    process = start_writer(tmp_path / "x.txt")
    try:
        write_text(tmp_path / "x.txt", "new")
        write_text(tmp_path / "y.txt", "other")
        assert len(list(tmp_path.iterdir())) == 3
    finally:
        process.kill()
        process.wait()
    with create_hdf5(tmp_path / "x.txt") as new:
        new.file["a"] = [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.txt", "y.txt"]
