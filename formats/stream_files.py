"""One person's stream files: `<folder>/<role>.<name>.stream`, under the names of every year.

`video.clip` of 2024 and `clip` of 2025 are one feature: the infix `video.` is left out of names.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from formats.roles import role_of, roles_in
from formats.ssi.rate import LENGTH_TOLERANCE_S, Extent, sound_length, true_rates
from formats.ssi.stream import Stream, open_stream
from runtime import InputError

SUFFIX = ".stream"
# The challenge's streams, under the names of 2025.
KNOWN = (
    "audio.egemapsv2",
    "audio.w2vbert2_embeddings",
    "audio.xlm_roberta_embeddings",
    "clip",
    "dino",
    "openface2",
    "openface3",
    "openpose",
    "swin",
    "videomae",
)
# How the file of a known stream ends, in any year.
ENDINGS = tuple(f".{infix}{name}{SUFFIX}" for name in KNOWN for infix in ("", "video."))


def feature_name(infix: str) -> str:
    """Name of a feature whatever the year: `video.clip` and `clip` are `clip`."""
    return infix.removeprefix("video.")


def split_name(name: str, roles: Iterable[str] = ()) -> tuple[str, str]:
    """(role, feature) of a stream's file name `<role>.<name>.stream`.

    roles : of the session, as far as they are known. A name that begins with none of them is
    split at its known ending, else at its first dot.
    """
    role = role_of(name, roles) or role_of(name, roles_in([name], ENDINGS))
    stem = name.removesuffix(SUFFIX)
    if role is None:
        role, _, infix = stem.partition(".")
    else:
        infix = stem[len(role) + 1 :]
    return role, feature_name(infix)


def stream_path(prefix: str | os.PathLike, name: str) -> Path | None:
    """The header of a person's stream, under this year's name or that of 2024; None without one.

    prefix : `<folder>/<role>`, the sheet's column `streams`; name : for example audio.egemapsv2.
    """
    for infix in (feature_name(name), f"video.{feature_name(name)}"):
        path = Path(f"{os.fspath(prefix)}.{infix}{SUFFIX}")
        if path.is_file():
            return path
    return None


def stream_files(prefix: str | os.PathLike) -> dict[str, Path]:
    """Every stream of a person: feature -> header file, sorted by feature; {} without any."""
    folder, role = os.path.split(os.fspath(prefix))
    found = {}
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return {}
    for name in names:
        if name.startswith(f"{role}.") and name.endswith(SUFFIX):
            infix = name[len(role) + 1 : -len(SUFFIX)]
            if infix:
                found[feature_name(infix)] = Path(folder) / name
    return dict(sorted(found.items()))


def rows_stated(stream: Stream) -> int:
    """Rows that the header declares, those of the body where it declares none.

    A doubled or truncated body still lasts what its header says.
    """
    return stream.header.declared_rows or len(stream.values)


def extent(stream: Stream) -> Extent:
    """What the stream's header states of its length."""
    return Extent(rows_stated(stream), stream.header.rate_hz, stream.header.pause_s)


def lengths(prefix: str | os.PathLike) -> dict[str, Extent]:
    """Rows, true rate in Hz and pauses of every stream of a person.

    Raises InputError for an unreadable stream and for a person without any.
    """
    streams = {name: open_stream(path) for name, path in stream_files(prefix).items()}
    if not streams:
        raise InputError(
            f"{prefix} begins the name of no stream",
            "write folder/role, as in train/001/expert for train/001/expert.clip.stream",
        )
    stated = {name: extent(s) for name, s in streams.items()}
    rates = true_rates(stated)
    return {name: replace(s, rate_hz=rates[name]) for name, s in stated.items()}


def shifted(
    prefix: str | os.PathLike, media_s: float | None = None
) -> dict[str, tuple[float, float]]:
    """Streams that last another time than the person's sound: name -> (seconds, sound's seconds).

    Such a stream belongs to another recording (NoXi-J 147 to 150). media_s : seconds of the sound
    file or video of a person whose streams are pictures only.
    """
    seconds = {name: s.seconds() for name, s in lengths(prefix).items()}
    found = {}
    for name, s in seconds.items():
        sound = sound_length(seconds, name) or media_s
        if sound is not None and abs(s - sound) > LENGTH_TOLERANCE_S:
            found[name] = (s, sound)
    return found


def longest(prefix: str | os.PathLike) -> float:
    """Seconds of a person's longest stream at its true rate."""
    return max(s.seconds() for s in lengths(prefix).values())
