"""The sheet of a challenge download: people with media, with precomputed streams, or with both.

Folders decide splits and sessions; what differs from the official list is logged. A person who has
streams but no sound, in a dataset whose others have one, is an empty seat and excluded; so is who
has a stream of another length than the sound (NoXi-J 147 to 150). Who has no label stays as a partner. In PInSoRo's child-robot sessions the robot (`yellow`) is never a target.
"""

import dataclasses
import os
from collections import Counter
from pathlib import Path

from corpora import metadata, mpiigi, noxi
from corpora.layout import NO_SOUND, child, folder, log, one_file, participant, relative
from corpora.official import differences
from corpora.sheet import Participant
from corpora.streams import Person, is_robot, label_names, people_below
from formats.stream_files import shifted
from media.container import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from media.probe import stated_length
from runtime import InputError

LAYOUTS = {
    "noxi": "{train,val,test-base,test-additional}/<session>/<role>.{video.mp4,NAME.stream}",
    "noxi-j": "{train,val,test}/<session>/<role>.{video.mp4,NAME.stream}",
    "mpiigi": "<split>/{originalAudioVideo,precomputed-features}-<split>/<session>/subjectPosN.*",
    "pinsoro": "{train,val,test}-{cc,cr}/<session>/<role>.{video.mp4,NAME.stream}",
}


def find(
    root: str | os.PathLike,
    base: str | os.PathLike | None = None,
    labels: str | os.PathLike | None = None,
    dataset: str | None = None,
    corpus: str = "noxi",
) -> list[Participant]:
    """Rows of a download, paths relative to `base` (default: `root`).

    labels : a second tree of the same layout whose label files are used where `root` has none.
    dataset : name instead of `corpus`. Raises InputError when nothing is found.
    """
    root, dataset = folder(root), dataset or corpus
    base = root if base is None else Path(base)
    people = [_named(p, corpus, dataset) for p in people_below(root, corpus)]
    keys = {(p.dataset, p.session, p.role): p for p in people}
    if corpus == "mpiigi":
        media = mpiigi.find(root, base, labels, dataset, streamed=keys)
    else:
        media = noxi.find(root, base, labels, dataset, corpus, streamed=keys)
    if not media and not people:
        raise InputError(
            f"{root} holds nothing in the layout {LAYOUTS[corpus]}",
            "give the folder that holds the splits (train, val ...) or one above it, unpacked",
        )
    sounding = {p.dataset for p in people if p.audio}
    rows = [
        _with_streams(row, keys.pop((row.dataset, row.session, row.role), None), base, sounding)
        for row in media
    ]
    for person in keys.values():
        row = _of_streams(person, base, labels, corpus)
        rows.append(_with_streams(row, person, base, sounding))
    rows.sort(key=_place(rows, people))
    if corpus == "pinsoro":
        rows = [_without_robot(row) for row in rows]
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        found.setdefault((row.dataset, row.split), set()).add(row.session)
    for line in differences(found):
        log.warning("%s", line)
    for line in _streams_found(people):
        log.info("%s", line)
    return rows


def _streams_found(people: list[Person]) -> list[str]:
    """One sentence per dataset: which streams there are, and how many participants have each."""
    lines = []
    for dataset in dict.fromkeys(p.dataset for p in people):
        counts = Counter(f for p in people if p.dataset == dataset for f in p.streams)
        there = ", ".join(f"{feature} {counts[feature]}" for feature in sorted(counts))
        lines.append(f"{dataset}: participants who have the stream: {there}")
    return lines


def _named(person: Person, corpus: str, dataset: str) -> Person:
    return dataclasses.replace(person, dataset=dataset + person.dataset.removeprefix(corpus))


def _place(rows: list[Participant], people: list[Person]):
    """Sort key: sets in the order in which they were found, then session and role."""
    pairs = [(r.dataset, r.split) for r in rows] + [(p.dataset, p.split) for p in people]
    order = {"train": 0, "val": 1, "test": 2}
    datasets = list(dict.fromkeys(d for d, _ in pairs))
    return lambda r: (datasets.index(r.dataset), order[r.split], r.session, r.role)


def _of_streams(
    person: Person, base: Path, labels: str | os.PathLike | None, corpus: str
) -> Participant:
    """Row of somebody without media in their own tree; media may lie beside the streams (MM'24)."""
    place, role = person.folder, person.role
    stems = (role, f"{role}.video"), (role, f"{role}.audio")
    video, audio = (
        next((f for stem in names if (f := one_file(place, stem, suffixes)) is not None), None)
        for names, suffixes in zip(stems, (VIDEO_SUFFIXES, AUDIO_SUFFIXES), strict=True)
    )
    label = person.labels or _other_labels(person, labels, corpus)
    places = [place, *([label.parent] if label else [])]
    return participant(
        person.dataset,
        person.split,
        person.session,
        role,
        video,
        audio,
        label,
        base,
        language=next(filter(None, (metadata.language(p) for p in places)), ""),
        gender=next(filter(None, (metadata.gender(p, role) for p in places)), ""),
        age=next(filter(None, (metadata.age(p, role) for p in places)), None),
    )


def _other_labels(person: Person, labels: str | os.PathLike | None, corpus: str) -> Path | None:
    """Label file of a person in the second tree."""
    if labels is None:
        return None
    other = folder(labels)
    if corpus == "mpiigi":
        top = mpiigi.find_base(other)
        part = mpiigi.annotations(top, person.split)
    else:
        top = noxi.find_base(other, corpus)
        part = child(top, person.folder.parent.name) if top is not None else None
    if part is None:
        return None
    found = (one_file(part / person.session, f"{person.role}.", (n,)) for n in label_names(corpus))
    return next((f for f in found if f is not None), None)


def _with_streams(
    row: Participant, person: Person | None, base: Path, sounding: set[str]
) -> Participant:
    """The row with what the streams add: their place, labels beside them, whether a seat is empty."""
    if person is None:
        return row
    name = f"{row.dataset}/{row.session} {row.role}"
    row = dataclasses.replace(
        row,
        streams=relative(person.prefix, base),
        labels=row.labels or relative(person.labels, base),
    )
    if person.audio and row.exclude and row.exclude_reason == NO_SOUND:
        # Somebody who is heard in the streams is no empty seat; a mute video cannot be used.
        log.warning("%s: the video has no sound, only the streams are used", name)
        return dataclasses.replace(row, video="", exclude=False, exclude_reason="")
    silent = not person.audio and not row.audio and not row.video
    if silent and row.dataset in sounding:
        log.warning("%s has no audio: excluded", name)
        return dataclasses.replace(row, exclude=True, exclude_reason=NO_SOUND)
    media = "" if person.audio else row.audio or row.video
    try:
        length = stated_length(base / media) if media else 0.0  # 0: the header does not say
        odd = shifted(person.prefix, length or None)
    except InputError as e:
        # The row stays: the doctor names the file, and so does the job that reads it.
        log.warning("%s", e.problem)
        return row
    if odd and not row.exclude:
        stream, (seconds, sound) = next(iter(odd.items()))
        reason = f"{stream} lasts {seconds:.2f} s, the sound {sound:.2f} s: another recording"
        log.warning("%s: %s: excluded", name, reason)
        return dataclasses.replace(row, exclude=True, exclude_reason=reason)
    return row


def _without_robot(row: Participant) -> Participant:
    if is_robot(row.dataset, row.role) and row.labels:
        log.info("%s/%s yellow is the robot: a partner, no target", row.dataset, row.session)
        return dataclasses.replace(row, labels="")
    return row
