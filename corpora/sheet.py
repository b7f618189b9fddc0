"""The sessions sheet: a tab-separated table, one row per participant of a session.

Columns (the first four are required, and `video` or `streams`; the others may be left out or empty):

    dataset         name of the corpus (noxi, noxi-add, mpiigi, or your own)
    split           train, val or test; the same for all participants of a session
    session, role   names; together with `dataset` unique
    video           video file
    streams         folder/role of precomputed SSI streams: features `from: stream` of this
                    participant are the files folder/role.<name>.stream
    audio           sound file; empty: the sound of the video
    labels          label csv; empty: no labels (test sessions)
    audio_channel   channel of the sound file, from 0; empty: mean of all
    roi             x,y,w,h in pixels of the upright picture, where several people share one video
    offset          seconds (>= 0) by which this participant's recording started after the
                    session's zero: session time = recording time + offset
    language, gender, age    in any spelling that `corpora.groups` lists
    exclude         yes or no (empty: no); `exclude_reason` says why
    identity        name of the person, where some take part in several sessions: nobody who is
                    trained on may be evaluated. Only the sheets of those who fill it in have it.

Paths are relative to `media_root`, by default the sheet's own folder. A cell may stand in double
quotes, as spreadsheets write them.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from corpora import groups
from corpora.sheet_files import absence, composed, special_characters, spelled_as_on_disk
from corpora.sheet_table import read_table, suggestion
from formats.numbers import decimal, whole
from runtime import InputError
from store.session_spec import NAME

REQUIRED = ("dataset", "split", "session", "role")
COLUMNS = (
    *REQUIRED,
    "video",
    "audio",
    "labels",
    "audio_channel",
    "roi",
    "offset",
    "language",
    "gender",
    "age",
    "exclude",
    "exclude_reason",
    "streams",
)
OPTIONAL = ("identity",)  # written only where somebody has it
SPLITS = ("train", "val", "test")
PATHS = ("video", "audio", "labels", "streams")
ROI = re.compile(r"(\d+),(\d+),([1-9]\d*),([1-9]\d*)", re.ASCII)
MOST = 1e9  # of any number in a sheet
SHOWN = 3  # problems on screen; the rest is counted


@dataclass(frozen=True)
class Participant:
    """One row of the sheet. Paths are joined to the media root; absent values are "" or None.

    offset in seconds, roi "x,y,w,h" in pixels, age in years; `line` is the row's line in the file.
    """

    dataset: str
    split: str
    session: str
    role: str
    video: str = ""
    audio: str = ""
    labels: str = ""
    audio_channel: int | None = None
    roi: str = ""
    offset: float = 0.0
    language: str = ""
    gender: str = ""
    age: float | None = None
    exclude: bool = False
    exclude_reason: str = ""
    streams: str = ""
    identity: str = ""
    line: int = field(default=0, compare=False)

    @property
    def id(self) -> tuple[str, str, str]:
        """dataset, session and role."""
        return self.dataset, self.session, self.role


class _Problems(list):
    """Problems of a sheet, told together."""

    def add(self, line: int, column: str, value: str, problem: str, cure: str) -> None:
        self.append((line, f"row {line}, column '{column}': '{value}' {problem}", cure))

    def raise_any(self, path) -> None:
        """One problem with its own cure; of several, the first ones with theirs in brackets."""
        if not self:
            return
        self.sort(key=lambda p: p[0])
        if len(self) == 1:
            raise InputError(f"{path} {self[0][1]}", self[0][2])
        shown = "; ".join(f"{problem} ({cure})" for _, problem, cure in self[:SHOWN])
        more = len(self) - SHOWN
        shown += f"; and {more} more" if more > 0 else ""
        raise InputError(
            f"{path} has {len(self)} problems: {shown}",
            "correct these rows (line numbers of the file)",
        )


def read_sheet(
    path: str | Path, media_root: str | Path | None = None, check_files: bool = True
) -> list[Participant]:
    """Read and check a sessions sheet; participants in the order of the file.

    Parameters
    ----------
    path : the sheet, tab-separated text with a header line (corpora/sheet_table.py); empty lines
        and lines that start with ``#`` are skipped.
    media_root : folder that relative paths start from; None: the sheet's folder.
    check_files : whether video, audio and labels of participants that are not excluded must exist.

    Raises
    ------
    InputError : names row (line of the file), column, value and cure of every problem.
    """
    path = Path(path)
    header, rows = read_table(path, (*COLUMNS, *OPTIONAL), REQUIRED, ("video", "streams"))
    root = os.path.dirname(path) if media_root is None else str(media_root)
    problems = _Problems()
    participants = [_participant(line, dict(zip(header, cells, strict=True)), root, problems)
                    for line, cells in rows]  # fmt: skip
    _check_together(participants, problems)
    _check_streams(participants, problems)
    if check_files:
        for p in participants:
            _check_files(p, problems)
    problems.raise_any(path)
    return participants


def _participant(line: int, row: dict[str, str], root: str, problems: _Problems) -> Participant:
    values: dict = {c: row.get(c, "") for c in (*COLUMNS, *OPTIONAL)}

    def bad(column: str, problem: str, cure: str) -> None:
        problems.add(line, column, values[column], problem, cure)

    for column in REQUIRED:
        if not values[column]:
            bad(column, "is empty", f"fill in the {column}")
    if not values["video"] and not values["streams"]:
        bad(
            "video", "is empty", "name the video file, or precomputed streams in the column streams"
        )
    for column in ("dataset", "session", "role"):
        values[column] = composed(values[column])
        if values[column] and not NAME.fullmatch(values[column]):
            special = special_characters(values[column])
            bad(
                column,
                f"cannot be a folder name here{f' (it holds {special})' if special else ''}",
                "use at most 80 letters, digits, '.', '_' and '-', and start with a letter or digit",
            )
    if values["split"] and values["split"] not in SPLITS:
        bad("split", "is no split", suggestion(values["split"], SPLITS))
    if values["roi"]:
        values["roi"] = re.sub(r"\s", "", values["roi"])
        if not ROI.fullmatch(values["roi"]):
            bad("roi", "is not x,y,w,h", "write whole pixels, for example 0,0,640,480")
    numbers = {
        "audio_channel": (None, "is no channel number", "write 0 for the first channel, 1 for the second"),
        "offset": (0.0, "is not a number of seconds >= 0", "give the first recording 0, later ones what they started later"),
        "age": (None, "is not a number of years", "write for example 34, or leave it empty"),
    }  # fmt: skip
    parsed: dict = {}
    for column, (default, problem, cure) in numbers.items():
        parsed[column] = default
        if values[column]:
            try:
                number = (whole if column == "audio_channel" else decimal)(values[column])
                if not 0 <= number < MOST:
                    raise ValueError
                parsed[column] = number
            except ValueError:
                bad(column, problem, cure)
    if values["exclude"] not in ("", "yes", "no"):
        bad("exclude", "is neither yes nor no", suggestion(values["exclude"], ("yes", "no")))
    if values["exclude"] == "yes" and not values["exclude_reason"]:
        bad("exclude_reason", "is empty although exclude is yes", "say why, in a few words")
    for column in PATHS:
        if values[column]:
            values[column] = spelled_as_on_disk(values[column], root, column)
            if not values[column].isprintable() or set(values[column]) & set("{}"):
                odd = special_characters(values[column]) or "a brace"
                bad(column, f"holds {odd}, which the job graph cannot name",
                    "rename the file or folder (media_root too)")  # fmt: skip
    parsed["exclude"] = values["exclude"] == "yes"
    parsed["gender"] = groups.gender(values["gender"])
    parsed["language"] = groups.language(values["language"])
    return Participant(**(values | parsed), line=line)


def _check_together(participants: list[Participant], problems: _Problems) -> None:
    """Uniqueness, one split per session, and streams that cannot be taken for another's."""
    first: dict[tuple[str, str, str], Participant] = {}
    split: dict[tuple[str, str], Participant] = {}
    for p in participants:
        key = p.id
        if key in first:
            problems.add(
                p.line, "role", p.role,
                f"is there twice in session {p.dataset}/{p.session} (also in row {first[key].line})",
                "remove one row, or correct session or role",
            )  # fmt: skip
        first.setdefault(key, p)
        other = split.setdefault((p.dataset, p.session), p)
        if other.split != p.split:
            problems.add(
                p.line, "split", p.split,
                f"differs from '{other.split}' of the same session {p.dataset}/{p.session} in row {other.line}",
                "give all participants of a session one split",
            )  # fmt: skip


