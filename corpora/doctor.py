"""Known defects of the challenge's streams: found, named, and what the workflow does about each.

    python -m corpora doctor noxi ROOT        one row per finding, tab-separated

A finding is a fact about a file that would change numbers if nobody looked. Nothing is repaired on
disk. What is looked at: every header, the sizes of all bodies, and VALUE_ROWS rows of every body
spread over its length.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np

from corpora.label_csv import read_lines
from corpora.stream_files import rows_stated
from corpora.streams import Person
from runtime import InputError, progress
from ssi.rate import (
    ABSURD,
    LENGTH_TOLERANCE_S,
    USUAL_RATE_TOLERANCE,
    USUAL_RATES_HZ,
    sound_length,
    true_rates,
)
from ssi.stream import Stream, open_stream

VALUE_ROWS = 2000
OPENFACE_DIM = 714
LEAKING = 3  # frame counter, constant, time stamp


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
    "wrong_rate": "the inferred rate is used",
    "unusual_rate": "used at its own rate",
    "shifted": "excluded by init, else refused, unless told otherwise: another recording",
    "truncated": "the rows that exist are used, the missing end is invalid",
    "doubled": "refused unless told which half to take",
    "surplus_bytes": "the whole rows are used",
    "other_dimension": "never mixed: exclude these sessions or leave the feature out",
    "missing_feature": "a run that reads it cannot use this person",
    "empty_seat": "no target; masked as a partner",
    "no_labels": "no target; serves as a partner",
    "absurd_values": "these rows are invalid",
    "not_finite": "these rows are invalid",
    "leaking_columns": "the first three columns are dropped",
    "undetected_points": "-1 is invalid, not a coordinate",
    "shared_audio": "used; the voice may be anybody's in the room",
    "label_length": "the label job stops: exclude the person, or raise length_tolerance_s",
    "unreadable": "repair or remove the file",
}


def examine(people: list[Person]) -> list[Finding]:
    """All findings of a corpus, in the order of its people."""
    findings: list[Finding] = []
    opened: dict[tuple[str, str, str], dict[str, Stream]] = {}
    for person in progress(people, "doctor", unit="participants"):
        streams: dict[str, Stream] = {}
        for feature, path in person.streams.items():
            try:
                streams[feature] = open_stream(path)
            except InputError as e:
                findings.append(_finding(person, feature, "unreadable", e.problem))
        opened[person.dataset, person.session, person.role] = streams
        findings += [_finding(person, *found) for found in _of_person(person, streams)]
    findings += _across(people, opened)
    place = {p.name: i for i, p in enumerate(people)}
    # Findings about a whole dataset come last.
    return sorted(
        findings, key=lambda f: place.get(f"{f.dataset}/{f.session} {f.role}", len(place))
    )


def _finding(person: Person, feature: str, defect: str, detail: str) -> Finding:
    return Finding(
        person.dataset, person.session, person.role, feature, defect, detail, ACTIONS[defect]
    )


def _of_person(person: Person, streams: dict[str, Stream]) -> Iterator[tuple[str, str, str]]:
    declared = {f: rows_stated(s) for f, s in streams.items()}
    rates = true_rates({f: (declared[f], s.header.rate_hz) for f, s in streams.items()})
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
        yield from _body(feature, stream)
        yield from _values(feature, stream)
    true_lengths = {f: declared[f] / rates[f] for f in streams if declared[f]}
    for feature, seconds in true_lengths.items():
        sound = sound_length(true_lengths, feature)
        if sound is not None and abs(seconds - sound) > LENGTH_TOLERANCE_S:
            yield feature, "shifted", f"{seconds:.2f} s, sound {sound:.2f} s"
    if streams and not person.audio:
        yield "", "empty_seat", "visual streams but no audio"
    elif person.split != "test" and person.labels is None:
        yield "", "no_labels", f"no label file in {person.split}"
    elif person.labels is not None and true_lengths:
        lines = len(read_lines(person.labels))
        rate = 30.0 if person.dataset.startswith("pinsoro") else 25.0
        seconds = median(true_lengths.values())
        if abs(lines / rate - seconds) > LENGTH_TOLERANCE_S:
            yield "", "label_length", f"{lines} lines, streams last {seconds:.2f} s"


def _body(feature: str, stream: Stream) -> Iterator[tuple[str, str, str]]:
    rows, declared = len(stream.values), stream.header.declared_rows
    if declared and rows == 2 * declared:
        yield feature, "doubled", f"{rows} rows, header {declared}: two microphones"
    elif rows < declared:
        yield feature, "truncated", f"{rows} of {declared} rows ({100 * rows / declared:.0f} %)"
    elif rows > declared or stream.surplus_bytes:
        detail = f"{rows} rows and {stream.surplus_bytes} bytes, header {declared}"
        yield feature, "surplus_bytes", detail


def _values(feature: str, stream: Stream) -> Iterator[tuple[str, str, str]]:
    step = max(1, len(stream.values) // VALUE_ROWS)
    sample = np.asarray(stream.values[::step], np.float64)
    if not len(sample):
        return
    finite = np.isfinite(sample)
    share = 100 * (1 - finite.all(axis=1).mean())
    if share:
        yield feature, "not_finite", f"{share:.1f} % of the rows looked at"
    absurd = (np.abs(np.where(finite, sample, 0)) > ABSURD).any(axis=1)
    if absurd.any():
        largest = np.abs(sample[finite]).max()
        detail = f"up to {largest:.2g} in {100 * absurd.mean():.1f} % of the rows looked at"
        yield feature, "absurd_values", detail
    if feature == "openface2" and stream.header.dim == OPENFACE_DIM:
        counter = sample[:, 0]
        if len(sample) > 1 and (np.diff(counter) > 0).all():
            yield feature, "leaking_columns", "frame counter, constant, time stamp"
    if feature == "openpose" and (sample == -1).any():
        detail = f"{100 * (sample == -1).mean():.1f} % of the values are -1"
        yield feature, "undetected_points", detail


def _across(
    people: list[Person], opened: dict[tuple[str, str, str], dict[str, Stream]]
) -> Iterator[Finding]:
    """What shows only in comparison: dimensions, missing features, one microphone for all."""
    dims: dict[str, Counter] = defaultdict(Counter)
    having: set[str] = set()
    for streams in opened.values():
        for feature, stream in streams.items():
            dims[feature][stream.header.dim] += 1
            having.add(feature)
    usual = {feature: counts.most_common(1)[0][0] for feature, counts in dims.items()}
    usual |= {f: d for f, d in KNOWN_DIMS.items() if f in usual}
    sound: dict[tuple[str, str, str, bytes], list[Person]] = defaultdict(list)
    for person in people:
        streams = opened[person.dataset, person.session, person.role]
        for feature, stream in streams.items():
            if stream.header.dim != usual[feature]:
                detail = f"{stream.header.dim} columns, elsewhere {usual[feature]}"
                yield _finding(person, feature, "other_dimension", detail)
            if feature.startswith("audio.") and len(stream.values):
                head = np.ascontiguousarray(stream.values[: 4 * VALUE_ROWS]).tobytes()
                sound[person.dataset, person.session, feature, head].append(person)
        for feature in sorted(having):
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
