"""SSI files packed by hand, byte by byte: what reader and writer must agree with besides each other."""

import struct
from pathlib import Path

import numpy as np
import pytest

from formats.ssi.annotation import (
    Continuous,
    Discrete,
    Free,
    Item,
    read_annotation,
    write_annotation,
)
from formats.ssi.stream import TYPES, body_path, open_stream, write_stream

# SSI type -> (struct code, bytes, six values that only this type holds exactly)
SAMPLES = {
    "CHAR": ("b", 1, (-128, 127, 0, 1, -1, 5)),
    "UCHAR": ("B", 1, (0, 255, 128, 1, 2, 3)),
    "SHORT": ("h", 2, (-32768, 32767, 0, 1, -1, 258)),
    "USHORT": ("H", 2, (0, 65535, 32768, 1, 2, 258)),
    "INT": ("i", 4, (-(2**31), 2**31 - 1, 0, 1, -1, 66051)),
    "UINT": ("I", 4, (0, 2**32 - 1, 2**31, 1, 2, 66051)),
    "LONG": ("q", 8, (-(2**63), 2**63 - 1, 0, 2**53 + 1, -1, 7)),
    "ULONG": ("Q", 8, (0, 2**64 - 1, 2**63, 2**53 + 1, 2, 7)),
    "FLOAT": ("f", 4, (0.1, -0.0, 1e-45, 3.4028235e38, 2.5e6, -3.0)),
    "DOUBLE": ("d", 8, (0.1, -0.0, 5e-324, 1.7976931348623157e308, 2.5e6, -3.0)),
    "LDOUBLE": ("d", 8, (0.1, -0.0, 5e-324, 1.7976931348623157e308, 2.5e6, -3.0)),
    "BOOL": ("?", 1, (True, False, True, True, False, False)),
}


def header(ftype: str, kind: str, byte: int, rate: str = "25.000", delim: str = " ") -> str:
    """Three rows of two columns in two chunks, the second 10 s later; attributes in any order."""
    return (
        f'<?xml version="1.0" ?>\n<stream ssi-v="2">\n\t<info sr="{rate}" type="{kind}" dim="2"'
        f' ftype="{ftype}" byte="{byte}" delim="{delim}"/>\n\t<meta speaker="&lt;expert&gt;"/>\n'
        f'\t<chunk from="0.000" to="0.040" byte="0" num="1"/>\n'
        f'\t<chunk from="10.000" to="10.080" byte="{2 * byte}" num="2"/>\n</stream>\n'
    )


def put(path: Path, text: str, body: bytes) -> Path:
    path.write_text(text)
    body_path(path).write_bytes(body)
    return path


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_body_packed_by_hand(tmp_path, kind):
    assert set(SAMPLES) == set(TYPES)
    code, byte, numbers = SAMPLES[kind]
    packed = struct.pack(f"<6{code}", *numbers)
    stream = open_stream(put(tmp_path / "a.stream", header("BINARY", kind, byte), packed))
    assert isinstance(stream.values, np.memmap) and stream.values.shape == (3, 2)
    got = stream.values.reshape(-1).tolist()
    expected = [struct.unpack(f"<{code}", struct.pack(f"<{code}", n))[0] for n in numbers]
    assert got == expected and [str(v) for v in got] == [str(v) for v in expected]  # -0.0
    np.testing.assert_allclose(stream.times, [0, 10, 10.04])
    assert stream.header.meta == {"speaker": "<expert>"} and stream.agrees
    # The writer packs the same bytes; long double and double are one type there.
    write_stream(tmp_path / "b.stream", stream.values, 25, chunks=[(0.0, 1), (10.0, 2)])
    assert body_path(tmp_path / "b.stream").read_bytes() == packed
    if kind != "LDOUBLE":
        assert f'type="{kind}"' in (tmp_path / "b.stream").read_text()


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("delim", [" ", ";"])
def test_a_body_of_words_written_by_hand(tmp_path, kind, delim):
    numbers = SAMPLES[kind][2]
    words = [str(int(n)) if isinstance(n, bool) else repr(n) for n in numbers]
    body = "".join(f"{delim.join(words[i : i + 2])}{delim}\n" for i in (0, 2, 4))
    text = header("ASCII", kind, SAMPLES[kind][1], delim=delim)
    stream = open_stream(put(tmp_path / "a.stream", text, body.encode()))
    dtype = np.dtype(f"<{SAMPLES[kind][0]}")
    assert stream.values.dtype == dtype
    assert stream.values.tobytes() == struct.pack(f"<6{SAMPLES[kind][0]}", *numbers)
    np.testing.assert_allclose(stream.times, [0, 10, 10.04])


