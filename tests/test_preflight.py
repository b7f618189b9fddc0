"""A missing library is named in one line with its cure."""

import sys

import pytest

from runtime import InputError
from workflow.preflight import check, library_message, main


def test_everything_is_here():
    check(("h5py", "av"))


def test_missing_package_is_named():
    with pytest.raises(InputError, match="package no_such_package_here is missing"):
        check(("no_such_package_here",))


def test_missing_system_library_is_named_with_its_cure():
    text = "libGL.so.1: cannot open shared object file: No such file or directory"
    problem, cure = library_message("cv2", text)
    assert "libGL.so.1" in problem
    assert "apt-get install libgl1" in cure


def test_command_line_says_it_in_two_lines(tmp_path, monkeypatch, capsys):
    (tmp_path / "av.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "av", raising=False)
    assert main([]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 2
    assert "libGL.so.1" in err[0]
