"""What a challenge submission of each year looks like: folders, file names, required sessions.

The sessions are the challenge's own lists. The names are those of published submissions: 2023 and
2024 as the teams' code writes them, 2025 and 2026 as the baseline of 2026 and three teams do. Compare
them with the year's call before handing in.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from corpora.official import SPLITS
from runtime import InputError

# Sets of the challenge in the order of its README, and what it calls them.
CHALLENGE = {"noxi": "NoXi", "noxi-add": "NoXi (Add.)", "noxi-j": "NoXi-J", "mpiigi": "MPIIGI"}

DYAD = ("expert", "novice")
SEATS = tuple(f"subjectPos{i}" for i in (1, 2, 3, 4))


@dataclass(frozen=True)
class Folder:
    """One root folder of the zip: our dataset's name, and who must be in it.

    Empty `sessions`: the challenge names none in advance, those of the sheet are required.
    """

    dataset: str
    sessions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    empty_seats: tuple[tuple[str, str], ...] = ()

    def required(self) -> list[tuple[str, str]]:
        """(session, role) that a submission must hold."""
        return [(s, r) for s in self.sessions for r in self.roles if (s, r) not in self.empty_seats]


@dataclass(frozen=True)
class Layout:
    """A year's submission. weights: of the folders' scores in the combined score."""

    year: int
    suffix: str
    folders: dict[str, Folder]
    weights: dict[str, float]
    classes: tuple[str, ...] = ()
    label: str = "engagement.annotation.csv"

    def member(self, folder: str, session: str, role: str) -> str:
        """Path of one participant's file inside the zip."""
        return f"{folder}/{session}/{role}.{self.suffix}"

    def check_names(self, without: Iterable[str]) -> None:
        """InputError for the name of no folder of this year."""
        for name in without:
            if name not in self.folders:
                raise InputError(
                    f"without: {name} is no folder of a {self.year} submission",
                    f"folders: {', '.join(self.folders)}",
                )


BASE = Folder("noxi", SPLITS["noxi"]["test"], DYAD)
ADDITIONAL = Folder("noxi-add", SPLITS["noxi-add"]["test"], DYAD)
JAPAN = Folder("noxi-j", SPLITS["noxi-j"]["test"], DYAD)
GROUP = Folder("mpiigi", SPLITS["mpiigi"]["test"], SEATS, (("001", "subjectPos4"),))

_2023 = {"noxi": BASE}
_2024 = {"noxi-base": BASE, "noxi-additional": ADDITIONAL, "mpiigroupinteraction": GROUP}
_2025 = {**_2024, "noxi-j": JAPAN}
_2026 = {**_2025, "pinsoro-cc": Folder("pinsoro-cc"), "pinsoro-cr": Folder("pinsoro-cr")}

LAYOUTS = {
    2023: Layout(2023, "engagement.annotation.csv", _2023, {"noxi": 1.0}),
    2024: Layout(2024, "engagement.annotation.csv", _2024, dict.fromkeys(_2024, 1 / 3)),
    2025: Layout(2025, "engagement.prediction.csv", _2025, dict.fromkeys(_2025, 1 / 4)),
    # PInSoRo has a third of the weight; its two kinds of interaction share it.
    2026: Layout(
        2026,
        "engagement.prediction.csv",
        _2026,
        dict.fromkeys(_2025, 1 / 6) | {"pinsoro-cc": 1 / 6, "pinsoro-cr": 1 / 6},
        classes=("pinsoro-cc", "pinsoro-cr"),
    ),
}


def challenge_columns(columns: list[str], split: str) -> dict[str, str]:
    """Columns of the challenge's engagement sets, in its order -> title.

    One split only, so that val and test never share a table; val is named in the title. Raises
    InputError when there are none.
    """
    suffix = "" if split == "test" else f", {split}"
    own = {f"{d}/{split}": t + suffix for d, t in CHALLENGE.items() if f"{d}/{split}" in columns}
    if not own:
        raise InputError(
            f"challenge: {split}, but the table has none of "
            + ", ".join(f"{d}/{split}" for d in CHALLENGE),
            "evaluate on one of them with labels, or leave challenge out",
        )
    return own
