"""SSI streams and annotations: round trips of everything, files as they really come, bad files."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from formats.ssi.annotation import (
    Continuous,
    Discrete,
    Free,
    Item,
    read_annotation,
    write_annotation,
)
from formats.ssi.stream import body_path, open_stream, read_header, write_stream
from runtime import InputError

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "?"]
words = st.text(
    st.characters(min_codepoint=32, blacklist_categories=("Cs", "Cc"), blacklist_characters="\x85"),
    max_size=12,
).filter(lambda s: "\ufffe" not in s and "\uffff" not in s)


def bits(a):
    return np.ascontiguousarray(a).tobytes()


@quick
@given(data=st.data(), ftype=st.sampled_from(["BINARY", "ASCII"]), kind=st.sampled_from(DTYPES))
def test_streams_keep_every_bit(tmp_path, data, ftype, kind):
    shape = data.draw(st.tuples(st.integers(0, 7), st.integers(1, 4)))
    elements = {"allow_nan": False} if kind[0] == "f" else {}
    values = data.draw(
        hnp.arrays(np.dtype(kind), shape, elements=hnp.from_dtype(np.dtype(kind), **elements))
    )
    path = tmp_path / "novice.x.stream"
    cut = data.draw(st.integers(0, shape[0]))
    chunks = [(0.0, cut), (12.5, shape[0] - cut)]
    write_stream(path, values, 25.0, ftype, chunks, {"a": "<&\"'>"})
    stream = open_stream(path)
    assert stream.agrees
    assert stream.values.dtype == values.dtype
    assert stream.header.meta == {"a": "<&\"'>"}
    assert stream.header.rate_hz == 25.0
    assert bits(stream.values) == bits(values)
    expected = [i / 25 for i in range(cut)] + [12.5 + i / 25 for i in range(shape[0] - cut)]
    np.testing.assert_allclose(stream.times, expected)


def test_nan_and_infinity_survive_in_both_forms(tmp_path):
    values = np.array([[np.nan, np.inf, -np.inf, -0.0, 3.7e19, 1e-45]], np.float32)
    for ftype in ("BINARY", "ASCII"):
        write_stream(tmp_path / "x.stream", values, 25, ftype)
        np.testing.assert_array_equal(open_stream(tmp_path / "x.stream").values, values)


CHALLENGE = (
    '<?xml version="1.0" ?>\n<stream ssi-v="2">\n'
    '    <info ftype="BINARY" sr="40.000000" dim="3" byte="4" type="FLOAT" delim=" " />\n'
    '    <meta />\n    <chunk from="0.000000" to="0.100000" byte="0" num="4"/>\n</stream>\n'
)


def stream_of(tmp_path, header=CHALLENGE, body=b""):
    path = tmp_path / "expert.audio.w2vbert2_embeddings.stream"
    path.write_text(header)
    body_path(path).write_bytes(body)
    return path


def test_a_header_as_the_challenge_writes_it(tmp_path):
    values = np.arange(12, dtype="<f4").reshape(4, 3)
    stream = open_stream(stream_of(tmp_path, body=values.tobytes()))
    assert (stream.header.type, stream.header.ftype) == ("FLOAT", "BINARY")
    assert isinstance(stream.values, np.memmap) and not stream.values.flags.writeable
    np.testing.assert_array_equal(stream.values, values)


@pytest.mark.parametrize(("rows", "extra"), [(3, 0), (8, 0), (3, 5), (0, 0)])
def test_the_body_decides_how_many_rows_there_are(tmp_path, rows, extra):
    body = np.arange(rows * 3, dtype="<f4").tobytes() + b"x" * extra
    stream = open_stream(stream_of(tmp_path, body=body))
    assert len(stream.values) == rows and stream.surplus_bytes == extra
    assert stream.header.declared_rows == 4 and not stream.agrees
    assert len(stream.times) == rows


def test_an_absurd_header_takes_no_memory(tmp_path):
    header = CHALLENGE.replace('num="4"', f'num="{10**12}"')
    stream = open_stream(stream_of(tmp_path, header, np.zeros(6, "<f4").tobytes()))
    assert stream.header.declared_rows == 10**12 and stream.values.shape == (2, 3)
    assert stream.times.shape == (2,)


def test_long_may_have_four_bytes_and_ldouble_eight(tmp_path):
    for kind, byte, dtype in [("LONG", 4, "<i4"), ("ULONG", 8, "<u8"), ("LDOUBLE", 8, "<f8")]:
        header = CHALLENGE.replace('byte="4" type="FLOAT"', f'byte="{byte}" type="{kind}"')
        values = np.arange(6).astype(dtype).reshape(2, 3)
        stream = open_stream(stream_of(tmp_path, header, values.tobytes()))
        np.testing.assert_array_equal(stream.values, values)


BOMB = '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + CHALLENGE.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "no XML"),
        ("<stream>", "no XML"),
        ("<annotation/>", "not a stream"),
        (BOMB, "entities or a DTD"),
        (CHALLENGE.replace('sr="40.000000" ', ""), "no sr="),
        (CHALLENGE.replace("40.000000", "0"), "sr=0"),
        (CHALLENGE.replace("40.000000", "nan"), "sr='nan'"),
        (CHALLENGE.replace('dim="3"', 'dim="0"'), "dim='0'"),
        (CHALLENGE.replace('dim="3"', 'dim="99999999999"'), "dim=99999999999"),
        (CHALLENGE.replace("FLOAT", "IMAGE"), "no sample type"),
        (CHALLENGE.replace('byte="4"', 'byte="2"'), "no sample type"),
        (CHALLENGE.replace("BINARY", "BIN_LZ4"), "ftype='BIN_LZ4'"),
        (CHALLENGE.replace('num="4"', 'num="-4"'), "num='-4'"),
        ("x" * (2 << 20), "too many"),
    ],
)
def test_bad_headers_are_refused_by_name(tmp_path, header, says):
    path = stream_of(tmp_path, header)
    with pytest.raises(InputError, match=re.escape(says)) as error:
        open_stream(path)
    assert str(path) in str(error.value.problem)


def test_a_header_without_body_and_a_body_of_words(tmp_path):
    path = tmp_path / "x.stream"
    path.write_text(CHALLENGE)
    with pytest.raises(InputError, match="only the header"):
        open_stream(path)
    ascii_header = CHALLENGE.replace("BINARY", "ASCII")
    for body, says in [(b"1 2 3\n1 2\n", "line 2 has 2 values"), (b"1 2 x\n", "line 1 holds")]:
        with pytest.raises(InputError, match=says):
            open_stream(stream_of(tmp_path, ascii_header, body))
    # SSI leaves a delimiter at the end of each line.
    assert open_stream(stream_of(tmp_path, ascii_header, b"1 2 3 \n")).values.shape == (1, 3)
    assert read_header(path).delim == " "


floats = st.floats(width=32, allow_nan=False)
seconds = st.floats(allow_nan=False, allow_infinity=False)


@quick
@given(
    pairs=st.lists(st.tuples(st.floats(width=32), floats), max_size=8),
    ftype=st.sampled_from(["ASCII", "BINARY"]),
    name=words,
)
def test_continuous_round_trip(tmp_path, pairs, ftype, name):
    score, conf = (np.array([p[i] for p in pairs], np.float32) for i in (0, 1))
    meta = {"role": name, "annotator": "gold"}
    write_annotation(
        tmp_path / "a.annotation", Continuous(name, score, conf, 25.0, 0, 1, meta), ftype
    )
    back = read_annotation(tmp_path / "a.annotation")
    assert (back.name, back.rate_hz, back.meta) == (name, 25.0, meta)
    np.testing.assert_array_equal(back.score, score)
    assert bits(back.conf) == bits(conf)


@quick
@given(
    rows=st.lists(st.tuples(seconds, seconds, st.integers(-1, 2**31 - 1), floats), max_size=8),
    ftype=st.sampled_from(["ASCII", "BINARY"]),
    name=words,
)
def test_discrete_round_trip(tmp_path, rows, ftype, name):
    columns = [
        np.array([r[i] for r in rows], t)
        for i, t in enumerate([np.float64, np.float64, np.int32, np.float32])
    ]
    items = (Item(0, name, "#FF0000"), Item(7, "solitary"))
    write_annotation(tmp_path / "a.annotation", Discrete("social", *columns, items), ftype)
    back = read_annotation(tmp_path / "a.annotation")
    assert back.items == items
    for got, want in zip((back.from_s, back.to_s, back.id, back.conf), columns, strict=True):
        assert bits(got) == bits(want)


latin = st.text(st.characters(max_codepoint=255), max_size=12)


@quick
@given(
    rows=st.lists(st.tuples(seconds, seconds, floats), min_size=3, max_size=3),
    ascii_texts=st.lists(words, min_size=3, max_size=3),
    latin_texts=st.lists(latin, min_size=3, max_size=3),
    ftype=st.sampled_from(["ASCII", "BINARY"]),
)
def test_free_round_trip(tmp_path, rows, ascii_texts, latin_texts, ftype):
    texts = tuple(ascii_texts if ftype == "ASCII" else latin_texts)
    start, end = (np.array([r[i] for r in rows]) for i in (0, 1))
    conf = np.array([r[2] for r in rows], np.float32)
    write_annotation(tmp_path / "a.annotation", Free("transcript", start, end, texts, conf), ftype)
    back = read_annotation(tmp_path / "a.annotation")
    assert back.text == texts
    assert bits(back.from_s) == bits(start) and bits(back.to_s) == bits(end)
    assert bits(back.conf) == bits(conf)


def test_text_may_hold_semicolons_but_not_what_the_form_cannot(tmp_path):
    def free(text):
        one = np.ones(1)
        return Free("t", one, one, (text,), one.astype(np.float32))

    path = tmp_path / "a.annotation"
    write_annotation(path, free("a;b; c"))
    assert read_annotation(path).text == ("a;b; c",)
    with pytest.raises(InputError, match="line end"):
        write_annotation(path, free("a\nb"))
    with pytest.raises(InputError, match="BINARY annotation cannot"):
        write_annotation(path, free("日本"), "BINARY")
    assert read_annotation(path).text == ("a;b; c",)


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        (
            '<info ftype="ASCII" size="2"/><scheme type="CONTINUOUS" sr="25" min="0" max="1"/>',
            b"0.5;1\n",
            "declares 2 entries",
        ),
        (
            '<info ftype="ASCII"/><scheme type="CONTINUOUS" sr="25" min="0" max="1"/>',
            b"0.5\n",
            "line 1 has 1 fields",
        ),
        (
            '<info ftype="ASCII"/><scheme type="CONTINUOUS" sr="25" min="0" max="1"/>',
            b"0.5;x\n",
            "'x' is no number",
        ),
        ('<info ftype="ASCII"/><scheme type="CONTINUOUS" sr="0" min="0" max="1"/>', b"", "sr=0"),
        ('<info ftype="BINARY"/><scheme type="DISCRETE"/>', b"x" * 25, "no multiple of 24"),
        (
            '<info ftype="BINARY"/><scheme type="FREE"/>',
            b"\0" * 16 + b"\xff" * 4,
            "ends inside entry 1",
        ),
        ('<info ftype="ASCII"/><scheme type="POINT"/>', b"", "type 'POINT'"),
        ('<info ftype="ASCII"/>', b"", "no <scheme>"),
    ],
)
def test_bad_annotations_are_refused_by_name(tmp_path, header, body, says):
    path = tmp_path / "a.annotation"
    path.write_text(f'<annotation ssi-v="3">{header}</annotation>')
    body_path(path).write_bytes(body)
    with pytest.raises(InputError, match=re.escape(says)) as error:
        read_annotation(path)
    assert str(tmp_path) in str(error.value.problem)
