"""Time zero is the first picture, whatever the container puts before it."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import tone, write_video, write_wav

from alignment.align import align
from alignment.aligned import AlignedFeature
from alignment.clock import make_clock
from extractors.run import extract
from extractors.sound import Sound
from media.audio import audio_blocks
from media.probe import participant_record, probe
from media.video import time_zero, video_frames
from store.atomic import write_text

RATE = 48000
EVENTS_S = (2.0, 4.0)
CODECS = {"aac": "aac", "opus": "libopus", "mp3": "libmp3lame"}
# What FFmpeg writes: mov takes no Opus, webm takes Opus alone.
PAIRS = [
    (ext, codec)
    for ext in ("mp4", "mov", "mkv", "webm", "ts")
    for codec in CODECS
    if (ext, codec) != ("mov", "opus") and (ext != "webm" or codec == "opus")
]


def clicks() -> np.ndarray:
    """6 s of sound, 50 ms of a tone from each of EVENTS_S on; (n,) float32 at RATE."""
    sound = np.zeros(6 * RATE, np.float32)
    for t in EVENTS_S:
        at = round(t * RATE)
        sound[at : at + RATE // 20] = 0.8 * np.sin(2 * np.pi * 440 * np.arange(RATE // 20) / RATE)
    return sound


def record(path, codec="aac", picture_s=0.0, sound_s=0.0):
    """Flashes at EVENTS_S of the first picture's time, clicks at EVENTS_S of the sound's time.

    picture_s, sound_s : when either begins on the clock of the container.
    """
    webm = path.suffix == ".webm"
    with av.open(str(path), "w", options={}) as container:
        video = container.add_stream("libvpx" if webm else "libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(CODECS[codec], rate=RATE, layout="mono")
        context = audio.codec_context
        context.open()
        packets = []
        for k in range(150):
            bright = any(0 <= k - t * 25 < 3 for t in EVENTS_S)
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 230 if bright else 40, np.uint8), "rgb24"
            )
            frame.pts, frame.time_base = k + round(picture_s * 25), Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode()
        cut = av.AudioResampler(context.format, "mono", RATE, context.frame_size)
        whole = av.AudioFrame.from_ndarray(clicks()[None], "flt", "mono")
        whole.sample_rate, whole.pts = RATE, round(sound_s * RATE)
        for piece in [*cut.resample(whole), *cut.resample(None)]:
            packets += audio.encode(piece)
        packets += audio.encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def events(path):
    """(time of the first picture, flashes, clicks) in seconds of the recording."""
    frames = [(f.time_s, f.rgb.mean()) for f in video_frames(path, threads=1)]
    time, bright = np.array(frames).T
    on = bright > 130
    flashes = time[on & ~np.concatenate([[False], on[:-1]])]
    stream = audio_blocks(path)
    loud = np.flatnonzero(np.abs(np.concatenate(list(stream))) > 0.2)
    starts = loud[np.diff(loud, prepend=-16000) > 8000]
    return time[0], flashes, stream.start_s + starts / 16000


@pytest.mark.parametrize(("ext", "codec"), PAIRS)
@pytest.mark.parametrize("late_s", [0.0, 0.8])
def test_the_first_picture_is_zero_and_late_sound_stays_late(tmp_path, ext, codec, late_s):
    path = record(tmp_path / f"a.{ext}", codec, sound_s=late_s)
    first, flashes, heard = events(path)
    assert first == 0.0
    # Matroska's clock is 1 ms; lossy codecs smear the onset over a few samples.
    np.testing.assert_allclose(flashes, EVENTS_S, atol=1e-3)
    np.testing.assert_allclose(heard, np.add(EVENTS_S, late_s), atol=2.5e-3)
    info = probe(path)
    assert info.video.first_s == 0.0 and info.video.frames == 150


@pytest.mark.parametrize("ext", ["mp4", "mkv", "ts"])
def test_a_picture_that_begins_late_is_zero_too(tmp_path, ext):
    """Matroska of FFmpeg 4 and 5 puts the picture behind the priming; an edit list behind a delay."""
    path = record(tmp_path / f"a.{ext}", picture_s=0.2, sound_s=0.2)
    first, flashes, heard = events(path)
    assert first == 0.0
    np.testing.assert_allclose(flashes, EVENTS_S, atol=1e-3)
    np.testing.assert_allclose(heard, EVENTS_S, atol=2.5e-3)


def test_sound_that_begins_before_the_picture_has_negative_times(tmp_path):
    path = record(tmp_path / "a.mkv", picture_s=1.2)
    first, flashes, heard = events(path)
    assert first == 0.0
    np.testing.assert_allclose(flashes, EVENTS_S, atol=1e-3)
    np.testing.assert_allclose(heard, np.subtract(EVENTS_S, 1.2), atol=2.5e-3)
    person = participant_record(path, None, "d", "s", "r")
    assert person["audio"]["start_s"] == pytest.approx(-1.2, abs=2e-3)
    assert person["duration_s"] == pytest.approx(6.0, abs=2e-3)
    extract("egemaps", tmp_path / "f.h5", Sound(path))
    clock = tmp_path / "clock.json"
    write_text(clock, json.dumps(make_clock([person], 100)))
    align(tmp_path / "f.h5", clock, tmp_path / "a.h5")
    with AlignedFeature(tmp_path / "a.h5") as feature:
        valid = feature.valid(0, feature.n_ticks)
    # The second before the picture is the left context of the first row: nothing has to be waited for.
    assert valid[:400].all() and len(valid) == 600


def test_a_sound_file_begins_with_its_first_sample(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    assert time_zero(path) == 0.0 and audio_blocks(path).start_s == 0.0


def test_a_video_that_cannot_be_decoded_does_not_stop_its_sound(tmp_path):
    path = write_video(tmp_path / "a.mkv", audio=tone(5.0), audio_codec="flac")
    expected = np.concatenate(list(audio_blocks(path)))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]
    for at, size in places:
        content[at + 8 : at + size] = bytes(size - 8)
    broken = tmp_path / "b.mkv"
    broken.write_bytes(content)
    stream = audio_blocks(broken)
    np.testing.assert_array_equal(np.concatenate(list(stream)), expected)
    assert stream.start_s == 0.0
