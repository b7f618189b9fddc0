"""What the folder layouts share: listing sessions and building a row from a person's files."""

import os
import re
from pathlib import Path

from corpora.sheet import NAME, Participant
from corpora.sheet_files import composed
from media.probe import has_sound
from runtime import InputError, get_logger

log = get_logger("init")

LABELS = "engagement.annotation.csv"
NO_SOUND = "no audio (empty seat?)"


def folder(path: str | os.PathLike) -> Path:
    """An existing folder; InputError otherwise."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder", "give the folder that holds the recordings")
    return path


def child(parent: Path, name: str) -> Path | None:
    """Subfolder by name, in any case of letters; None when it is not there."""
    found = [p for p in sorted(parent.iterdir()) if p.is_dir() and p.name.lower() == name.lower()]
    return found[0] if found else None


def subfolders(parent: Path) -> list[Path]:
    """Visible subfolders, sorted by name."""
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def one_file(parent: Path | None, stem: str, suffixes: tuple[str, ...]) -> Path | None:
    """The file `stem` + one of the suffixes (any case); InputError when there are two."""
    if parent is None or not parent.is_dir():
        return None
    wanted = {stem + s for s in suffixes}
    found = [
        p for p in sorted(parent.iterdir())
        if p.is_file() and p.name[: len(stem)] + p.name[len(stem) :].lower() in wanted
    ]  # fmt: skip
    if len(found) > 1:
        raise InputError(
            f"{parent} holds both {found[0].name} and {found[1].name}",
            "keep one of them: a participant has one video and at most one sound file",
        )
    return found[0] if found else None


def clean_name(text: str) -> str:
    """A name that is allowed in the sheet: other characters become '_'."""
    name = re.sub(r"[^\w.-]", "_", composed(text)).lstrip(".-") or "_"
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{text}' cannot be made a name for the sheet", "rename the folder or file"
        )
    return name


def relative(path: Path | None, base: Path) -> str:
    """Path relative to `base` with forward slashes; "" for None."""
    return "" if path is None else Path(os.path.relpath(path, base)).as_posix()


def participant(
    dataset: str,
    split: str,
    session: str,
    role: str,
    video: Path | None,
    audio: Path | None,
    labels: Path | None,
    base: Path,
    **facts,
) -> Participant:
    """Row of a person. Without a sound file the video's own sound is meant; without
    that either, the row is excluded (an empty seat: picture of a chair, nobody to hear)."""
    excluded = {}
    if video is not None and audio is None and not _may_sound(video):
        excluded = {"exclude": True, "exclude_reason": NO_SOUND}
        log.warning("%s/%s %s has no audio: excluded", dataset, session, role)
    return Participant(
        dataset,
        split,
        session,
        role,
        relative(video, base),
        relative(audio, base),
        relative(labels, base),
        **facts,
        **excluded,
    )


def _may_sound(video: Path) -> bool:
    try:
        return has_sound(video)
    except InputError as e:
        # The row stays, so that the damaged file is found and named when the workflow runs.
        log.warning("%s", e.problem)
        return True


def summary(rows: list[Participant]) -> list[str]:
    """One line per dataset and split: sessions, participants, labels, exclusions."""
    lines = []
    for key in dict.fromkeys((p.dataset, p.split) for p in rows):
        people = [p for p in rows if (p.dataset, p.split) == key]
        sessions = len({p.session for p in people})
        excluded = sum(p.exclude for p in people)
        labelled = sum(bool(p.labels) and not p.exclude for p in people)
        lines.append(
            f"{key[0]}/{key[1]}: {sessions} sessions, {len(people) - excluded} participants"
            f" ({labelled} with labels), {excluded} excluded"
        )
    return lines
