"""CLIP embedding of the face against open_clip called directly, picture by picture."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from runtime import InputError
from runtime.device import limit_threads
from runtime.torchvision_cpu import allow_torchvision_without_cuda
from store.features import check_features, read_features
from tests.face_files import write_crops, write_faces

allow_torchvision_without_cuda()
import open_clip  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from extractors import clip_face  # noqa: E402
from extractors.face_track import FaceCrops, read_track  # noqa: E402
from extractors.run import extract  # noqa: E402
from extractors.weights import make_manifest  # noqa: E402

MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}
FRAMES = 21
INVALID = [0, 5, 6, 20]


@pytest.fixture(autouse=True)
def one_thread():
    limit_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small CLIP in open_clip's local layout, with preprocessing values of its own."""
    folder = tmp_path_factory.mktemp("weights") / "tiny-clip"
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**MODEL)
    with torch.no_grad():
        for p in model.parameters():  # away from the all-zero biases of a fresh model
            p.add_(0.05 * torch.randn_like(p))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic"}
    config = {"model_cfg": MODEL, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def pictures(size):
    rng = np.random.default_rng(size)
    coarse = rng.integers(0, 256, (FRAMES, 9, 9, 3), np.uint8)
    big = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in coarse]
    return [np.asarray(p) for p in big]


@pytest.fixture(scope="module")
def role(tmp_path_factory):
    folder = tmp_path_factory.mktemp("role")
    valid = np.ones(FRAMES, bool)
    valid[INVALID] = False
    shown = [p if v else np.zeros_like(p) for p, v in zip(pictures(224), valid, strict=True)]
    return (
        write_faces(folder / "role.h5", np.arange(FRAMES) / 25, valid),
        write_crops(folder / "role.crops.mkv", shown),
    )


def direct(weights, images, precision="fp32"):
    """open_clip as its documentation shows it: one picture at a time."""
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{weights}", precision=precision
    )
    model.eval()
    dtype = next(model.visual.parameters()).dtype
    with torch.no_grad():
        rows = [
            model.encode_image(transform(Image.fromarray(p))[None].to(dtype)).float().numpy()[0]
            for p in images
        ]
    return np.stack(rows)


def test_rows_equal_open_clip_called_directly(tmp_path, weights, role):
    out = tmp_path / "clip_face.h5"
    extract("clip_face", out, FaceCrops(*role), weights=weights, dtype="float32", batch_size=8)
    assert check_features(out) == []
    f = read_features(out)
    assert list(np.flatnonzero(~f.valid)) == INVALID
    assert f.values.shape == (FRAMES, 32) and f.dim_names[:2] == ["clip_0", "clip_1"]
    np.testing.assert_array_equal(f.time, np.arange(FRAMES) / 25)
    assert np.isnan(f.values[~f.valid]).all()
    expected = direct(weights, pictures(224))
    np.testing.assert_allclose(f.values[f.valid], expected[f.valid], atol=1e-5, rtol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # the comparison could have failed
    assert not np.allclose(np.linalg.norm(f.values[f.valid], axis=1), 1)  # raw


def test_bf16_equals_open_clip_in_pure_bf16(tmp_path, weights, role):
    out = tmp_path / "clip_face.h5"
    extract("clip_face", out, FaceCrops(*role), weights=weights, precision="bf16", dtype="float32")
    f = read_features(out)
    exact = direct(weights, pictures(224))
    expected = direct(weights, pictures(224), "pure_bf16")
    # bf16 carries 8 bits: two batch sizes may round the last of them differently.
    scale = np.abs(exact).max()
    np.testing.assert_allclose(f.values[f.valid], expected[f.valid], atol=0.02 * scale)
    assert f.attributes["precision"] == "bf16"
    assert 0 < np.abs(f.values[f.valid] - exact[f.valid]).max() < 0.1 * scale


def test_values_do_not_depend_on_the_batch_size(tmp_path, weights, role):
    values = []
    for size in (1, 4, 32):
        out = tmp_path / f"{size}.h5"
        extract(
            "clip_face", out, FaceCrops(*role), weights=weights, dtype="float32", batch_size=size
        )
        values.append(read_features(out).values)
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=1e-5)


