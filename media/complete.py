"""Is a recording whole? Compares where its streams end with what its header states."""

import os

import av

from runtime import InputError

# A stream may end this much before its header says without counting as truncated: decoders and
# muxers disagree about the last frames.
TRUNCATION_TOLERANCE_S = 0.25
MOST_CHUNKS = 1000  # of a RIFF file, before its sound


def _riff_duration(path: str | os.PathLike) -> float | None:
    """Seconds that a RIFF header promises (FFmpeg trusts the file's size instead); None if unknown."""
    with open(path, "rb") as f:
        head = f.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        bytes_per_s = 0
        for _ in range(MOST_CHUNKS):
            if len(header := f.read(8)) < 8:
                break
            name, size = header[:4], int.from_bytes(header[4:], "little")
            if name == b"data":
                # 0 and the maximum stand for "not known when the recording began".
                known = bytes_per_s and 0 < size < 0xFFFFFF00
                return size / bytes_per_s if known else None
            if name == b"fmt ":
                bytes_per_s = int.from_bytes(f.read(12)[8:12], "little")
                f.seek(size + size % 2 - 12, os.SEEK_CUR)
            else:
                f.seek(size + size % 2, os.SEEK_CUR)
    return None


def stated_duration(path: str | os.PathLike, container, stream) -> float | None:
    """Seconds of a stream by the file's header; None where the header does not state them.

    Only formats that store a length are asked (others estimate it from the bit rate); sound in AVI
    counts its late start as length.
    """
    names = container.format.name.split(",")
    if "wav" in names:
        return _riff_duration(path)
    if "matroska" in names:
        return stated_end(container) if len(container.streams) == 1 else None
    known = {"mov", "w64", "flac"} | ({"avi"} if stream.type == "video" else set())
    if known.isdisjoint(names) or stream.duration is None:
        return None
    return float(stream.duration * stream.time_base)


def stated_end(container) -> float | None:
    """Seconds from start to the end of the longest stream of a Matroska file; None for others.

    Matroska states one length, for all streams; it may or may not count the time before the first
    stream, so the shorter reading is taken.
    """
    if "matroska" not in container.format.name.split(",") or container.duration is None:
        return None
    return (container.duration - max(0, container.start_time or 0)) / av.time_base


def check_streams(container, path: str | os.PathLike) -> None:
    """InputError when the file opens but lists no stream at all: its index is cut off."""
    if not len(container.streams):
        raise InputError(
            f"{path} holds no readable stream: it is probably truncated",
            "copy the recording again, or exclude the participant in the sheet",
        )


def check_codec(stream, path: str | os.PathLike) -> None:
    """InputError where there is no decoder for a stream."""
    if stream.codec_context is None:
        raise InputError(
            f"{path}: its {stream.type} is in a format that cannot be decoded",
            "convert it (ffmpeg -i IN OUT.mp4), or exclude the participant in the sheet",
        )


def check_complete(
    path: str | os.PathLike, what: str, stated_s: float | None, found_s: float, step_s: float
) -> None:
    """InputError when a stream ends well before the duration its header states."""
    if stated_s is None or found_s >= stated_s - max(TRUNCATION_TOLERANCE_S, 3 * step_s):
        return
    raise InputError(
        f"{path} is truncated: its {what} ends after {found_s:.2f} s, its header says {stated_s:.2f} s",
        "copy the recording again; if it was never longer, remux it (ffmpeg -i IN -c copy OUT)",
    )
