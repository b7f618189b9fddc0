"""Every extractor that the config knows, through the workflow, against its own library."""

import json
import subprocess
import sys

import av
import h5py
import numpy as np
import opensmile
import pytest
import soundfile
import yaml

from extractors.declared import EXTRACTORS
from runtime.torchvision_cpu import allow_torchvision_without_cuda
from store.features import read_features
from workflow.stages import ROOT

SECONDS = 10
PERSON = "noxi/001/expert"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One drawn recording with every extractor enabled; sound, results folder."""
    house = tmp_path_factory.mktemp("every extractor")
    config = {
        "results": str(house / "results"),
        "media_root": str(house / "corpus"),
        "demo": {"seconds": SECONDS},
        "features": {name: {"enabled": True} for name in EXTRACTORS}
        | {"egemaps": {"mode": "exact"}},
    }
    (house / "own.yaml").write_text(yaml.safe_dump(config))
    wanted = [str(house / f"results/aligned/{PERSON}/{name}.h5") for name in EXTRACTORS]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", "--nolock",
         "--configfile", str(house / "own.yaml"), "--", *wanted],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return house


def feature(house, name):
    return read_features(house / f"results/features/{PERSON}/{name}.h5")


def sound(house) -> np.ndarray:
    samples, rate = soundfile.read(
        house / "corpus/noxi/train/001/expert.audio.wav", dtype="float32"
    )
    assert rate == 16000
    return samples


def pictures(house) -> list[np.ndarray]:
    with av.open(str(house / f"results/faces/{PERSON}.crops.mkv")) as store:
        return [frame.to_ndarray(format="rgb24") for frame in store.decode(video=0)]


EXPECTED = {
    "egemaps": (88, 25),
    "egemaps_lld": (25, 100),
    "wav2vec2": (64, 50),
    "clip_face": (64, 25),
    "flow": (160, 25),
    "flow_magnitude": (33, 25),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_name_extractor_columns_and_rate_are_those_of_the_feature(house, name):
    dim, rate = EXPECTED[name]
    with h5py.File(house / f"results/aligned/{PERSON}/{name}.h5") as f:
        assert f.attrs["feature"] == name
        assert f.attrs["extractor"] == f"extractors.{name}"
        assert f.attrs["native_rate_hz"] == pytest.approx(rate)
        assert f["values"].shape[1] == len(json.loads(f.attrs["dim_names"])) == dim
        assert abs(len(f["values"]) - SECONDS * rate) <= 4
    assert feature(house, name).valid.mean() > 0.7


def test_egemaps_are_opensmiles(house):
    x = sound(house)
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    got = feature(house, "egemaps")
    assert got.dim_names == smile.feature_names
    for k in (24, 70, 120):  # the 960 ms before the row's time and the 40 ms after it
        window = x[640 * k - 15360 : 640 * k + 640]
        np.testing.assert_array_equal(got.values[k], smile.process_signal(window, 16000).values[0])
        assert got.time[k] == pytest.approx(k * 0.04)


def test_descriptors_are_opensmiles(house):
    level = opensmile.FeatureLevel.LowLevelDescriptors
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level)
    got = feature(house, "egemaps_lld")
    assert got.dim_names == smile.feature_names
    np.testing.assert_array_equal(got.values, smile.process_signal(sound(house), 16000).values)
    np.testing.assert_allclose(got.time[:2], [0.01, 0.02])


def test_embeddings_are_transformers(house):
    allow_torchvision_without_cuda()
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    folder = house / "results/weights/wav2vec2"
    inputs = AutoFeatureExtractor.from_pretrained(folder)(
        sound(house), sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        want = AutoModel.from_pretrained(folder).eval()(inputs.input_values).last_hidden_state[0]
    np.testing.assert_allclose(feature(house, "wav2vec2").values, want, atol=4e-3, rtol=2e-3)
    assert want.std() > 0.1  # the comparison could have failed


def test_face_embeddings_are_open_clips(house):
    allow_torchvision_without_cuda()
    import open_clip
    import torch
    from PIL import Image

    folder = house / "results/weights/clip_face"
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    got = feature(house, "clip_face")
    rows = np.flatnonzero(got.valid)[[0, 40, -1]]
    shown = pictures(house)
    with torch.no_grad():
        want = model.eval().encode_image(
            torch.stack([prepare(Image.fromarray(shown[k])) for k in rows])
        )
    np.testing.assert_allclose(got.values[rows], want, atol=4e-3, rtol=2e-3)
    assert np.ptp(want.numpy(), axis=0).max() > 0.05


def test_flow_is_opencvs(house):
    """Mean flow of the whole crop, and its length at a landmark, from OpenCV's DIS alone."""
    import cv2

    flow, speed = feature(house, "flow"), feature(house, "flow_magnitude")
    grey = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), (112, 112), interpolation=cv2.INTER_AREA)
        for p in pictures(house)
    ]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(1)
    u = flow.values[:, [i for i, n in enumerate(flow.dim_names) if n.endswith("_u")]].mean(axis=1)
    found, want, lengths = [], [], []
    for k in np.flatnonzero(flow.valid & speed.valid)[10:60:5]:
        field = -dis.calc(grey[k], grey[k - 1], None) / 112 * 25
        found.append(u[k])
        want.append(field[..., 0].mean())
        lengths.append((speed.values[k, -1], np.hypot(field[..., 0], field[..., 1]).mean()))
    np.testing.assert_allclose(found, want, atol=0.01)
    assert np.std(want) > 0.01
    assert np.corrcoef(np.transpose(lengths))[0, 1] > 0.8
