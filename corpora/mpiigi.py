"""MPIIGroupInteraction as the challenge ships it: media and labels in parallel trees.

    mpii/MultiMediate25/<split>/originalAudioVideo-<split>/<session>/subjectPosN.{mp4,wav}
    mpii/MultiMediate25/<split>/engagement-annotations-<split>/<session>/subjectPosN.engagement.annotation.csv

The root may be the folder above ``mpii``, ``mpii`` or ``MultiMediate25`` itself. The role ``s``
(view of the scene) is no participant. An empty seat has no media (no row), or a picture of the
chair without sound (a row that is excluded, so that the sheet shows it).
"""

import os
from collections.abc import Collection
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
from corpora.streams import endings
from formats.roles import roles_in
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError

SPLITS = ("train", "val", "test")
SCENE = "s"


def _media(base: Path, split: str) -> Path | None:
    part = child(base, split)
    return child(part, f"originalAudioVideo-{split}") if part is not None else None


def annotations(base: Path | None, split: str) -> Path | None:
    """Folder of a split's label files below `find_base`; None when it is not there."""
    part = child(base, split) if base is not None else None
    return child(part, f"engagement-annotations-{split}") if part is not None else None


def find_base(root: Path) -> Path | None:
    """The folder that holds the splits, by its media or annotation folders."""
    candidates = [root]
    for names in (("MultiMediate25",), ("mpii",), ("mpii", "MultiMediate25")):
        place: Path | None = root
        for name in names:
            place = child(place, name) if place is not None else None
        if place is not None:
            candidates.append(place)
    for base in candidates:
        if any(_media(base, s) or annotations(base, s) for s in SPLITS):
            return base
    return None


def find(
    root: str | os.PathLike,
    base: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    dataset: str | None = None,
    streamed: Collection[tuple[str, str, str]] = (),
) -> list[Participant]:
    """Rows of the media of an MPIIGI tree, paths relative to `base` (default: `root`).

    labels : a second tree of the same layout whose label files are used where `root` has none.
    streamed : (dataset, session, role) of people who may come without a video, because they have
        streams. Raises InputError for a root that is no folder; [] where nothing is found.
    """
    root = folder(root)
    top = find_base(root)
    other = find_base(folder(labels)) if labels is not None else None
    if labels is not None and other is None:
        raise InputError(
            f"{labels} holds no <split>/engagement-annotations-<split>",
            "give the root of a tree that mirrors the recordings",
        )
    base = root if base is None else Path(base)
    rows = []
    for split in SPLITS if top is not None else ():
        media = _media(top, split)
        trees = [t for t in (annotations(top, split), annotations(other, split)) if t is not None]
        for session in subfolders(media) if media is not None else []:
            places = [session, *(t / session.name for t in trees)]
            rows += _session(session, places, dataset or "mpiigi", split, base, streamed)
    return rows


def _session(
    session: Path,
    places: list[Path],
    dataset: str,
    split: str,
    base: Path,
    streamed: Collection[tuple[str, str, str]],
) -> list[Participant]:
    names = [p.name for p in sorted(session.iterdir()) if p.is_file()]
    roles = roles_in(names, endings("mpiigi"))
    rows = []
    for role in roles:
        if role == SCENE or not role:
            continue
        video = one_file(session, role, VIDEO_SUFFIXES)
        if video is None and (dataset, session.name, role) not in streamed:
            log.warning("%s/%s %s has no video: no row", dataset, session.name, role)
            continue
        found = (one_file(place, f"{role}.", (LABELS,)) for place in places)
        rows.append(
            participant(
                dataset,
                split,
                session.name,
                role,
                video,
                one_file(session, role, AUDIO_SUFFIXES),
                next((label for label in found if label is not None), None),
                base,
                language=metadata.language(session),
                gender=metadata.gender(session, role),
                age=metadata.age(session, role),
            )
        )
    return rows
