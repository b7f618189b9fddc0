"""Text files from elsewhere are looked at before they are read: a file of a size that makes sense."""

import os
import stat
from pathlib import Path

from runtime import InputError

# A label file of 30 h has 30 MB. What is larger, a sparse file say, would be read into memory whole.
MOST_BYTES = 1 << 26


def check_plain(path: str | Path, most: int = MOST_BYTES) -> None:
    """InputError for a pipe, a device or a folder (reading could wait forever), and above `most` bytes.

    Raises OSError when there is nothing under this name.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise InputError(f"{path} is not a file", "name a file: no folder, no pipe, no device")
    if about.st_size > most:
        raise InputError(
            f"{path} has {about.st_size} bytes, more than such a file can have ({most})",
            "name the right file, or get it again",
        )


def read_plain(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file that passes `check_plain`."""
    check_plain(path, most)
    return Path(path).read_bytes()
