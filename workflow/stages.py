"""The stages of the workflow and the version of the values that each computes.

    python -m workflow.stages show                     # stages, versions, state of the golden values
    python -m workflow.stages raise extractors.flow    # it computes other values now: outputs are stale
    python -m workflow.stages confirm extractors.flow  # it does not: only its golden values are new

`workflow/stages.json` has an entry per stage. version : a number that is raised when the stage computes
other values from the same inputs and settings; it is part of every fingerprint. golden : digest of the
stage's golden values, small outputs in tests/golden/ that tests/golden_stages.py computes from synthetic
inputs. tests/test_stages.py fails where values and version disagree. added : settings that came after
results had been made, and the value with which the stage computes what it computed before; a setting of
this value is left out of fingerprints and commands, so that it makes nothing stale.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from runtime import InputError
from runtime.job import run_job
from store.atomic import write_text

ROOT = Path(__file__).resolve().parent.parent
STAGES = Path(__file__).with_name("stages.json")
GOLDEN = Path("tests") / "golden"
MAKER = Path("tests") / "golden_stages.py"


@dataclass(frozen=True)
class Stage:
    """version, digest of the golden values, later settings with their neutral values."""

    version: int
    golden: str = ""
    added: Mapping[str, object] = field(default_factory=dict)


@cache
def read_stages(path: Path = STAGES) -> dict[str, Stage]:
    """Stages by name. Raises InputError for a file that does not say what it should."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        stages = {name: Stage(**entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(e).split())[:100]})",
            "restore it: git checkout workflow/stages.json",
        ) from e
    for name, stage in stages.items():
        if type(stage.version) is not int or stage.version < 1:
            raise InputError(
                f"{path}: version {stage.version!r} of {name} is no whole number from 1",
                "restore it: git checkout workflow/stages.json",
            )
    return stages


def stage(name: str) -> Stage:
    """A stage by its name; InputError for one that workflow/stages.json does not have."""
    stages = read_stages()
    if name not in stages:
        raise InputError(
            f"workflow/stages.json has no stage {name}",
            f"give it golden values in tests/golden_stages.py, then: python -m workflow.stages raise {name}",
        )
    return stages[name]


def golden_digest(name: str, root: Path = ROOT) -> str:
    """Digest of a stage's golden values, 12 hex digits; "" where it has none."""
    path = root / GOLDEN / f"{name}.json"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""


def write_stages(stages: dict[str, Stage], path: Path = STAGES) -> None:
    """Write all entries, one a line, sorted by name."""
    lines = []
    for name in sorted(stages):
        s = stages[name]
        entry = {"version": s.version, "golden": s.golden} | ({"added": s.added} if s.added else {})
        lines.append(f"  {json.dumps(name)}: {json.dumps(entry)}")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def renew(names: list[str], step: int, root: Path = ROOT) -> dict[str, Stage]:
    """Compute the golden values of stages again and enter them; version + `step`, 1 for a new stage.

    Raises InputError where the values cannot be computed.
    """
    # The makers of synthetic inputs belong to the tests, so they run as a command of their own.
    done = subprocess.run(
        [sys.executable, str(root / MAKER), *names],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise InputError(
            f"{MAKER} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}",
            f"run it alone: python {MAKER} {' '.join(names)}",
        )
    path = root / STAGES.relative_to(ROOT)
    stages = dict(read_stages(path))
    for name in names:
        old = stages.get(name)
        version = old.version + step if old else 1
        stages[name] = Stage(version, golden_digest(name, root), old.added if old else {})
    write_stages(stages, path)
    return stages


def table(root: Path = ROOT) -> str:
    """One line per stage: name, version, whether its golden values are those entered."""
    lines = []
    for name, s in sorted(read_stages(root / STAGES.relative_to(ROOT)).items()):
        found = golden_digest(name, root)
        state = "" if found == s.golden else "golden values are missing" if not found else "changed"
        added = ", ".join(f"{key} = {value}" for key, value in s.added.items())
        lines.append(f"{name:<28} version {s.version}  {s.golden}  {state}{added}".rstrip())
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.stages",
        description="Versions of what the stages compute (docs/reruns.md).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show", help="stages and versions")
    for name, what in (
        ("raise", "the stage computes other values: its outputs, and what follows, run again"),
        ("confirm", "only the golden values changed, not what the stage computes: nothing runs"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("stages", nargs="+", metavar="STAGE", help="as `show` names it")
    return parser


def work(args: argparse.Namespace) -> None:
    if args.command == "show":
        print(table())
        return
    stages = renew(args.stages, 1 if args.command == "raise" else 0)
    for name in args.stages:
        print(f"{name} version {stages[name].version}")


def main(argv: list[str] | None = None) -> int:
    return run_job("workflow.stages", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
