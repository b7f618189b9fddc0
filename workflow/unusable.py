"""Whose sound is silent, and in whose video no face was found (`media.unusable` of the config).

The digest and the end of `predict` say it; `common.smk` refuses at the start what was found by an
earlier call.
"""

import json
from pathlib import Path

from corpora.sheet import Participant
from runtime import InputError
from store import layout
from store.intact import sidecar_of

SOUND = "the sound is silent, so no feature of it is valid"
FACE = "no face was found in any frame, so no feature of the face is valid"


def _read(path: Path, section: str, key: str) -> object:
    """An entry of a job's record; None where there is no such record (its own job says why)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))[section][key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_faceless(results: str, p: Participant) -> bool:
    """Whether the participant's face track exists and holds no face."""
    place = sidecar_of(layout.faces(results, *p.id))
    return _read(place, "counts", "valid") == 0


def unusable(study) -> list[str]:
    """A sentence per participant and kind, of what has been looked into so far."""
    lines = []
    for p in study.participants:
        place = Path(layout.probe(study.results, *p.id))
        found = [SOUND] if _read(place, "audio", "silent") is True else []
        found += [FACE] if is_faceless(study.results, p) else []
        lines += [f"{p.dataset}/{p.session} {p.role}: {what}" for what in found]
    return lines


def refuse_faceless(study) -> None:
    """InputError for a face track that exists and holds no face, where the config refuses such.

    A track that is yet to be made is refused by its own job, silent sound by `media.probe`.
    """
    if study.config["media"]["unusable"] != "refuse":
        return
    for p in study.participants:
        if is_faceless(study.results, p):
            raise InputError(
                f"{p.video}: no face was found in any frame, and the config says media.unusable: refuse",
                f"exclude the participant (line {p.line} of {study.config['sessions']}: exclude = yes),"
                f" set its `roi` to where the person is, or set media.unusable to invalid",
            )