def _check_streams(participants: list[Participant], problems: _Problems) -> None:
    """`1/a` and `1/a.b` in the column streams: is 1/a.b.clip.stream a's `b.clip`, or a.b's `clip`?"""
    prefixes = {p.streams: p for p in participants if p.streams and not p.exclude}
    for p in prefixes.values():
        folder, role = os.path.split(p.streams)
        parts = role.split(".")
        shorter = (os.path.join(folder, ".".join(parts[:n])) for n in range(1, len(parts)))
        other = next((prefixes[s] for s in shorter if s in prefixes), None)
        if other is not None:
            problems.add(
                p.line, "streams", p.streams,
                f"begins with the streams of row {other.line} and a dot, so their files cannot be told apart",
                "rename the streams of one of them",
            )  # fmt: skip


def _check_files(p: Participant, problems: _Problems) -> None:
    for column in PATHS if not p.exclude else ():
        if file := getattr(p, column):
            problem, cure = absence(file, column)
            if problem:
                problems.add(p.line, column, file, problem, cure)


def write_sheet(rows: Iterable[Participant], header: bool = True) -> str:
    """The sheet as text, all columns, paths as they stand in the rows."""
    rows = list(rows)
    columns = (*COLUMNS, *(c for c in OPTIONAL if any(getattr(p, c) for p in rows)))
    lines = ["\t".join(columns)] if header else []
    for p in rows:
        cells = []
        for column in columns:
            value = getattr(p, column)
            if column == "exclude":
                value = "yes" if value else ""
            elif column in ("offset", "age"):
                absent = value is None or (column == "offset" and not value)
                value = "" if absent else repr(float(value)).removesuffix(".0")
            cell = "" if value is None else str(value)
            if re.search(r"[\t\r\n]", cell):
                raise InputError(
                    f"{cell!r} has a tab or line break, which a sessions sheet cannot hold",
                    "rename the file or folder",
                )
            if '"' in cell:
                cell = '"' + cell.replace('"', '""') + '"'
            cells.append(cell)
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n" if lines else ""
