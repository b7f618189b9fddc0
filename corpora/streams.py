"""The challenge's precomputed features: which streams every participant has, in all its layouts.

NoXi family (MM'23 to MM'26), at the root or one folder below it:
    {train,val,test,test-base,test-additional}/<session>/<role>.[video.]<feature>.stream
MPIIGroupInteraction (MM'25 on), flat as in MM'24, and as the organisers' scripts have it:
    mpii/MultiMediate25/<split>/precomputed-features-<split>/<session>/subjectPosN.<feature>.stream
    MPIIGI/<session>/subjectPosN.<feature>.stream
    mpiigroupinteraction/<split>/<session>/subjectPosN.<feature>.stream
PInSoRo:
    {train,val,test}-{cc,cr}/<session>/<role>.<feature>.stream

`video.clip` of 2024 and `clip` of 2025 are one feature: the infix `video.` is left out of names.
Views of the scene (role `s`, PInSoRo's `env`) are no participants.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from corpora.layout import LABELS, child, folder, subfolders
from corpora.official import official_split
from formats.roles import roles_in
from formats.stream_files import ENDINGS, SUFFIX, split_name
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError

SCENE_ROLES = ("s", "env")
ROBOT = "yellow"  # in PInSoRo's sessions of a child with a robot
CORPORA = ("noxi", "noxi-j", "mpiigi", "pinsoro")
# Folder of a split -> (what the dataset's name gets, split).
NOXI_SPLITS = {
    "train": ("", "train"),
    "val": ("", "val"),
    "test": ("", "test"),
    "test-base": ("", "test"),
    "test-additional": ("-add", "test"),
}
NOXI_J_SPLITS = {split: ("", split) for split in ("train", "val", "test")}
PINSORO_SPLITS = {
    f"{split}-{kind}": (f"-{kind}", split)
    for kind in ("cc", "cr")
    for split in ("train", "val", "test")
}
# PInSoRo has two labels per person, and raters' duplicates (`*.1.annotation.csv`).
LABEL_NAMES = {"pinsoro": ("task_engagement.annotation.csv", "social_engagement.annotation.csv")}
BELOW = {
    "noxi": ("noxi",),
    "noxi-j": ("noxi-j", "noxij"),
    "pinsoro": ("pinsoro",),
    "mpiigi": ("mpii", "mpiigi", "mpiigroupinteraction", "multimediate25"),
}


@dataclass(frozen=True)
class Person:
    """Somebody in a session: streams is feature -> header file; labels the engagement csv."""

    dataset: str
    split: str
    session: str
    role: str
    streams: dict[str, Path] = field(default_factory=dict)
    labels: Path | None = None
    folder: Path | None = None

    @property
    def prefix(self) -> Path | None:
        """What the person's stream files have in common: `<folder>/<role>`."""
        return None if self.folder is None else self.folder / self.role

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.session} {self.role}"

    @property
    def audio(self) -> list[str]:
        return [f for f in self.streams if f.startswith("audio.")]


def splits_of(corpus: str) -> dict[str, tuple[str, str]]:
    """Folder of a split -> (what the dataset's name gets, split); not for mpiigi."""
    return {"pinsoro": PINSORO_SPLITS, "noxi-j": NOXI_J_SPLITS}.get(corpus, NOXI_SPLITS)


def label_names(corpus: str) -> tuple[str, ...]:
    """What a label file is called after the role, the first that is there counts."""
    return LABEL_NAMES.get(corpus, (LABELS,))


def endings(corpus: str) -> tuple[str, ...]:
    """How the names of a participant's media and labels end, after the role."""
    kinds = ("", ".video"), ("", ".audio")
    if corpus != "mpiigi":
        kinds = (".video",), (".audio",)
    media = (
        f"{kind}{suffix}"
        for names, suffixes in zip(kinds, (VIDEO_SUFFIXES, AUDIO_SUFFIXES), strict=True)
        for kind in names
        for suffix in suffixes
    )
    return (*media, *(f".{name}" for name in label_names(corpus)))


def is_robot(dataset: str, role: str) -> bool:
    """Whether this participant is the robot of PInSoRo's child-robot sessions."""
    return dataset.endswith("-cr") and role == ROBOT


def find_people(root: str | os.PathLike, corpus: str) -> list[Person]:
    """Every participant with a stream, sorted; scene views left out.

    Raises InputError when the tree holds none, or two files of one feature.
    """
    people = people_below(root, corpus)
    if not people:
        raise InputError(
            f"{root} holds no <session>/<role>.<feature>.stream in the layout of {corpus}",
            "give the folder that holds the splits (train, val ...) or the one above it",
        )
    return people


def people_below(root: str | os.PathLike, corpus: str) -> list[Person]:
    """As `find_people`, but [] for a tree without streams."""
    if corpus not in CORPORA:
        raise ValueError(f"{corpus!r} is none of {', '.join(CORPORA)}")
    places = list(_sessions(folder(root), corpus))
    return [p for place in places for p in _people(*place, corpus)]


def _bases(root: Path, corpus: str) -> Iterator[Path]:
    yield root
    for name in BELOW[corpus]:
        below = child(root, name)
        if below is not None:
            yield from _bases(below, corpus)


def _sessions(root: Path, corpus: str) -> Iterator[tuple[Path, Path | None, str, str]]:
    """(folder of a session's streams, folder of its labels, dataset, split)."""
    splits = splits_of(corpus)
    for base in _bases(root, corpus):
        if corpus == "mpiigi":
            yield from _mpiigi(base)
            continue
        for name, (suffix, split) in splits.items():
            part = child(base, name)
            for session in subfolders(part) if part is not None else []:
                yield session, session, corpus + suffix, split


def _mpiigi(base: Path) -> Iterator[tuple[Path, Path | None, str, str]]:
    for split in ("train", "val", "test"):
        part = child(base, split)
        if part is None:
            continue
        features = child(part, f"precomputed-features-{split}")
        labels = child(part, f"engagement-annotations-{split}")
        # The organisers' own tree has the sessions directly in the split, as NoXi does.
        sessions = subfolders(features or part)
        if features is None:
            sessions = [s for s in sessions if next(s.glob(f"subjectPos*{SUFFIX}"), None)]
        for session in sessions:
            beside = labels / session.name if labels is not None else session
            yield session, beside, "mpiigi", split
    for session in subfolders(base):  # MM'24: sessions directly below, of both splits
        split = official_split("mpiigi", session.name)
        if split is not None:
            yield session, session, "mpiigi", split


def _people(
    session: Path, label_folder: Path | None, dataset: str, split: str, corpus: str
) -> list[Person]:
    files = sorted(p for p in session.iterdir() if p.is_file())
    beside = label_folder.iterdir() if label_folder and label_folder.is_dir() else ()
    names = [p.name for p in (*files, *beside)]
    roles = roles_in(names, (*ENDINGS, *endings(corpus)))
    streams: dict[str, dict[str, Path]] = {}
    for path in files:
        if not path.name.endswith(SUFFIX):
            continue
        role, feature = split_name(path.name, roles)
        if not role or not feature or role in SCENE_ROLES:
            continue
        other = streams.setdefault(role, {}).setdefault(feature, path)
        if other != path:
            raise InputError(
                f"{session} holds both {other.name} and {path.name}",
                "keep one of them: they are the same feature under the names of two years",
            )
    names = label_names(corpus)
    people = []
    for role, found in sorted(streams.items()):
        places = [f / f"{role}.{name}" for f in (session, label_folder) if f for name in names]
        labels = next((path for path in places if path.is_file()), None)
        people.append(Person(dataset, split, session.name, role, found, labels, session))
    return people
