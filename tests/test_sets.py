"""Sets of sessions, and what may not be trained on together with what is evaluated."""

import dataclasses

import pytest
from protocol_study import FOLDS, MPIIGI, make_corpora, refused, sessions, study

from corpora.sheet import write_sheet


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return make_corpora(tmp_path_factory.mktemp("corpora"))


def test_sets_select_sessions_of_other_sets(corpora):
    sets = {
        "noxi/labelled": {"of": ["noxi/train", "noxi/val"]},
        "noxi/french": {"of": "noxi/labelled", "language": "french"},
        "noxi/paris": {"of": "noxi/labelled", "sessions": ["001..025"]},
        "noxi/rest": {"of": "noxi/labelled", "except": ["001..025", "077"]},
        "noxi/two": {"of": "noxi/train", "sessions": ["003", "013"]},
    }
    s = study(corpora, {"x": {}}, sets)
    everybody = sessions(s.sessions(["noxi/train", "noxi/val"]))
    assert len(everybody) == 48 and sessions(s.sets.keys("noxi/labelled")) == everybody
    assert sessions(s.sets.keys("noxi/french")) == [n for n in everybody if int(n) % 3 == 1]
    assert sessions(s.sets.keys("noxi/paris")) == [n for n in everybody if int(n) <= 25]
    rest = [n for n in everybody if int(n) > 25 and n != "077"]
    assert sessions(s.sets.keys("noxi/rest")) == rest
    assert sessions(s.sets.keys("noxi/two")) == ["003", "013"]


def test_selected_sets_have_columns_and_scores_of_their_own(corpora):
    sets = {"noxi/some": {"of": "noxi/val", "sessions": ["007", "009"]}}
    run = {"train": ["noxi/train"], "evaluate": ["noxi/val", "noxi/some"]}
    s = study(corpora, {"x": run}, sets)
    assert s.columns(s.tables["main"]) == ["noxi/val", "noxi/some"]
    specs = s.labelled_specs(s.evaluated(s.runs["x"], "noxi"))
    assert [t for t in specs if "/007:" in t] == [
        "noxi/007:expert,novice@val",
        "noxi/007:expert,novice@some",
    ]
    assert sum(t.endswith("@some") for t in specs) == 2
    assert len(s.labelled_specs(["noxi/val", "noxi/some"], by_split=True)) == 10


@pytest.mark.parametrize(
    ("selection", "problem", "cure"),
    [
        ({"of": "noxi/trian"}, "noxi/trian is no set", "did you mean 'noxi/train'"),
        ({"of": "noxi/val", "sessions": ["07"]}, "there is no session 07", "'007'"),
        ({"of": "noxi/val", "sessions": [7]}, "7 is a number to YAML", '"007"'),
        # [009, 011] unquoted: YAML 1.1 reads the text 009 and the octal number 9.
        ({"of": "noxi/val", "sessions": ["009", 9]}, "9 is a number", '"009" or "011"'),
        ({"of": "noxi/val", "language": "Frensh"}, "no session speaks Frensh", "'French'"),
        ({"of": "mpiigi/val", "language": "German"}, "has sessions of mpiigi", "declare one"),
        ({"of": "noxi/val", "except": ["000..999"]}, "selects no session", "loosen"),
        ({"of": "noxi/x"}, "leads back to itself", "splits"),
    ],
)
def test_wrong_sets_are_refused(corpora, selection, problem, cure):
    error = refused(corpora, {"x": {"evaluate": ["noxi/x"]}}, {"noxi/x": selection})
    assert problem in error.problem and cure in error.cure


def test_unquoted_numbers_that_mean_one_thing_are_sessions(corpora):
    s = study(corpora, {"x": {}}, {"noxi-j/y": {"of": "noxi-j/train", "sessions": [101, 135]}})
    assert sessions(s.sets.keys("noxi-j/y")) == ["101", "135"]


