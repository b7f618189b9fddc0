"""One reader of numbers: decimal numbers and nothing else, in every format that comes from elsewhere."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_trees import put as put_stream

from corpora.metadata import age
from corpora.sheet import read_sheet
from evaluation.official import numbers
from formats.label_csv import read_labels
from formats.numbers import decimal, real, whole
from formats.ssi.annotation import read_annotation
from formats.ssi.stream import body_path, open_stream, write_stream
from runtime import InputError

NO_NUMBERS = [
    "0_1",
    "1_000",
    "٣",
    "0x1",
    "1e",
    "e5",
    ".",
    "",
    "1 2",
    "1,5",
    "--1",
    "½",
    "1.#",
    "1.#X",
]
NAN = ["nan", "NaN", "-nan", "-nan(ind)", "nan(snan)", "1.#QNAN", "1.#QNAN0", "-1.#IND", "-1.#IND00", "1.#R", "-1.#J"]  # fmt: skip


@pytest.mark.parametrize("word", NO_NUMBERS)
def test_words_that_are_no_number(word):
    for read in (decimal, whole, real):
        with pytest.raises(ValueError):
            read(word)


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{!r}", "{:e}", "{:.3f}"])
)
def test_decimals_are_exactly_their_fraction(value, form):
    word = form.format(value)
    assert decimal(f" {word}\t") == float(Fraction(word))


@given(st.integers(-(2**63), 2**64 - 1))
def test_whole_numbers_keep_every_digit(value):
    assert whole(str(value)) == value
    if abs(value) < 2**53:
        assert whole(f"{value}.0") == value
    if abs(value) < 2**50:
        with pytest.raises(ValueError):
            whole(f"{value}.5")


def test_what_c_libraries_print_for_nan_and_infinity():
    assert all(math.isnan(real(word)) for word in NAN)
    assert [real(w) for w in ("inf", "-INF", "1.#INF", "-1.#INF00")] == [
        math.inf, -math.inf, math.inf, -math.inf,
    ]  # fmt: skip
    for word in (*NAN, "inf", "1.#INF"):
        with pytest.raises(ValueError):
            decimal(word)


ANNOTATION = (
    '<annotation ssi-v="3"><info ftype="ASCII" size="2"/>'
    '<scheme name="e" type="CONTINUOUS" sr="25" min="0" max="1"/></annotation>'
)


def label_file(folder, word):
    path = folder / "expert.engagement.annotation.csv"
    path.write_text(f"0.5\n{word}\n")
    return read_labels(path)[1]


def annotation(folder, word):
    path = folder / "a.annotation"
    path.write_text(ANNOTATION)
    body_path(path).write_text(f"0.5;1\n{word};1\n")
    return read_annotation(path).score[1]


def body_of(kind):
    def read(folder, word):
        write_stream(folder / "a.stream", np.zeros((2, 1), kind), 25.0, "ASCII")
        body_path(folder / "a.stream").write_text(f"0\n{word}\n")
        return open_stream(folder / "a.stream").values[1, 0]

    return read


def header(folder, word):
    path = put_stream(folder, "expert", "clip", np.zeros((2, 1), np.float32))
    path.write_text(path.read_text().replace('sr="25.000"', f'sr="{word}"'))
    return open_stream(path).header.rate_hz


def submission(folder, word):
    return numbers(["0.5", word], "z")[1]


def sheet(folder, word):
    columns = "dataset\tsplit\tsession\trole\tvideo\toffset\n"
    (folder / "s.tsv").write_text(f"{columns}d\ttrain\t1\ta\tv.mp4\t{word}\n")
    return read_sheet(folder / "s.tsv", check_files=False)[0].offset


READERS = [label_file, annotation, body_of("f4"), body_of("i4"), header, submission, sheet]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("word", ["0_1", "1_0", "١", "1,5", "25,000"])
def test_every_reader_refuses_with_the_word(tmp_path, read, word):
    with pytest.raises(InputError) as e:
        read(tmp_path, word)
    assert word in e.value.problem


@pytest.mark.parametrize("read", READERS)
def test_every_reader_takes_the_same_decimals(tmp_path, read):
    assert [float(read(tmp_path, w)) for w in ("1", "1.", "1.0", "+1", "10e-1")] == [1.0] * 5


@pytest.mark.parametrize("read", [label_file, annotation, body_of("f4")])
@pytest.mark.parametrize("word", NAN)
def test_every_reader_of_values_takes_the_words_for_nan(tmp_path, read, word):
    assert np.isnan(read(tmp_path, word))


def test_an_age_is_a_decimal_number(tmp_path, caplog):
    for word, expected in (("34", 34.0), ("3_4", None)):
        (tmp_path / "expert.age.annotation.csv").write_text(f"0;1;{word};1\n")
        assert age(tmp_path, "expert") == expected
    assert "3_4" in caplog.text


def test_a_header_may_write_whole_numbers_with_a_point(tmp_path):
    path = put_stream(tmp_path, "expert", "clip", np.zeros((100, 1), np.float32))
    path.write_text(path.read_text().replace('num="100"', 'num="100.0"'))
    assert open_stream(path).header.declared_rows == 100
    path.write_text(path.read_text().replace('num="100.0"', 'num="100.5"'))
    with pytest.raises(InputError, match=r"num='100\.5'"):
        open_stream(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_of_ascii_bodies(tmp_path, encoding):
    words = [f"{random.Random(1).random():.4f}" for _ in range(3)]
    write_stream(tmp_path / "a.stream", np.zeros((3, 1), np.float32), 25.0, "ASCII")
    body_path(tmp_path / "a.stream").write_text("\n".join(words), encoding=encoding)
    path = tmp_path / "a.annotation"
    path.write_text(ANNOTATION.replace('size="2"', 'size="3"'))
    body_path(path).write_text("".join(f"{w};1\n" for w in words), encoding=encoding)
    if encoding == "utf-8-sig":
        expected = [np.float32(w) for w in words]
        assert open_stream(tmp_path / "a.stream").values[:, 0].tolist() == expected
        assert read_annotation(path).score.tolist() == expected
        return
    for read, file in ((open_stream, tmp_path / "a.stream"), (read_annotation, path)):
        with pytest.raises(InputError, match="UTF-16"):
            read(file)
