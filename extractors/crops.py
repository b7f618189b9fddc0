"""The crop store: the followed face of every video frame as a small square picture, one video file.

Frame k of the store is row k of the faces file; time stamps in the store are frame numbers, true
times lie in the faces file. Black frames are frames without a face. The store holds faces of
people: personal data, readable by its owner only, never to be published.

H.264, one thread, no dates: equal pictures give equal bytes with the same libraries. How the codec
was chosen, what it costs and what it does to optical flow: docs/faces.md.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
AHEAD = 4  # crops per thread that may wait to be read
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
    path: str | os.PathLike,
    expected: int,
    gray: bool = False,
    size: int | None = None,
    threads: int = 1,
    apply: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Read a crop store in order; memory does not grow with length.

    Parameters
    ----------
    path : the store.
    expected : frames it must hold (rows of the faces file).
    gray : yield brightness (H, W) instead of RGB (H, W, 3), both uint8.
    size : resize to size x size; None: as stored.
    threads : that decode and convert ahead; 1: the caller's own. No value depends on it.
    apply : called with each crop, in these threads; what it returns is yielded.

    Raises InputError when the store is unreadable, not what its faces file's sidecar describes, or
    does not hold exactly `expected` frames.
    """
    kind = "gray" if gray else "rgb24"
    own = threading.local()

    def convert(frame: av.VideoFrame) -> np.ndarray:
        if not hasattr(own, "reformatter"):
            own.reformatter = VideoReformatter()
        crop = own.reformatter.reformat(frame, format=kind).to_ndarray()
        if size is not None and crop.shape[0] != size:
            how = cv2.INTER_AREA if size < crop.shape[0] else cv2.INTER_LINEAR
            crop = cv2.resize(crop, (size, size), interpolation=how)
        return crop if apply is None else apply(crop)

    if threads == 1:
        yield from map(convert, _frames(path, expected, 1))
        return
    ahead: deque[Future] = deque()
    with closing(_frames(path, expected, threads)) as frames, ThreadPoolExecutor(threads) as pool:
        for frame in frames:
            ahead.append(pool.submit(convert, frame))
            if len(ahead) > AHEAD * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _frames(path: str | os.PathLike, expected: int, threads: int) -> Iterator[av.VideoFrame]:
    """Exactly `expected` decoded frames of a store; InputError as `read_crops` says."""
    check_intact(path)
    cure = f"delete the faces of this recording and run again: rm '{path}'"
    count = 0
    with open_media(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} holds no pictures", cure)
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        if threads > 1:
            stream.thread_type = "FRAME"
        try:
            for frame in container.decode(stream):
                count += 1
                if count > expected:
                    break
                yield frame
        except av.FFmpegError as e:
            raise InputError(
                f"{path} cannot be decoded after frame {count} ({' '.join(str(e).split())[:80]})",
                cure,
            ) from e
    if count != expected:
        held = f"more than {expected}" if count > expected else str(count)
        raise InputError(f"{path} holds {held} crops, its faces file has {expected} rows", cure)
