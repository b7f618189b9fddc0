"""Open and create HDF5 files so that a full disk or a damaged file ends in a clear error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from runtime import InputError
from store.atomic import atomic_path


class _GuardedFile:
    """Binary file that keeps the first write error and then pretends to write.

    The HDF5 library cannot give up on a full disk: it retries its cached writes while closing,
    prints each failure and may crash the process. So it is told that all is well, and the error is
    raised afterwards, by `check`.
    """

    def __init__(self, path: Path, name: str):
        self.name = name
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  closed by close()
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def _guard(self, action, *args):
        if self.error is None:
            try:
                return action(*args)
            except OSError as e:
                self.error = OSError(e.errno, os.strerror(e.errno or 0), self.name)
        return None

    def _write_all(self, data) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            view = view[self._file.write(view) :]

    def write(self, data) -> int:
        self._guard(self._write_all, data)
        return len(data)

    def truncate(self, size: int) -> int:
        self._guard(self._file.truncate, size)
        return size

    def readinto(self, buffer) -> int:
        return self._file.readinto(buffer) if self.error is None else len(buffer)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if self.error is not None and whence == 0:
            return offset
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._guard(self._file.close)


class NewFile:
    """An HDF5 file being written: `file` is the h5py.File, `check()` raises a pending write error."""

    def __init__(self, file: h5py.File, guard: _GuardedFile):
        self.file = file
        self.check = guard.check


@contextmanager
def create_hdf5(path: str | os.PathLike) -> Iterator[NewFile]:
    """Write `path` beside and rename it at the end; nothing is left behind after an error.

    Raises OSError (ENOSPC, EFBIG ...) when the disk is full, at the latest at the end of the block.
    """
    with atomic_path(path) as temporary:
        guard = _GuardedFile(temporary, os.fspath(path))
        try:
            file = h5py.File(guard, "w")
            try:
                yield NewFile(file, guard)
            finally:
                file.close()
        finally:
            guard.close()
        guard.check()


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """Open an HDF5 file of ours read-only; InputError names the file and the cure if it is damaged."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file")
    try:
        return h5py.File(path, "r")
    except OSError as e:
        raise InputError(
            f"{path} is not a readable HDF5 file ({' '.join(str(e).split())[:120]})",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e
