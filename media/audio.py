"""Audio as float32 mono blocks at one rate, with true times.

Sample n of the stream (all blocks joined) is at `start_s` + n / rate_hz seconds of the recording:
time zero is the first picture (media/video.py), a late track keeps its start, and gaps inside the track are filled with zeros and reported, so that
the sample index stays time. Resampling is libswresample's windowed-sinc filter, aligned to the
first sample and continuous over block borders; blocks are cut afterwards, so values do not depend
on `block_s`.
"""

import os
from collections.abc import Iterator

import av
import numpy as np

from media.complete import check_codec, check_complete, check_streams, stated_duration
from media.container import open_media
from media.video import time_zero
from runtime import InputError, get_logger

log = get_logger("media")

# Time stamps of containers with a coarse clock (Matroska: 1 ms) jitter; less than this is no gap.
# More than any recorder writes: a damaged or hostile header.
MOST_RATE_HZ, MOST_CHANNELS, MOST_GAP_S = 768_000, 64, 6 * 3600.0
GAP_TOLERANCE_S = 0.02
# Samples told twice (clock drift between time stamps and sample clock) are dropped up to this much.
OVERLAP_LIMIT_S = 0.5
CHUNK = 1 << 16
# A sound in which no sample exceeds this (full scale = 1) is digitally silent: -80 dB.
SILENCE_PEAK = 1e-4


def is_silent(peak: float) -> bool:
    """Whether a sound with this largest magnitude (full scale 1) holds nothing: a dead microphone."""
    return not peak > SILENCE_PEAK


def audio_stream(container: "av.container.InputContainer", path) -> "av.audio.stream.AudioStream":
    """First audio stream; InputError when there is none."""
    check_streams(container, path)
    if not container.streams.audio:
        raise InputError(
            f"{path} has no audio stream",
            "name a file with sound in the column `audio`, or exclude the participant in the sheet",
        )
    check_codec(container.streams.audio[0], path)
    return container.streams.audio[0]


