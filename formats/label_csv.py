"""Engagement labels as they come with the challenge data: one value per line, 25 lines a second.

No header; line k (from 0) is video frame k. Missing values are an empty line, ``nan`` or
``-nan(ind)`` (any case); they become NaN, never 0. UTF-8 (with or without byte order mark), else
latin-1. A newline at the very end makes no line of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from formats.numbers import decimal, is_nan
from runtime import InputError
from store.plain import read_plain


def read_lines(path: str | Path) -> list[str]:
    """The lines of a label file, whatever its encoding; InputError when there are none."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is not a file",
            "correct the column `labels` of the sessions sheet, or leave it empty (no labels)",
        )
    raw = read_plain(path)
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in raw[:64]:
        raise InputError(f"{path} is not a UTF-8 text file", "save it as CSV in UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InputError(
            f"{path} holds no label", "copy it again, or leave the column `labels` empty"
        )
    return lines


def read_labels(path: str | Path, classes: Sequence[str] = ()) -> np.ndarray:
    """Labels of one participant, (n,) float64 in [0, 1] with NaN where the value is missing.

    With `classes`, each line is one of these words, and its label the word's place, from 0.

    Raises
    ------
    InputError : no such file, no line in it, a line that is no number, a value outside [0, 1], a
        word that is no class; names the line (from 1) and its text.
    """
    lines = read_lines(path)
    if classes:
        return _classes(path, lines, list(classes))
    values = np.full(len(lines), np.nan)
    for i, line in enumerate(lines):
        token = line.strip()
        if not token or is_nan(token):
            continue
        try:
            values[i] = decimal(token)
        except ValueError as e:
            raise InputError(
                f"{path} line {i + 1}: '{token[:40]}' is not a number", _cure(token, i)
            ) from e
        if not 0.0 <= values[i] <= 1.0:
            raise InputError(
                f"{path} line {i + 1}: {token} is outside 0..1",
                "engagement is rated from 0 to 1: rescale the file, or leave the line empty (missing)",
            )
    return values


def _classes(path: str | Path, lines: list[str], classes: list[str]) -> np.ndarray:
    values = np.full(len(lines), np.nan)
    for i, line in enumerate(lines):
        token = line.strip()
        if token in classes:
            values[i] = classes.index(token)
        elif token and not is_nan(token):
            raise InputError(
                f"{path} line {i + 1}: '{token[:40]}' is none of the classes {', '.join(classes)}",
                "correct labels.classes, or leave the line empty where raters disagree",
            )
    return values


def _cure(token: str, index: int) -> str:
    if ";" in token or "\t" in token:
        return "keep only the value column: one value per line, nothing else"
    if token[:1] in "'\"" and token[-1:] == token[:1]:
        return "take the quotes away: one bare number a line"
    if "," in token:
        return "write a decimal point, one value per line"
    if index == 0:
        return "remove the header: line 1 is the value of the first frame"
    return "write a number from 0 to 1; leave the line empty where the value is missing"
