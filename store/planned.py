"""The list of outputs that a call is going to make again, in the working folder.

`workflow.unfinished` says what it is for; `store.verify` adds the damaged files that it deletes.
"""

import os
from pathlib import Path

PLANNED = Path(".snakemake") / "planned.txt"


def planned(file: Path = PLANNED) -> list[str]:
    """Paths written down as to be made that do not exist, sorted."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return sorted(path for path in set(lines) if not os.path.exists(path))


def plan(paths, file: Path = PLANNED) -> None:
    """Add paths to those written down; the file is replaced at once or not at all."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_text("".join(f"{path}\n" for path in sorted({*lines, *map(str, paths)})), "utf-8")
    os.replace(new, file)