def annotation(ftype: str, size: int, scheme: str, items: str = "") -> str:
    return (
        '<?xml version="1.0" ?>\n<annotation ssi-v="3">\n'
        f'    <info ftype="{ftype}" size="{size}" />\n    <meta role="novice" annotator="gold" />\n'
        f'    <scheme name="engagement" {scheme}>{items}</scheme>\n</annotation>\n'
    )


CONTINUOUS = 'type="CONTINUOUS" sr="25.000" min="0.000" max="1.000"'
ITEMS = '<item name="play" id="0" color="#FF00FF00"/><item name="no &amp; play" id="7" color="#1"/>'


@pytest.mark.parametrize("ftype", ["ASCII", "BINARY"])
def test_a_continuous_annotation_by_hand(tmp_path, ftype):
    score, conf = [0.1, 1.0, 0.3333333432674408], [1.0, 0.5, 0.0]
    pairs = list(zip(score, conf, strict=True))
    body = (
        b"".join(struct.pack("<ff", *p) for p in pairs)
        if ftype == "BINARY"
        else b"0.1;1\n1.000;0.5\n0.33333334;0\n"
    )
    got = read_annotation(put(tmp_path / "a.annotation", annotation(ftype, 3, CONTINUOUS), body))
    assert isinstance(got, Continuous) and (got.rate_hz, got.minimum, got.maximum) == (25, 0, 1)
    assert struct.pack("<3f", *got.score) == struct.pack("<3f", *score)
    assert got.conf.tolist() == conf and got.meta == {"role": "novice", "annotator": "gold"}
    write_annotation(tmp_path / "b.annotation", got, "BINARY")
    packed = b"".join(struct.pack("<ff", *p) for p in pairs)
    assert body_path(tmp_path / "b.annotation").read_bytes() == packed


@pytest.mark.parametrize("word", ["nan", "NaN", "-nan(ind)", "-1.#IND"])
def test_a_score_that_is_missing(tmp_path, word):
    """As Windows programs print it; the challenge's label files hold the same words."""
    body = f"0.5;1\n{word};1\n".encode()
    got = read_annotation(put(tmp_path / "a.annotation", annotation("ASCII", 2, CONTINUOUS), body))
    assert got.score[0] == 0.5 and np.isnan(got.score[1])


@pytest.mark.parametrize("ftype", ["ASCII", "BINARY"])
def test_a_discrete_annotation_by_hand(tmp_path, ftype):
    rows = [(0.0, 1.04, 7, 1.0), (1.04, 1200.123456789, -1, 0.25)]
    packed = b"".join(struct.pack("<ddif", *row) for row in rows)
    body = packed if ftype == "BINARY" else b"0;1.04;7;1\n1.04;1200.123456789;-1;0.25\n"
    text = annotation(ftype, 2, 'type="DISCRETE"', ITEMS)
    got = read_annotation(put(tmp_path / "a.annotation", text, body))
    assert isinstance(got, Discrete)
    assert list(zip(got.from_s, got.to_s, got.id, got.conf, strict=True)) == rows
    assert got.items == (Item(0, "play", "#FF00FF00"), Item(7, "no & play", "#1"))
    write_annotation(tmp_path / "b.annotation", got, "BINARY")
    assert body_path(tmp_path / "b.annotation").read_bytes() == packed


@pytest.mark.parametrize("ftype", ["ASCII", "BINARY"])
def test_a_free_annotation_by_hand(tmp_path, ftype):
    rows = [(0.0, 1.5, "Äh; gut", 1.0), (1.5, 2.25, "", 0.5)]
    packed = b"".join(
        struct.pack("<ddI", a, b, len(text)) + text.encode("latin-1") + struct.pack("<f", conf)
        for a, b, text, conf in rows
    )
    body = packed if ftype == "BINARY" else "0;1.5;Äh; gut;1\r\n1.5;2.25;;0.5\r\n".encode()
    got = read_annotation(put(tmp_path / "a.annotation", annotation(ftype, 2, 'type="FREE"'), body))
    assert isinstance(got, Free)
    assert list(zip(got.from_s, got.to_s, got.text, got.conf, strict=True)) == rows
    write_annotation(tmp_path / "b.annotation", got, "BINARY")
    assert body_path(tmp_path / "b.annotation").read_bytes() == packed


def test_scores_keep_all_their_digits_as_words(tmp_path):
    """Two decimals, as a common library writes them, would make 0.125 of 0.12 or 0.13."""
    score = np.array([0.125, 1 / 3, 7 / 24], np.float32)
    write_annotation(
        tmp_path / "a.annotation", Continuous("e", score, np.ones(3, np.float32), 25.0)
    )
    words = body_path(tmp_path / "a.annotation").read_text().splitlines()
    assert [np.float32(float(w.split(";")[0])) for w in words] == score.tolist()
    assert words[0] == "0.125;1.0"
