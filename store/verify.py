"""Whether the files of a results folder are still what the jobs wrote."""

from pathlib import Path

from runtime import InputError
from store.intact import check_intact, sidecar_of
from store.planned import PLANNED, plan

SUFFIXES = (".h5", ".safetensors", ".mkv")


def damaged(folder: Path) -> tuple[int, list[tuple[Path, InputError]]]:
    """(files with a sidecar, those that are not what it describes with the reason)."""
    checked, found = 0, []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        if not sidecar_of(path).exists():
            continue
        checked += 1
        try:
            check_intact(path)
        except InputError as e:
            found.append((path, e))
    return checked, found


def verify(folder: Path, remove: bool = False) -> str:
    """Check every file below `folder` that has a sidecar; what was found, in a sentence.

    `remove` deletes damaged files with their sidecars; a workflow that runs in this working folder
    then makes them again, and what depends on them. Raises InputError for a missing folder, and,
    unless they are removed, for damaged files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "give the results folder")
    checked, found = damaged(folder)
    if found and not remove:
        raise InputError(
            f"{len(found)} of {checked} files are not what their sidecars describe, the first: "
            f"{found[0][1].problem}",
            f"delete them, the next run makes them again: python -m store verify --remove {folder}",
        )
    gone = dict.fromkeys(each for path, _ in found for each in (path, sidecar_of(path)))
    if PLANNED.parent.is_dir():
        plan(gone)
    for path in gone:
        path.unlink()
    names = "".join(f"\n  {path.relative_to(folder)}" for path, _ in found)
    return f"{checked} files checked, {len(found)} removed{names}"
