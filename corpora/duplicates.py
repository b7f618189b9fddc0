"""Files of a sheet that are one file under two names: the same path, a link to it, or a copy.

A copy is recognised by its bytes. Files of different sizes are not read, of equal sizes three
blocks are compared before the whole files. What is alike for many people is never called a copy:
a file of less than LEAST_BYTES, labels of one value, digital silence.
"""

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from corpora.sheet import PATHS, Participant
from formats.ssi.stream import body_path
from formats.stream_files import stream_files
from store.sidecar import sha256 as file_sha256

BLOCK = 1 << 16
LEAST_BYTES = 256
# Text of one value and silence shrink to less than a hundredth, the labels of a person to a tenth.
SAYS_NOTHING = 50


@dataclass(frozen=True)
class Source:
    """A file of a row: the column that names it, and its path (of streams: the body of one of them).

    real : the path with links resolved; size in bytes, 0 where there is no such file.
    """

    participant: Participant
    column: str
    path: str
    real: str
    size: int


def sources(p: Participant) -> Iterator[Source]:
    """Recordings, streams and labels of a row; those that are not there by their path alone."""
    for column in PATHS:
        if path := getattr(p, column):
            yield _source(p, column, path)
    for header in stream_files(p.streams).values() if p.streams else ():
        yield _source(p, "streams", str(body_path(header)))


def _source(p: Participant, column: str, path: str) -> Source:
    real = os.path.realpath(path)
    return Source(p, column, path, real, os.stat(real).st_size if os.path.isfile(real) else 0)


class Files:
    """Sources that were added, found again under whatever name."""

    def __init__(self, added: Iterable[Source] = ()):
        self._by_path: dict[str, Source] = {}
        self._by_size: dict[int, list[Source]] = defaultdict(list)
        for source in added:
            self.add(source)

    def add(self, source: Source) -> None:
        self._by_path.setdefault(source.real, source)
        if source.size >= LEAST_BYTES:
            self._by_size[source.size].append(source)

    def find(self, source: Source) -> Source | None:
        """The first that was added with the same file or the same bytes; None without one."""
        if same := self._by_path.get(source.real):
            return same
        same_size = self._by_size.get(source.size, ())
        return next((other for other in same_size if _equal(source.real, other.real)), None)


def how(one: Source, other: Source) -> str:
    """How two sources are the same, as the end of a message."""
    a, b = os.path.normpath(one.path), os.path.normpath(other.path)
    if a == b:
        return f"both are {a}"
    same = "one file (a link)" if one.real == other.real else "equal byte by byte"
    return f"{a} and {b} are {same}"


def shared(people: Iterable[Participant]) -> list[str]:
    """What two rows that are not excluded have in common and should not: a sentence for each row.

    Labels and streams belong to one person. A video or sound may show several, in separate
    regions (`roi`) or channels (`audio_channel`).
    """
    files: dict[tuple, Files] = defaultdict(Files)
    found = []
    for p in people:
        if p.exclude:
            continue
        told: set[tuple[str, int]] = set()
        for source in sources(p):
            part = {"video": p.roi, "audio": p.audio_channel}.get(source.column)
            known = files[source.column, part]
            other = known.find(source)
            if other is None:
                known.add(source)
            elif other.participant is not p and (source.column, other.participant.line) not in told:
                told.add((source.column, other.participant.line))
                there = other.participant
                found.append(
                    f"rows {there.line} ({_name(there)}) and {p.line} ({_name(p)}) have the same"
                    f" {source.column}: {how(other, source)}"
                )
    return found


def _name(p: Participant) -> str:
    return f"{p.dataset}/{p.session} {p.role}"


def _equal(a: str, b: str) -> bool:
    one, other = ((p, os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in (a, b))
    sample = _sample(*one)
    return sample is not None and sample == _sample(*other) and _whole(*one) == _whole(*other)


@cache
def _sample(path: str, size: int, changed_ns: int) -> bytes | None:
    """Digest of the first, middle and last block; None where they say nothing of whose they are."""
    with open(path, "rb") as f:
        blocks = []
        for start in sorted({0, max(0, size // 2 - BLOCK // 2), max(0, size - BLOCK)}):
            f.seek(start)
            blocks.append(f.read(BLOCK))
    if all(_says_nothing(block) for block in blocks):
        return None
    return sha256(b"".join(blocks)).digest()


@cache
def _whole(path: str, size: int, changed_ns: int) -> str:
    return file_sha256(path)


def _says_nothing(block: bytes) -> bool:
    words = block.split()
    if len(words) > 1 and len(set(words)) == 1:
        return True
    return len(zlib.compress(block, 1)) * SAYS_NOTHING < len(block)
