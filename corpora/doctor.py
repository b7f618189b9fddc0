"""Known defects of the challenge's streams: found, named, and what the workflow does about each.

    python -m corpora doctor noxi ROOT        one row per finding, tab-separated

A finding is a fact about a file that would change numbers if nobody looked. Nothing is repaired on
disk. What is looked at: every header, the sizes of all bodies, at least SAMPLE_ROWS rows of every
body spread over its length (all where it has no more), and every label file.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from corpora.streams import Person, is_robot
from formats.label_csv import read_labels, read_lines
from formats.label_rate import fitting_rate
from formats.ssi import oddities
from formats.ssi.rate import (
    ABSURD,
    LENGTH_TOLERANCE_S,
    USUAL_RATE_TOLERANCE,
    USUAL_RATES_HZ,
    sound_length,
    true_rates,
)
from formats.ssi.stream import Stream, chunk_times, open_stream
from formats.stream_files import extent
from runtime import InputError, progress

LABEL_TOLERANCE_S = 2.0  # media.length_tolerance_s of config.yaml
# Rows of two streams that are compared bit by bit: every 8th of the first 320 s at 25 Hz, the same
# ones where the lengths differ by a few frames.
COMPARED = slice(0, 8000, 8)


@dataclass(frozen=True)
class Finding:
    """One row of the report; feature is "" for findings about a person."""

    dataset: str
    session: str
    role: str
    feature: str
    defect: str
    detail: str
    action: str

    COLUMNS = ("dataset", "session", "role", "feature", "defect", "detail", "action")

    def row(self) -> str:
        return "\t".join(getattr(self, c) for c in self.COLUMNS)


# What the workflow does, per defect.
ACTIONS = {
    "wrong_rate": "the inferred rate is used, logged",
    "unusual_rate": "used at its own rate",
    "pause": "rows get the times of their chunks, the pause is not valid",
    "shifted": "another recording: init excludes the person; without that the stream's job stops (max_length_difference)",
    "truncated": "the rows that exist are used, the missing end is not valid",
    "doubled": "the stream's job stops unless the feature's `doubled` says which microphone",
    "surplus_bytes": "the whole rows are used, logged",
    "other_dimension": "never mixed, a job that would stops: exclude these sessions or leave the feature out",
    "missing_feature": "a run that reads it is refused while this person is in its sets",
    "empty_seat": "init excludes the seat: no target, no partner",
    "no_labels": "no target; serves as a partner",
    "absurd_values": "these rows are not valid",
    "not_finite": "these rows are not valid",
    "zero_rows": "used as zeros",
    "leaking_columns": "the feature's `drop: 3` leaves them out (presets/multimediate.yaml has it), else warned of",
    "undetected_points": "the feature's `invalid_value: -1` makes them not valid (presets/multimediate.yaml has it), else warned of",
    "shared_audio": "used; the voice may be anybody's in the room",
    "label_length": "the label job stops: exclude the person, or raise media.length_tolerance_s",
    "label_rate": "the label job stops: set the rate of these labels (`labels.datasets`), or write nan for missing lines",
    "unreadable": "every job that opens it stops: repair or remove the file",
}


@dataclass(frozen=True)
class Kept:
    """What stays of a stream once it is closed: columns, and a digest of a person's sound."""

    dim: int
    sound: bytes | None


def examine(people: list[Person]) -> list[Finding]:
    """All findings of a corpus, in the order of its people."""
    findings: list[Finding] = []
    # As init has it: where nobody is heard, a silent person is no empty seat.
    sounding = {person.dataset for person in people if person.audio}
    kept: dict[str, dict[str, Kept]] = {}
    for person in progress(people, "doctor", unit="participants"):
        # Open for one person at a time: a corpus has more streams than a process may open files.
        streams: dict[str, Stream] = {}
        for feature, path in person.streams.items():
            try:
                streams[feature] = open_stream(path)
            except InputError as e:
                findings.append(_finding(person, feature, "unreadable", e.problem))
        findings += [_finding(person, *found) for found in _of_person(person, streams, sounding)]
        kept[person.name] = {f: Kept(s.header.dim, _digest(f, s)) for f, s in streams.items()}
    findings += _across(people, kept)
    place = {p.name: i for i, p in enumerate(people)}
    # Findings about a whole dataset come last.
    return sorted(
        findings, key=lambda f: place.get(f"{f.dataset}/{f.session} {f.role}", len(place))
    )


