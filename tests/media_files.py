"""Small recordings for tests, written with PyAV: what a frame shows and sounds tells its time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Display matrices as phones write them (ISO/IEC 14496-12, 16.16 and 2.30 fixed point).
ONE = 1 << 16
CLOCKWISE = [0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30]


def corners(width: int = 64, height: int = 48) -> np.ndarray:
    """Red top left, green top right, blue bottom left, white bottom right; (H, W, 3) uint8."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def write_video(
    path: Path,
    times_s=None,
    frames: int = 125,
    rate=25,
    codec: str = "libx264",
    time_base=None,
    matrix=None,
    picture=None,
    audio=None,
    audio_rate: int = 16000,
    audio_start_s: float = 0.0,
    audio_codec: str = "aac",
    options=None,
) -> Path:
    """Video with given times (default: frames at `rate`), optionally with sound (channels, n)."""
    rate = Fraction(rate)
    time_base = Fraction(time_base or 1 / rate)
    if times_s is None:
        stamps = [round(i / rate / time_base) for i in range(frames)]
    else:
        stamps = [round(Fraction(t).limit_denominator(10**6) / time_base) for t in times_s]
    picture = corners() if picture is None else picture
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, options={"preset": "ultrafast"} if codec == "libx264" else {}
        )
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base
        if matrix:
            stream.set_display_matrix(matrix)
        sound = None
        if audio is not None:
            audio = np.atleast_2d(np.asarray(audio, np.float32))
            sound = container.add_stream(
                audio_codec, rate=audio_rate, layout={1: "mono", 2: "stereo"}[len(audio)]
            )
        for k, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(
                picture(k) if callable(picture) else picture, "rgb24"
            )
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            layout = sound.codec_context.layout.name
            step = 1024
            for at in range(0, audio.shape[1], step):
                piece = np.ascontiguousarray(audio[:, at : at + step])
                frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
                frame.sample_rate = audio_rate
                frame.pts = at + round(audio_start_s * audio_rate)
                frame.time_base = Fraction(1, audio_rate)
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def write_wav(path: Path, samples, rate: int = 16000) -> Path:
    """Sound file, samples (n,) or (n, channels) in -1..1, 16 bit."""
    import soundfile

    soundfile.write(path, np.asarray(samples), rate, subtype="PCM_16", format="WAV")
    return path


def tone(seconds: float, rate: int = 16000, hz: float = 220.0) -> np.ndarray:
    """Sine of half amplitude, (n,) float64."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
