"""Mutants of the modules that make numbers: each is one small change, which a test must notice.

    python -m tests.mutants                              every module of modules.yaml
    python -m tests.mutants --only training/losses.py    one of them

The mutants are made and run by mutmut (https://mutmut.readthedocs.io) in a copy of the repository;
tests run per function that they reach. Not mutated: messages of errors and logs, command lines,
properties and functions with a decorator, compiled kernels. A mutant that no test can notice stands
in equivalent.yaml with its reason. Exit status 1 where less than 95 % of a module's are noticed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
GOAL = 0.95
KILLED = ("killed", "timeout", "segfault")
UNTOUCHED = [r"raise \w+\(", r"\blog\.(info|warning|debug)\("]
COMMAND_LINES = re.compile(r"^def (?:build_parser|main|run)\(.*?:$", re.MULTILINE | re.DOTALL)
# mutmut leaves functions with these out; they matter under autocast, or to a derivative of a
# derivative, only.
UNDECORATED = re.compile(r"^ *@(full_precision|once_differentiable)\n", re.MULTILINE)
SETTINGS = """
[tool.mutmut]
source_paths = {rooms}
only_mutate = {module}
also_copy = {others}
do_not_mutate_patterns = {untouched}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
"""


def copy_of_repository(at: Path, module: str, tests: list[str]) -> None:
    """The files that git does not ignore, with mutmut's settings for one module."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (at / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, at / name)
    text = UNDECORATED.sub("", (at / module).read_text())
    text = COMMAND_LINES.sub(r"\g<0>  # pragma: no mutate block", text)
    (at / module).write_text(text)
    settings = (at / "pyproject.toml").read_text()
    rooms = tomllib.loads(settings)["tool"]["importlinter"]["root_packages"]
    others = sorted(p.name for p in at.iterdir() if p.name not in (*rooms, "tests"))
    settings += SETTINGS.format(
        rooms=json.dumps(rooms),
        module=json.dumps([module]),
        others=json.dumps(others),
        untouched=json.dumps(UNTOUCHED),
        tests=json.dumps([f"tests/{name}" for name in tests]),
    )
    (at / "pyproject.toml").write_text(settings)


def mutants_of(module: str, tests: list[str]) -> list[dict]:
    """Run all mutants of a module: name, status, and the changed lines of those that survive."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        at = Path(folder)
        copy_of_repository(at, module, tests)
        done = subprocess.run(
            [sys.executable, "-m", "mutmut", "run"],
            cwd=at,
            capture_output=True,
            text=True,
            env=_environment(),
        )
        collect = [sys.executable, "-m", "tests.mutants.collect", module]
        found = subprocess.run(collect, cwd=at, capture_output=True, text=True)
        if found.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], found.stderr[-2000:], file=sys.stderr)
            raise SystemExit(f"mutmut could not run {module}: do its tests pass without mutants?")
        return json.loads(found.stdout)


def _environment() -> dict[str, str]:
    # Mutants run in forks of one process, which the threads of OpenMP do not survive.
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def reason(mutant: dict, module: str, rules: list[dict]) -> str | None:
    """Why no test can notice it, if equivalent.yaml says so."""
    place = f"{module} {mutant['function']}"
    removed, added = ("".join(" ".join(mutant[side]).split()) for side in ("removed", "added"))
    for rule in rules:
        here = rule.get("in", "") in place
        if here and "change" in rule and any(re.search(rule["change"], x) for x in mutant["added"]):
            return rule["why"]
        if here and "without" in rule and re.sub(rule["without"], "", removed) == added:
            return rule["why"]
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="such as training/losses.py")
    args = parser.parse_args(argv)
    modules = yaml.safe_load((HERE / "modules.yaml").read_text())
    rules = yaml.safe_load((HERE / "equivalent.yaml").read_text()) or []
    unknown = [name for name in args.only or [] if name not in modules]
    if unknown:
        parser.error(f"{unknown[0]} is not in modules.yaml: {', '.join(modules)}")
    rows, poor = [], False
    for module in args.only or modules:
        start = time.monotonic()
        mutants = mutants_of(module, modules[module])
        survivors = [m for m in mutants if m["status"] not in KILLED]
        explained = Counter(r for m in survivors if (r := reason(m, module, rules)))
        left = [m for m in survivors if not reason(m, module, rules)]
        counted = len(mutants) - explained.total()
        share = 1 - len(left) / counted if counted else 1.0
        poor |= share < GOAL
        minutes = (time.monotonic() - start) / 60
        rows.append((module, len(mutants), explained.total(), len(left), share, minutes))
        print(f"== {module}: {len(mutants)} mutants, {share:.1%} noticed, {minutes:.1f} min")
        for why, n in explained.items():
            print(f"   {n} equivalent: {why}")
        for m in left:
            print(f"   {m['status']}: {m['function']}")
            for sign, lines in (("-", m["removed"]), ("+", m["added"])):
                for line in lines:
                    print(f"      {sign} {line}")
        sys.stdout.flush()
    print("\n| module | mutants | equivalent | not noticed | noticed | min |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for module, total, same, left, share, minutes in rows:
        print(f"| {module} | {total} | {same} | {left} | {share:.1%} | {minutes:.1f} |")
    return int(poor)


if __name__ == "__main__":
    sys.exit(main())
