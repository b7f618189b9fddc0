"""The official splits of the MultiMediate engagement corpora, as the challenge lists them.

MPIIGroupInteraction has no training split. NoXi-Add is the second test set of 2024 (four languages
that training does not have).
"""


def _ids(text: str) -> tuple[str, ...]:
    """ "001 020-023" -> ("001", "020", "021", "022", "023")."""
    ids: list[str] = []
    for word in text.split():
        first, _, last = word.partition("-")
        ids += [f"{i:03d}" for i in range(int(first), int(last or first) + 1)]
    return tuple(ids)


SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    "noxi": {
        "train": _ids(
            "001 003 013 020-023 026-031 038-040 042-050 052 055-057 064 066-070 072 073 077"
        ),
        "val": _ids("007 009 011 014 058 062 063 074-076"),
        "test": _ids("002 006 012 018 024 025 032-037 078 080 083 084"),
    },
    "noxi-add": {"test": _ids("015-017 019 041 051 053 054 059-061 065")},
    "noxi-j": {
        "train": _ids("086 101-120 133-142"),
        "val": _ids("121-126 143-146"),
        "test": _ids("127-132 147-150"),
    },
    "mpiigi": {"val": _ids("008-010 026-028"), "test": _ids("001-006")},
}


def official_split(dataset: str, session: str) -> str | None:
    """The split of a session; None where the challenge does not have it."""
    for split, sessions in SPLITS.get(dataset, {}).items():
        if session in sessions:
            return split
    return None


def differences(found: dict[tuple[str, str], set[str]]) -> list[str]:
    """Sentences about sessions that are missing, or in another split than the challenge says.

    found : (dataset, split) -> sessions. Datasets without official splits say nothing.
    """
    lines = []
    for dataset in dict.fromkeys(d for d, _ in found):
        for split, sessions in SPLITS.get(dataset, {}).items():
            there = found.get((dataset, split), set())
            missing = [s for s in sessions if s not in there]
            if missing:
                lines.append(
                    f"{dataset}/{split}: {len(sessions) - len(missing)} of {len(sessions)} official"
                    f" sessions, missing {' '.join(missing)}"
                )
    for (dataset, split), sessions in found.items():
        for session in sorted(sessions):
            official = official_split(dataset, session)
            if dataset in SPLITS and official != split:
                belongs = f"officially in {official}" if official else "in no official split"
                lines.append(f"{dataset}/{session} lies in {split}, {belongs}")
    return lines
