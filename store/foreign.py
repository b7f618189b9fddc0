"""HDF5 files that no sidecar vouches for are read once by a child process first.

The HDF5 library trusts its own structures: some damaged or hostile files send it round in circles or
crash it, which no `except` can mend. In a child both end in a refusal. One child serves a process.
"""

import os
import select
import signal
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import h5py

PATIENCE_S = 4.0
BYTES_PER_S = 10e6  # further patience for large files
PIECE_BYTES = 1 << 24
# Deflate cannot pack more than 1032 to 1: a data set larger than that is a header's claim.
MOST_RATIO = 1040


def _read_everything(path: str) -> None:
    with h5py.File(path, "r") as file:

        def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
            dict(item.attrs)
            if not isinstance(item, h5py.Dataset) or not item.shape:
                return
            row_bytes = item.dtype.itemsize * item.size // max(1, len(item))
            rows = max(1, PIECE_BYTES // max(1, row_bytes))
            if item.size * item.dtype.itemsize > MOST_RATIO * os.path.getsize(path) + PIECE_BYTES:
                return  # a claim that is refused later, and would take long here
            for start in range(0, len(item), rows):
                item[start : start + rows]

        look("/", file)
        file.visititems(look)


class _Child:
    """A process that reads the files whose names it is sent, and answers one byte each."""

    def __init__(self):
        self.owner = os.getpid()
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(asked)
            os.close(answer)
            return
        try:
            os.close(self._ask)
            os.close(self._answers)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with os.fdopen(asked, "rb") as names:
                for name in names:
                    # An exception is no danger: the asking process meets it too.
                    with suppress(BaseException):
                        _read_everything(os.fsdecode(bytes.fromhex(name.decode())))
                    os.write(answer, b".")
        finally:
            os._exit(0)

    def read(self, path: str, patience_s: float) -> str:
        """ "" when the file can be read to its end or raises, else what happened."""
        os.write(self._ask, os.fsencode(path).hex().encode() + b"\n")
        ready, _, _ = select.select([self._answers], [], [], patience_s)
        if ready and os.read(self._answers, 1):
            return ""
        os.kill(self._pid, signal.SIGKILL)
        self.close()
        return f"no answer in {patience_s:.0f} s" if not ready else "the process crashed"

    def close(self) -> None:
        os.close(self._ask)
        os.close(self._answers)
        os.waitpid(self._pid, 0)


_child: _Child | None = None


@lru_cache(maxsize=1 << 16)
def _stops(path: str, size: int, version: tuple) -> str:
    global _child
    if _child is None or _child.owner != os.getpid():
        _child = _Child()
    how = _child.read(path, PATIENCE_S + size / BYTES_PER_S)
    if how:
        _child = None
    return how


def stops_the_library(path: Path) -> str:
    """How the HDF5 library fails on a file, "" if it does not; a file is read once per version."""
    about = path.stat()
    return _stops(str(path), about.st_size, (about.st_ino, about.st_mtime_ns))