def test_unknown_set_of_a_run_names_run_and_key(corpora):
    sets = {"noxi/french": {"of": "noxi/val", "language": "French"}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/frnech"]}}, sets)
    assert "noxi/frnech is no set (`evaluate` of run x)" in error.problem
    assert "did you mean 'noxi/french'" in error.cure


def test_a_language_is_not_guessed(corpora):
    sets = {"mpiigi/german": {"of": "mpiigi/val", "language": "German"}}
    error = refused(corpora, {"x": {"evaluate": ["mpiigi/german"]}}, sets)
    assert "mpiigi/008 has no language" in error.problem


# ---- leaks ----


def test_a_session_in_train_and_evaluate_is_refused(corpora):
    sets = {"noxi/some": {"of": ["noxi/train", "noxi/val"], "sessions": ["013", "007"]}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/some"]}}, sets)
    assert "run x trains on session noxi/013 (noxi/train) and names it in `evaluate`" in str(error)
    selected = {"training": {"selection": "best_val"}, "validate": ["noxi/some"]}
    run = {"evaluate": ["noxi/test"]} | selected
    assert "noxi/013" in refused(corpora, {"x": run}, sets).problem
    run["training"] = {"selection": "last"}  # `validate` is not read
    study(corpora, {"x": run}, sets)


def test_a_session_of_the_run_it_starts_from_is_refused(corpora):
    start = {"train": ["mpiigi/val"], "evaluate": ["mpiigi/test"]}
    run = {"train": ["noxi/train"], "evaluate": ["mpiigi/val"], "initial": "start"}
    error = refused(corpora, {"start": start, "x": run})
    assert "run x trains on session mpiigi/008" in error.problem


def changed(corpora, tmp_path, **columns) -> str:
    """A sheet with other cells: column={(dataset, session, role): value}."""
    rows = [
        dataclasses.replace(
            p,
            **{
                column: cells[key]
                for column, cells in columns.items()
                if (key := (p.dataset, p.session, p.role)) in cells
            },
        )
        for p in corpora[1]
    ]
    path = tmp_path / "sessions.tsv"
    path.write_text(write_sheet(rows))
    return str(path)


def test_a_person_in_train_and_evaluate_is_refused(corpora, tmp_path):
    """Also where the name is spelled in another way; not where the person is excluded there."""
    who = {("noxi", "001", "novice"): "P 7", ("noxi-add", "015", "expert"): "p  7"}
    sheet = changed(corpora, tmp_path, identity=who)
    run = {"evaluate": ["noxi-add/test", "noxi/val"]}
    error = refused(corpora, {"x": run}, sessions=sheet)
    assert "trains on P 7 in session noxi/001, who is in session noxi-add/015" in error.problem
    study(corpora, {"x": {"evaluate": ["noxi/val"]}}, sessions=sheet)
    out = {("noxi-add", "015", "expert"): True}, {("noxi-add", "015", "expert"): "twice"}
    sheet = changed(corpora, tmp_path, identity=who, exclude=out[0], exclude_reason=out[1])
    study(corpora, {"x": run}, sessions=sheet)


def test_one_recording_in_two_sessions_is_refused(corpora, tmp_path):
    copy = {("noxi-add", "015", "expert"): "noxi/train/001/../001/novice.video.mp4"}
    sheet = changed(corpora, tmp_path, video=copy)
    error = refused(corpora, {"x": {"evaluate": ["noxi-add/test"]}}, sessions=sheet)
    assert "trains on session noxi/001 and names noxi-add/015 in `evaluate`" in error.problem
    assert "both are" in error.problem and "001/novice.video.mp4" in error.problem


@pytest.mark.parametrize("column", ["video", "audio", "labels", "streams"])
@pytest.mark.parametrize("how", ["link", "folder", "copy"])
def test_test_data_that_is_training_data_under_another_name_is_refused(tmp_path, column, how):
    """A link to the file, a link to its folder, a copy: whatever the column, as for one path."""
    root, rows = make_corpora(tmp_path / "data")
    folder = root / "noxi/train/001"
    name = {"streams": "novice.clip.stream~"}.get(column, f"novice.{column}")
    (folder / name).write_bytes(b"\n".join(b"%d" % (i * i % 997) for i in range(120_000)))
    (folder / "novice.clip.stream").touch()
    if how == "folder":
        (root / "again").symlink_to(folder)
    else:
        (root / "again").mkdir()
        (root / "again/novice.clip.stream").write_text("another header")
        if how == "link":
            (root / "again" / name).symlink_to(folder / name)
        else:
            (root / "again" / name).write_bytes((folder / name).read_bytes())
    value = "novice" if column == "streams" else name
    cells = {("noxi", "001", "novice"): f"noxi/train/001/{value}"}
    cells[("noxi-add", "015", "expert")] = f"again/{value}"
    sheet = changed((root, rows), tmp_path, **{column: cells})
    error = refused((root, rows), {"x": {"evaluate": ["noxi-add/test"]}}, sessions=sheet)
    assert "trains on session noxi/001 and names noxi-add/015 in `evaluate`" in error.problem
    assert ("equal byte by byte" if how == "copy" else "one file (a link)") in error.problem
    if how == "copy":  # of one size, and different in a single byte that the sample does not hold
        with open(root / "again" / name, "r+b") as f:
            f.seek(100_000)
            f.write(b"x")
        study((root, rows), {"x": {"evaluate": ["noxi-add/test"]}}, sessions=sheet)


def test_folds_keep_the_sessions_of_a_person_together(corpora, tmp_path):
    """008 - 026 - 028 by two people: one fold of three; by session it is a leak."""
    who = {("mpiigi", "008", "subjectPos1"): "A", ("mpiigi", "026", "subjectPos3"): "a"}
    who |= {("mpiigi", "026", "subjectPos2"): "B", ("mpiigi", "028", "subjectPos2"): "B"}
    sheet = changed(corpora, tmp_path, identity=who)
    s = study(corpora, {"x": MPIIGI | {"folds": FOLDS | {"by": 3}}}, sessions=sheet)
    held = [sessions(s.declared.held_out(s.runs[m])) for m in s.runs["x"].members]
    assert sorted(held) == [["008", "026", "028"], ["009", "027"], ["010"]]
    error = refused(corpora, {"x": MPIIGI | {"folds": FOLDS}}, sessions=sheet)
    assert "x.fold-008 trains on a in session mpiigi/026" in error.problem
    error = refused(corpora, {"x": MPIIGI | {"folds": FOLDS | {"by": 5}}}, sessions=sheet)
    assert "5 folds" in error.problem and "4 groups" in error.problem


BEST = {"training": {"selection": "best_val"}}


def test_a_checkpoint_selected_by_a_test_session_is_refused(corpora):
    """On the run itself, the run it starts from and a run that takes its weights."""
    x = BEST | {"validate": ["noxi/test"], "evaluate": ["noxi/test"]}
    error = refused(corpora, {"x": x})
    assert "selects its checkpoint by test session noxi/002" in error.problem
    start = BEST | {"validate": ["noxi/test"], "evaluate": ["mpiigi/val"]}
    for x in ({"weights_of": "s"}, {"initial": "s", "train": ["noxi/val"], "validate": []}):
        error = refused(corpora, {"s": start, "x": x | {"evaluate": ["noxi/test"]}})
        assert "run x selects its checkpoint by test session" in error.problem
    study(corpora, {"x": start})


def test_a_set_of_val_and_test_sessions_is_no_column(corpora):
    sets = {"noxi/all": {"of": ["noxi/val", "noxi/test"]}}
    error = refused(corpora, {"x": {"evaluate": ["noxi/all"]}}, sets)
    assert "has test session noxi/" in error.problem and "val session noxi/" in error.problem
    own = {"train": ["noxi/all"], "evaluate": ["noxi/all"]}
    folded = own | {"folds": {"of": "noxi/all", "by": "session"}}  # each fold holds one split only
    assert "run x evaluates noxi/all" in refused(corpora, {"x": folded}, sets).problem
    study(corpora, {"x": own | {"evaluate": ["mpiigi/val"]}}, sets)


def test_only_columns_with_selecting_sessions_are_marked(corpora):
    """Sets are compared by sessions, and the run that one starts from counts."""
    sets = {"noxi/two": {"of": "noxi/val", "sessions": ["007", "009"]}}
    start = BEST | {"validate": ["noxi/two"], "evaluate": ["noxi/val", "mpiigi/val"]}
    evaluate = {"evaluate": ["mpiigi/val", "noxi/two", "noxi/val"], "validate": []}
    runs = {"start": start, "x": {"initial": "start"} | evaluate, "y": evaluate}
    s = study(corpora, runs, sets, rows=("start", "x", "y"))
    words = s.table_options("main").split("--selection ")[1].split(" --")[0]
    marked = "noxi/val,noxi/two"
    assert words == f"start=best_val:{marked} x=best_val:{marked}"
