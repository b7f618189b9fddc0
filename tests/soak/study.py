"""A tiny real study in a folder of its own: every stage, seconds of recordings, a copy of the code."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("Snakefile", "config.yaml", "studies.yaml", "pyproject.toml")
# dataset, session, roles: a training dyad, and one person alone to predict.
PEOPLE = {("noxi", "001", "expert"), ("noxi", "001", "novice"), ("noxi", "007", "expert")}
FEATURES = ("egemaps", "clip_face", "flow_magnitude")
CONFIG = {
    "results": "results",
    "sessions": "sessions.tsv",
    "media_root": "results/demo/corpus",
    "demo": {"seed": 3, "seconds": 10},
    "features": {"wav2vec2": {"enabled": False}, "flow": {"enabled": False}},
    "defaults": {
        "features": list(FEATURES),
        "seeds": [1],
        "train": ["noxi/train"],
        "evaluate": ["noxi/val"],
        "training": {"epochs": 1, "batch": 4},
    },
    "runs": {"da_mamba": {}, "constant": {"features": ["egemaps"], "model": {"name": "constant"}}},
    "tables": {"main": {"runs": ["da_mamba", "constant"], "bootstrap": 50}},
}
# What a run says about itself, and what Snakemake keeps for itself.
LEFT_OUT = ("logs", "benchmarks", "report.zip", ".snakemake")


def make_house(house: Path, people: set = PEOPLE, config: dict = CONFIG) -> Path:
    """Code, sheet and config of the study; nothing is run."""
    house.mkdir(parents=True)
    for package in ROOT.glob("*/__init__.py"):
        name = package.parent.name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package.parent, house / name, ignore=ignore)
    for name in ("envs", "profiles"):
        shutil.copytree(ROOT / name, house / name)
    for name in FILES:
        shutil.copy2(ROOT / name, house / name)
    with open(ROOT / "corpora/demo/sessions.tsv", encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f, delimiter="\t"))
    kept = [rows[0]] + [r for r in rows[1:] if (r[0], r[2], r[3]) in people]
    text = "".join("\t".join(row) + "\n" for row in kept)
    (house / "sessions.tsv").write_text(text, encoding="utf-8")
    (house / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return house


def command(*words: str, cores: int = 2) -> list[str]:
    return [
        sys.executable, "-m", "snakemake", "--cores", str(cores), "--configfile", "own.yaml", "--nocolor", *words,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Equal thread counts everywhere, no code but the copy."""
    dropped = ("STUB_JOBS", "PYTHONPATH", "SNAKEMAKE_PROFILE", "DEBUG")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(house: Path, *words: str, timeout: float = 900) -> subprocess.CompletedProcess:
    """A Snakemake call in the house, to its end."""
    return subprocess.run(
        command(*words),
        cwd=house,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def content(path: Path) -> bytes:
    """What must be equal in a file: all of it, but for the section `run` of a sidecar."""
    data = path.read_bytes()
    if path.suffix == ".json":
        record = json.loads(data)
        if isinstance(record, dict) and "run" in record and "sha256" in record:
            del record["run"]
        return json.dumps(record, sort_keys=True).encode()
    return data


def digests(results: Path) -> dict[str, str]:
    """Every file of a results folder -> sha256 of what must be equal; unfinished files included."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.is_file() and name.parts[0] not in LEFT_OUT and ".snakemake" not in name.parts:
            found[str(name)] = hashlib.sha256(content(path)).hexdigest()
    return found


def differences(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Names of files that only one has, or that differ."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
