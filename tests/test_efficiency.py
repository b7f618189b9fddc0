"""Efficiency table: sizes, limits of memory and time as printed cells, formats."""

import csv
import json
import math

import pytest

from evaluation.efficiency import (
    axis_table,
    build_parser,
    main,
    plan,
    to_csv,
    to_latex,
    to_markdown,
)
from evaluation.efficiency_cell import OUT_OF_MEMORY, QUANTITIES, Cell, measure, out_of_memory
from runtime import InputError
from training.settings import parse

DIMS = {"egemaps": 5, "clip_face": 6}
DIMS_TEXT = "egemaps=5,clip_face=6"
TINY = ["--lengths", "8", "16", "--persons", "2", "3", "--at-length", "8", "--batch", "2"]


def arguments(*more):
    return build_parser().parse_args(["--out-dir", "x", "--dims", DIMS_TEXT, *TINY, *more])


def cell(frames=8, persons=2, windows=2, model="mlp", **more):
    training = {"window": frames, "core": frames}
    settings = {"preset": "demo", "features": list(DIMS), "model": {"name": model}}
    canonical = parse(settings | {"training": training}).canonical()
    return Cell(model, frames, persons, windows, canonical, DIMS, **more)


def test_every_size_is_measured_once_in_whole_conversations():
    cells = plan(arguments("--models", "da_mamba", "mlp"))
    found = [(c.model, c.frames, c.persons, c.windows) for c in cells]
    sizes = [(8, 2, 2), (16, 2, 2), (8, 3, 3)]
    assert found == [(m, *size) for m in ("da_mamba", "mlp") for size in sizes]
    assert all(c.settings["training"]["window"] == c.frames for c in cells)


def test_a_run_writes_all_files(tmp_path):
    argv = ["--out-dir", str(tmp_path), "--dims", DIMS_TEXT, *TINY, "--models", "da_mamba"]
    assert main(argv) == 0
    with open(tmp_path / "efficiency.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["frames"], r["persons"], r["windows"]) for r in rows] == [
        ("8", "2", "2"),
        ("16", "2", "2"),
        ("8", "3", "3"),
    ]
    for row in rows:
        assert all(math.isfinite(float(row[q])) and float(row[q]) > 0 for q in QUANTITIES)
    short, long, three = (float(r["gflop"]) for r in rows)
    assert long == pytest.approx(2 * short, rel=0.1)  # linear in the length
    assert three > short
    assert float(rows[1]["training_mb"]) > 1.5 * float(rows[0]["training_mb"])
    text = (tmp_path / "efficiency.md").read_text()
    assert "Device" in text and rows[1]["training_mb"] in text
    assert (tmp_path / "efficiency.png").read_bytes()[:4] == b"\x89PNG"
    assert "\\bottomrule" in (tmp_path / "efficiency.tex").read_text()
    sidecar = json.loads((tmp_path / "efficiency.json").read_text())
    assert sidecar["file"] == "efficiency.csv" and sidecar["settings"]["lengths"] == [8, 16]


def test_out_of_memory_and_out_of_time_are_printed_cells():
    # 4000 x 400 x 11 inputs alone are 70 MB.
    poor = measure(cell(frames=4000, windows=400, memory_gb=0.05), 120)
    assert isinstance(poor["parameters"], int)
    assert poor["training_mb"] == poor["inference_ms"] == OUT_OF_MEMORY
    late = measure(cell(), 0.01)
    assert set(late.values()) == {"over 0.01 s"}


def test_a_defect_in_a_cell_is_no_result():
    broken = cell()
    broken.settings["training"]["window"] = -1
    with pytest.raises(RuntimeError, match="mlp, 8 frames, 2: InputError.*training.window"):
        measure(broken, 60)


def test_what_counts_as_out_of_memory():
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


def rows():
    numbers = {"parameters": 7, "gflop": 0.12346, "training_mb": 1.0, "step_ms": 2.346}
    full = {**numbers, "inference_ms": 0.5}
    gone = dict.fromkeys(QUANTITIES, OUT_OF_MEMORY) | {"parameters": 7}
    return [
        {"model": "da_mamba", "frames": 8, "persons": 2, "windows": 2, **full},
        {"model": "dat", "frames": 8, "persons": 2, "windows": 2, **gone},
    ]


def test_text_is_the_same_for_the_same_numbers():
    lines = to_csv(rows()).splitlines()
    assert lines[0] == "model,frames,persons,windows," + ",".join(QUANTITIES)
    assert lines[1] == "da_mamba,8,2,2,7,0.1235,1.00,2.35,0.50"
    assert lines[2] == "dat,8,2,2,7" + f",{OUT_OF_MEMORY}" * 4
    table = axis_table(rows(), "frames", 2)
    assert table[1] == [
        "8",
        "1.00",
        OUT_OF_MEMORY,
        table[1][3],
        OUT_OF_MEMORY,
        "0.50",
        OUT_OF_MEMORY,
    ]
    tables = {"Length": table}
    assert f"| {OUT_OF_MEMORY} |" in to_markdown(tables, ["a note"])
    assert f"& {OUT_OF_MEMORY} &" in to_latex(tables, ["100 %"])
    assert "100 \\%" in to_latex(tables, ["100 %"])


@pytest.mark.parametrize(
    "more, words",
    [
        (["--models", "da_mumba"], "da_mumba"),
        (["--batch", "0"], "--batch"),
        (["--lengths", "0"], "--lengths"),
        (["--persons", "0"], "--persons"),
        (["--memory-gb", "0"], "--memory-gb"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(more, words):
    with pytest.raises(InputError, match=words):
        plan(arguments(*more))
