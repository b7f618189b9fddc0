"""Bad recordings are told by name: playlists, URLs, cut, damaged, empty, foreign files."""

import numpy as np
import pytest
from media_files import corners, tone, write_video, write_wav

from media.audio import audio_blocks
from media.container import open_media
from media.probe import probe
from media.video import video_frames
from runtime import InputError


def times_of(path):
    return np.array([f.time_s for f in video_frames(path)])


def joined(path, **options):
    stream = audio_blocks(path, **options)
    return stream, np.concatenate(list(stream))


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
    assert info.video.first_s == 0.0
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
