"""Computed files are what they were when written: checked against their sidecars' checksums.

Every computed file NAME.h5 or NAME.safetensors has a sidecar NAME.json with its sha256, with its
place below the results folder and with a checksum of its own (store/sidecar.py). A damaged, cut or
exchanged file is refused before anything reads it, whatever its own structure says; so is a file
that was exchanged together with its sidecar. A file without a sidecar is taken as it is: it was not
made by a job. Crops (NAME.crops.mkv) are vouched for by the sidecar of their faces file (NAME.json).
"""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from runtime.errors import InputError

CROPS = ".crops.mkv"
EARLIER = {"file", "sha256", "inputs", "settings", "fingerprint", "counts", "versions", "run"}
EARLIER_RUN = {"command", "commit", "device", "seconds"}


def record_digest(record: dict) -> str:
    """sha256 of everything a sidecar says, but for this digest itself (in its section `run`)."""
    record = json.loads(json.dumps(record))
    if isinstance(record.get("run"), dict):
        record["run"].pop("record_sha256", None)
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def read_sidecar(path: str | Path) -> dict:
    """The record of a sidecar; InputError when it is none (`file` and `sha256` are needed) or was
    changed after it was written."""
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
    run = record.get("run")
    stated = run.get("record_sha256") if isinstance(run, dict) else None
    try:
        # Sidecars of earlier versions have neither a place nor a digest of their own.
        earlier = (
            set(record) <= EARLIER
            and (not run or isinstance(run, dict))
            and set(run or ()) <= EARLIER_RUN
        )
        sound = earlier if stated is None else stated == record_digest(record)
    except RecursionError:
        sound = False
    if not sound:
        raise InputError(f"{path} is not what was written (its own sha256 differs)", cure)
    return record


def sidecar_of(path: str | Path) -> Path:
    """Where the sidecar of a computed file lies."""
    path = Path(path)
    return path.with_suffix("" if path.name.endswith(CROPS) else ".json").with_suffix(".json")


def check_intact(path: str | Path) -> None:
    """InputError unless the file has the checksum of its sidecar; no sidecar: nothing to check.

    A file is read once per process and version (inode, size, times of change).
    """
    sidecar = sidecar_of(path)
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
    name = Path(path).name
    beside = record.get("beside", {})
    if name.endswith(CROPS) and not beside:  # of an earlier version
        return
    if name not in (record["file"], *beside):
        raise InputError(f"{sidecar} is the sidecar of {record['file'][:80]}", cure)
    made, here = str(record.get("place") or ""), Path(os.path.abspath(path)).parts
    made = str(Path(made).with_name(name)) if made else ""
    here = here[-len(made.split("/")) :]
    if made and here[0] == made.split("/")[0] and "/".join(here) != made:
        raise InputError(f"{path} was made as {made[:200]}: exchanged, with its sidecar", cure)
    with open(path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != beside.get(name, record["sha256"]):
        raise InputError(
            f"{path} is not the file that its sidecar describes (sha256 differs): damaged or exchanged",
            cure,
        )
