"""Nobody is evaluated, or selected on, whom a model has seen in training."""

from runtime import InputError
from workflow.sets import Key, Sets


def check_leaks(
    run: str, seen: dict[Key, str], used: dict[str, tuple[str, ...]], sets: Sets
) -> None:
    """InputError for a session or a person that is trained on and evaluated or validated.

    seen : training sessions -> the set they are named by; used : key of the run -> its sets.
    """
    people = sets.identities(seen)
    for key, names in used.items():
        for name in names:
            keys = sets.keys(name)
            for session in keys:
                if session in seen:
                    raise InputError(
                        f"config: run {run} trains on session {'/'.join(session)} ({seen[session]}) and names it in `{key}` ({name})",
                        "take it out of one of them, or split the set with `folds`",
                    )
            for person, session in sets.identities(keys).items():
                if person in people:
                    raise InputError(
                        f"config: run {run} trains on {person} in session {'/'.join(people[person])}, who is in session {'/'.join(session)} of `{key}` ({name})",
                        "keep the sessions of one person together (column `identity` of the sheet)",
                    )
