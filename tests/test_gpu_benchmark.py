"""`make gpu`: a part that fails, hangs or cannot run is named, and the others still run."""

import json
import sys
import types

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import record as words
from benchmarks.gpu.page import page
from benchmarks.gpu.record import Record, text

OPTIONS = ("--quick", "--device", "cpu")


@pytest.fixture
def part(monkeypatch):
    """Puts a module with the given `run` in place of a part."""

    def make(name, run, seconds=20.0):
        module = types.ModuleType(f"benchmarks.gpu.{name}")
        module.TITLE, module.SECONDS, module.run = f"The part {name}", seconds, run
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return make


@pytest.fixture
def in_this_process(monkeypatch):
    """Parts run here, so that `part` reaches them; the time limit is not tried."""

    def run_part(name, args, limit_s):
        gpu.work(name, args)
        return json.loads((args.out / f"{name}.json").read_text()) | {"seconds": 0.0}

    monkeypatch.setattr(gpu, "run_part", run_part)


def test_every_part_stands_on_the_page(tmp_path, part, in_this_process):
    for name in gpu.PARTS:
        part(name, lambda record, options: record.note(f"seen with {options.device}"))
    assert gpu.main([*OPTIONS, "--out", str(tmp_path)]) == 0
    found = (tmp_path / "gpu.md").read_text()
    assert [line for line in found.splitlines() if line.startswith("## ")] == [
        f"## The part {name}" for name in gpu.PARTS
    ]
    assert found.count("seen with cpu") == len(gpu.PARTS)


def test_a_part_that_raises_or_fails_is_named_and_the_others_run(tmp_path, part, in_this_process):
    def wrong(record, options):
        record.table("Sizes", "frames", "ms")
        record.row(96, record.check("96 frames", 1 > 2, 0.25))

    part("kernels", lambda record, options: 1 / 0)
    part("scan", wrong)
    part("cost", lambda record, options: None)
    assert gpu.main([*OPTIONS, "--out", str(tmp_path), "--only", "kernels", "scan", "cost"]) == 1
    status = {
        n: json.loads((tmp_path / f"{n}.json").read_text()) for n in ("kernels", "scan", "cost")
    }
    assert [status[n]["status"] for n in status] == [words.ERROR, words.FAILED, words.PASSED]
    assert status["kernels"]["reason"] == "ZeroDivisionError: division by zero"
    found = (tmp_path / "gpu.md").read_text()
    assert "ZeroDivisionError" in found and "- 96 frames: 0.25" in found and "| 96 | NO |" in found


def test_a_part_without_time_is_left_out_with_the_reason(tmp_path, part, in_this_process):
    part("scan", lambda record, options: None)
    assert gpu.main([*OPTIONS, "--out", str(tmp_path), "--only", "scan", "--minutes", "0"]) == 1
    assert "left out: the 0 minutes were used up" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(("device", "limit"), [("cpu", 100.0), ("cuda", 20.0)])
def test_a_rehearsal_may_take_longer_than_a_card(tmp_path, part, monkeypatch, device, limit):
    asked = []

    def run_part(name, args, limit_s):
        asked.append(limit_s)
        return {"title": "", "status": words.PASSED}

    monkeypatch.setattr(gpu, "run_part", run_part)
    part("scan", None)
    assert gpu.main(["--device", device, "--out", str(tmp_path), "--only", "scan"]) == 0
    assert asked == [limit]


def test_a_real_part_in_its_process_and_one_stopped_at_its_limit(tmp_path):
    args = gpu.build_parser().parse_args([*OPTIONS, "--out", str(tmp_path)])
    found = gpu.run_part("machine", args, 60.0)
    assert found["status"] == words.PASSED and found["tables"]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in json.dumps(found)
    late = gpu.run_part("scan", args, 0.2)
    assert (late["status"], late["reason"]) == (words.LATE, "stopped after 0 s")


def test_findings_outlive_a_killed_part(tmp_path):
    record = Record(tmp_path / "scan.json", "scan", "Scan")
    record.table("Times", "frames", "ms")
    record.row(96, float("nan"))
    kept = json.loads((tmp_path / "scan.json").read_text())
    assert kept["status"] == words.RUNNING and kept["tables"][0]["rows"] == [[96, "nan"]]
    with pytest.raises(ValueError, match="3 cells"):
        record.row(1, 2, 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (1234.5, "1,234"),
        (0.123456, "0.1235"),
        (4096, "4,096"),
        (True, "True"),
    ],
)
def test_cells(value, shown):
    assert text(value) == shown


def test_the_page_escapes_what_would_break_a_table():
    part = {
        "title": "A|B",
        "status": words.PASSED,
        "tables": [{"title": "T", "header": ["a"], "rows": [["x|y"]]}],
    }
    found = page("card", "command", "2026-01-01", [part])
    assert r"x\|y" in found and r"A\|B" in found
