"""Audio-visual similarity: numbers against a loop, masks, refusals, equal bytes."""

import csv
import json

import numpy as np
import pytest
import torch
from model_data import DIMS, DYAD, write_session
from PIL import Image

from evaluation import similarity as job
from model.registry import build
from runtime import InputError
from store.session_spec import parse_specs
from training.model_file import load_model, save_model
from training.settings import parse
from training.windows import Windows

torch.set_num_threads(1)  # small tensors: threads only wait for each other

WINDOW = {"window": 24, "core": 8}


def write_checkpoint(path, domains=(), features=tuple(DIMS), **model):
    torch.manual_seed(3)
    settings = parse(
        {"preset": "demo", "features": list(features), "model": model, "training": WINDOW}
    )
    network = build(settings, {f: DIMS[f] for f in features})
    network.add_prompts(domains)
    metadata = {
        "run": "a_run",
        "seed": 1,
        "fingerprint": "",
        "dims": {f: DIMS[f] for f in features},
    }
    save_model(path, network.state_dict(), settings, metadata | {"domains": list(domains)})
    return path


@pytest.fixture
def corpus(tmp_path):
    return [write_session(tmp_path, "noxi", n, DYAD, 5.0, 1, labels=False) for n in ("001", "002")]


MODELS = [
    {"name": "da_mamba"},
    {"name": "align_mamba"},
    {
        "name": "align_mamba",
        "groups": {
            "voice": ["egemaps", "wav2vec2"],
            "face": ["clip_face"],
            "body": ["flow", "flow_magnitude"],
        },
    },
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m['name']}-{len(m)}")
def test_numbers_against_a_loop(tmp_path, corpus, model):
    path = write_checkpoint(tmp_path / "model.safetensors", **model)
    specs = parse_specs(corpus)
    name, found = job.similarity(path, specs, tmp_path)
    assert name == "a_run, seed 1"
    trained = load_model(path)
    groups = trained.settings.model.groups
    L = WINDOW["window"]
    sums = {(s.group_a, s.group_b): np.zeros((L, L)) for s in found}
    counts = {pair: np.zeros((L, L)) for pair in sums}
    windows = Windows(tmp_path, specs, trained.settings, False)
    for session in range(2):
        for _, batch in windows.in_order(session, 7):
            with torch.no_grad():
                x = {g: e.double().numpy() for g, e in trained.model.embeddings(batch).items()}
            for a, b in sums:
                for w, row in enumerate(batch.target.tolist()):
                    here = {
                        g: [
                            i
                            for i in range(L)
                            if batch.frames[row, i]
                            and any(batch.valid[m][row, i] for m in groups[g])
                        ]
                        for g in (a, b)
                    }
                    for i in here[a]:
                        for j in here[b]:
                            u, v = x[a][w, i], x[b][w, j]
                            sums[a, b][i, j] += u @ v / np.sqrt(u @ u) / np.sqrt(v @ v)
                            counts[a, b][i, j] += 1
    assert len(found) == (1 if len(groups) == 2 else 3)
    for s in found:
        pair = s.group_a, s.group_b
        assert counts[pair].min() > 0
        np.testing.assert_allclose(s.mean, sums[pair] / counts[pair], atol=1e-6)
        assert np.abs(s.mean).max() <= 1
        assert s.same_frame == pytest.approx(np.trace(s.mean) / L)
        rest = s.mean.sum() - np.trace(s.mean)
        assert s.other_frames == pytest.approx(rest / (L * L - L))


def test_job_writes_picture_numbers_and_sidecar(tmp_path, corpus):
    path = write_checkpoint(tmp_path / "model.safetensors", name="align_mamba")

    def run(folder):
        out = tmp_path / folder / "similarity.png"
        arguments = ["--checkpoint", str(path), "--sessions", *corpus, "--results", str(tmp_path)]
        assert job.main([*arguments, "--out", str(out), "--fingerprint", "f"]) == 0
        return out

    one, two = run("one"), run("two")
    assert one.read_bytes() == two.read_bytes()
    picture = np.asarray(Image.open(one).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    table = one.with_suffix(".csv")
    assert table.read_bytes() == two.with_suffix(".csv").read_bytes()
    with open(table, newline="") as f:
        rows = list(csv.reader(f))
    assert rows[0][:4] == ["group_a", "group_b", "frame_a", "0"] and len(rows) == 25
    values = np.array([[float(v) for v in row[3:]] for row in rows[1:]])
    (expected,) = job.similarity(path, parse_specs(corpus), tmp_path)[1]
    np.testing.assert_allclose(values, expected.mean, atol=1e-6)
    sidecar = json.loads(one.with_suffix(".json").read_text())
    assert sidecar["counts"]["audio, visual"]["windows"] == expected.windows
    assert sidecar["fingerprint"] == "f" and str(tmp_path) not in json.dumps(sidecar["settings"])


def test_frames_without_a_value_do_not_count(tmp_path, corpus, monkeypatch):
    path = write_checkpoint(
        tmp_path / "model.safetensors", name="align_mamba", features=("egemaps", "clip_face")
    )
    specs = parse_specs(corpus[:1])
    (found,) = job.similarity(path, specs, tmp_path)[1]
    original = Windows.batch

    def without_face(self, targets):
        batch = original(self, targets)
        batch.valid["clip_face"][:, 5] = False
        batch.streams["clip_face"][:, 5] = float("nan")
        return batch

    monkeypatch.setattr(Windows, "batch", without_face)
    (masked,) = job.similarity(path, specs, tmp_path)[1]
    assert np.isnan(masked.mean[:, 5]).all()
    kept = np.arange(24) != 5
    # Without a Mamba before the embeddings, no other frame of them sees the missing one.
    np.testing.assert_allclose(masked.mean[:, kept], found.mean[:, kept], atol=1e-6)
    assert np.isfinite(masked.same_frame) and np.isfinite(masked.other_frames)
    job.write_numbers([masked], tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().splitlines()[1].split(",")[3 + 5] == ""


def test_prompts_are_seen_and_not_shown(tmp_path, corpus):
    path = write_checkpoint(tmp_path / "p.safetensors", ("noxi",), name="da_mamba", prompts=3)
    (found,) = job.similarity(path, parse_specs(corpus), tmp_path)[1]
    assert found.mean.shape == (24, 24) and np.isfinite(found.mean).all()
    plain = write_checkpoint(tmp_path / "r.safetensors", name="da_mamba")
    (without,) = job.similarity(plain, parse_specs(corpus), tmp_path)[1]
    assert not np.allclose(without.mean, found.mean) and found.windows == without.windows


@pytest.mark.parametrize(
    "model",
    [
        {"name": "mlp"},
        {"name": "da_mamba", "alignment": False},
        {"name": "da_mamba", "modality_fusion": False},
        {"name": "align_mamba", "groups": {"all": list(DIMS)}},
    ],
    ids=str,
)
def test_models_without_comparable_groups_are_refused(tmp_path, corpus, model):
    path = write_checkpoint(tmp_path / "model.safetensors", **model)
    with pytest.raises(InputError) as e:
        job.similarity(path, parse_specs(corpus), tmp_path)
    assert model["name"] in str(e.value) and "align_mamba" in str(e.value)


def test_other_dimensions_are_refused(tmp_path):
    spec = write_session(tmp_path, "noxi", "001", DYAD, 5.0, 1, dims={**DIMS, "flow": 9})
    path = write_checkpoint(tmp_path / "model.safetensors", name="align_mamba")
    with pytest.raises(InputError, match="number of columns of flow is 9 instead of 4"):
        job.similarity(path, parse_specs([spec]), tmp_path)
