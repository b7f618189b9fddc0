"""Folds of small sheets, written out by hand: what each trains on and what it holds out."""

import copy

import pytest

from corpora.sheet import Participant
from runtime import InputError
from workflow.folds import expand, fold_run, groups
from workflow.sets import Sets


def sheet(*cells, declared=None) -> Sets:
    """Sets of sessions "dataset/split/session", each with columns of its participant."""
    rows = []
    for cell in cells:
        name, columns = cell if isinstance(cell, tuple) else (cell, {})
        dataset, split, session = name.split("/")
        rows.append(Participant(dataset, split, session, "expert", **columns))
    return Sets(rows, declared or {})


def refused(call, *args) -> str:
    with pytest.raises(InputError) as e:
        call(*args)
    return e.value.problem


def held(by, sets, of=("a/val",)) -> dict[str, list[str]]:
    """Fold -> held-out sessions as dataset/session, in the order of folds."""
    found = groups("x", by, list(of), sets)
    return {fold: sorted("/".join(key) for key in keys) for fold, keys in found.items()}


VAL = ("a/val/001", "a/val/002", "a/val/003")


def test_every_fold_is_a_run_without_its_sessions():
    sets = sheet("a/train/000", *VAL, "a/test/009")
    keys = {
        "train": ["a/train", "a/val"],
        "evaluate": ["a/val", "a/test"],
        "folds": {"of": "a/val", "by": "session"},
        "model": {"d": 8},
    }
    before = copy.deepcopy(keys)
    runs = expand("x", keys, sets)
    assert keys == before
    assert list(runs) == ["x.fold-001", "x.fold-002", "x.fold-003"]
    assert fold_run("x", "001") == "x.fold-001"
    for session, run in zip(("001", "002", "003"), runs.values(), strict=True):
        assert run == {
            "train": ["a/train", f"a/val.x.without-{session}"],
            "evaluate": [f"a/val.x.fold-{session}", "a/test"],
            "folds": None,
            "model": {"d": 8},
        }
        others = [("a", n) for n in ("001", "002", "003") if n != session]
        assert sets.keys(f"a/val.x.without-{session}") == others
        assert sets.keys(f"a/val.x.fold-{session}") == [("a", session)]


def test_a_set_of_which_nothing_is_left_is_not_named():
    """Two sets, each a fold of its own; a third, which the sheet does not have, is passed over."""
    sets = sheet(*VAL, "b/val/004", "a/train/000")
    both = ["a/val", "b/val"]
    by = {"one": ["a/001", "a/002", "a/003"], "two": ["b/004"]}
    keys = {"train": [*both, "a/train"], "evaluate": both}
    runs = expand("x", keys | {"folds": {"of": [*both, "c/val"], "by": by}}, sets)
    assert runs["x.fold-one"]["train"] == ["b/val.x.without-one", "a/train"]
    assert runs["x.fold-one"]["evaluate"] == ["a/val.x.fold-one"]
    assert runs["x.fold-two"]["train"] == ["a/val.x.without-two", "a/train"]
    assert runs["x.fold-two"]["evaluate"] == ["b/val.x.fold-two"]
    assert sets.keys("b/val.x.without-one") == [("b", "004")]
    assert sets.keys("a/val.x.fold-one") == [("a", "001"), ("a", "002"), ("a", "003")]


def test_sets_that_the_sheet_or_the_run_does_not_have():
    def of(names, train=("a/val",), evaluate=("a/val",)):
        keys = {"train": list(train), "evaluate": list(evaluate)}
        keys["folds"] = {"of": names, "by": "session"}
        return refused(expand, "x", keys, sheet(*VAL, "b/val/004", "b/val/005"))

    missing = "config: runs.x.folds.of names c/val, d/val, which the sheet does not have"
    assert of(["c/val", "d/val"]) == missing
    both = ["a/val", "b/val"]
    assert of(both, evaluate=both) == (
        "config: runs.x.folds.of names b/val, which `train` of the run does not"
    )
    assert of(both, train=both) == (
        "config: runs.x.folds.of names b/val, which `evaluate` of the run does not"
    )


def test_by_session():
    assert held("session", sheet(*VAL)) == {"001": ["a/001"], "002": ["a/002"], "003": ["a/003"]}
    sets = sheet("b/val/001", *VAL[:2])
    assert held("session", sets, ["a/val", "b/val"]) == {
        "b.001": ["b/001"],
        "a.001": ["a/001"],
        "a.002": ["a/002"],
    }


