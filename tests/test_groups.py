"""Names of groups: one for every spelling that is listed."""

import pytest

from corpora import groups
from corpora.sheet import read_sheet


@pytest.mark.parametrize(
    "word, gender",
    [("F", "female"), ("Female", "female"), (" WOMAN ", "female"), ("w", "female"), ("m", "male"),
     ("Male", "male"), ("Non-Binary", "non-binary"), ("N/A", ""), ("?", ""), ("", ""), ("2", "2")],
)  # fmt: skip
def test_gender(word, gender):
    assert groups.gender(word) == gender


@pytest.mark.parametrize(
    "word, language",
    [("french", "French"), ("FR", "French"), ("Français", "French"), ("de", "German"), ("English", "English"),
     ("swiss  german", "Swiss German"), ("unknown", ""), ("-", ""), ("", "")],
)  # fmt: skip
def test_language(word, language):
    assert groups.language(word) == language


def test_no_word_stands_for_two_groups():
    for known in (groups.GENDERS, groups.LANGUAGES):
        words = [w for group, others in known.items() for w in (group.casefold(), *others)]
        assert len(words) == len(set(words)) and not set(words) & set(groups.NOT_KNOWN)
        assert all(w == w.casefold() for w in words)


def test_the_sheet_is_read_so(tmp_path):
    path = tmp_path / "s.tsv"
    header = "dataset\tsplit\tsession\trole\tvideo\tgender\tlanguage"
    path.write_text(f"{header}\nd\ttest\t1\ta\tv.mp4\tF\tfrench\nd\ttest\t1\tb\tv.mp4\tMale\t?\n")
    people = read_sheet(path, check_files=False)
    assert [(p.gender, p.language) for p in people] == [("female", "French"), ("male", "")]
