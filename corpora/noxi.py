"""NoXi, NoXi-Add and corpora in the same layout.

    {train,val,test-base,test-additional}/<session>/<role>.video.mp4
                                                    <role>.audio.wav
                                                    <role>.engagement.annotation.csv   (train, val)
                                                    <role>.age|gender.annotation.csv
                                                    language.annotation.csv

at the root or in a folder ``noxi`` below it. ``test-base`` (or ``test``) is the test split of
`dataset`; ``test-additional`` that of `dataset`-add.
"""

import os
from pathlib import Path

from corpora import metadata
from corpora.layout import (
    LABELS,
    child,
    folder,
    log,
    one_file,
    participant,
    subfolders,
)
from corpora.sheet import Participant
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError

# folder -> (suffix of the dataset's name, split)
SPLITS = {
    "train": ("", "train"),
    "val": ("", "val"),
    "test": ("", "test"),
    "test-base": ("", "test"),
    "test-additional": ("-add", "test"),
}


def find_base(root: Path) -> Path | None:
    """The folder that holds the split folders: the root, or ``noxi`` below it."""
    for base in (root, child(root, "noxi"), child(root, "noxi-j")):
        if base is not None and any(child(base, name) for name in SPLITS):
            return base
    return None


def find(
    root: str | os.PathLike,
    base: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    dataset: str = "noxi",
) -> list[Participant]:
    """Rows of a NoXi tree, paths relative to `base` (default: `root`).

    labels : a second tree of the same layout whose label files are used where `root` has none
        (the truth of test sessions). Raises InputError when nothing is found.
    """
    root = folder(root)
    top = find_base(root)
    if top is None:
        raise InputError(
            f"{root} holds none of the folders {', '.join(SPLITS)}",
            "give the folder that holds train/, val/ ..., or the one above `noxi`",
        )
    other = find_base(folder(labels)) if labels is not None else None
    if labels is not None and other is None:
        raise InputError(
            f"{labels} holds none of the folders {', '.join(SPLITS)}",
            "give the root of a tree that mirrors the recordings",
        )
    base = root if base is None else Path(base)
    rows = []
    for name, (suffix, split) in SPLITS.items():
        part = child(top, name)
        truth = child(other, name) if other is not None else None
        for session in subfolders(part) if part is not None else []:
            rows += _session(session, truth, dataset + suffix, split, base)
    if not rows:
        raise InputError(
            f"{top} holds no <session>/<role>.video.mp4", "check that the recordings were unpacked"
        )
    return rows


def _session(session: Path, truth: Path | None, dataset: str, split: str, base: Path):
    names = [p.name for p in sorted(session.iterdir()) if p.is_file()]
    marks = (".video.", ".audio.", f".{LABELS}")
    roles = dict.fromkeys(n.split(".")[0] for n in names if any(m in n for m in marks))
    language = metadata.language(session)
    rows = []
    for role in roles:
        video = one_file(session, f"{role}.video", VIDEO_SUFFIXES)
        if video is None:
            log.warning("%s/%s %s has no video: no row", dataset, session.name, role)
            continue
        label = one_file(session, f"{role}.", (LABELS,))
        if label is None and truth is not None:
            label = one_file(truth / session.name, f"{role}.", (LABELS,))
        rows.append(
            participant(
                dataset,
                split,
                session.name,
                role,
                video,
                one_file(session, f"{role}.audio", AUDIO_SUFFIXES),
                label,
                base,
                language=language,
                gender=metadata.gender(session, role),
                age=metadata.age(session, role),
            )
        )
    return rows
