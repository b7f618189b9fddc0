"""Video frames with true times, upright.

The time of a frame is its presentation time stamp minus that of the first picture, so 25, 29.97 and variable frame rates are all the same here. Pictures are
turned according to the display matrix of the file (rotated phone videos); the sample aspect ratio
is not applied. A file with several video streams is read by its first one (cover art does not
count).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from media.complete import check_codec, check_complete, check_streams, stated_duration
from media.container import MOST_PIXELS, open_media, start_time
from runtime import InputError, get_logger

log = get_logger("media")

MOST_SIDE = 1 << 14  # pixels; see MOST_PIXELS


@dataclass
class VideoFrame:
    """One picture: index from 0, time in seconds of the recording, rgb (H, W, 3) uint8 upright."""

    index: int
    time_s: float
    rgb: np.ndarray


def video_stream(container: "av.container.InputContainer", path) -> "av.video.stream.VideoStream":
    """First video stream that is not cover art; InputError when there is none, or too large."""
    check_streams(container, path)
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            check_codec(stream, path)
            width, height = stream.codec_context.width, stream.codec_context.height
            if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
                raise InputError(
                    f"{path} has pictures of {width}x{height} pixels",
                    f"scale it down (ffmpeg -i IN -vf scale=1920:-2 OUT.mp4); at most {MOST_SIDE} a side and"
                    f" {MOST_PIXELS} in all are read",
                )
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            return stream
    raise InputError(
        f"{path} has no video stream",
        "put a video file into the column `video`, or exclude the participant in the sheet",
    )


def time_zero(path: str | os.PathLike) -> float:
    """Time stamp (s) at which a recording begins: its first picture, else its first sample.

    Priming samples of the sound and edit lists do not move it; sound that begins later than the
    picture keeps its delay, sound that begins earlier has negative times. Where no picture can be
    decoded, it is what the container says of the video.
    """
    with open_media(path) as container:
        for stream in container.streams.video:
            if stream.disposition & av.stream.Disposition.attached_pic:
                continue
            stated = stream.start_time
            if stream.codec_context is not None:
                stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
                stream.codec_context.thread_count = 1
                try:
                    first = next(container.decode(stream)).pts
                    stated = stated if first is None else first
                except (StopIteration, av.FFmpegError):
                    pass  # whoever wants the pictures says what is the matter with them
            if stated is not None:
                return float(stated * stream.time_base)
            break
        return start_time(container)


def parse_roi(text: str) -> tuple[int, int, int, int]:
    """``x,y,w,h`` in pixels of the upright picture -> four ints; InputError when malformed."""
    parts = [p.strip() for p in text.split(",")]
    if len(parts) == 4 and all(p.isascii() and p.isdigit() for p in parts):
        x, y, w, h = map(int, parts)
        if w > 0 and h > 0:
            return x, y, w, h
    raise InputError(
        f"roi '{text}' is not x,y,w,h (whole pixels of the upright picture, w and h above 0)",
        "write it like 0,0,640,480",
    )


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Apply a display matrix (a, b, c, d) of signs to a picture (H, W, ...).

    ISO/IEC 14496-12: a point (p, q), q downwards, is shown at (a p + c q, b p + d q).
    """
    a, b, c, d = matrix
    if b:  # the axes are exchanged: x' = c q, y' = b p
        picture = picture.swapaxes(0, 1)
        a, d = c, b
    if a < 0:
        picture = picture[:, ::-1]
    if d < 0:
        picture = picture[::-1]
    return picture


def display_matrix(frame: "av.VideoFrame", path) -> tuple[int, int, int, int]:
    """Signs (a, b, c, d) of the frame's display matrix; (1, 0, 0, 1) without one."""
    side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if side_data is None:
        return 1, 0, 0, 1
    full = np.frombuffer(bytes(side_data), dtype=np.int32)[:9].reshape(3, 3)
    linear = full[:2, :2].astype(np.float64)
    scale = np.abs(linear).max()
    if scale > 0:
        signs = np.rint(linear / scale).astype(int)
        if np.allclose(linear / scale, signs, atol=1e-3) and abs(np.linalg.det(signs)) == 1:
            a, b, c, d = signs.ravel().tolist()
            return a, b, c, d
    raise InputError(
        f"{path} is to be shown turned by {frame.rotation} degrees, which is no multiple of 90",
        "re-encode it upright (ffmpeg -i IN OUT.mp4)",
    )


