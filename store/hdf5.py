"""Open and create HDF5 files so that a full disk or a damaged file ends in a clear error."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from runtime import InputError
from store.atomic import atomic_path
from store.foreign import MOST_RATIO, stops_the_library
from store.intact import check_intact

# What h5py, and whoever uses what it gives, raise on damaged content.
DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
SMALL_BYTES = 1 << 24
MOST_CHUNK_BYTES = 1 << 26
# Masks and index maps shrink as far as deflate can; what is larger than any of them does not.
USUAL_RATIO, UNPACKED_BYTES = 50, 1 << 28


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
        try:
            self._file.close()
        except OSError as e:
            self.error = self.error or OSError(e.errno, os.strerror(e.errno or 0), self.name)


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


def remake(path: str | os.PathLike) -> str:
    """The cure for a damaged file of ours."""
    return f"delete it and run again, it will be remade: rm '{path}'"


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what damaged content raises into an InputError naming the file."""
    try:
        yield
    except DAMAGE as e:
        raise InputError(
            f"{path} holds unreadable data ({' '.join(str(e).split())[:120]})", remake(path)
        ) from e


def members(file: h5py.Group, name: str) -> list[str]:
    """Names inside a group of a file; TypeError for a data set, whose values one by one take minutes."""
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise TypeError(f"/{name} is no group")
    return list(group)


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """Open an HDF5 file of ours read-only.

    Raises InputError naming the file and the cure when it is missing or damaged, when it is not the
    file that its sidecar describes, or claims more data than its bytes can hold.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file")
    check_intact(path)
    if not path.with_suffix(".json").exists() and (how := stops_the_library(path)):
        raise InputError(f"{path} cannot be read by the HDF5 library ({how})", remake(path))
    try:
        file = h5py.File(path, "r")
    except DAMAGE as e:
        raise InputError(
            f"{path} is not a readable HDF5 file ({' '.join(str(e).split())[:120]})", remake(path)
        ) from e
    try:
        with reading(path):
            _check_sizes(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_sizes(file: h5py.File, path: Path) -> None:
    """InputError for data that are not in the file, or are more than what is stored of them.

    A data set may say that its values lie in another file (external, virtual, by a link), that they
    are 10^12 though none is stored (fill value), that they shrink a thousandfold, or that a chunk of
    ten values is 4 GB: our writers do none of this.
    """

    def refuse(name: str, problem: str) -> None:
        raise InputError(f"{path}: /{name} {problem}", remake(path))

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            look_at_links(name, item)
            return
        if item.is_virtual or item.external:
            refuse(name, "keeps its values in another file")
        width = item.dtype.itemsize
        stored = item.id.get_storage_size()
        if item.compression:
            stored = min(stored * MOST_RATIO, max(stored * USUAL_RATIO, UNPACKED_BYTES))
        if (item.size or 0) * width > stored + SMALL_BYTES:
            refuse(name, f"claims {item.shape} values of {item.dtype}, more than the file holds")
        if item.chunks and math.prod(item.chunks) * width > MOST_CHUNK_BYTES:
            refuse(name, f"has chunks of {item.chunks} values of {item.dtype}")

    def look_at_links(name: str, group: h5py.Group) -> None:
        for key in group:
            link = group.get(key, getlink=True)
            # The index of a session (results/aligned/DATASET/SESSION.h5) names files of results/.
            if (
                isinstance(link, h5py.ExternalLink)
                and link.path == "/"
                and not os.path.isabs(link.filename)
                and os.path.normpath(link.filename).split("/").count("..") <= 2
            ):
                continue
            if not isinstance(link, h5py.HardLink):
                refuse(f"{name}/{key}".strip("/"), "is a link to another place")

    look_at_links("", file)
    file.visititems(look)
