"""Provenance beside every computed file: NAME.h5 -> NAME.json.

Everything but the section ``run`` depends on input, settings and code alone, so equal work gives
equal bytes there; ``run`` holds what differs between two runs (wall time, device, date).
Ids and paths are relative to the results folder or the corpus; no user name, no absolute path.
"""

import hashlib
import json
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from store.atomic import write_text
from store.intact import record_digest
from store.layout import place_of

REPOSITORY = Path(__file__).resolve().parent.parent


def sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_identity(path: str | Path) -> dict[str, object]:
    """name (last two parts of the path), size in bytes and sha256 of an input file."""
    path = Path(path)
    return {
        "name": "/".join(path.parts[-2:]).lstrip("/"),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
    }


@cache
def commit() -> str:
    """Git commit of the program, with ``-dirty`` when the tree differs; ``unknown`` outside git."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return head + ("-dirty" if status else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(packages: list[str]) -> dict[str, str]:
    """Installed versions of the named distributions (absent ones are left out)."""
    found = {}
    for name in sorted(packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def relative_command(command: str) -> str:
    """The command with every absolute path cut to its last two parts: no folder of a machine."""
    words = []
    for word in shlex.split(command):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value.startswith("/"):
            value = "/".join(Path(value).parts[-2:]).lstrip("/")
        words.append(f"{option}{equals}{value}" if equals else (option or value))
    return shlex.join(words)


def write_sidecar(
    output: str | Path,
    *,
    inputs: dict[str, str | Path],
    settings: dict[str, object],
    fingerprint: str,
    packages: list[str],
    command: str,
    counts: dict[str, object] | None = None,
    seconds: float | None = None,
    device: str = "cpu",
    beside: Sequence[str | Path] = (),
) -> Path:
    """Write the sidecar of `output`; returns its path (`output` with the suffix .json).

    inputs maps a role ("video", "weights" ...) to the file read; counts holds facts about the
    content (rows, valid rows ...); seconds is the wall time of the work; beside: files of the same
    folder that the job wrote with `output`.
    """
    output = Path(output)
    record = {
        "file": output.name,
        "place": place_of(output),
        "sha256": sha256(output),
        "inputs": {role: file_identity(path) for role, path in sorted(inputs.items())},
        "settings": settings,
        "fingerprint": fingerprint,
        "counts": counts or {},
        "versions": versions(packages),
        "run": {
            "command": relative_command(command),
            "commit": commit(),
            "device": device,
            "seconds": None if seconds is None else round(seconds, 3),
        },
    }
    if beside:
        record["beside"] = {Path(path).name: sha256(path) for path in beside}
    record["run"]["record_sha256"] = record_digest(record)
    path = output.with_suffix(".json")
    write_text(path, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return path
