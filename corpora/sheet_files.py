"""The files that a sheet names: found in another spelling of the same name, or what is wrong.

One name has several spellings that look the same on screen: macOS writes `é` as `e` and an accent
(Unicode NFD), others as one character (NFC); Windows writes `001\\expert.mp4`.
"""

import difflib
import glob
import os
import re
import unicodedata
from pathlib import Path


def composed(name: str) -> str:
    """The name in Unicode NFC, the spelling that names of datasets, sessions and roles have here."""
    return unicodedata.normalize("NFC", name)


def special_characters(text: str) -> str:
    """Characters that cannot be seen or told from a space, by number and name; "" without any."""
    odd = [
        c
        for c in dict.fromkeys(text)
        if c != " " and (not c.isprintable() or unicodedata.category(c) in ("Cf", "Zs"))
    ]
    return ", ".join(f"U+{ord(c):04X} {unicodedata.name(c, 'CONTROL')}" for c in odd)


def is_there(path: str, column: str) -> bool:
    """Whether the file exists; of the column streams, whether it begins the name of a stream."""
    if column != "streams":
        return os.path.exists(path)
    return any(Path(path).parent.glob(f"{glob.escape(os.path.basename(path))}.*.stream"))


def spelled_as_on_disk(path: str, root: str, column: str) -> str:
    """The path of a cell below root, in the spelling under which it exists; as it is if in none."""
    whole = os.path.join(root, path)
    if is_there(whole, column):
        return whole
    forms = [path, path.replace("\\", "/")] if not re.match(r"[A-Za-z]:", path) else [path]
    spellings = (unicodedata.normalize(norm, form) for form in forms for norm in ("NFC", "NFD"))
    found = (os.path.join(root, spelling) for spelling in (*forms, *spellings))
    return next((f for f in found if is_there(f, column)), whole)


def absence(path: str, column: str) -> tuple[str, str]:
    """What is wrong with a path of the sheet, and the cure; ("", "") where the file is there."""
    if column == "streams":
        if is_there(path, column):
            return "", ""
        return (
            "begins the name of no stream there",
            "write folder/role, as in train/001/expert for train/001/expert.clip.stream",
        )
    if os.path.isfile(path):
        return "", ""
    if os.path.isdir(path):
        return "is a folder, not a file", "name the file"
    return "does not exist", _cure(path)


def _cure(path: str) -> str:
    folder, name = os.path.split(path)
    if "://" in path or "file:/" in path:
        return "write a path of this machine, not a URL"
    if re.search(r"(^|/)[A-Za-z]:[\\/]", path):
        return "this is a path of Windows: write where the file lies on this machine"
    if "\\" in path:
        return "write / between folders, not a backslash"
    if name.endswith(("'", '"')):
        return "take the quotes away from the path"
    if "~" in path.split("/"):
        return "write the whole path: ~ is not replaced by the home folder"
    if special := special_characters(path):
        return f"the path holds {special}: copy the name from the folder"
    folder = folder or "."
    if not os.path.isdir(folder):
        return f"the folder {folder} does not exist: check media_root"
    close = difflib.get_close_matches(name, os.listdir(folder), n=1, cutoff=0.7)
    return f"did you mean '{close[0]}'?" if close else "correct the path or copy the file"