def rotation_of(matrix: tuple[int, int, int, int]) -> int:
    """Degrees clockwise (0, 90, 180, 270) by which a display matrix turns the stored picture."""
    a, b, c, d = matrix
    if a * d - b * c < 0:  # mirrored: undo the left-right flip that follows the turn
        a, c = -a, -c
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[(a, b)]


def _decoded(path, container, stream) -> Iterator["av.VideoFrame"]:
    last = None
    try:
        for frame in container.decode(stream):
            last = frame
            yield frame
    except av.FFmpegError as e:
        at = "its beginning" if last is None else f"{float(last.time or 0):.2f} s"
        raise InputError(
            f"{path} cannot be decoded after {at} ({' '.join(str(e).split())[:100]})",
            "copy the recording again or re-encode it (ffmpeg -i IN OUT.mp4), or exclude the participant",
        ) from e


def video_frames(
    path: str | os.PathLike,
    roi: tuple[int, int, int, int] | str | None = None,
    threads: int | None = None,
) -> Iterator[VideoFrame]:
    """Decode a video frame by frame; memory does not grow with length.

    Parameters
    ----------
    path : the recording.
    roi : region ``(x, y, w, h)`` (or text "x,y,w,h") in pixels of the upright picture; None or ""
        for the whole picture.
    threads : decoder threads; None: what the job was given (OMP_NUM_THREADS), else all cores.

    Yields
    ------
    VideoFrame with strictly increasing times.

    Raises
    ------
    InputError : no video stream, nothing decodable, damaged or truncated file, a frame without
        time stamp, time stamps that do not increase, a picture size that changes, a region
        outside the picture.
    """
    if isinstance(roi, str):
        roi = parse_roi(roi) if roi.strip() else None
    if threads is None:
        threads = int(os.environ.get("OMP_NUM_THREADS", 0) or 0)
    with open_media(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        zero = 0  # stamp of the first picture
        stated = stated_duration(path, container, stream)
        reformatter = VideoReformatter()  # one for all frames: making the converter costs time
        size, matrix = None, (1, 0, 0, 1)
        index, last, step, damaged = 0, -np.inf, 0.0, 0
        for frame in _decoded(path, container, stream):
            if frame.pts is None:
                raise InputError(
                    f"{path}: frame {index} has no time stamp",
                    "remux it with time stamps (ffmpeg -fflags +genpts -i IN -c copy OUT.mkv)",
                )
            zero = frame.pts if size is None else zero
            time_s = float((frame.pts - zero) * frame.time_base)
            if time_s <= last:
                raise InputError(
                    f"{path}: time stamps do not increase at frame {index} ({time_s:.3f} s after {last:.3f} s)",
                    "re-encode it (ffmpeg -i IN OUT.mp4), or exclude the participant in the sheet",
                )
            if size is None:
                size, matrix = (frame.width, frame.height), display_matrix(frame, path)
            elif size != (frame.width, frame.height):
                raise InputError(
                    f"{path}: the picture changes from {size[0]}x{size[1]} to {frame.width}x{frame.height} at {time_s:.2f} s",
                    "re-encode it to one size (ffmpeg -i IN -vf scale=W:H OUT.mp4)",
                )
            damaged += frame.is_corrupt
            rgb = upright(
                reformatter.reformat(frame, format="rgb24", threads=threads).to_ndarray(), matrix
            )
            if roi is not None:
                x, y, w, h = roi
                if x + w > rgb.shape[1] or y + h > rgb.shape[0]:
                    raise InputError(
                        f"roi {x},{y},{w},{h} reaches beyond the picture of {path} ({rgb.shape[1]}x{rgb.shape[0]} upright)",
                        "correct the column `roi` in the sessions sheet",
                    )
                rgb = rgb[y : y + h, x : x + w]
            yield VideoFrame(index, time_s, np.ascontiguousarray(rgb))
            if index:
                step = time_s - last
            last = time_s
            index += 1
        if index == 0:
            raise InputError(
                f"{path} has a video stream but no frame in it can be decoded",
                "check that it plays; copy it again, or exclude the participant in the sheet",
            )
        check_complete(path, "video", stated, last + step, step)
        if damaged:
            log.warning("%d of %d frames are damaged and were concealed", damaged, index)
