"""Recordings: frame times, upright pictures, sample-exact audio, and bad files told by name."""

import json
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import CLOCKWISE, ONE, corners, tone, write_video, write_wav

from media import probe as probe_module
from media.audio import audio_blocks
from media.container import open_media
from media.probe import check_lengths, main, participant_record, probe, stated_length
from media.video import parse_roi, upright, video_frames
from runtime import InputError


def times_of(path):
    return np.array([f.time_s for f in video_frames(path)])


def joined(path, **options):
    stream = audio_blocks(path, **options)
    return stream, np.concatenate(list(stream))


# ---- video ----


@pytest.mark.parametrize(
    "name, rate",
    [
        ("a.mp4", 25),
        ("a.mkv", 30),
        ("a.mov", Fraction(30000, 1001)),
        ("a.mp4", Fraction(24000, 1001)),
    ],
)
def test_times_of_constant_rates(tmp_path, name, rate):
    path = write_video(tmp_path / name, frames=60, rate=rate)
    expected = np.arange(60) / float(rate)
    # Matroska stores milliseconds.
    np.testing.assert_allclose(times_of(path), expected, atol=6e-4 if "mkv" in name else 1e-6)
    info = probe(path).video
    assert info.frames == 60
    assert info.rate_hz == pytest.approx(float(rate), abs=0.01)
    assert not info.variable_rate


def test_variable_frame_rate_keeps_its_time_stamps(tmp_path):
    steps = np.random.default_rng(0).choice([0.02, 0.04, 0.1, 0.5], 80)
    times = np.round(np.concatenate([[0], np.cumsum(steps)]), 3)
    path = write_video(tmp_path / "vfr.mp4", times_s=[float(t) for t in times], time_base="1/1000")
    np.testing.assert_allclose(times_of(path), times, atol=1e-6)
    info = probe(path).video
    assert info.variable_rate
    assert (info.first_s, info.last_s) == (0.0, pytest.approx(times[-1]))
    assert info.rate_hz == pytest.approx(80 / times[-1], abs=1e-3)


def test_late_video_counts_from_the_start_of_the_container(tmp_path):
    path = write_video(
        tmp_path / "late.mkv", times_s=[1.5 + k / 25 for k in range(100)], time_base="1/1000",
        audio=tone(6.0), audio_codec="flac",
    )  # fmt: skip
    np.testing.assert_allclose(times_of(path), 1.5 + np.arange(100) / 25, atol=6e-4)
    assert probe(path).video.first_s == pytest.approx(1.5, abs=1e-3)


def test_rotated_phone_video_is_upright(tmp_path):
    path = write_video(tmp_path / "phone.mp4", frames=10, matrix=CLOCKWISE)
    picture = next(video_frames(path)).rgb
    assert picture.shape == (64, 48, 3)
    assert picture.flags.c_contiguous
    # Turned clockwise, the top left (red) corner goes to the top right.
    expected = np.rot90(corners(), -1)
    for y, x in [(8, 8), (8, 40), (56, 8), (56, 40)]:
        np.testing.assert_allclose(picture[y, x].astype(int), expected[y, x], atol=12)
    info = probe(path).video
    assert (info.width, info.height, info.rotation) == (48, 64, 90)


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0),
                                    (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])  # fmt: skip
def test_every_display_matrix_moves_points_as_the_standard_says(matrix):
    a, b, c, d = matrix
    picture = np.arange(6).reshape(2, 3)
    shown = {}
    for q in range(2):
        for p in range(3):
            shown[a * p + c * q, b * p + d * q] = picture[q, p]
    x0, y0 = min(x for x, _ in shown), min(y for _, y in shown)
    result = upright(picture, matrix)
    assert {(x - x0, y - y0): v for (x, y), v in shown.items()} == {
        (x, y): result[y, x] for y in range(result.shape[0]) for x in range(result.shape[1])
    }


def test_skewed_display_matrix_is_refused(tmp_path):
    s = int(ONE * 0.7071)
    path = write_video(tmp_path / "skew.mp4", frames=5, matrix=[s, s, 0, -s, s, 0, 0, 0, 1 << 30])
    with pytest.raises(InputError, match="multiple of 90"):
        next(video_frames(path))


def test_roi_is_cut_from_the_upright_picture(tmp_path):
    path = write_video(tmp_path / "phone.mp4", frames=3, matrix=CLOCKWISE)
    whole = next(video_frames(path)).rgb
    part = next(video_frames(path, "24,0,24,32")).rgb
    np.testing.assert_array_equal(part, whole[:32, 24:48])
    assert part.flags.c_contiguous
    with pytest.raises(InputError, match="beyond the picture"):
        next(video_frames(path, (40, 0, 24, 24)))  # fits the stored picture, not the upright one
    for text in ("1,2,3", "0,0,0,5", "a,b,c,d", "-1,0,5,5", "0;0;5;5"):
        with pytest.raises(InputError, match="roi"):
            parse_roi(text)


