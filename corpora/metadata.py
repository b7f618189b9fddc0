"""Facts about people in the challenge's annotation files: language, gender, age.

Each file has lines ``start;end;value;conf``; the value of the first line counts. Gender is a code:
2 is female, any other number male.
"""

from pathlib import Path

from corpora import groups
from formats.numbers import decimal
from runtime import get_logger
from store.plain import read_plain

log = get_logger("init")


def annotation_value(path: Path) -> str:
    """Third field of the first line; "" when the file is absent or has another form."""
    if not path.is_file():
        return ""
    raw = read_plain(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    for line in text.splitlines():
        fields = [f.strip() for f in line.split(";")]
        if len(fields) >= 3:
            value = " ".join(fields[2].split())
            if value[:1] in set("=+-@") and _number(value) is None:
                break  # it would be a formula in the sheet
            return value
    log.warning(
        "%s/%s has no line start;end;value;conf with a plain value: left out",
        path.parent.name,
        path.name,
    )
    return ""


def language(session: Path) -> str:
    """Language of a session by ``language.annotation.csv``."""
    return annotation_value(session / "language.annotation.csv")


def gender(session: Path, role: str) -> str:
    """``female``, ``male``, another word or "" by ``<role>.gender.annotation.csv``."""
    value = annotation_value(session / f"{role}.gender.annotation.csv")
    number = _number(value)
    if number is None:
        return groups.gender(value)
    return "female" if number == 2 else "male"


def age(session: Path, role: str) -> float | None:
    """Years by ``<role>.age.annotation.csv``; None when unknown."""
    value = annotation_value(session / f"{role}.age.annotation.csv")
    number = _number(value)
    if value and (number is None or not 0 < number < 150):
        log.warning("%s %s: age '%s' is no number of years: left out", session.name, role, value)
        return None
    return number


def _number(text: str) -> float | None:
    try:
        return decimal(text)
    except ValueError:
        return None