@pytest.mark.parametrize("size", [160, 256])
def test_other_crop_sizes_go_through_open_clips_own_resize(weights, size):
    tower = clip_face.ImageTower(weights)
    images = pictures(size)[:3]
    transform = open_clip.create_model_and_transforms(f"local-dir:{weights}")[2]
    for image in images:
        prepared = tower.prepare(image)
        assert prepared.shape == (224, 224, 3) and prepared.dtype == np.uint8
        x = (prepared.astype(np.float32) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
        want = transform(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(x, want, atol=1e-5)
    got = tower.encode(np.stack([tower.prepare(i) for i in images]))
    np.testing.assert_allclose(got, direct(weights, images), atol=1e-5)


def test_only_the_image_tower_is_read(tmp_path, weights):
    state = load_file(weights / "open_clip_model.safetensors")
    image_only = {k: v for k, v in state.items() if k.startswith("visual.")}
    assert len(image_only) < len(state)
    save_file(image_only, tmp_path / "open_clip_model.safetensors")
    config = (weights / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    images = np.stack(pictures(224)[:2])
    a, b = (clip_face.ImageTower(folder).encode(images) for folder in (tmp_path, weights))
    np.testing.assert_array_equal(a, b)


def test_an_impulse_shows_in_its_own_row_only(tmp_path, weights):
    shown = [np.full((224, 224, 3), 100, np.uint8)] * 12
    shown[7] = pictures(224)[3]
    faces = write_faces(tmp_path / "a.h5", 0.3 + np.arange(12) / 30)
    crops = write_crops(tmp_path / "a.crops.mkv", shown)
    extract("clip_face", tmp_path / "o.h5", FaceCrops(faces, crops), weights=weights, batch_size=5)
    f = read_features(tmp_path / "o.h5")
    change = np.abs(f.values.astype(np.float32) - f.values[0].astype(np.float32)).max(axis=1)
    assert change[7] > 0.05 and np.delete(change, 7).max() < 2e-3
    assert f.time[7] == pytest.approx(0.3 + 7 / 30)
    assert f.values.dtype == np.float16


def test_no_face_at_all_gives_rows_without_values(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(clip_face, "ROWS", 4)
    faces = write_faces(tmp_path / "a.h5", np.arange(9) / 25, np.zeros(9, bool))
    crops = write_crops(tmp_path / "a.crops.mkv", [np.zeros((224, 224, 3), np.uint8)] * 9)
    extract("clip_face", tmp_path / "o.h5", FaceCrops(faces, crops), weights=weights)
    f = read_features(tmp_path / "o.h5")
    assert f.values.shape == (9, 32) and not f.valid.any() and np.isnan(f.values).all()


def test_wrong_input_is_named_and_leaves_nothing(tmp_path, weights, role):
    faces, crops = role
    out = tmp_path / "o.h5"

    def fails(match, faces=faces, crops=crops, weights=weights):
        with pytest.raises(InputError, match=match):
            extract("clip_face", out, FaceCrops(faces, crops), weights=weights)
        assert not out.exists() and not list(tmp_path.glob(".o*"))

    fails("does not exist", weights=tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    fails("no .safetensors", weights=empty)
    (empty / "open_clip_config.json").write_bytes((weights / "open_clip_config.json").read_bytes())
    (empty / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    fails("pickle, refused", weights=empty)
    (empty / "open_clip_model.safetensors").write_bytes(b"no weights")
    fails("damaged", weights=empty)
    other = json.loads((weights / "open_clip_config.json").read_text())
    other["model_cfg"]["vision_cfg"]["layers"] = 3
    (empty / "open_clip_config.json").write_text(json.dumps(other))
    data = (weights / "open_clip_model.safetensors").read_bytes()
    (empty / "open_clip_model.safetensors").write_bytes(data)
    fails("does not hold the image tower", weights=empty)
    (empty / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    fails("cannot build the model", weights=empty)
    longer = write_faces(tmp_path / "longer.h5", np.arange(FRAMES + 4) / 25)
    fails("role.crops.mkv", faces=longer)


def test_pictures_do_not_depend_on_the_threads_that_decode(role):
    track = read_track(role[0])

    def taken(threads):
        work = clip_face.batches(role[1], track, lambda p: p[::2], 3, threads)
        rows, images = zip(*work, strict=True)
        return np.concatenate(rows), np.concatenate(images)

    (rows, images), (rows_4, images_4) = taken(1), taken(4)
    np.testing.assert_array_equal(rows, np.setdiff1d(np.arange(FRAMES), INVALID))
    np.testing.assert_array_equal(rows_4, rows)
    np.testing.assert_array_equal(images_4, images)
    assert images.shape[1:] == (112, 224, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_stopped_consumer_stops_the_decoding_threads(role, threads):
    import threading

    before = threading.active_count()
    work = clip_face.batches(role[1], read_track(role[0]), lambda p: p, 2, threads)
    rows, images = next(work)
    assert list(rows) == [1, 2] and images.shape == (2, 224, 224, 3)
    work.close()
    assert threading.active_count() == before


def test_command_line_and_overhead(tmp_path, weights, role):
    out = tmp_path / "clip_face.h5"
    manifest = tmp_path / "weights.json"  # what the workflow passes
    make_manifest("clip_face", manifest, directory=str(weights))
    command = [sys.executable, "-m", "extractors", "clip_face", "--faces", str(role[0])]
    command += ["--crops", str(role[1]), "--weights", str(manifest), "--out", str(out)]
    start = time.monotonic()
    done = subprocess.run([*command, "--fingerprint", "code=1"], capture_output=True, text=True)
    wall = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    record = json.loads(out.with_suffix(".json").read_text())
    attributes = read_features(out).attributes
    assert attributes["model_id"] == "tiny-clip"
    settings = json.loads(attributes["settings"])
    assert settings.pop("weights") == attributes["model_revision"]
    assert settings.pop("faces")["crop_size"] == 224
    assert settings == {"precision": "fp32", "dtype": "float16"}
    assert record["counts"] == {"rows": FRAMES, "valid": FRAMES - len(INVALID)}
    assert record["settings"]["precision"] == "fp32" and record["fingerprint"] == "code=1"
    print(f"job {wall:.1f} s, of which {record['run']['seconds']} s inside")
    bad = subprocess.run([*command[:9], str(tmp_path / "none"), *command[10:]], capture_output=True)
    assert bad.returncode == 1 and len(bad.stderr.splitlines()) <= 4
    assert b"Traceback" not in bad.stderr and b"none" in bad.stderr
