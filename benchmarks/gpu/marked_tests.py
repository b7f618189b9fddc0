"""The tests that need CUDA: everything under tests/ with the marker `gpu`, and nothing else."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from benchmarks.gpu.record import Options, Record

TITLE = "Tests marked gpu"
SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]
MARK = "pytest.mark.gpu"


def files() -> list[str]:
    """Test files that use the marker; only these are imported."""
    found = sorted(p for p in (ROOT / "tests").glob("test_*.py") if MARK in p.read_text())
    return [str(p.relative_to(ROOT)) for p in found]


def run(record: Record, options: Options) -> None:
    """Each test file in a process of its own, so that one that cannot be imported stops no other."""
    record.table("By pytest", "test", "outcome", "s", "reason")
    for file in files():
        report = options.folder / f"{Path(file).stem}.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            file,
            "-m",
            "gpu",
            "-q",
            "-p",
            "no:cacheprovider",
        ]
        done = subprocess.run(
            [*command, f"--junitxml={report}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=options.seconds,
        )
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
        for case in cases:
            outcome, reason = "passed", ""
            for kind in ("failure", "error", "skipped"):
                if (found := case.find(kind)) is not None:
                    outcome, reason = kind, found.get("message") or ""
                    if kind != "skipped":
                        reason = (found.text or reason)[-1500:]
            name = f"{Path(file).stem}::{case.get('name')}"
            record.check(name, outcome in ("passed", "skipped"), reason)
            record.row(name, outcome, float(case.get("time") or 0), " ".join(reason.split())[:160])
        if done.returncode not in (0, 5) and not any(
            c.find("failure") is not None or c.find("error") is not None for c in cases
        ):
            record.check(file, False, (done.stdout + done.stderr)[-2000:])
        if options.device == "cuda":
            ran = [c for c in cases if c.find("skipped") is None]
            record.check(f"{file}: some test ran", bool(ran), "all were skipped")
