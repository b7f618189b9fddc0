"""Label csv: missing is NaN in every spelling, everything odd is told with its line."""

import numpy as np
import pytest

from formats.label_csv import read_labels
from runtime import InputError


def labels_of(tmp_path, content: bytes):
    path = tmp_path / "expert.engagement.annotation.csv"
    path.write_bytes(content)
    return read_labels(path)


@pytest.mark.parametrize(
    "token", ["", " ", "nan", "NaN", "NAN", "-nan", "-nan(ind)", "-NaN(IND)", "nan(snan)", "-1.#IND", "1.#QNAN"]
)  # fmt: skip
def test_missing_is_nan_and_never_zero(tmp_path, token):
    values = labels_of(tmp_path, f"0.25\n{token}\n0.75\n".encode())
    np.testing.assert_array_equal(values, [0.25, np.nan, 0.75])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_the_last_line(tmp_path, end):
    def rows(text):
        return len(labels_of(tmp_path, text.replace("\n", end).encode()))

    assert rows("0.5\n0.6\n") == 2
    assert rows("0.5\n0.6") == 2
    assert rows("0.5\n0.6\n\n") == 3  # an empty last line is a missing value
    assert rows("\n0.5\n") == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_encodings(tmp_path, encoding):
    values = labels_of(tmp_path, "0.5\n1\n0\n1e-1\n.5\n".encode(encoding))
    np.testing.assert_array_equal(values, [0.5, 1, 0, 0.1, 0.5])
    assert values.dtype == np.float64


def test_latin_1_no_break_space_is_space(tmp_path):
    np.testing.assert_array_equal(labels_of(tmp_path, b"0.5\xa0\n\xa0\n0.5\n"), [0.5, np.nan, 0.5])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"0.5\n1.01\n", ["line 2", "1.01", "outside 0..1"]),
        (b'"0.5"\n"0.6"\n', ["line 1", "take the quotes away"]),
        (b"-0.1\n", ["line 1", "outside 0..1"]),
        (b"0.5\ninf\n", ["line 2", "inf", "not a number"]),
        (b"0.5\n0,7\n", ["line 2", "decimal point"]),
        (b"0.5;1.0\n", ["line 1", "0.5;1.0", "one value per line"]),
        (b"engagement\n0.5\n", ["line 1", "header"]),
        (b"0.5\nn/a\n", ["line 2", "n/a", "empty"]),
        (b"0.5\n1_0\n", ["line 2", "1_0"]),
        ("0.5\nhöch\n".encode("latin-1"), ["line 2", "höch"]),
        (b"", ["holds no label"]),
        ("0.5\n".encode("utf-16"), ["UTF-8"]),
        (b"\x89HDF\r\n\x1a\n\0\0\0", ["UTF-8"]),
    ],
)
def test_odd_content_is_told_with_file_line_and_cure(tmp_path, content, words):
    with pytest.raises(InputError) as e:
        labels_of(tmp_path, content)
    text = " ".join(e.value.lines())
    assert "expert.engagement.annotation.csv" in text
    for word in words:
        assert word in text, text


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_labels(tmp_path / "none.csv")
