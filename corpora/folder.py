"""Your own recordings: ``ROOT/<session>/<role>.{mp4,mkv,avi,mov}``.

Optional beside the video: ``<role>.{wav,m4a,mp3,...}`` (else the sound of the video) and
``<role>.csv`` (labels). All sessions get one split; edit the column for another division.
"""

import os
from pathlib import Path

from corpora.layout import (
    LABELS,
    clean_name,
    folder,
    log,
    one_file,
    participant,
    subfolders,
)
from corpora.sheet import Participant
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError


def find(
    root: str | os.PathLike,
    base: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    dataset: str | None = None,
    split: str = "test",
) -> list[Participant]:
    """Rows of a plain folder, paths relative to `base` (default: `root`).

    dataset : default: the folder's name. labels : a second tree ``<session>/<role>.csv``.
    Characters that no name may have become '_'. Raises InputError when nothing is found or two
    names fall together.
    """
    root = folder(root)
    base = root if base is None else Path(base)
    other = folder(labels) if labels is not None else None
    dataset = clean_name(dataset or root.resolve().name)
    rows: list[Participant] = []
    for session in subfolders(root):
        videos = [p for p in sorted(session.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
        for stem in dict.fromkeys(p.name[: -len(p.suffix)] for p in videos if p.is_file()):
            video = one_file(session, stem, VIDEO_SUFFIXES)
            assert video is not None
            places = [session, *([other / session.name] if other else [])]
            found = (one_file(place, stem, (".csv", f".{LABELS}")) for place in places)
            row = participant(
                dataset,
                split,
                _name(session.name),
                _name(stem),
                video,
                one_file(session, stem, AUDIO_SUFFIXES),
                next((label for label in found if label is not None), None),
                base,
            )
            _check_new(row, rows)
            rows.append(row)
    if not rows:
        raise InputError(
            f"{root} holds no <session>/<role>.mp4 (or {', '.join(VIDEO_SUFFIXES[1:])})",
            "make a folder per conversation and put one video per person into it",
        )
    return rows


def _name(text: str) -> str:
    name = clean_name(text)
    if name != text:
        log.warning("'%s' is called %s in the sheet", text, name)
    return name


def _check_new(row: Participant, rows: list[Participant]) -> None:
    for other in rows:
        same = (other.session, other.role) == (row.session, row.role)
        merged = other.session == row.session and _place(other) != _place(row)
        if same or merged:
            raise InputError(
                f"{other.video} and {row.video} would have the same name {row.session}"
                + (f" {row.role}" if same else ""),
                "rename one of them with letters, digits, '.', '_' and '-'",
            )


def _place(row: Participant) -> str:
    return os.path.dirname(row.video)