def _digest(feature: str, stream: Stream) -> bytes | None:
    """Of the COMPARED rows of a sound; None for pictures and for silence, which is alike everywhere."""
    if not feature.startswith("audio.") or not len(stream.values):
        return None
    rows = np.ascontiguousarray(stream.values[COMPARED])
    return sha256(rows).digest() if (rows != rows[0]).any() else None


def _finding(person: Person, feature: str, defect: str, detail: str) -> Finding:
    return Finding(
        person.dataset, person.session, person.role, feature, defect, detail, ACTIONS[defect]
    )


def _of_person(
    person: Person, streams: dict[str, Stream], sounding: set[str]
) -> Iterator[tuple[str, str, str]]:
    stated = {f: extent(s) for f, s in streams.items()}
    declared = {f: s.rows for f, s in stated.items()}
    rates = true_rates(stated)
    for feature, stream in streams.items():
        rate = rates[feature]
        if rate != stream.header.rate_hz:
            yield (
                feature,
                "wrong_rate",
                f"header {stream.header.rate_hz:g} Hz, inferred {rate:g} Hz",
            )
        elif all(abs(rate - usual) > USUAL_RATE_TOLERANCE * usual for usual in USUAL_RATES_HZ):
            yield feature, "unusual_rate", f"{rate:g} Hz, {declared[feature]} rows"
        yield from _chunks(feature, stream, rate)
        yield from _body(feature, stream)
        yield from _values(feature, stream)
    lengths = {f: stated[f].seconds(rates[f]) for f in streams if declared[f]}
    for feature, seconds in lengths.items():
        sound = sound_length(lengths, feature)
        if sound is not None and abs(seconds - sound) > LENGTH_TOLERANCE_S:
            yield feature, "shifted", f"{seconds:.2f} s, sound {sound:.2f} s"
    if streams and not person.audio and person.dataset in sounding:
        yield "", "empty_seat", "visual streams but no audio, others have some"
    elif person.labels is not None:
        yield from _labels(person, max(lengths.values(), default=None))
    elif person.split != "test" and not is_robot(person.dataset, person.role):
        yield "", "no_labels", f"no label file in {person.split}"


def _labels(person: Person, seconds: float | None) -> Iterator[tuple[str, str, str]]:
    """seconds : the recording's length, that of the longest stream (as media.probe has it)."""
    classes = person.dataset.startswith("pinsoro")  # words, 30 a second
    try:
        lines = len(read_lines(person.labels) if classes else read_labels(person.labels))
    except InputError as e:
        yield "", "unreadable", e.problem
        return
    rate = 30.0 if classes else 25.0
    if seconds is not None and (fits := fitting_rate(lines, rate, seconds)):
        detail = (
            f"{lines} lines, the longest stream lasts {seconds:.2f} s: {fits:.5g} Hz, not {rate:g}"
        )
        yield "", "label_rate", detail
    elif seconds is not None and abs(lines / rate - seconds) > LABEL_TOLERANCE_S:
        yield "", "label_length", f"{lines} lines, the longest stream lasts {seconds:.2f} s"


def _chunks(feature: str, stream: Stream, rate: float) -> Iterator[tuple[str, str, str]]:
    header = stream.header
    if header.pause_s:
        detail = f"{header.pause_s:.2f} s without rows, {len(header.chunks)} chunks"
        yield feature, "pause", detail
    if len(header.chunks) > 1:
        try:
            chunk_times(stream.path, header, len(stream.values), rate)
        except InputError as e:
            yield feature, "unreadable", e.problem


