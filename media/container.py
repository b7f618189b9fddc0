"""Open a recording as a local file only: no playlists, no URLs, no `concat:`.

Time zero of a recording is its first picture, of a sound file its first sample (media/video.py); all
times in this package are seconds from there, taken from presentation time stamps. The container's
own start is no time zero: in Matroska and transport streams an encoder's priming samples come
first there, so the same recording would begin 20 to 70 ms later than as MP4.
"""

import os
import struct
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
# What a QuickTime or MP4 file may begin with, and how much of a box is searched.
MOVIE_STARTS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"udta", b"cmov", b"junk", b"styp", b"moof", b"uuid", b"sidx", b"meta", b"pict", b"prof", b"data")  # fmt: skip
MOST_HEADER_BYTES = 1 << 26
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".wmv")
# What becomes of a sound that is silent and of a video without a face: features that are not valid,
# or an error.
UNUSABLE = ("invalid", "refuse")
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
    if _packed_header(path):
        raise InputError(
            f"{path} has a compressed header (QuickTime cmov), which can unpack into gigabytes",
            "if you trust it, convert it (ffmpeg -i IN -c copy OUT.mp4)",
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


def _packed_header(path: Path) -> bool:
    """Whether a movie's header is zlib-compressed: FFmpeg takes as much memory as it claims to need.

    Every box on the top level but `mdat` is searched; whatever is no movie ends the search at once.
    """
    with open(path, "rb") as f:
        at, end = 0, path.stat().st_size
        while at + 8 <= end:
            f.seek(at)
            size, kind = struct.unpack(">I4s", f.read(8))
            if at == 0 and kind not in MOVIE_STARTS:
                return False
            if size == 1:
                size = int.from_bytes(f.read(8), "big")
            size = end - at if size == 0 else size
            if size < 8:
                return False
            if kind != b"mdat":
                f.seek(at)
                if b"cmvd" in f.read(min(size, MOST_HEADER_BYTES)):
                    return True
            at += size
    return False


def start_time(container: "av.container.InputContainer") -> float:
    """Container start in seconds (0 when unknown): what its first stream begins with.

    FFmpeg rounds it to microseconds; the start of the stream it came from is exact.
    """
    if container.start_time is None:
        return 0.0
    rounded = container.start_time / av.time_base
    starts = [
        float(s.start_time * s.time_base) for s in container.streams if s.start_time is not None
    ]
    return min((s for s in starts if abs(s - rounded) <= 1e-6), default=rounded)
