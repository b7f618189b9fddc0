"""Pictures for `faces`: a few from all over the recording, and all of them, decoded ahead."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from media.container import open_media, start_time
from media.video import VideoFrame, display_matrix, upright, video_frames, video_stream

SEEK_FRAMES = 300  # decoded at most per glance when key frames are far apart
FEW, SEEK_STEP = 4, 20  # with fewer glances than this, every 20th of the first 300 frames is added
AHEAD = 4  # frames decoded ahead


def glances(
    path: Path, roi: tuple[int, int, int, int] | None, n: int
) -> list[tuple[float, np.ndarray]]:
    """About n pictures (time_s, rgb) spread over the recording, fetched by seeking."""
    pictures: dict[float, np.ndarray] = {}
    with open_media(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1
        zero = start_time(container)
        duration = (container.duration or 0) / av.time_base
        for target in np.linspace(0.0, max(0.0, duration), n, endpoint=False):
            try:
                container.seek(int((target + zero) * av.time_base), backward=True)
                for i, frame in enumerate(container.decode(stream)):
                    if frame.pts is None:
                        continue
                    time_s = float(frame.pts * frame.time_base) - zero
                    if time_s >= target - 1e-3 or i >= SEEK_FRAMES:
                        matrix = display_matrix(frame, path)
                        rgb = upright(frame.to_ndarray(format="rgb24"), matrix)
                        if roi is not None:
                            x, y, w, h = roi
                            rgb = rgb[y : y + h, x : x + w]
                        if rgb.size:
                            pictures[time_s] = np.ascontiguousarray(rgb)
                        break
            except av.FFmpegError:
                continue  # the full pass reports what is wrong with the file
    if len(pictures) < FEW:  # a file that cannot be searched, or a very short one
        for still in video_frames(path, roi, threads=1):
            if still.index >= SEEK_FRAMES:
                break
            if still.index % SEEK_STEP == 0:
                pictures[still.time_s] = still.rgb
    return sorted(pictures.items())


def in_background(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Decode in a second thread, a few frames ahead."""
    pending: queue.Queue = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                pending.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for frame in frames:
                if not put((frame, None)):
                    return
            put((None, None))
        except BaseException as e:  # handed to the consumer, whatever it is
            put((None, e))
        finally:
            frames.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            frame, error = pending.get()
            if error is not None:
                raise error
            if frame is None:
                return
            yield frame
    finally:
        stop.set()
        thread.join()
