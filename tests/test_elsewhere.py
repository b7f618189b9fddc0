"""Snakemake called for a working folder elsewhere: the repository's settings, the folder's results."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workflow.config import ROOT, load_config


def dry_run(folder: Path, how: str, target: str) -> str:
    """What `snakemake -n -p TARGET` says, called in `folder` or (--directory) in the repository."""
    call = [sys.executable, "-m", "snakemake", "-n", "-p", "--nocolor", "--cores", "1", "--nolock"]
    elsewhere = how == "--directory"
    call += ["--directory", str(folder)] if elsewhere else ["-s", str(ROOT / "Snakefile")]
    environment = {k: v for k, v in os.environ.items() if k not in ("STUB_JOBS", "PYTHONPATH")}
    done = subprocess.run(
        [*call, target], cwd=ROOT if elsewhere else folder, env=environment,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("how", ["--directory", "--snakefile"])
def test_the_demo_is_planned_from_another_folder(tmp_path, how):
    said = dry_run(tmp_path, how, "results/qc/noxi/001.json")
    # Labels are looked into as well: an input of the job, and named to its command.
    reason, command = said[said.index("checking the session") :].splitlines()[1:3]
    assert "results/labels/noxi/001/expert.h5" in reason
    assert "--labels-roles expert novice" in command


def test_a_config_there_lies_on_top(tmp_path):
    (tmp_path / "config.yaml").write_text("results: mine\n")
    said = dry_run(tmp_path, "--snakefile", "mine/media/noxi/001/expert.json")
    assert "results/demo/corpus/noxi/train/001/expert" in said  # media_root as in the repository's


def test_commands_read_the_same_settings(tmp_path, monkeypatch):
    ours = load_config()
    monkeypatch.chdir(tmp_path)
    assert load_config()["sessions"] == str(ROOT / ours["sessions"])
    (tmp_path / "config.yaml").write_text("results: mine\nsessions: own.tsv\n")
    assert load_config() == load_config(["config.yaml"]) != ours
    assert (load_config()["results"], load_config()["sessions"]) == ("mine", "own.tsv")
    shutil.copy2(ROOT / "config.yaml", tmp_path / "config.yaml")
    (tmp_path / "corpora/demo").mkdir(parents=True)
    (tmp_path / "corpora/demo/sessions.tsv").write_text("own\n")
    assert load_config() == ours  # a sheet of the folder's own comes first