def _body(feature: str, stream: Stream) -> Iterator[tuple[str, str, str]]:
    rows, declared = len(stream.values), stream.header.declared_rows
    if declared and rows == 2 * declared:
        which = oddities.arrangement(stream.values)
        how = {
            oddities.SIDE_BY_SIDE: "side by side in rows of twice the width (left, right)",
            oddities.ONE_AFTER_THE_OTHER: "one after the other (first, second)",
            (): "in an order that the values do not tell",
        }[which]
        yield feature, "doubled", f"{rows} rows, header {declared}: two microphones {how}"
    elif rows < declared:
        yield feature, "truncated", f"{rows} of {declared} rows ({100 * rows / declared:.0f} %)"
    elif rows > declared or stream.surplus_bytes:
        detail = f"{rows} rows and {stream.surplus_bytes} bytes, header {declared}"
        yield feature, "surplus_bytes", detail


def _values(feature: str, stream: Stream) -> Iterator[tuple[str, str, str]]:
    rows = oddities.sample(stream.values)
    if not len(rows):
        return
    finite = np.isfinite(rows)
    share = 100 * (1 - finite.all(axis=1).mean())
    if share:
        yield feature, "not_finite", f"{share:.1f} % of the rows looked at"
    absurd = (np.abs(np.where(finite, rows, 0)) > ABSURD).any(axis=1)
    if absurd.any():
        largest = np.abs(rows[finite]).max()
        detail = f"up to {largest:.2g} in {100 * absurd.mean():.1f} % of the rows looked at"
        yield feature, "absurd_values", detail
    zero = (rows == 0).all(axis=1)
    if zero.any():
        yield feature, "zero_rows", f"{100 * zero.mean():.1f} % of the rows looked at are all zero"
    if oddities.leaks_time(feature, rows):
        yield feature, "leaking_columns", "frame counter, constant, time stamp"
    if share := oddities.undetected(feature, rows):
        yield feature, "undetected_points", f"{100 * share:.1f} % of the values are -1"


def _across(people: list[Person], kept: dict[str, dict[str, Kept]]) -> Iterator[Finding]:
    """What shows only in comparison: dimensions, missing features, one microphone for all."""
    dims: dict[str, Counter] = defaultdict(Counter)
    for streams in kept.values():
        for feature, stream in streams.items():
            dims[feature][stream.dim] += 1
    usual = {feature: counts.most_common(1)[0][0] for feature, counts in dims.items()}
    usual |= {f: d for f, d in KNOWN_DIMS.items() if f in usual}
    sound: dict[tuple[str, str, str, bytes], list[Person]] = defaultdict(list)
    for person in people:
        for feature, stream in kept[person.name].items():
            if stream.dim != usual[feature]:
                detail = f"{stream.dim} columns, elsewhere {usual[feature]}"
                yield _finding(person, feature, "other_dimension", detail)
            if stream.sound:
                sound[person.dataset, person.session, feature, stream.sound].append(person)
        for feature in sorted(dims):
            empty_seat = feature.startswith("audio.") and not person.audio
            if feature not in person.streams and not empty_seat:
                yield _finding(person, feature, "missing_feature", "others have it")
    for dataset in dict.fromkeys(p.dataset for p in people):
        there = {f for p in people if p.dataset == dataset for f in p.streams}
        if there & SINCE_2025:
            for feature in sorted(set(KNOWN_DIMS) - there):
                detail = "shipped since 2025, nobody here has it"
                yield Finding(
                    dataset,
                    "*",
                    "*",
                    feature,
                    "missing_feature",
                    detail,
                    ACTIONS["missing_feature"],
                )
    for (_, _, feature, _), persons in sound.items():
        if len(persons) > 1:
            roles = ", ".join(p.role for p in persons)
            for person in persons:
                yield _finding(person, feature, "shared_audio", f"the same for {roles}")


# Columns per frame as the challenge describes them (MM'24 to MM'26).
KNOWN_DIMS = {
    "audio.egemapsv2": 88,
    "audio.w2vbert2_embeddings": 1024,
    "audio.xlm_roberta_embeddings": 768,
    "clip": 512,
    "openface2": 714,
    "openface3": 21,
    "openpose": 139,
    "videomae": 1408,
    "dino": 768,
    "swin": 768,
}


# Features that came with the release of 2025: a tree that has one of them should have all.
SINCE_2025 = {"dino", "swin", "videomae"}


def report(findings: list[Finding]) -> str:
    """The table, a header line first; "nothing found" is a header line alone."""
    return "\n".join(["\t".join(Finding.COLUMNS), *(f.row() for f in findings), ""])