def test_threads_do_not_change_pictures(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames=12, picture=noise)
    one = [f.rgb for f in video_frames(path, threads=1)]
    two = [f.rgb for f in video_frames(path, threads=2)]
    np.testing.assert_array_equal(one, two)


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        art = container.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 48, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        container.mux(art.encode(av.VideoFrame.from_ndarray(corners(), "rgb24")))
        container.mux(art.encode())
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(InputError, match="no video stream"):
        next(video_frames(path))


# ---- audio ----


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


# ---- bad files ----


def text_playlist(path):
    path.write_text("#EXTM3U\n#EXTINF:2,\nreal.mp4\n#EXT-X-ENDLIST\n")


def text_concat(path):
    path.write_text("ffconcat version 1.0\nfile real.mp4\n")


@pytest.mark.parametrize("write", [text_playlist, text_concat])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.txt"])
def test_playlists_are_refused(tmp_path, write, name):
    write_video(tmp_path / "real.mp4", frames=5)
    write(tmp_path / name)
    with pytest.raises(InputError, match="cannot be opened"):
        open_media(tmp_path / name)


@pytest.mark.parametrize("path", ["concat:a.mp4|b.mp4", "http://localhost/a.mp4", "pipe:0", "-"])
def test_only_local_files(path):
    with pytest.raises(InputError, match="does not exist"):
        open_media(path)


@pytest.mark.parametrize(
    "name",
    ["with space.mp4", "it's \"quoted\".mp4", "räuber 漢字 é.mp4", "-y.mp4", "concat:a|b.mp4", "100%d.mp4",
     "a&b;c$HOME.mp4", "subfile,,start,0,end,9,,:x.mp4", "data:x.mp4", "[x]{y}.mp4"],
)  # fmt: skip
def test_strange_file_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", frames=5, audio=tone(0.2))
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    assert len(times_of(name)) == 5
    assert joined(name)[0].n_samples > 0
    assert probe(name).video.frames == 5


