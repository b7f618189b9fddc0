"""The sessions sheet: every message names row, column, value and cure."""

import random
import string

import pytest

from corpora.__main__ import main
from corpora.sheet import COLUMNS, Participant, read_sheet, write_sheet
from runtime import InputError

HEADER = "dataset\tsplit\tsession\trole\tvideo"


def sheet(tmp_path, *rows, header=HEADER, encoding="utf-8"):
    path = tmp_path / "sessions.tsv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def problem(path, **options):
    with pytest.raises(InputError) as e:
        read_sheet(path, **options)
    lines = e.value.lines()
    assert len(lines) <= 3
    return "\n".join(lines)


def test_reads_every_column(tmp_path):
    row = "d\tval\t001\texpert\tv/a b.mp4\ta.wav\tl.csv\t1\t0, 0,640,480\t0.25\tFrench\tfemale\t27\tno\t"
    path = sheet(tmp_path, "", "# a remark", row, header="\t".join(COLUMNS))
    (p,) = read_sheet(path, check_files=False)
    assert p == Participant(
        "d", "val", "001", "expert",
        f"{tmp_path}/v/a b.mp4", f"{tmp_path}/a.wav", f"{tmp_path}/l.csv",
        1, "0,0,640,480", 0.25, "French", "female", 27.0, False, "",
    )  # fmt: skip
    assert p.line == 4


def test_optional_columns_may_be_left_out(tmp_path):
    (p,) = read_sheet(sheet(tmp_path, "d\ttest\ts\tr\tv.mp4"), check_files=False)
    assert (p.audio, p.labels, p.audio_channel, p.roi, p.offset, p.age, p.exclude) == (
        "", "", None, "", 0.0, None, False,
    )  # fmt: skip


def test_paths_start_from_the_media_root(tmp_path):
    path = sheet(tmp_path, "d\ttest\ts\tr\tv.mp4", "d\ttest\ts\tq\t/abs/v.mp4")
    assert [p.video for p in read_sheet(path, "media", False)] == ["media/v.mp4", "/abs/v.mp4"]
    (tmp_path / "v.mp4").touch()
    text = problem(path)
    assert "row 3, column 'video'" in text and "/abs/v.mp4" in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_names_may_be_in_any_script(tmp_path, encoding):
    path = sheet(tmp_path, "データ\ttest\tsé-1.2_x\tänna\tv.mp4", encoding=encoding)
    (p,) = read_sheet(path, check_files=False)
    assert (p.dataset, p.session, p.role) == ("データ", "sé-1.2_x", "änna")


BASE = dict(dataset="d", split="train", session="001", role="expert", video="v.mp4")


@pytest.mark.parametrize(
    "column, value, words",
    [
        ("split", "trian", ["did you mean 'train'"]),
        ("split", "Val", ["did you mean 'val'"]),
        ("split", "dev", ["use one of: train, val, test"]),
        ("split", "", ["is empty"]),
        ("dataset", "noxi/train", ["letters, digits"]),
        ("session", "-1", ["start with a letter or digit"]),
        ("session", "..", ["letters, digits"]),
        ("role", "a b", ["letters, digits"]),
        ("role", "a:b", ["letters, digits"]),
        ("audio_channel", "-1", ["channel"]),
        ("audio_channel", "left", ["0 for the first channel"]),
        ("audio_channel", "1.5", ["channel"]),
        ("roi", "0,0,640", ["x,y,w,h"]),
        ("roi", "0,0,0,480", ["x,y,w,h"]),
        ("roi", "-5,0,640,480", ["x,y,w,h"]),
        ("offset", "2 min", ["seconds"]),
        ("offset", "-0.5", [">= 0"]),
        ("offset", "nan", ["seconds"]),
        ("age", "old", ["years"]),
        ("exclude", "true", ["yes, no"]),
        ("exclude", "Yes", ["did you mean 'yes'"]),
    ],
)
def test_a_bad_cell_names_row_column_value_and_cure(tmp_path, column, value, words):
    values = BASE | {column: value}
    header = "\t".join(values)
    path = sheet(tmp_path, "d\ttest\t9\tr\tv.mp4", "\t".join(values.values()), header=header)
    text = problem(path, check_files=False)
    for word in [f"row 3, column '{column}'", f"'{value}'", *words]:
        assert word in text, text


def test_exclusion_needs_a_reason_and_no_files(tmp_path):
    header = HEADER + "\texclude\texclude_reason"
    path = sheet(tmp_path, "d\ttest\t1\tr\tnone.mp4\tyes\t", header=header)
    assert "column 'exclude_reason'" in problem(path)
    path = sheet(tmp_path, "d\ttest\t1\tr\tnone.mp4\tyes\tno face", header=header)
    (p,) = read_sheet(path)
    assert p.exclude and p.exclude_reason == "no face"


