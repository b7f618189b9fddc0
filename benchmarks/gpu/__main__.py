"""Does the program work on a GPU, and how fast? One command, at most eight minutes on one card.

    python -m benchmarks.gpu [--minutes 8] [--device cuda] [--quick] [--out results/gpu]
    python -m benchmarks.gpu --quick --device cpu          a rehearsal without a GPU

Needs no network, no Snakemake, neither opensmile nor mediapipe; inputs are generated. Every part runs
in a process of its own with a time limit and writes results/gpu/PART.json as it goes; the page
results/gpu/gpu.md is written anew after each. A part that cannot run says why, and the others still
run. Exit status 1 where a part failed.
"""

import argparse
import datetime
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.gpu import record as words
from benchmarks.gpu.page import page
from benchmarks.gpu.record import Options, Record
from runtime import InputError
from store.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]
CPU_SLACK = 5  # the parts' limits are a card's; a rehearsal may share its few cores
PARTS = (
    *("machine", "kernels", "architectures", "marked_tests", "scan"),
    *("cost", "training", "inference", "extraction", "lease"),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="all parts together (default: 8)")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--quick", action="store_true", help="a rehearsal: everything as small as it runs")
    add("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="some parts alone")
    add("--out", type=Path, default=Path("results/gpu"), help="folder (default: results/gpu)")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)  # in the process of a part
    add("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser


def work(name: str, args: argparse.Namespace) -> int:
    """One part, in its own process; exit status 1 where something failed."""
    part = importlib.import_module(f"benchmarks.gpu.{name}")
    record = Record(args.out / f"{name}.json", name, part.TITLE)
    with tempfile.TemporaryDirectory() as folder:
        threads = len(os.sched_getaffinity(0))
        options = Options(args.device, args.quick, args.seconds, Path(folder), threads)
        try:
            part.run(record, options)
            failed = bool(record.data["failures"])
            record.data["status"] = words.FAILED if failed else words.PASSED
        except Exception as e:
            record.data["status"] = words.ERROR
            reason = (
                "; ".join(e.lines()) if isinstance(e, InputError) else f"{type(e).__name__}: {e}"
            )
            record.data["reason"] = " ".join(reason.split())[:500]
            record.data["traceback"] = traceback.format_exc()[-6000:]
            print(record.data["traceback"], flush=True)
    record.write()
    return int(record.data["status"] != words.PASSED)


def run_part(name: str, args: argparse.Namespace, limit_s: float) -> dict:
    """Run one part in another process for at most `limit_s` seconds; returns its findings."""
    part = importlib.import_module(f"benchmarks.gpu.{name}")
    file = args.out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", args.device]
    command += ["--out", str(args.out.resolve()), "--seconds", str(limit_s)]
    command += ["--quick"] if args.quick else []
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    start, late = time.monotonic(), False
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        status, late = process.wait(), True
    found = json.loads(file.read_text()) if file.exists() else {"part": name, "title": part.TITLE}
    if late:
        found |= {"status": words.LATE, "reason": f"stopped after {limit_s:.0f} s"}
    elif found.get("status") in (None, words.RUNNING):
        found |= {"status": words.ERROR, "reason": f"its process ended with status {status}"}
    found |= {"seconds": round(time.monotonic() - start, 1), "limit_s": round(limit_s)}
    write_text(file, json.dumps(found, indent=1) + "\n")
    return found


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part:
        return work(args.part, args)
    deadline = time.monotonic() + 60 * args.minutes
    today = datetime.date.today().isoformat()
    command = shlex.join(["python", "-m", "benchmarks.gpu", *argv])
    parts: list[dict] = []
    for name in (n for n in PARTS if n in args.only):
        left = deadline - time.monotonic()
        module = importlib.import_module(f"benchmarks.gpu.{name}")
        print(f"== {module.TITLE}", flush=True)
        if left < 5:
            found = {"part": name, "title": module.TITLE, "status": words.LEFT_OUT}
            found["reason"] = f"the {args.minutes:g} minutes were used up"
        else:
            limit = module.SECONDS * (CPU_SLACK if args.device == "cpu" else 1)
            found = run_part(name, args, min(left, limit))
        parts.append(found)
        said = ": ".join(filter(None, [found["status"], found.get("reason")]))
        print(f"   {said} ({found.get('seconds', 0)} s)", flush=True)
        line = next((p["line"] for p in parts if "line" in p), f"device {args.device}")
        write_text(args.out / "gpu.md", page(line, command, today, parts))
    print(f"{args.out / 'gpu.md'}", flush=True)
    return int(any(p["status"] != words.PASSED for p in parts))


if __name__ == "__main__":
    sys.exit(main())
