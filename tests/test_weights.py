"""Weights: manifests, checks, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from extractors import weights
from runtime import InputError

SHA = "1a640f32ac3e39899438a2931f9924c02f080a54"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "wav2vec2"}')
    (path / "preprocessor_config.json").write_text("{}")
    save_file({"a": np.arange(6.0, dtype=np.float32)}, path / "model.safetensors")
    return path


def manifest(folder, out):
    argv = ["--feature", "wav2vec2", "--directory", str(folder), "--out", str(out)]
    return weights.main(argv)


def test_manifest_names_every_file_and_resolves(folder, tmp_path):
    out = tmp_path / "wav2vec2.json"
    assert manifest(folder, out) == 0
    first = out.read_bytes()
    assert manifest(folder, out) == 0 and out.read_bytes() == first
    record = json.loads(first)
    assert [f["name"] for f in record["files"]] == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    import hashlib

    for f in record["files"]:
        content = (folder / f["name"]).read_bytes()
        assert f["sha256"] == hashlib.sha256(content).hexdigest() and f["bytes"] == len(content)
    by_manifest = weights.resolve(out, "wav2vec2")
    by_folder = weights.resolve(folder, "wav2vec2")
    assert by_manifest == by_folder
    assert by_manifest.model_revision.startswith("sha256:")


def test_a_changed_file_is_noticed_and_changes_the_revision(folder, tmp_path):
    out = tmp_path / "wav2vec2.json"
    manifest(folder, out)
    before = weights.resolve(folder, "wav2vec2").model_revision
    save_file({"a": np.arange(6.0, dtype=np.float32) + 1}, folder / "model.safetensors")
    with pytest.raises(InputError, match="sha256 differs"):
        weights.resolve(out, "wav2vec2")
    assert weights.resolve(folder, "wav2vec2").model_revision != before


def test_a_new_file_is_noticed(folder, tmp_path):
    out = tmp_path / "wav2vec2.json"
    manifest(folder, out)
    (folder / "extra.json").write_text("{}")
    with pytest.raises(InputError, match="extra.json"):
        weights.resolve(out, "wav2vec2")


def damage(folder, what):
    tensors = folder / "model.safetensors"
    if what == "no folder":
        return folder / "nowhere"
    if what == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-5])
    if what == "garbage":
        tensors.write_bytes(b"not a tensor file at all")
    if what == "empty":
        tensors.write_bytes(b"")
    if what == "no tensors":
        tensors.unlink()
    if what == "pickle":
        tensors.rename(folder / "pytorch_model.bin")
    if what == "no config":
        (folder / "config.json").unlink()
    if what == "broken config":
        (folder / "config.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    "what, message",
    [
        ("no folder", "nowhere is not a folder"),
        ("truncated", "model.safetensors is damaged"),
        ("garbage", "model.safetensors is damaged"),
        ("empty", "model.safetensors is damaged"),
        ("no tensors", "no .safetensors file"),
        ("pickle", "pytorch_model.bin (pickle, refused)"),
        ("no config", "has no config.json"),
        ("broken config", "config.json is damaged"),
    ],
)
def test_bad_folders(folder, tmp_path, capsys, what, message):
    out = tmp_path / "m.json"
    assert manifest(damage(folder, what), out) == 1
    assert not out.exists()
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "cure"))
    ]
    assert len(lines) == 2 and message in lines[0]


@pytest.mark.parametrize("revision", ["main", "", None, SHA[:12], SHA.upper()])
def test_revision_must_be_pinned(tmp_path, revision):
    with pytest.raises(InputError, match="not a full commit"):
        weights.download("wav2vec2", "facebook/wav2vec2-xls-r-300m", revision, tmp_path)


def test_download_asks_for_safetensors_and_json_of_the_pinned_commit(folder, tmp_path):
    asked = {}

    def fetch(repository, revision, allow_patterns, local_dir):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        local_dir.mkdir(parents=True)
        for path in folder.iterdir():
            (local_dir / path.name).write_bytes(path.read_bytes())

    target = tmp_path / "results" / "wav2vec2"
    assert weights.download("wav2vec2", "org/name", SHA, target, fetch) == target
    assert asked == {
        "repository": "org/name",
        "revision": SHA,
        "patterns": ["*.json", "*.safetensors"],
    }

    def nothing(repository, revision, allow_patterns, local_dir):
        local_dir.mkdir(parents=True)

    with pytest.raises(InputError, match="no safetensors"):
        weights.download("wav2vec2", "org/name", SHA, tmp_path / "empty", nothing)

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    with pytest.raises(InputError, match="cannot be downloaded.*no route"):
        weights.download("wav2vec2", "org/name", SHA, tmp_path / "x", unreachable)


def test_hub_offline_is_a_friendly_error(tmp_path, monkeypatch, capsys):
    """The real client, kept offline."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    argv = ["--feature", "wav2vec2", "--repository", "org/name", "--revision", SHA]
    assert weights.main([*argv, "--out", str(tmp_path / "m.json")]) == 1
    assert "cannot be downloaded" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_manifest_errors(folder, tmp_path):
    out = tmp_path / "m.json"
    manifest(folder, out)
    with pytest.raises(InputError, match="weights of wav2vec2, not of clip_face"):
        weights.resolve(out, "clip_face")
    out.write_text('{"half": ')
    with pytest.raises(InputError, match="not a weights manifest"):
        weights.resolve(out, "wav2vec2")
    with pytest.raises(InputError, match="either --directory or --repository"):
        weights.make_manifest("wav2vec2", out)
