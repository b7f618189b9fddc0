"""Sample-exact sound of recordings, resampled, mixed, placed in time."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import tone, write_video, write_wav

from media.audio import audio_blocks
from media.probe import probe
from runtime import InputError


def joined(path, **options):
    stream = audio_blocks(path, **options)
    return stream, np.concatenate(list(stream))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_impulse_stays_at_its_time(tmp_path, rate):
    x = np.zeros(3 * rate + 7)
    n = rate + 1234
    x[n] = 0.9
    stream, y = joined(write_wav(tmp_path / "i.wav", x, rate))
    assert len(y) == -(-len(x) * 16000 // rate)
    assert abs(int(np.argmax(np.abs(y))) - n * 16000 / rate) <= 1.0
    assert stream.start_s == 0.0 and stream.gaps == []
    assert y.dtype == np.float32


def test_resampled_tone_is_the_tone(tmp_path):
    _, y = joined(write_wav(tmp_path / "t.wav", tone(3.0, 44100, 440.0), 44100))
    expected = tone(3.0, 16000, 440.0)
    inner = slice(800, -800)
    assert np.abs(y[inner] - expected[inner]).max() < 2e-3
    # What lies above the new Nyquist rate must vanish.
    _, high = joined(write_wav(tmp_path / "h.wav", tone(2.0, 44100, 12000.0), 44100))
    assert np.abs(high[inner]).max() < 5e-3


def test_values_do_not_depend_on_the_block_length(tmp_path):
    path = write_wav(tmp_path / "t.wav", tone(4.3, 22050), 22050)
    _, whole = joined(path, block_s=100)
    stream = audio_blocks(path, block_s=0.37)
    blocks = list(stream)
    assert {len(b) for b in blocks[:-1]} == {round(0.37 * 16000)}
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert stream.n_samples == len(whole)


def test_native_rate_passes_unchanged(tmp_path):
    import soundfile

    path = write_wav(tmp_path / "n.wav", np.random.default_rng(0).uniform(-1, 1, 16000))
    _, y = joined(path)
    np.testing.assert_array_equal(y, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats(tmp_path, subtype):
    import soundfile

    path = tmp_path / "f.wav"
    soundfile.write(path, tone(1.0), 16000, subtype=subtype)
    _, y = joined(path)
    np.testing.assert_allclose(y, soundfile.read(path)[0], atol=1e-6)


def test_channels(tmp_path):
    left, right = tone(1.0), tone(1.0, hz=330.0)
    path = write_wav(tmp_path / "s.wav", np.stack([left, right], axis=1))
    for channel, expected in [(0, left), (1, right), (None, (left + right) / 2)]:
        np.testing.assert_allclose(joined(path, channel=channel)[1], expected, atol=1e-4)
    with pytest.raises(InputError, match="2 audio channel"):
        audio_blocks(path, channel=2)


def test_late_track_inside_a_video_keeps_its_start(tmp_path):
    x = np.zeros(32000)
    x[8000] = 0.9  # 0.5 s into the track
    for name, codec in [("late.mkv", "flac"), ("late.mp4", "aac")]:
        path = write_video(tmp_path / name, audio=x, audio_codec=codec, audio_start_s=1.25)
        stream, y = joined(path)
        peak_s = stream.start_s + np.argmax(np.abs(y)) / 16000
        # AAC starts on its 1024-sample frames, its impulse smears over a few samples.
        assert peak_s == pytest.approx(1.75, abs=2e-3)
        assert probe(path).audio.start_s == pytest.approx(stream.start_s, abs=1e-3)
        assert stream.start_s == pytest.approx(1.25, abs=0.065)


@pytest.mark.parametrize(
    "name, codec",
    [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.ogg", "libopus"), ("a.flac", "flac")],
)
def test_compressed_sound_starts_at_zero(tmp_path, name, codec):
    # Encoders put silence first (MP3 1105 samples, AAC 1024); readers must take it off again.
    rate = 48000
    x = np.random.default_rng(0).normal(size=3 * rate) * 0.01
    x[72000:72024] += 0.9
    with av.open(str(tmp_path / name), "w") as container:
        sound = container.add_stream(codec, rate=rate, layout="mono")
        to_codec = av.AudioResampler(
            sound.codec_context.format, "mono", rate, sound.codec_context.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(x[None].astype(np.float32), "flt", "mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*to_codec.resample(frame), *to_codec.resample(None)]:
            container.mux(sound.encode(piece))
        container.mux(sound.encode())
    stream, y = joined(tmp_path / name)
    assert stream.start_s == 0.0
    assert np.argmax(np.abs(y)) / 16000 == pytest.approx(1.50025, abs=5e-4)
    assert len(y) == pytest.approx(48000, abs=1024)


def test_gap_in_the_track_is_filled_and_reported(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0, 16000, 48000, 64000):  # nothing from 2 s to 3 s
            data = (tone(1.0) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(data, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    stream, y = joined(path)
    assert len(y) == 80000
    (gap,) = stream.gaps
    assert gap == pytest.approx((2.0, 3.0), abs=2e-3)
    assert not y[32016:47984].any()
    np.testing.assert_allclose(y[48000:64000], tone(1.0), atol=1e-3)


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(seconds):
        path = write_wav(tmp_path / f"{seconds}.wav", np.tile(tone(1.0, 8000), seconds), 8000)
        tracemalloc.start()
        n = sum(len(b) for b in audio_blocks(path))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n == seconds * 16000
        return top

    assert peak(960) < 1.1 * peak(240)
