"""One sheet as Excel, editors and people save it: it works, or the message says what is wrong."""

import unicodedata

import pytest

from corpora.layout import clean_name
from corpora.sheet import read_sheet
from runtime import InputError

COLUMNS = ["dataset", "split", "session", "role", "video", "labels", "language", "exclude_reason"]
NFC, NFD = "café", unicodedata.normalize("NFD", "café")


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "001").mkdir()
    made = []
    for role in ("expert", "novice"):
        for name in (f"001/{role}.mp4", f"001/{role}.csv"):
            (tmp_path / name).write_text("0.5\n")
        made.append(["own", "train", "001", role, f"001/{role}.mp4", f"001/{role}.csv", "Íslenska", ""])  # fmt: skip
    return made


def read(tmp_path, rows, columns=COLUMNS, eol="\n", encoding="utf-8", before="", end=True):
    text = before + eol.join("\t".join(r) for r in [columns, *rows]) + (eol if end else "")
    path = tmp_path / "sessions.tsv"
    path.write_bytes(text.encode(encoding))
    return read_sheet(path)


def put(rows, column, value, row=0):
    rows[row][COLUMNS.index(column)] = value
    return rows


def said(tmp_path, rows, **options):
    with pytest.raises(InputError) as e:
        read(tmp_path, rows, **options)
    return "\n".join(e.value.lines())


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", [True, False])
def test_line_ends_and_encodings(tmp_path, rows, eol, encoding, end):
    people = read(tmp_path, rows, eol=eol, encoding=encoding, end=end)
    assert [(p.role, p.language, p.line) for p in people] == [
        ("expert", "Íslenska", 2), ("novice", "Íslenska", 3),
    ]  # fmt: skip


def test_utf16_of_the_other_byte_order(tmp_path, rows):
    text = "\ufeff" + "\n".join("\t".join(r) for r in [COLUMNS, *rows])
    (tmp_path / "s.tsv").write_bytes(text.encode("utf-16-be"))
    assert len(read_sheet(tmp_path / "s.tsv")) == 2


def test_empty_columns_after_the_last(tmp_path, rows):
    blank = ["", "", ""]
    assert len(read(tmp_path, [r + blank for r in rows], [*COLUMNS, *blank])) == 2
    assert len(read(tmp_path, [*rows, [""] * 11])) == 2
    assert "9 cells, the header names 8 columns" in said(tmp_path, [rows[0] + ["x"], rows[1]])
    middle = [*COLUMNS[:2], "", *COLUMNS[3:]]
    assert "column 3 of the header has no name" in said(tmp_path, rows, columns=middle)


def test_a_line_break_in_a_quoted_cell_is_a_space(tmp_path, rows):
    put(rows, "exclude_reason", '"line one\nline ""two"""')
    first, second = read(tmp_path, rows)
    assert first.exclude_reason == 'line one line "two"'
    assert (first.line, second.line) == (2, 4)


def test_a_quote_that_never_closes_names_its_own_row(tmp_path, rows):
    assert "row 2 has a double quote" in said(tmp_path, put(rows, "language", '"French'))


@pytest.mark.parametrize(("on_disk", "in_sheet"), [(NFC, NFD), (NFD, NFC)])
def test_a_name_in_another_unicode_form_is_the_same_name(tmp_path, rows, on_disk, in_sheet):
    (tmp_path / f"{on_disk}.mp4").write_text("x")
    put(rows, "video", f"{in_sheet}.mp4")
    for row in range(2):
        put(rows, "session", in_sheet, row)
    person = read(tmp_path, rows)[0]
    assert person.video == f"{tmp_path}/{on_disk}.mp4" and person.session == NFC
    assert clean_name(on_disk) == NFC


def test_backslashes_of_windows(tmp_path, rows):
    put(rows, "video", "001\\expert.mp4")
    assert read(tmp_path, rows)[0].video == f"{tmp_path}/001/expert.mp4"
    (tmp_path / "001\\expert.mp4").write_text("x")  # a file that is really called so
    assert read(tmp_path, rows)[0].video == f"{tmp_path}/001\\expert.mp4"


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("C:\\Data\\001\\expert.mp4", "path of Windows"),
        ("002\\expert.mp4", "not a backslash"),
        ("~/001/expert.mp4", "~ is not replaced"),
        ("file:///data/expert.mp4", "not a URL"),
        ("'001/expert.mp4'", "take the quotes away"),
        ("001/expert\u00a0.mp4", "U+00A0 NO-BREAK SPACE"),
        ("001/expert.mp5", "did you mean 'expert.mp4'?"),
    ],
)
def test_what_is_wrong_with_a_path(tmp_path, rows, video, words):
    assert words in said(tmp_path, put(rows, "video", video))


def test_what_cannot_be_seen_is_named(tmp_path, rows):
    assert "U+200B ZERO WIDTH SPACE" in said(tmp_path, put(rows, "role", "expert\u200b"))


def test_a_header_behind_a_hash(tmp_path, rows):
    assert "take the # away" in said(tmp_path, rows[1:], columns=rows[0], before="#" + "\t".join(COLUMNS) + "\n")  # fmt: skip
    assert "did you mean" in said(tmp_path, rows, columns=["datasets", *COLUMNS[1:]])