@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {}])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_mp4(tmp_path, options, share):
    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    path = write_video(tmp_path / "t.mp4", frames=100, picture=noise, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    what = "truncated|cannot be decoded" if options else "cannot be opened|truncated"
    with pytest.raises(InputError, match=what) as e:
        list(video_frames(path))
    assert "t.mp4" in e.value.problem
    with pytest.raises(InputError, match=what):
        probe(path)


def test_truncated_sound(tmp_path):
    wav = write_wav(tmp_path / "w.wav", tone(5.0))
    wav.write_bytes(wav.read_bytes()[:80000])
    with pytest.raises(InputError, match="truncated.*2.50 s.*5.00 s"):
        joined(wav)
    with pytest.raises(InputError, match="truncated"):
        probe(wav)


@pytest.mark.parametrize("sound", [False, True])
def test_truncated_matroska(tmp_path, sound):
    noise = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    audio = tone(4.0) if sound else None
    path = write_video(tmp_path / "t.mkv", frames=100, picture=noise, audio=audio)
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        probe(path)


@pytest.mark.parametrize("name", ["o.mkv", "o.mp4", "o.ts", "o.mov"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_recording_that_starts_late_is_whole(tmp_path, name, sound):
    path = write_video(
        tmp_path / name, times_s=[10 + k / 25 for k in range(125)], time_base="1/1000",
        audio=tone(5.0) if sound else None, audio_start_s=10,
    )  # fmt: skip
    info = probe(path)
    assert info.video.first_s == pytest.approx(0.0, abs=0.07)  # AAC may start its priming earlier
    assert info.video.duration_s == pytest.approx(5.0, abs=1e-3)
    assert len(times_of(path)) == 125


def test_damaged_middle_names_the_time(tmp_path):
    import soundfile

    path = tmp_path / "d.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 160000), 16000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = content[: len(content) - len(content) // 2]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"d\.flac.*\d s"):
        joined(path)


def test_empty_missing_and_foreign_files(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 100)
    for name, problem in [("empty.mp4", "0 bytes"), ("text.mp4", "cannot be opened"),
                          ("none.mp4", "does not exist"), (".", "not a file")]:  # fmt: skip
        for read in (lambda p: next(video_frames(p)), audio_blocks, probe):
            with pytest.raises(InputError, match=problem):
                read(tmp_path / name)


def test_missing_streams(tmp_path):
    video = write_video(tmp_path / "mute.mp4", frames=5)
    sound = write_wav(tmp_path / "s.wav", tone(1.0))
    with pytest.raises(InputError, match="mute.mp4 has no audio stream"):
        audio_blocks(video)
    with pytest.raises(InputError, match="s.wav has no video stream"):
        next(video_frames(sound))
    assert probe(video).audio is None and probe(sound).video is None


def test_a_picture_size_that_changes_is_refused(tmp_path):
    parts = []
    for name, size in [("a.ts", (64, 48)), ("b.ts", (96, 64))]:
        write_video(tmp_path / name, frames=10, picture=corners(*size))
        parts.append((tmp_path / name).read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    with pytest.raises(InputError, match="picture changes from 64x48|do not increase"):
        list(video_frames(path))


# ---- the participant's record ----


@pytest.fixture
def person(tmp_path):
    folder = tmp_path / "001"
    folder.mkdir()
    write_video(folder / "expert.mp4", frames=125)
    write_wav(folder / "expert.wav", tone(5.0))
    (folder / "expert.csv").write_text("0.5\nnan\n" * 62 + "0.5\n")
    return folder


def arguments(folder, out, **over):
    options = {"--video": folder / "expert.mp4", "--audio": folder / "expert.wav", "--dataset": "d",
               "--session": "001", "--role": "expert", "--out": out}  # fmt: skip
    options |= over
    return [str(word) for pair in options.items() for word in pair if pair[1] is not None]


def test_record_is_complete_and_repeatable(person, tmp_path):
    out = [tmp_path / "1.json", tmp_path / "2.json"]
    for path in out:
        more = {"--labels": person / "expert.csv", "--offset": 0.5, "--roi": "0,0,32,48"}
        assert main(arguments(person, path, **more)) == 0
    assert out[0].read_bytes() == out[1].read_bytes()
    assert str(tmp_path) not in out[0].read_text()
    record = json.loads(out[0].read_text())
    assert (record["dataset"], record["session"], record["role"]) == ("d", "001", "expert")
    assert record["offset"] == 0.5 and record["roi"] == "0,0,32,48"
    assert record["duration_s"] == pytest.approx(5.0)
    assert record["video"]["frames"] == 125 and record["video"]["rate_hz"] == 25.0
    assert record["audio"]["duration_s"] == 5.0 and record["audio"]["peak"] == pytest.approx(
        0.5, abs=1e-3
    )
    assert (record["labels"]["values"], record["labels"]["missing"]) == (125, 62)


def test_sound_of_the_video_is_the_default(tmp_path):
    path = write_video(tmp_path / "av.mp4", frames=125, audio=tone(5.0))
    record = participant_record(path, None, "d", "s", "r")
    assert record["audio"]["name"] == record["video"]["name"]
    assert record["audio"]["duration_s"] == pytest.approx(5.0, abs=0.1)


def test_bad_participants(person, tmp_path, capsys):
    short_video = write_video(tmp_path / "short.mp4", frames=50)
    long_wav = write_wav(tmp_path / "long.wav", tone(9.0))
    silent = write_wav(tmp_path / "silent.wav", np.zeros(80000))
    labels = tmp_path / "long.csv"
    labels.write_text("0.5\n" * 250)
    bad_label = tmp_path / "bad.csv"
    bad_label.write_text("0.5\n1.5\n")
    out = tmp_path / "out.json"
    for over, words in [
        ({"--audio": long_wav}, ["expert.mp4", "5.00 s", "long.wav", "9.00 s", "2 s apart"]),
        ({"--labels": labels}, ["expert.mp4", "5.00 s", "long.csv", "10.00 s"]),
        ({"--labels": bad_label}, ["bad.csv line 2", "1.5"]),
        ({"--audio": silent}, ["silent.wav is silent"]),
        ({"--audio": None}, ["expert.mp4 has no audio stream"]),
        ({"--video": person / "expert.wav"}, ["expert.wav has no video stream"]),
        ({"--video": short_video, "--length-tolerance-s": 9}, ["short.mp4", "2.00 s", "exclude"]),
        ({"--roi": "0,0,65,48"}, ["roi 0,0,65,48", "64x48"]),
        ({"--audio-channel": 1}, ["expert.wav has 1 audio channel"]),
    ]:
        assert main(arguments(person, out, **over)) == 1
        screen = capsys.readouterr().err
        assert len(screen.splitlines()) <= 3 and "Traceback" not in screen
        for word in words:
            assert word in screen, screen
        assert not out.exists() and list(tmp_path.glob(".out*")) == []


def test_length_tolerance_is_a_setting():
    lengths = {"video": ("v.mp4", 10.0), "labels": ("l.csv", 12.1)}
    with pytest.raises(InputError, match="v.mp4 ends at 10.00 s, labels l.csv at 12.10 s"):
        check_lengths(lengths, 2.0)
    check_lengths(lengths, 2.2)


def test_probe_reads_packets_only(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", frames=2000, audio=tone(80.0))
    decoded = []
    original = probe_module.video_frames
    monkeypatch.setattr(
        probe_module,
        "video_frames",
        lambda *a, **k: (decoded.append(1) or f for f in original(*a, **k)),
    )
    info = probe(path)
    assert len(decoded) == 1
    assert info.duration_s == pytest.approx(80.0, abs=0.1)
    assert info.audio.duration_s == pytest.approx(80.0, abs=0.1)
    assert stated_length(path) == pytest.approx(80.0, abs=0.1)
