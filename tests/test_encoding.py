"""A locale in which names with an accent do not exist is named at the start, not as a missing file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["Python takes file names for ascii here", "LC_ALL=C", "export LC_ALL=C.UTF-8"]


def run(words, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=kept | variables, capture_output=True, timeout=120
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.fixture
def sheet(tmp_path):
    folder = tmp_path / "für"
    folder.mkdir()
    path = folder / "s.tsv"
    path.write_text("dataset\tsplit\tsession\trole\tvideo\nd\ttest\t1\tr\tnone.mp4\n")
    return path


def test_a_command_says_what_is_the_matter(sheet):
    status, screen = run(["corpora", "check", str(sheet)], LC_ALL="C", PYTHONUTF8="0")
    assert status == 1 and "does not exist" not in screen
    assert all(word in screen for word in WORDS), screen


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}])
def test_where_names_are_utf8_the_sheet_is_read(sheet, variables):
    status, screen = run(["corpora", "check", str(sheet)], **variables)
    assert status == 1 and "'video'" in screen and "none.mp4' does not exist" in screen


def test_the_workflow_says_it_too():
    status, screen = run(["snakemake", "-n", "--nolock"], LC_ALL="C", PYTHONUTF8="0")
    assert status != 0
    assert all(word in screen for word in WORDS), screen
