"""Where the files of the results lie: as docs/outputs.md says, and backwards from a path."""

import re
from pathlib import Path

import pytest

from store import layout

ROOT = Path(__file__).resolve().parent.parent
TABLE = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/outputs.md").read_text(), re.M)
DOCUMENTED = {path for cell in TABLE for path in re.findall(r"`([^`]*/[^`]*)`", cell)}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("probe", ".json"), ("faces", ".h5"), ("faces", ".crops.mkv"), ("labels", ".h5"), ("clock", ".json"),
        ("quality", ".json"), ("quality_table", ".tsv"), ("statistics", ".h5"), ("model", ".safetensors"),
        ("history", ".jsonl"), ("predictions", ".h5"), ("scores", ".json"), ("features", "/{feature}.h5"),
        ("aligned", "/{feature}.h5"), ("weights", "/{feature}.json"), ("curves", "/{dataset}.png"),
        ("curves", "/training.png"), ("table", "/ccc.csv"),
    ],
)  # fmt: skip
def test_paths_are_those_of_the_docs(name, suffix):
    assert layout.patterns("R")[name] + suffix in {f"R/{path}" for path in DOCUMENTED}


def test_every_file_lies_below_the_results():
    found = layout.patterns("some/re.sults")
    assert all(path.startswith("some/re.sults/") for path in found.values())
    assert layout.crops("R", "d", "s", "r") == "R/faces/d/s/r.crops.mkv"
    assert layout.table("R", "t", "challenge", "tex") == "R/tables/t/challenge.tex"
    assert layout.submission("R", "run") in {f"R/{p.format(run='run')}" for p in DOCUMENTED if "submission" in p}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/data/results/features/noxi/001/expert/flow.h5", "features/noxi/001/expert/flow.h5"),
        ("/data/results/aligned/noxi/001/expert/flow.h5", "aligned/noxi/001/expert/flow.h5"),
        ("/r/runs/da/seed-1/model.safetensors", "runs/da/seed-1/model.safetensors"),
        ("/r/runs/da/statistics.h5", "runs/da/statistics.h5"),
        ("/r/applied/talks/predictions/da.seed-1/001.h5", "predictions/da.seed-1/001.h5"),
        ("/r/predictions/da/seed-1/noxi.h5", "predictions/da/seed-1/noxi.h5"),
        ("/elsewhere/flow.h5", ""),
        ("/features/flow.h5", ""),
    ],
)
def test_the_place_of_a_path(path, place):
    assert layout.place_of(path) == place
