"""NoXi, NoXi-Add and corpora in the same layout.

    {train,val,test-base,test-additional}/<session>/<role>.video.mp4
                                                    <role>.audio.wav
                                                    <role>.engagement.annotation.csv   (train, val)
                                                    <role>.age|gender.annotation.csv
                                                    language.annotation.csv

at the root or in a folder ``noxi`` below it (NoXi-J: ``noxi-j``; PInSoRo: ``pinsoro``, with the
splits ``train-cc`` ... ``test-cr`` and ``task_engagement`` labels). ``test-base`` (or ``test``) is the
test split of `dataset`; ``test-additional`` that of `dataset`-add.
"""

import os
from collections.abc import Collection
from pathlib import Path

from corpora import metadata
from corpora.layout import child, folder, log, one_file, participant, subfolders
from corpora.sheet import Participant
from corpora.streams import BELOW, SCENE_ROLES, endings, label_names, splits_of
from formats.roles import roles_in
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from runtime import InputError


def find_base(root: Path, corpus: str = "noxi") -> Path | None:
    """The folder that holds the split folders: the root, or the corpus's own below it."""
    for base in (root, *(child(root, name) for name in BELOW[corpus])):
        if base is not None and any(child(base, name) for name in splits_of(corpus)):
            return base
    return None


def find(
    root: str | os.PathLike,
    base: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    dataset: str | None = None,
    corpus: str = "noxi",
    streamed: Collection[tuple[str, str, str]] = (),
) -> list[Participant]:
    """Rows of the media of a NoXi-like tree, paths relative to `base` (default: `root`).

    labels : a second tree of the same layout whose label files are used where `root` has none
        (the truth of test sessions). corpus : noxi, noxi-j or pinsoro; dataset : its name in the
        sheet. streamed : (dataset, session, role) of people who may come without a video, because
        they have streams. Raises InputError for a root that is no folder; [] where nothing is found.
    """
    root = folder(root)
    top = find_base(root, corpus)
    splits = splits_of(corpus)
    other = find_base(folder(labels), corpus) if labels is not None else None
    if labels is not None and other is None:
        raise InputError(
            f"{labels} holds none of the folders {', '.join(splits)}",
            "give the root of a tree that mirrors the recordings",
        )
    base = root if base is None else Path(base)
    rows = []
    for name, (suffix, split) in splits.items() if top is not None else ():
        part = child(top, name)
        truth = child(other, name) if other is not None else None
        for session in subfolders(part) if part is not None else []:
            place = (dataset or corpus) + suffix
            rows += _session(session, truth, place, split, base, corpus, streamed)
    return rows


def _session(
    session: Path,
    truth: Path | None,
    dataset: str,
    split: str,
    base: Path,
    corpus: str,
    streamed: Collection[tuple[str, str, str]],
) -> list[Participant]:
    names = [p.name for p in sorted(session.iterdir()) if p.is_file()]
    label_suffixes = label_names(corpus)
    roles = roles_in(names, endings(corpus))
    language = metadata.language(session)
    rows = []
    for role in roles:
        if role in SCENE_ROLES:
            continue
        video = one_file(session, f"{role}.video", VIDEO_SUFFIXES)
        if video is None and (dataset, session.name, role) not in streamed:
            log.warning("%s/%s %s has no video: no row", dataset, session.name, role)
            continue
        places = [session, *([truth / session.name] if truth is not None else [])]
        found = (one_file(p, f"{role}.", (name,)) for p in places for name in label_suffixes)
        rows.append(
            participant(
                dataset,
                split,
                session.name,
                role,
                video,
                one_file(session, f"{role}.audio", AUDIO_SUFFIXES),
                next((label for label in found if label is not None), None),
                base,
                language=language,
                gender=metadata.gender(session, role),
                age=metadata.age(session, role),
            )
        )
    return rows
