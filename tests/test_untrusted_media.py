"""Hostile recordings: no playlist, no other file, no pipe; refused in a sentence, in time, in little memory."""

import json
import os
import struct
import subprocess
import sys
import wave
import zlib
from pathlib import Path

import pytest

from tests.media_files import write_video

ROOT = Path(__file__).resolve().parent.parent
MEMORY_BYTES = 300 << 20  # beyond what the libraries take when they are loaded
# Reads recordings one after another; a line of JSON each. An alarm ends what hangs.
READER = """
import json, resource, signal, sys, warnings
from pathlib import Path
from media.audio import audio_blocks
from media.probe import has_sound, probe
from runtime import InputError
warnings.simplefilter("ignore")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
for line in sys.stdin:
    said = {}
    for name, read in (("probe", probe), ("sound", lambda p: sum(len(b) for b in audio_blocks(p))), ("has", has_sound)):
        signal.alarm(20)
        try:
            said[name] = ["right", str(read(json.loads(line)))]
        except InputError as e:
            said[name] = ["refused", e.problem]
        except BaseException as e:
            said[name] = ["escaped", repr(e)]
    print(json.dumps(said), flush=True)
"""


def read(paths, cwd=ROOT):
    """What reading each recording comes to, in one process with a memory limit."""
    done = subprocess.run(
        [sys.executable, "-c", READER, str(MEMORY_BYTES)],
        input="".join(json.dumps(str(p)) + "\n" for p in paths),
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(paths), f"{paths[len(said)]}: {done.returncode} {done.stderr[-600:]}"
    return said


def write_sound(path, seconds=5):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(8000)
        f.writeframes(bytes(range(250)) * (seconds * 16000 // 250))


def box(kind, body):
    return struct.pack(">I4s", 8 + len(body), kind) + body


def inside(data, path):
    """(start, end) of the nested box named by `path`, header included."""
    start, end = 0, len(data)
    for kind in path:
        while True:
            size, found = struct.unpack_from(">I4s", data, start)
            if found == kind:
                break
            start += size
        end = start + size
        start += 8 if kind != path[-1] else 0
    return start, end


def replace_box(data, path, new):
    """The file with one box exchanged, and the sizes of those around it (moov stands at the end)."""
    start, end = inside(data, path)
    data = data[:start] + new + data[end:]
    for depth in range(1, len(path)):
        at, _ = inside(data, path[:depth])
        size = struct.unpack_from(">I", data, at)[0] + len(new) - (end - start)
        data = data[:at] + struct.pack(">I", size) + data[at + 4 :]
    return data


DREF = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")


def elsewhere(data, name):
    """A movie whose samples are said to lie in another file (QuickTime's alias record)."""
    text = name.encode()
    text += b"\0" * (len(text) % 2)
    alias = bytes(10) + b"\x03vol" + bytes(24) + bytes(12) + b"\x01x" + bytes(62) + bytes(16)
    alias += struct.pack(">hh", 0, 0) + bytes(16)
    for kind in (2, 18):
        alias += struct.pack(">hH", kind, len(text)) + text
    entry = box(b"alis", struct.pack(">I", 0) + alias + struct.pack(">hH", -1, 0))
    return replace_box(data, DREF, box(b"dref", struct.pack(">II", 0, 1) + entry))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "real.mp4", frames=30)
    write_sound(folder / "real.wav")
    os.mkfifo(folder / "pipe")
    return folder


def test_playlists_urls_and_descriptions_are_no_recordings(folder):
    real, pipe = folder / "real.mp4", folder / "pipe"
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{real}\n#EXT-X-ENDLIST\n",
        "hls-url": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "hls-pipe": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:{pipe}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{real}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation><BaseURL>{real}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "asx": '<asx version="3.0"><entry><ref href="http://127.0.0.1:9/a"/></entry></asx>',
        "ram": "rtsp://127.0.0.1:9/a.rm\n",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "subtitles": "1\n00:00:00,000 --> 00:00:05,000\nhello\n",
    }  # fmt: skip
    paths = []
    for name, text in texts.items():
        for suffix in ("mp4", "m3u8", "ts", "wav"):
            path = folder / f"{name}.{suffix}"
            path.write_text(text)
            paths.append(path)
    for path, said in zip(paths, read(paths), strict=True):
        assert {how for how, _ in said.values()} == {"refused"}, (path.name, said)


def test_what_is_no_file_is_refused_at_once(folder):
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    for name, target in {"zero": "/dev/zero", "loop": "loop.mp4", "gone": "nowhere", "piped": "pipe"}.items():  # fmt: skip
        (folder / f"{name}.mp4").symlink_to(target)
    names = ["pipe", "folder.mp4", "empty.mp4", "zero.mp4", "loop.mp4", "gone.mp4", "piped.mp4"]
    words = ["http://127.0.0.1:9/a.mp4", "pipe:0", "-", "", "concat:real.mp4|real.mp4", "testsrc", "/dev/stdin"]  # fmt: skip
    paths = [*(folder / n for n in names), *words]
    for path, said in zip(paths, read(paths, cwd=folder), strict=True):
        assert {how for how, _ in said.values()} == {"refused"}, (path, said)


def test_names_that_look_like_options_protocols_or_patterns_are_plain_files(folder):
    data = (folder / "real.wav").read_bytes()
    names = ["-i.wav", "--help", "concat:a|b.wav", "http:x.wav", "pipe:0", "%03d.wav", "*.wav", "a?b.wav", "file:a.wav",
             "subfile,,start,0,end,9,,:x.wav", "$(touch PWNED).wav", "`touch PWNED`.wav", " .wav", "é漢\u0301.wav", "'\".wav"]  # fmt: skip
    place = folder / "names"
    place.mkdir()
    for name in names:
        (place / name).write_bytes(data)
    for name, said in zip(names, read(names, cwd=place), strict=True):
        assert said["probe"][0] == said["sound"][0] == "right", (name, said)
    assert sorted(p.name for p in place.iterdir()) == sorted(names)


def test_a_movie_that_keeps_its_samples_in_another_file_opens_no_other_file(folder):
    data = (folder / "real.mp4").read_bytes()
    assert replace_box(data, DREF, data[slice(*inside(data, DREF))]) == data, "the knife is sharp"
    paths = []
    for name in ("pipe", str(folder / "pipe"), "real.mp4", "/etc/passwd", "http://127.0.0.1:9/a"):
        path = folder / f"elsewhere-{len(paths)}.mov"
        path.write_bytes(elsewhere(data, name))
        paths.append(path)
    # Opening the pipe would wait for ever; the samples in the file itself may be taken.
    for path, said in zip(paths, read(paths), strict=True):
        assert "escaped" not in {how for how, _ in said.values()}, (path, said)
        assert "root:" not in str(said)


def test_headers_that_claim_the_world_take_no_memory(folder):
    movie = (folder / "real.mp4").read_bytes()
    sound = (folder / "real.wav").read_bytes()
    stbl = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    most = struct.pack(">I", 0xFFFFFFFF)
    cases = {}
    for kind in (b"stts", b"stsz", b"stsc", b"stco"):
        at, _ = inside(movie, (*stbl, kind))
        at += 16 if kind == b"stsz" else 12
        cases[kind.decode()] = movie[:at] + most + movie[at + 4 :]
    # a compressed header: 4 GB of zeros from 4 MB
    zeros = zlib.compressobj(9)
    packed = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(1024)) + zeros.flush()
    moov, end = inside(movie, (b"moov",))
    inner = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", 1 << 30) + packed)
    cases["cmov"] = movie[:moov] + box(b"moov", box(b"cmov", inner)) + movie[end:]
    cases["frames.wav"] = sound[:4] + struct.pack("<I", 0xFFFFFFFF) + sound[8:40] + struct.pack("<I", 0xFFFFFFFE) + sound[44:]  # fmt: skip
    for name, at, value in (("channels", 22, 65535), ("bits", 34, 65535), ("align", 32, 0)):
        cases[f"{name}.wav"] = sound[:at] + struct.pack("<H", value) + sound[at + 2 :]
    for name, value in (("rate0", 0), ("rate", 0xFFFFFFFF)):
        cases[f"{name}.wav"] = sound[:24] + struct.pack("<I", value) + sound[28:]
    cases["chunk.wav"] = sound[:12] + b"LIST" + struct.pack("<I", 0xFFFFFFF0) + sound[12:]
    cases["deep.mp4"] = movie[:moov] + b"".join(struct.pack(">I4s", 0x7FFFFFFF, b"moov") for _ in range(100_000))  # fmt: skip
    paths = []
    for name, data in cases.items():
        path = folder / f"absurd-{name}" if "." in name else folder / f"absurd-{name}.mov"
        path.write_bytes(data)
        paths.append(path)
    for path, said in zip(paths, read(paths), strict=True):
        assert "escaped" not in {how for how, _ in said.values()}, (path.name, said)
        # FFmpeg takes what a compressed header says it needs, where memory is not limited.
        assert "cmov" not in path.name or "compressed header" in said["has"][1], said