def test_by_language():
    spoken = ("GERMAN", "Français (CA)", "german", "en-GB_1")
    sets = sheet(*((f"a/val/00{i}", {"language": word}) for i, word in enumerate(spoken)))
    assert held("language", sets) == {
        "german": ["a/000", "a/002"],
        "fran_ais_ca_": ["a/001"],
        "en-gb_1": ["a/003"],
    }
    problem = refused(held, "language", sheet(*VAL))
    assert problem.startswith("config: runs.x.folds.by asks for languages, but session a/001")


# ---- a number of folds ----


def people(*names) -> list:
    """Sessions a/val/000, a/val/001 ... of these people; "" is somebody whom the sheet does not name."""
    return [(f"a/val/{i:03d}", {"identity": name}) for i, name in enumerate(names)]


def test_sessions_are_dealt_out_in_turn():
    sets = sheet(*people(*[""] * 5))
    assert held(2, sets) == {"1": ["a/000", "a/002", "a/004"], "2": ["a/001", "a/003"]}
    assert list(held(5, sets)) == ["1", "2", "3", "4", "5"]
    assert refused(held, 6, sets) == "config: runs.x.folds.by asks for 6 folds of 5 sessions"


def test_people_stay_together_and_the_largest_group_is_dealt_first():
    """Groups of 1, 1, 2 and 3 sessions: 3 to the first fold, 2 and 1 to the second, 1 to the first."""
    sets = sheet(*people("A", "B", "C", "C", "D", "D", "D"))
    assert held(2, sets) == {
        "1": ["a/001", "a/004", "a/005", "a/006"],
        "2": ["a/000", "a/002", "a/003"],
    }
    assert list(held(4, sets)) == ["1", "2", "3", "4"]
    problem = refused(held, 5, sets)
    assert "runs.x.folds.by asks for 5 folds" in problem and "leave 4 groups" in problem


# ---- folds that the config lists ----


def test_lists_are_numbered_and_mappings_are_named():
    sets = sheet(*VAL)
    assert held([["001", "003"], "002"], sets) == {"1": ["a/001", "a/003"], "2": ["a/002"]}
    assert held({"p": "001..002", "q": ["003"]}, sets) == {"p": ["a/001", "a/002"], "q": ["a/003"]}
    problem = refused(held, {"p": ["001", "002"], "q": ["004"]}, sets)
    assert problem == "config: runs.x.folds.by.q: there is no session 004"


def test_excluded_sessions_may_be_named_and_are_held_out_by_nobody():
    gone = ("a/val/004", {"exclude": True})
    sets = sheet(*VAL, gone)
    assert held([["001", "004"], ["002", "003"]], sets) == {
        "1": ["a/001"],
        "2": ["a/002", "a/003"],
    }
    problem = refused(held, [["001", "002", "003"], ["004"]], sets)
    assert problem == "config: runs.x.folds.by.2: all its sessions are excluded in the sheet"


@pytest.mark.parametrize(
    ("by", "where"),
    [
        ([["001"], ["003"]], "002 is in no fold"),
        ([["001", "002"], ["003"], ["002", "003"]], "002 is in the folds 1 and 3"),
    ],
)
def test_every_session_is_held_out_once(by, where):
    assert refused(held, by, sheet(*VAL)) == f"config: runs.x.folds.by: session a/{where}"


def test_one_fold_leaves_nothing_to_train_on():
    one = {"train": ["a/val"], "evaluate": ["a/val"], "folds": {"of": "a/val", "by": 1}}
    problem = refused(expand, "x", one, sheet(*VAL))
    assert problem.startswith("config: runs.x.folds.by makes 1 fold of a/val")
    assert "makes 1 fold of a/val" in refused(held, [["001", "002", "003"]], sheet(*VAL))
    assert list(held(2, sheet(*VAL))) == ["1", "2"]


@pytest.mark.parametrize(
    ("of", "problem"),
    [
        (["a/first", "a/last", "a/two"], "a/first and a/two share session a/001"),
        (["a/last", "a/first", "a/two"], "a/first and a/two share session a/001"),
        (["a/first", "a/two", "a/last"], "a/first and a/two share session a/001"),
    ],
)
def test_sets_that_share_a_session(of, problem):
    declared = {
        "a/first": {"of": "a/val", "sessions": ["001"]},
        "a/two": {"of": "a/val", "sessions": ["001", "002"]},
        "a/last": {"of": "a/val", "sessions": ["003"]},
    }
    sets = sheet(*VAL, declared=declared)
    assert refused(held, "session", sets, of) == f"config: runs.x.folds.of: {problem}"
    assert list(held("session", sets, ["a/first", "a/last"])) == ["001", "003"]
