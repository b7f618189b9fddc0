"""Whoever is trained on or selects a checkpoint is not evaluated: every refusal and its neighbour."""

import pytest

from corpora.sheet import Participant
from runtime import InputError
from workflow.leaks import check_leaks, check_mixture, check_selection
from workflow.sets import Sets

SPLITS = {"train": ("001", "002"), "val": ("003", "004"), "test": ("005", "006")}


def sheet(splits=SPLITS, **columns) -> Sets:
    """Two sessions of each split; s003={...} are columns of session 003's only participant."""
    rows = [
        Participant("a", split, session, "expert", **columns.get(f"s{session}", {}))
        for split, sessions in splits.items()
        for session in sessions
    ]
    mixed = {"of": ["a/train", "a/val", "a/test"], "sessions": ["002", "003"]}
    late = {"of": ["a/val", "a/test"]}
    return Sets(rows, {"a/mixed": mixed, "a/late": late})


SEEN = {("a", "001"): "a/train", ("a", "002"): "a/train"}
EVERY = {"validate": ("a/val",), "evaluate": ("a/val", "a/test")}


def refused(check, *args) -> str:
    with pytest.raises(InputError) as e:
        check(*args)
    return e.value.problem


def test_a_session_is_not_trained_on_and_evaluated():
    check_leaks("x", SEEN, EVERY, sheet())
    for used in ({"evaluate": ("a/mixed",)}, EVERY | {"more": ("a/test", "a/mixed")}):
        key = list(used)[-1]
        assert refused(check_leaks, "x", SEEN, used, sheet()) == (
            f"config: run x trains on session a/002 (a/train) and names it in `{key}` (a/mixed)"
        )


@pytest.mark.parametrize("column", ["video", "audio", "labels"])
def test_a_file_is_not_trained_on_and_evaluated(column):
    files = {"s002": {column: "one/f"}, "s006": {column: "one/../one/f"}}
    sets = sheet(**files, s001={column: "one/g"}, s005={column: "one/h"})
    assert refused(check_leaks, "x", SEEN, EVERY, sets) == (
        "config: run x trains on session a/002 and names a/006 in `evaluate` (a/test), "
        "but both are one/f"
    )
    check_leaks("x", SEEN, {"evaluate": ("a/val",)}, sets)
    check_leaks("x", {("a", "001"): "a/train"}, EVERY, sets)


def test_a_person_is_not_trained_on_and_evaluated():
    who = {"s002": {"identity": "P 7"}, "s004": {"identity": "p7"}, "s006": {"identity": "p  7"}}
    sets = sheet(**who, s001={"identity": "A"}, s005={"identity": "B"})
    assert refused(check_leaks, "x", SEEN, EVERY, sets) == (
        "config: run x trains on P 7 in session a/002, who is in session a/006 of `evaluate` (a/test)"
    )
    check_leaks("x", SEEN, {"validate": ("a/val",)}, sets)
    check_leaks("x", {("a", "001"): "a/train"}, EVERY, sets)


# ---- columns of test sessions ----


def test_test_sessions_share_no_column():
    check_mixture("x", ("a/train", "a/val", "a/test", "a/mixed"), sheet())  # train and val may
    turned = sheet({split: SPLITS[split] for split in ("test", "val", "train")})
    for sets in (sheet(), turned):  # in whatever order the sheet has them
        for evaluate in (("a/late",), ("a/val", "a/late")):
            assert refused(check_mixture, "x", evaluate, sets) == (
                "config: run x evaluates a/late, which has test session a/006 and val session a/004"
            )


def test_no_test_session_is_evaluated_that_selected_the_checkpoint():
    sets = sheet()
    of = {name: sets.keys(f"a/{name}") for name in ("val", "test", "late")}
    check_selection("x", of["val"], ("a/val", "a/test"), sets)  # of val sets the tables say it
    check_selection("x", of["test"], ("a/val", "a/train"), sets)
    check_selection("x", iter(()), ("a/test",), sets)
    for selected in (iter(of["test"]), of["late"], [("a", "005")]):
        assert refused(check_selection, "x", selected, ("a/val", "a/test"), sets) == (
            "config: run x selects its checkpoint by test session a/005 (`validate`) "
            "and evaluates it (a/test)"
        )
