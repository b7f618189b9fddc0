"""Library versions of existing results are compared at the start."""

import json
from importlib import metadata
from types import SimpleNamespace

from workflow.versions import mismatches, warn_about_versions


def sidecar(path, **versions):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"versions": versions}))
    return path


def test_differences_are_found_and_said_once(tmp_path, capsys):
    same = metadata.version("numpy")
    paths = [
        sidecar(tmp_path / "features/noxi/001/expert/flow.json", numpy=same, h5py="0.0.1"),
        sidecar(tmp_path / "features/noxi/001/novice/flow.json", numpy=same, h5py="0.0.1"),
        sidecar(tmp_path / "faces/noxi/001/expert.json", nothing_like_it="1"),
    ]
    assert mismatches(paths[:1]) == {"h5py": ("0.0.1", metadata.version("h5py"))}
    warn_about_versions(SimpleNamespace(results=str(tmp_path)))
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    assert err.count("h5py 0.0.1") == 1
    assert "nothing_like_it 1 -> not installed" in err


def test_equal_versions_say_nothing(tmp_path, capsys):
    sidecar(tmp_path / "faces/a/b/c.json", numpy=metadata.version("numpy"))
    warn_about_versions(SimpleNamespace(results=str(tmp_path)))
    assert capsys.readouterr().err == ""