def samples_of(frame: "av.AudioFrame") -> np.ndarray:
    """Decoded frame -> (channels, n) float32 in -1..1."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(frame.samples, -1).T
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128.0) / 128.0
    if data.dtype.kind == "i":
        scale = 2.0 ** -(8 * data.dtype.itemsize - 1)
        return (data * np.float64(scale)).astype(np.float32)
    return data.astype(np.float32)


class AudioStream:
    """Iterate float32 mono blocks of an audio track; made by `audio_blocks`.

    Attributes
    ----------
    start_s : true time of sample 0 in seconds of the recording; negative before the first picture.
    rate_hz : rate of the samples given out.
    native_rate_hz, channels : of the file.
    gaps : [(start_s, end_s)] of stretches filled with zeros (complete after the iteration).
    overlaps : [(at_s, seconds)] of samples that were told twice and dropped once.
    n_samples : samples given out so far.
    """

    def __init__(self, path, rate_hz: int, channel: int | None, block_s: float):
        self.path = path
        self.rate_hz = int(rate_hz)
        self.channel = channel
        self.block = max(1, round(block_s * rate_hz))
        self.gaps: list[tuple[float, float]] = []
        self.overlaps: list[tuple[float, float]] = []
        self.n_samples = 0
        self._source = self._mono()
        try:
            # The first decoded samples tell the true start and prove that the track is readable.
            self._first = next(self._source)
        except StopIteration:
            raise InputError(
                f"{path} has an audio stream but no sound in it can be decoded",
                "check that it plays; copy it again, or exclude the participant in the sheet",
            ) from None

    def _frames(self, container, stream) -> Iterator["av.AudioFrame"]:
        at = 0.0
        try:
            for frame in container.decode(stream):
                if frame.samples:
                    at = frame.time or at
                    yield frame
        except av.FFmpegError as e:
            raise InputError(
                f"{self.path}: the audio cannot be decoded after {at:.2f} s ({' '.join(str(e).split())[:100]})",
                "copy the recording again or convert it (ffmpeg -i IN OUT.wav), or exclude the participant",
            ) from e

    def _mono(self) -> Iterator[np.ndarray]:
        """Mono float32 pieces at the native rate, gaps filled; sets start_s and the file's facts."""
        with open_media(self.path) as container:
            stream = audio_stream(container, self.path)
            zero = time_zero(self.path)
            stated = stated_duration(self.path, container, stream)
            position = 0  # samples given out at the native rate
            shape = None
            for frame in self._frames(container, stream):
                if shape is None:
                    shape = (frame.sample_rate, frame.layout.nb_channels)
                    self.native_rate_hz, self.channels = shape
                    if shape[0] > MOST_RATE_HZ or shape[1] > MOST_CHANNELS:
                        raise InputError(
                            f"{self.path} has {shape[1]} channels at {shape[0]} Hz",
                            "convert it (ffmpeg -i IN -ac 1 -ar 48000 OUT.wav)",
                        )
                    self._check_channel()
                    self.start_s = (
                        0.0 if frame.pts is None else float(frame.pts * frame.time_base) - zero
                    )
                elif shape != (frame.sample_rate, frame.layout.nb_channels):
                    raise InputError(
                        f"{self.path}: sampling rate or channels change at {frame.time or 0:.2f} s",
                        "convert it to one format (ffmpeg -i IN OUT.wav)",
                    )
                data = samples_of(frame)
                mono = data.mean(axis=0) if self.channel is None else data[self.channel]
                if frame.pts is not None:
                    expected = self.start_s + position / shape[0]
                    lead = float(frame.pts * frame.time_base) - zero - expected
                    if lead > GAP_TOLERANCE_S:
                        if lead > MOST_GAP_S:
                            raise InputError(
                                f"{self.path}: the time stamps jump by {lead:.0f} s at {expected:.2f} s",
                                "remux or convert it (ffmpeg -i IN OUT.wav)",
                            )
                        missing = round(lead * shape[0])
                        self.gaps.append((expected, expected + missing / shape[0]))
                        position += missing
                        for _ in range(missing // CHUNK):
                            yield np.zeros(CHUNK, np.float32)
                        yield np.zeros(missing % CHUNK, np.float32)
                    elif lead < -GAP_TOLERANCE_S:
                        self._check_overlap(expected, -lead)
                        mono = mono[round(-lead * shape[0]) :]
                position += len(mono)
                yield np.ascontiguousarray(mono, dtype=np.float32)
            if shape:
                check_complete(self.path, "audio", stated, position / shape[0], 0.0)
        if self.gaps:
            seconds = sum(end - start for start, end in self.gaps)
            log.warning("%d gaps in the audio track (%.2f s) hold zeros", len(self.gaps), seconds)

    def _check_channel(self) -> None:
        if self.channel is not None and not 0 <= self.channel < self.channels:
            raise InputError(
                f"{self.path} has {self.channels} audio channel(s), audio_channel is {self.channel}",
                f"use 0 to {self.channels - 1} in the column `audio_channel`, or leave it empty for the mean",
            )

    def _check_overlap(self, at_s: float, seconds: float) -> None:
        if seconds > OVERLAP_LIMIT_S:
            raise InputError(
                f"{self.path}: audio time stamps jump back by {seconds:.2f} s at {at_s:.2f} s",
                "convert it (ffmpeg -i IN OUT.wav) and check that it still fits the video",
            )
        self.overlaps.append((at_s, seconds))

    def _chunks(self) -> Iterator[np.ndarray]:
        """Native mono samples joined to pieces of about CHUNK: fewer calls of the resampler."""
        held, n = [self._first], len(self._first)
        for piece in self._source:
            if n >= CHUNK:
                yield np.concatenate(held)
                held, n = [], 0
            held.append(piece)
            n += len(piece)
        yield np.concatenate(held)

    def _resampled(self) -> Iterator[np.ndarray]:
        if self.native_rate_hz == self.rate_hz:
            yield from self._chunks()
            return
        resampler = av.AudioResampler(format="flt", layout="mono", rate=self.rate_hz)
        n_in = n_out = 0
        held = np.zeros(0, np.float32)  # last piece, held back so that the end can be trimmed
        for piece in self._chunks():
            frame = av.AudioFrame.from_ndarray(piece[None], format="flt", layout="mono")
            frame.sample_rate = self.native_rate_hz
            frame.pts = n_in
            n_in += len(piece)
            for out in resampler.resample(frame):
                yield held
                n_out += len(held)
                held = out.to_ndarray()[0]
        tail = [held, *(out.to_ndarray()[0] for out in resampler.resample(None))]
        rest = np.concatenate(tail)
        # Samples of the output that lie inside the track: n / rate_hz < n_in / native_rate.
        wanted = -(-n_in * self.rate_hz // self.native_rate_hz) - n_out
        if len(rest) < wanted:  # the filter's flush may stop a sample short
            rest = np.pad(rest, (0, wanted - len(rest)), mode="edge")
        yield rest[:wanted]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Blocks (n,) float32, all of block_s seconds but the last. Can be iterated once."""
        held = np.zeros(0, np.float32)
        for piece in self._resampled():
            held = np.concatenate([held, piece]) if len(held) else piece
            while len(held) >= self.block:
                self.n_samples += self.block
                yield held[: self.block]
                held = held[self.block :]
        if len(held):
            self.n_samples += len(held)
            yield held


def audio_blocks(
    path: str | os.PathLike,
    rate_hz: int = 16000,
    channel: int | None = None,
    block_s: float = 10.0,
) -> AudioStream:
    """Open the audio of a recording (sound file, or the track of a video).

    Parameters
    ----------
    path : the recording; its first audio stream is read.
    rate_hz : sampling rate of the blocks.
    channel : which channel, from 0; None for the mean of all.
    block_s : seconds per block.

    Raises
    ------
    InputError : no audio stream, channel out of range, nothing decodable; while iterating: damaged
        or truncated file, a format that changes, time stamps that jump back.
    """
    return AudioStream(path, rate_hz, channel, block_s)
