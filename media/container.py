"""Open a recording as a local file only: no playlists, no URLs, no `concat:`.

Time zero of a recording is its container's start time, so the earliest stream begins at 0 s and a
late audio track begins later; all times in this package are seconds from there, taken from
presentation time stamps.
"""

import os
from pathlib import Path

import av

from runtime import InputError

# Demuxers of single-file recordings. Playlist and virtual formats (hls, dash, concat, ...) stay out.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,w64,mp3,flac,ogg,aac,mpegts,mpeg,asf,caf,aiff"
)
# 8K has 33 million. A larger claim is refused before a picture is allocated: by the decoder, which
# may learn the size from the stream alone, and by media.video where the container states it.
MOST_PIXELS = 1 << 26
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".wmv")
AUDIO_SUFFIXES = (".wav", ".m4a", ".mp3", ".flac", ".ogg", ".aac")


def open_media(path: str | os.PathLike) -> "av.container.InputContainer":
    """Open for reading. Raises InputError for a missing, empty, foreign or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is not a file", "correct the path in the sessions sheet"
        )
    if path.stat().st_size == 0:
        raise InputError(
            f"{path} is empty (0 bytes)",
            "copy the recording again, or exclude the participant in the sheet",
        )
    try:
        return av.open(
            "file:" + os.path.abspath(path),
            options={
                "protocol_whitelist": "file",
                "format_whitelist": FORMATS,
                "max_pixels": str(MOST_PIXELS),  # for the decoders that look into the streams
            },
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as e:
        raise InputError(
            f"{path} cannot be opened as a recording ({' '.join(str(e).split())[:100]})",
            "check that it plays; convert it (ffmpeg -i IN OUT.mp4), or exclude the participant in the sheet",
        ) from e


def start_time(container: "av.container.InputContainer") -> float:
    """Container start in seconds (0 when unknown): time zero of the recording.

    FFmpeg rounds it to microseconds; the start of the stream it came from is exact.
    """
    if container.start_time is None:
        return 0.0
    rounded = container.start_time / av.time_base
    starts = [
        float(s.start_time * s.time_base) for s in container.streams if s.start_time is not None
    ]
    return min((s for s in starts if abs(s - rounded) <= 1e-6), default=rounded)