@pytest.mark.parametrize(
    "header, words",
    [
        (HEADER + "\tlable", ["unknown column 'lable'", "did you mean 'labels'"]),
        (HEADER + "\tzzz", ["unknown column 'zzz'", "use one of"]),
        (HEADER + "\trole", ["'role' twice"]),
        ("dataset\tsplit\tsession\trole", ["lacks the column 'video'"]),
        (HEADER.replace("\t", ","), ["not separated by tabs"]),
        (HEADER.replace("\t", ";"), ["not separated by tabs"]),
    ],
)
def test_a_bad_header(tmp_path, header, words):
    text = problem(sheet(tmp_path, "d\ttest\t1\tr\tv.mp4", header=header))
    for word in words:
        assert word in text, text


def test_duplicates_and_mixed_splits(tmp_path):
    path = sheet(tmp_path, "d\ttrain\t1\ta\tv", "d\ttrain\t2\ta\tv", "d\ttrain\t1\ta\tv")
    text = problem(path, check_files=False)
    assert "row 4, column 'role'" in text and "also in row 2" in text
    path = sheet(tmp_path, "d\ttrain\t1\ta\tv", "d\tval\t1\tb\tv", "e\tval\t1\tb\tv")
    text = problem(path, check_files=False)
    assert "row 3, column 'split': 'val'" in text and "in row 2" in text


def test_many_problems_are_told_together(tmp_path):
    rows = [f"d\tdev\t{k}\tr\tv.mp4" for k in range(10)]
    text = problem(sheet(tmp_path, *rows), check_files=False)
    assert "10 problems" in text and "and 7 more" in text
    assert "row 2" in text and "row 4" in text and "row 5" not in text


def test_missing_files_suggest_the_near_name(tmp_path):
    (tmp_path / "expert.video.mp4").touch()
    text = problem(sheet(tmp_path, "d\ttest\t1\tr\texpert.vidoe.mp4"))
    assert "did you mean 'expert.video.mp4'" in text
    text = problem(sheet(tmp_path, "d\ttest\t1\tr\tgone/v.mp4"))
    assert "gone does not exist: check media_root" in text
    assert "is a folder" in problem(sheet(tmp_path, "d\ttest\t1\tr\t."))


def test_no_sheet_at_all(tmp_path):
    assert "python -m corpora init" in problem(tmp_path / "none.tsv")
    (tmp_path / "sessions.tsv").write_text("\n# only a remark\n")
    assert "is empty" in problem(tmp_path / "sessions.tsv")
    assert "has no row" in problem(sheet(tmp_path))
    assert "line 3 is not UTF-8" in problem(
        sheet(tmp_path, "d\ttest\t1\tr\tv.mp4", "d\ttest\t1\tänna\tv.mp4", encoding="latin-1")
    )
    assert "row 2 has 6 cells" in problem(sheet(tmp_path, "d\ttest\t1\tr\tv.mp4\textra"))


def test_written_sheet_reads_back(tmp_path):
    rng = random.Random(3)
    letters = string.ascii_letters + "äé漢_."

    def word(extra=""):
        text = "".join(rng.choice(letters + extra) for _ in range(rng.randint(1, 9)))
        return text.strip(" .") or "x"

    rows = []
    for k in range(50):
        path = tmp_path / "m"
        rows.append(
            Participant(
                "d", "train", f"s{k}", "r" + word("-"),
                f"{path}/{word(' ,;:()$&')}", f"{path}/{word(' ')}", f"{path}/q\"{word()}",
                rng.choice([None, 0, 3]), rng.choice(["", "0,0,4,5"]), rng.choice([0.0, 1.25]),
                word().title(), rng.choice(["", "female"]), rng.choice([None, 33.5]),
                *rng.choice([(False, ""), (True, "no face")]),
            )
        )  # fmt: skip
    path = tmp_path / "sessions.tsv"
    path.write_text(write_sheet(rows), encoding="utf-8")
    assert read_sheet(path, check_files=False) == rows
    with pytest.raises(InputError, match="tab or line break"):
        write_sheet([Participant("d", "test", "s", "r", "a\tb.mp4")])


def test_quotes_of_spreadsheets(tmp_path):
    header = HEADER + "\troi"
    (p,) = read_sheet(
        sheet(tmp_path, 'd\ttest\t1\tr\t"say ""hi"".mp4"\t"0,0,6,8"', header=header), "", False
    )
    assert (p.video, p.roi) == ('say "hi".mp4', "0,0,6,8")
    assert "double quote" in problem(sheet(tmp_path, 'd\ttest\t1\tr\t"open.mp4'))


def test_check_on_the_command_line(tmp_path, capsys):
    path = sheet(tmp_path, "d\ttset\t1\tr\tv.mp4")
    assert main(["check", str(path)]) == 1
    assert "did you mean 'test'" in capsys.readouterr().err
