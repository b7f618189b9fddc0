"""Nobody is evaluated, or selected on, whom a model has seen in training."""

from collections.abc import Iterable

from corpora.duplicates import Files, Source, how
from runtime import InputError
from workflow.sets import Key, Sets


def check_leaks(
    run: str, seen: dict[Key, str], used: dict[str, tuple[str, ...]], sets: Sets
) -> None:
    """InputError for a session, recording or person that is trained on and evaluated or validated.

    seen : training sessions -> the set they are named by; used : key of the run -> its sets.
    """
    people, files = sets.identities(seen), Files(sets.files(seen))
    for key, names in used.items():
        for name in names:
            keys = sets.keys(name)
            for session in keys:
                if session in seen:
                    raise InputError(
                        f"config: run {run} trains on session {'/'.join(session)} ({seen[session]}) and names it in `{key}` ({name})",
                        "take it out of one of them, or split the set with `folds`",
                    )
            for source in sets.files(keys):
                if same := files.find(source):
                    raise InputError(
                        f"config: run {run} trains on session {_session(same)} and names {_session(source)} in `{key}` ({name}), but {how(same, source)}",
                        "correct the paths of these sessions in the sheet, or take one of them out",
                    )
            for person, (_, session) in sets.identities(keys).items():
                if person in people:
                    called, there = people[person]
                    raise InputError(
                        f"config: run {run} trains on {called} in session {'/'.join(there)}, who is in session {'/'.join(session)} of `{key}` ({name})",
                        "keep the sessions of one person together (column `identity` of the sheet): in one set, or in one fold as `folds: {by: 5}` does",
                    )


def _session(source: Source) -> str:
    return f"{source.participant.dataset}/{source.participant.session}"


def check_mixture(run: str, evaluate: tuple[str, ...], sets: Sets) -> None:
    """InputError for a set whose score would pool test sessions with others: a column of neither."""
    for name in evaluate:
        of = {sets.split(session): session for session in sets.keys(name)}
        if "test" in of and len(of) > 1:
            other = next(split for split in of if split != "test")
            raise InputError(
                f"config: run {run} evaluates {name}, which has test session {'/'.join(of['test'])} and {other} session {'/'.join(of[other])}",
                "declare a set for each split and name both: test never shares a column",
            )


def check_selection(
    run: str, selected: Iterable[Key], evaluate: tuple[str, ...], sets: Sets
) -> None:
    """InputError for a test session by which a run's checkpoint is selected, and which it evaluates.

    selected : sessions whose score selects a checkpoint of the run. Of a val set the tables say it.
    """
    chosen = set(selected)
    for name in evaluate:
        for session in sets.keys(name):
            if session in chosen and sets.split(session) == "test":
                raise InputError(
                    f"config: run {run} selects its checkpoint by test session {'/'.join(session)} (`validate`) and evaluates it ({name})",
                    "validate on other sessions, or take training.selection: best_val out",
                )
