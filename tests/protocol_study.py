"""Studies of the official sessions: empty media, NoXi in three languages."""

import dataclasses

import pytest

from corpora.sheet import write_sheet
from corpora.synthetic_sheet import make_files, participants
from runtime import InputError
from workflow.config import load_config, merge
from workflow.study import Study

LANGUAGES = ("German", "French", "English")
RANDOM = {"random": 0, "directory": None, "repository": None, "revision": None}
FOLDS = {"of": "mpiigi/val", "by": "session"}
MPIIGI = {"train": ["mpiigi/val"], "evaluate": ["mpiigi/val", "mpiigi/test"]}


def spoken(person) -> str:
    return LANGUAGES[int(person.session) % 3] if person.dataset == "noxi" else ""


def make_corpora(root):
    """The official sessions, everybody with empty media, NoXi with languages -> root, rows."""
    rows = [dataclasses.replace(p, language=spoken(p)) for p in participants()]
    rows = [dataclasses.replace(p, labels="" if p.split == "test" else p.labels) for p in rows]
    make_files(rows, root)
    (root / "sessions.tsv").write_text(write_sheet(rows))
    return root, rows


def config(root, *presets, **over) -> dict:
    base = {
        "sessions": str(root / "sessions.tsv"),
        "media_root": str(root),
        "demo": None,
        "features": {f: {"weights": RANDOM} for f in ("wav2vec2", "clip_face")},
    }
    return merge(merge(load_config(presets), base), over)


def study(corpora, runs, sets=None, rows=("x",), **over) -> Study:
    return Study(
        config(
            corpora[0],
            runs=runs,
            sets=sets or {},
            tables={"main": {"runs": list(rows)}},
            **over,
        )
    )


def refused(corpora, runs, sets=None, **over) -> InputError:
    with pytest.raises(InputError) as e:
        study(corpora, runs, sets, **over)
    assert e.value.cure
    return e.value


def sessions(found) -> list[str]:
    return [session for _, session in found]
