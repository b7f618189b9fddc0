"""The crop store: the followed face of every video frame as a small square picture, one video file.

Frame k of the store is row k of the faces file; time stamps in the store are frame numbers, true
times lie in the faces file. Black frames are frames without a face. The store holds faces of
people: personal data, readable by its owner only, never to be published.

H.264, one thread, no dates: equal pictures give equal bytes with the same libraries. How the codec
was chosen, what it costs and what it does to optical flow: docs/faces.md.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from media.container import open_media
from runtime import InputError
from store.atomic import atomic_path
from store.intact import check_intact

CODEC, PIXELS = "libx264", "yuv420p"
RATE = 25  # of the store's own time stamps, which are frame numbers
# Macroblock-tree rate control with B frames gives other bytes from run to run (x264 core 165).
OPTIONS = {"preset": "veryfast", "crf": "16", "x264-params": "threads=1:mbtree=0:bframes=0"}


class CropWriter:
    """Write crops (size, size, 3) uint8 RGB one by one; the file appears when the block ends well.

    size must be even (the codec stores colour at half resolution).
    """

    def __init__(self, path: str | os.PathLike, size: int):
        self.path = Path(path)
        self.size = size
        self.frames = 0
        self._context = None

    def __enter__(self) -> "CropWriter":
        self._context = atomic_path(self.path, suffix=".tmp")
        temporary = self._context.__enter__()
        os.chmod(temporary, 0o600)
        self._container = av.open(
            str(temporary), "w", format="matroska", options={"fflags": "+bitexact"}
        )
        self._stream = self._container.add_stream(CODEC, rate=RATE, options=OPTIONS)
        self._stream.width = self._stream.height = self.size
        self._stream.pix_fmt = PIXELS
        self._stream.codec_context.thread_count = 1
        return self

    def write(self, crop: np.ndarray) -> None:
        # cv2 converts, not swscale: that one's result depends on how memory happens to be aligned
        planes = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format=PIXELS)
        frame.pts = self.frames
        frame.time_base = Fraction(1, RATE)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def __exit__(self, kind, error, traceback) -> None:
        try:
            try:
                if kind is None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
        except BaseException as e:
            self._context.__exit__(type(e), e, e.__traceback__)
            raise
        self._context.__exit__(kind, error, traceback)


def read_crops(
    path: str | os.PathLike, expected: int, gray: bool = False, size: int | None = None
) -> Iterator[np.ndarray]:
    """Read a crop store in order; memory does not grow with length.

    Parameters
    ----------
    path : the store.
    expected : frames it must hold (rows of the faces file).
    gray : yield brightness (H, W) instead of RGB (H, W, 3), both uint8.
    size : resize to size x size; None: as stored.

    Raises InputError when the store is unreadable, not what its faces file's sidecar describes, or
    does not hold exactly `expected` frames.
    """
    check_intact(path)
    cure = f"delete the faces of this recording and run again: rm '{path}'"
    kind = "gray" if gray else "rgb24"
    reformatter = VideoReformatter()
    frames = 0
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} holds no pictures", cure)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                frames += 1
                if frames > expected:
                    break
                crop = reformatter.reformat(frame, format=kind).to_ndarray()
                if size is not None and crop.shape[0] != size:
                    shrinks = size < crop.shape[0]
                    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                    crop = cv2.resize(crop, (size, size), interpolation=how)
                yield crop
        except av.FFmpegError as e:
            raise InputError(
                f"{path} cannot be decoded after frame {frames} ({' '.join(str(e).split())[:80]})",
                cure,
            ) from e
    if frames != expected:
        held = f"more than {expected}" if frames > expected else str(frames)
        raise InputError(f"{path} holds {held} crops, its faces file has {expected} rows", cure)
