"""Write beside, then rename: a killed job leaves no half-written file under the real name."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success rename it to `path`, else remove it.

    `suffix` is appended to the temporary name (some writers choose the format by it). What a killed
    writer of the same path left behind is removed first. The path is locked as HDF5 locks files:
    write HDF5 with store.hdf5.create_hdf5, which goes through a file object.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.name[:80]}."
    _remove_abandoned(path.parent, start)
    fd, name = tempfile.mkstemp(prefix=start, suffix=suffix or ".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        yield temporary
        os.replace(temporary, path)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # Many writers do not say what they were writing.
            raise OSError(e.errno, os.strerror(e.errno), os.fspath(path)) from e
        raise
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, start: str) -> None:
    """Remove temporary files that no living process holds the lock of."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(start) or not entry.is_file(follow_symlinks=False):
            continue
        with suppress(OSError):
            fd = os.open(entry.path, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
            finally:
                os.close(fd)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file (UTF-8, no newline translation) atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as f:
        f.write(text)
