"""The sessions sheet as text: bytes in, header and rows out, as spreadsheets and editors save it.

Read are UTF-8 with or without a byte order mark and UTF-16 with one (Excel's "Unicode Text"), lines
that end with LF, CR LF or CR alone (Excel for Mac), cells in double quotes (a line break inside one
becomes a space), and empty columns after the last.
"""

import csv
import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from runtime import InputError
from store.plain import read_plain

MOST_LINES = 100  # of one cell
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`did you mean X?` when a choice is close, else the list of all."""
    choices = list(choices)
    close = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(choices)}"


def read_table(
    path: Path, columns: tuple[str, ...], required: tuple[str, ...], one_of: tuple[str, ...]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and (line number, cells) of the rows, as many cells as the header has columns.

    columns : the names that a header may hold, all of `required` and one of `one_of` among them.
    Raises InputError for what is no such table.
    """
    lines = _text(path).split("\n")
    remark = next((line for line in lines if line.startswith("#")), "")
    records = _records(path, lines)
    first = next(records, None)
    if first is None:
        raise InputError(f"{path} is empty", "it needs a header line and a row per participant")
    header = first[1]
    while header and not header[-1]:
        header.pop()
    _check_header(path, header, columns, remark)
    missing = [c for c in required if c not in header]
    if not missing and not set(one_of) & set(header):
        missing = [one_of[0]]
    if missing:
        raise InputError(
            f"{path} lacks the column '{missing[0]}'",
            f"required columns are {', '.join(required)}, and {' or '.join(one_of)}",
        )
    rows = []
    for number, cells in records:
        if any(cells[len(header) :]):
            raise InputError(
                f"{path} row {number} has {len(cells)} cells, the header names {len(header)} columns",
                "check for a tab too many in this row",
            )
        if any(cells):
            rows.append((number, (cells + [""] * len(header))[: len(header)]))
    if not rows:
        raise InputError(f"{path} has no row", "add a row per participant below the header")
    return header, rows


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(
            f"the sessions sheet {path} does not exist",
            "make one with `python -m corpora init noxi|mpiigi|folder ROOT > sessions.tsv`",
        )
    raw = read_plain(path)
    encoding = "utf-16" if raw[:2] in UTF16 else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise InputError(
            f"{path} line {line} is not {name} text",
            'save the sheet as tab-separated text in UTF-8 (in Excel: "Unicode Text")',
        ) from e
    # Some programs end lines with CR CR LF.
    return re.sub(r"\r*\n|\r", "\n", text)


def _records(path: Path, lines: list[str]):
    """(number of its first line, cells) of every record; empty lines and remarks are skipped."""
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        cells, problem = _cells(line)
        while cells is None and at < min(len(lines), start + MOST_LINES) and _open(line):
            line = f"{line}\n{lines[at]}"
            at += 1
            cells, _ = _cells(line)
        if cells is None:
            raise InputError(
                f"{path} row {start + 1} has a double quote that does not close its cell ({problem})",
                'write a quote inside a cell twice ("") and the cell in quotes',
            )
        yield start + 1, cells


def _open(line: str) -> bool:
    return line.count('"') % 2 == 1


def _cells(line: str) -> tuple[list[str] | None, str]:
    """Cells of a record, or None and what csv says of it."""
    try:
        # Over the lines of the record: csv takes line breaks between items, not inside one.
        found = next(csv.reader(line.splitlines(keepends=True), delimiter="\t", strict=True))
    except csv.Error as e:
        return None, str(e)
    return [" ".join(c.split("\n")).strip() for c in found], ""


def _check_header(path: Path, header: list[str], columns: tuple[str, ...], remark: str) -> None:
    if len(header) == 1 and re.search("[,;]", header[0]):
        raise InputError(
            f"{path} is not separated by tabs", "save it as tab-separated text (TSV), not CSV"
        )
    for at, column in enumerate(header, 1):
        if not column:
            raise InputError(
                f"{path}: column {at} of the header has no name, but columns after it have one",
                "name the column, or remove it",
            )
        if column not in columns:
            named = {c.strip() for c in remark.lstrip("#").split("\t")} & set(columns)
            raise InputError(
                f"{path} has an unknown column '{column}'",
                "take the # away from the line of the column names" if len(named) > 2
                else suggestion(column, columns),
            )  # fmt: skip
        if header.count(column) > 1:
            raise InputError(f"{path} has the column '{column}' twice", "remove one of them")
