"""Every kind of bad input ends in at most three lines that name the file and the cure.

No traceback on screen (it is at the end of the log), exit status 1, no half-written file.
"""

import importlib
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from alignment import labels
from media import probe

ROOT = Path(__file__).resolve().parent.parent
SHEET = "dataset\tsplit\tsession\trole\tvideo\n"


def write_video(path: Path, seconds: float, with_audio: bool = False) -> None:
    """A grey picture with a moving square: no face in it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for k in range(round(25 * seconds)):
            picture = np.full((120, 160, 3), 90, np.uint8)
            picture[40:60, (3 * k) % 140 : (3 * k) % 140 + 20] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(16000 * seconds)).astype(np.float32)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "video.mp4", 6)
    write_video(folder / "short.mp4", 2)
    soundfile.write(folder / "audio.wav", noise(6), 16000)
    soundfile.write(folder / "short.wav", noise(2), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(96000, np.float32), 16000)
    data = (folder / "video.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:6,\nvideo.mp4\n")
    (folder / "good.csv").write_text("0.5\n" * 150)
    (folder / "range.csv").write_text("0.5\n" * 20 + "1.5\n" + "0.5\n" * 129)
    (folder / "word.csv").write_text("0.5\n" * 20 + "high\n" + "0.5\n" * 129)
    (folder / "long.csv").write_text("0.5\n" * 500)
    row = "noxi\ttrain\t001\texpert\tvideo.mp4\n"
    (folder / "twice.tsv").write_text(SHEET + row + row)
    (folder / "latin.tsv").write_bytes(
        (SHEET + row).encode() + b"noxi\ttrain\t001\tnovic\xe9\tvideo.mp4\n"
    )
    (folder / "corrupt.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 500)
    (folder / "clock.json").write_text('{"duration_s": 6.0, "n_ticks": 600, "rate_hz": 100}\n')
    words = "--dataset d --session s --role r --video {m}/video.mp4 --audio {m}/audio.wav"
    assert probe.main([*words.format(m=folder).split(), "--out", str(folder / "probe.json")]) == 0
    return folder


@dataclass(frozen=True)
class Case:
    name: str
    module: str
    arguments: str  # {m} is the folder of the media, {o} the output's folder
    said: tuple[str, ...]  # in this order, somewhere on screen


PROBE = "--dataset d --session s --role r --out {o}/p.json"
CASES = [
    Case("empty video", "media.probe", f"--video {{m}}/empty.mp4 --audio {{m}}/audio.wav {PROBE}", ("empty.mp4", "cure")),
    Case("truncated video", "media.probe", f"--video {{m}}/truncated.mp4 --audio {{m}}/audio.wav {PROBE}", ("truncated.mp4", "cure")),
    Case("missing video", "media.probe", f"--video {{m}}/none.mp4 --audio {{m}}/audio.wav {PROBE}", ("none.mp4", "cure")),
    Case("no video stream", "media.probe", f"--video {{m}}/audio.wav --audio {{m}}/audio.wav {PROBE}", ("audio.wav", "video", "cure")),
    Case("no audio stream", "media.probe", f"--video {{m}}/video.mp4 --audio {{m}}/video.mp4 {PROBE}", ("video.mp4", "audio", "cure")),
    Case("playlist", "media.probe", f"--video {{m}}/playlist.mp4 --audio {{m}}/audio.wav {PROBE}", ("playlist.mp4", "cure")),
    Case("two seconds", "media.probe", f"--video {{m}}/short.mp4 --audio {{m}}/short.wav {PROBE}", ("short", "cure", "exclude")),
    Case("lengths differ", "media.probe", f"--video {{m}}/video.mp4 --audio {{m}}/short.wav {PROBE}", ("short.wav", "cure")),
    Case("silent audio", "media.probe", f"--video {{m}}/video.mp4 --audio {{m}}/silent.wav --unusable refuse {PROBE}", ("silent.wav", "cure", "media.unusable")),
    Case("empty audio", "extractors", "egemaps --audio {m}/empty.wav --out {o}/e.h5", ("empty.wav", "cure")),
    Case("no face", "extractors.faces", "--video {m}/video.mp4 --unusable refuse --out {o}/f.h5 --crops {o}/f.mkv", ("video.mp4", "face", "cure", "media.unusable")),
    Case("truncated for faces", "extractors.faces", "--video {m}/truncated.mp4 --out {o}/f.h5 --crops {o}/f.mkv", ("truncated.mp4", "cure")),
    Case("missing weights", "extractors", "wav2vec2 --audio {m}/audio.wav --weights {m}/nothing --out {o}/w.h5", ("nothing", "cure")),
    Case("label out of range", "alignment.labels", "--labels {m}/range.csv --probe {m}/probe.json --out {o}/l.h5", ("range.csv", "21", "1.5", "cure")),
    Case("label is a word", "alignment.labels", "--labels {m}/word.csv --probe {m}/probe.json --out {o}/l.h5", ("word.csv", "21", "high", "cure")),
    Case("corrupt HDF5", "alignment.align", "--feature {m}/corrupt.h5 --clock {m}/clock.json --out {o}/a.h5", ("corrupt.h5", "cure", "rm ")),
    Case("duplicate roles", "corpora", "check {m}/twice.tsv", ("twice.tsv", "row 3", "role", "cure")),
    Case("sheet not UTF-8", "corpora", "check {m}/latin.tsv", ("latin.tsv", "line 3", "UTF-8", "cure")),
]  # fmt: skip


def run(case: Case, media: Path, out: Path, log: Path | None, capsys) -> tuple[int, str]:
    words = case.arguments.format(m=media, o=out).split()
    if log is not None:
        words += ["--log", str(log)]
    name = {"corpora": "corpora.__main__", "extractors": "extractors.run"}.get(
        case.module, case.module
    )
    status = importlib.import_module(name).main(words)
    return status, capsys.readouterr().err


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_input(case, media, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DEBUG", raising=False)
    out = tmp_path / "out"
    out.mkdir()
    log = tmp_path / "job.log" if case.module != "corpora" else None
    status, screen = run(case, media, out, log, capsys)
    assert status == 1, screen
    lines = screen.strip().splitlines()
    assert 1 <= len(lines) <= 3, screen
    assert "Traceback" not in screen
    at = 0
    for word in case.said:
        found = screen.find(word, at)
        assert found >= 0, f"{word!r} is not said after {screen[:at]!r}: {screen}"
        at = found
    assert list(out.iterdir()) == [], "a file was left behind"
    if log is not None:
        text = log.read_text()
        assert text.startswith(f"python -m {case.module} ")
        assert "Traceback" in text
        assert "InputError" in text.splitlines()[-1] or "InputError" in text


def test_labels_and_media_lengths_are_both_named(media, tmp_path, capsys):
    words = "--labels {m}/long.csv --probe {m}/probe.json --out {o}/l.h5"
    status = labels.main(words.format(m=media, o=tmp_path).split())
    screen = capsys.readouterr().err
    assert status == 1
    assert "long.csv" in screen and "20" in screen and "6" in screen
    assert not (tmp_path / "l.h5").exists()


@pytest.mark.parametrize("limit", [20_000, 60_000])
def test_full_disk_leaves_nothing_behind(media, tmp_path, limit):
    """A file-size limit ends writes as a full disk does (EFBIG instead of ENOSPC)."""
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "extractors", "egemaps", "--audio", str(media / "audio.wav"),
         "--out", str(out / "e.h5")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={k: v for k, v in os.environ.items() if k != "DEBUG"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no space left" in done.stderr
    assert "e.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(out.iterdir()) == []
