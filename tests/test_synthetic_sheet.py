"""The sheet of the official size is a right sheet, in the official splits."""

from corpora.official import differences
from corpora.sheet import read_sheet
from corpora.synthetic_sheet import main


def test_official_size_and_splits(tmp_path, capsys):
    assert main(["--files", str(tmp_path / "recordings")]) == 0
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text(capsys.readouterr().out)
    people = read_sheet(sheet, tmp_path / "recordings", check_files=True)
    found: dict[tuple[str, str], set[str]] = {}
    for p in people:
        found.setdefault((p.dataset, p.split), set()).add(p.session)
    assert sum(map(len, found.values())) == 139
    assert len(people) == 302
    assert differences(found) == []


def test_copies_have_names_of_their_own(tmp_path, capsys):
    assert main(["--times", "3"]) == 0
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text(capsys.readouterr().out)
    people = read_sheet(sheet, check_files=False)
    assert len(people) == 3 * 302
    assert len({(p.dataset, p.session) for p in people}) == 3 * 139
