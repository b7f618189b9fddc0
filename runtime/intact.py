"""Computed files are what they were when written: checked against their sidecars' checksums.

Every computed file NAME.h5 or NAME.safetensors has a sidecar NAME.json with its sha256
(store/sidecar.py). A damaged, cut or exchanged file is refused before anything reads it, whatever
its own structure says. A file without a sidecar is taken as it is: it was not made by a job.
"""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from runtime.errors import InputError


def read_sidecar(path: str | Path) -> dict:
    """The record of a sidecar; InputError when it is no sidecar (`file` and `sha256` are needed)."""
    path = Path(path)
    cure = f"delete it and run again, it will be remade: rm '{path}'"
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is no sidecar ({' '.join(str(e).split())[:100]})", cure) from e
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), str) for key in ("file", "sha256")
    ):
        raise InputError(f"{path} is no sidecar: it names no file and checksum", cure)
    return record


def check_intact(path: str | Path) -> None:
    """InputError unless the file has the checksum of its sidecar; no sidecar: nothing to check.

    A file is read once per process and version (inode, size, times of change).
    """
    path = Path(path)
    sidecar = path.with_suffix(".json")
    try:
        about, stated = os.stat(path), os.stat(sidecar)
    except OSError:
        return
    _check(
        str(path),
        str(sidecar),
        (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns),
        (stated.st_ino, stated.st_size, stated.st_mtime_ns, stated.st_ctime_ns),
    )


@lru_cache(maxsize=1 << 16)
def _check(path: str, sidecar: str, version: tuple, sidecar_version: tuple) -> None:
    record = read_sidecar(sidecar)
    cure = f"delete both and run again, they will be remade: rm '{path}' '{sidecar}'"
    if record["file"] != Path(path).name:
        raise InputError(f"{sidecar} is the sidecar of {record['file'][:80]}", cure)
    with open(path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != record["sha256"]:
        raise InputError(
            f"{path} is not the file that its sidecar describes (sha256 differs): damaged or exchanged",
            cure,
        )
