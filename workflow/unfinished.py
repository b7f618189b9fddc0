"""Outputs that a killed call had begun to make again and that are gone now.

Snakemake deletes the outputs of a job when it starts, and asks for a missing file only where a job
that must run needs it. So after a kill during, say, `faces` for a replaced video, its finished
descendants of the old video would pass for up to date. Snakemake's own marks of unfinished outputs
tell which files these are; asked for by `all`, they are made, and their descendants after them.
"""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from pathlib import Path

# Rules between the recordings and the tables; what `all` names itself needs no help.
RULES = (
    "probe", "faces", "weights", "clock", "labels", "align", "session", "statistics", "train", "predict", "score",
)  # fmt: skip
MARKS = Path(".snakemake") / "incomplete"
PIECE = 254  # of a name; Snakemake puts the rest into folders


def marked(folder: Path = MARKS) -> list[str]:
    """Paths of outputs that were begun and not finished, sorted; markers in Snakemake's coding."""
    found = set()
    for mark in folder.rglob("*") if folder.is_dir() else ():
        if mark.is_file():
            coded = "".join(part.removeprefix("@") for part in mark.relative_to(folder).parts)
            try:
                found.add(urlsafe_b64decode(coded.encode()).decode())
            except (NotBase64, UnicodeError):
                continue  # Snakemake keeps a few files of its own there
    return sorted(found)


def mark(path: str | Path, folder: Path = MARKS) -> None:
    """Mark an output as unfinished, as Snakemake does when its job starts."""
    coded = urlsafe_b64encode(str(path).encode()).decode()
    pieces = [coded[i : i + PIECE] for i in range(0, len(coded), PIECE)]
    place = folder.joinpath(*("@" + piece for piece in pieces[:-1]), pieces[-1])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{}")


def _wanted(rule: str, w: dict[str, str], study) -> bool:
    """Whether the study, as it is now, still makes this output."""
    if "role" in w:
        person = study.by_id.get((w["dataset"], w["session"], w["role"]))
        if person is None or (rule == "faces" and not person.video):
            return False
        if rule == "labels":
            return bool(person.labels)
    if "session" in w:
        key = (w["dataset"], w["session"])
        if key not in study.by_session:
            return False
        if rule in (*study.features, "align", "stream"):
            return w.get("feature", rule) in study.session_features(key)
    if "run" in w:
        run = study.runs.get(w["run"])
        if run is None or ("seed" in w and int(w["seed"]) not in run.seeds):
            return False
        if rule in ("train", "statistics"):
            return run.weights == run.name
        if "dataset" in w:
            return w["dataset"] in study.datasets(run)
    return True


def unfinished(rules, study, folder: Path = MARKS) -> list[str]:
    """Marked outputs that do not exist and that a rule of this study makes."""
    found = []
    names = (*RULES, *study.features, "stream")
    for path in marked(folder):
        if os.path.exists(path):
            continue
        for rule in rules:
            if rule.name in names and rule.is_producer(path):
                if _wanted(rule.name, dict(rule.get_wildcards(path)), study):
                    found.append(path)
                break
    return found
