"""How long the job graph takes on the official corpora: building it, and a call with nothing to do.

    python benchmarks/dag.py [--times 10] [--made-by stub|touch] [--folder DIR] [--repeat 3]

139 sessions, 302 participants, 5 features, 4 runs of 5 seeds, evaluated on every set
(corpora/synthetic_sheet.py); with --times 10 ten times the sessions. The outputs come from a stub run
(the real graph, jobs that only write their files: tests/stub) or, quicker and the same to Snakemake,
from empty files and `--touch`. Measured is the whole command, from the shell's point of view: Python,
sheet, schema, fingerprints and all. The folder is used again when it is there.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
COPIED = [
    *("alignment", "corpora", "envs", "evaluation", "extractors", "media", "model", "profiles"),
    *("runtime", "ssi", "store", "workflow", "Snakefile", "config.yaml", "studies.yaml"),
]
SETS = [
    *(f"{dataset}/{split}" for dataset in ("noxi", "noxi-j") for split in ("val", "test")),
    "noxi-add/test", "mpiigi/val", "mpiigi/test",
]  # fmt: skip
CONFIG = {
    "sessions": "sessions.tsv",
    "media_root": "recordings",
    "demo": None,
    "features": {
        name: {"weights": {"random": None, "directory": f"weights/{name}"}}
        for name in ("wav2vec2", "clip_face")
    },
    "defaults": {
        "train": ["noxi/train", "noxi-j/train"],
        "validate": ["noxi/val", "noxi-j/val"],
        "evaluate": SETS,
        "seeds": [1, 2, 3, 4, 5],
        "preset": "paper",
    },
    "runs": {"constant": {"seeds": [1, 2, 3, 4, 5]}},
}


def make_house(house: Path, times: int) -> None:
    """The workflow's files, the sheet and empty media in a folder."""
    house.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, house / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, house / name)
    (house / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    for feature in ("wav2vec2", "clip_face"):
        (house / "weights" / feature).mkdir(parents=True)
        (house / "weights" / feature / "model.safetensors").write_text("weights\n")
        (house / "weights" / feature / "config.json").write_text("{}\n")
    words = [sys.executable, "-m", "corpora.synthetic_sheet", "--files", "recordings"]
    with open(house / "sessions.tsv", "wb") as sheet:
        subprocess.run([*words, "--times", str(times)], cwd=house, stdout=sheet, check=True)


def snakemake(house: Path, *words: str) -> tuple[str, float, float]:
    """Output, wall seconds and CPU seconds of a call on two cores; raises where it fails."""
    environment = dict(os.environ, STUB_JOBS="1", PYTHONPATH=str(ROOT / "tests" / "stub"))
    environment.pop("SNAKEMAKE_PROFILE", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "own.yaml", "--nocolor", *words],
        cwd=house, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, wall, cpu


def jobs(text: str) -> int:
    """Jobs of a call by its own table; 0 where there is nothing to do."""
    totals = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    return int(totals[0]) if totals else 0


def make_outputs(house: Path, how: str) -> float:
    """All outputs, by stub jobs or by empty files and --touch; seconds it took."""
    began = time.perf_counter()
    if how == "touch":
        summary, _, _ = snakemake(house, "--summary")
        for line in summary.splitlines():
            if line.startswith("results/") and "\t" in line:
                path = house / line.split("\t")[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        snakemake(house, "--touch", "--quiet", "all")
    else:
        snakemake(house, "--quiet", "all")
    return time.perf_counter() - began


def measure(house: Path, repeat: int, *words: str) -> dict:
    calls = [snakemake(house, *words) for _ in range(repeat)]
    wall, cpu = (sorted(call[i] for call in calls) for i in (1, 2))
    return {"jobs": jobs(calls[0][0]), "wall_s": [round(s, 1) for s in wall],
            "cpu_s": [round(s, 1) for s in cpu]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the job graph on the official corpora.")
    parser.add_argument("--times", type=int, default=1, help="copies of every session")
    parser.add_argument("--made-by", choices=("stub", "touch"), default="touch")
    parser.add_argument("--folder", type=Path, help="keep the study here, and use it again")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    temporary = tempfile.TemporaryDirectory(prefix="dag-")
    house = (args.folder or Path(temporary.name)) / f"house-{args.times}"
    with temporary:
        if not house.exists():
            make_house(house, args.times)
        result = {"times": args.times, "load": [round(x, 1) for x in os.getloadavg()]}
        if not (house / "results").exists():
            result["build"] = measure(house, args.repeat, "--dry-run", "--quiet", "all")
            result["build"]["jobs"] = jobs(snakemake(house, "--dry-run")[0])
            result["made_in_s"] = round(make_outputs(house, args.made_by))
        result["nothing_to_do"] = measure(house, args.repeat)
        if result["nothing_to_do"]["jobs"]:
            raise RuntimeError("the second call found something to do")
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
