"""How long the job graph takes on the official corpora: building it, and a call with nothing to do.

    python benchmarks/dag.py [--times 10] [--made-by graph] [--folder DIR] [--repeat 3]

139 sessions, 302 participants, 5 features, 4 runs of 5 seeds, evaluated on every set
(corpora/synthetic_sheet.py); with --times 10 ten times the sessions. The outputs come from a stub run
(a call of the workflow with jobs that only write their files: tests/stub; 4,552 jobs take eight
minutes), or from the graph without starting jobs (half a minute): every output is written and
recorded as Snakemake does after a job, in the order of the graph.
Measured is the whole command, from the shell's point of view: Python, sheet, schema, fingerprints
and all: `build` until the first job would start, `after_kill` the same after a call that was killed
there, `dry_run` with the printing of every job. The folder is used again when it is there.
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

from store.planned import PLANNED

ROOT = Path(__file__).resolve().parent.parent
COPIED = [
    *("alignment", "corpora", "envs", "evaluation", "extractors", "media", "model", "profiles"),
    *(
        "runtime",
        "formats",
        "training",
        "inference",
        "store",
        "workflow",
        "Snakefile",
        "config.yaml",
        "studies.yaml",
    ),
]
SETS = [
    *(f"{dataset}/{split}" for dataset in ("noxi", "noxi-j") for split in ("val", "test")),
    "noxi-add/test", "mpiigi/val", "mpiigi/test",
]  # fmt: skip
ALWAYS = ("--cores", "2", "--configfile", "own.yaml", "--nocolor")
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


def environment() -> dict[str, str]:
    """Jobs are stubs; no profile of the user's."""
    given = dict(os.environ, STUB_JOBS="1", PYTHONPATH=str(ROOT / "tests" / "stub"))
    given.pop("SNAKEMAKE_PROFILE", None)
    return given


def snakemake(house: Path, *words: str) -> tuple[str, float, float]:
    """Output, wall seconds and CPU seconds of a call on two cores; raises where it fails."""
    return call(house, "-m", "snakemake", *ALWAYS, *words)


def call(house: Path, *words: str) -> tuple[str, float, float]:
    """The same of any call of Python; this module can be imported as `dag`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    given = environment()
    given["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'benchmarks'}"
    done = subprocess.run(
        [sys.executable, *words], cwd=house, env=given, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout + done.stderr, wall, cpu


def jobs(text: str) -> int:
    """Jobs of a call by its own table; 0 where there is nothing to do."""
    totals = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    return int(totals[0]) if totals else 0


def until_scheduling() -> None:
    """Snakemake in this process, to the moment when the first job would start."""
    from snakemake.cli import main
    from snakemake.scheduling.job_scheduler import JobScheduler

    JobScheduler.schedule = lambda scheduler: os._exit(0)
    sys.argv = ["snakemake", *ALWAYS, "--quiet", "all", "--nolock"]
    main()
    raise SystemExit("there was nothing to do")


def write_from_graph() -> None:
    """Snakemake in this process, with a scheduler that writes and records outputs at once."""
    from snakemake.cli import main
    from snakemake.scheduling.job_scheduler import JobScheduler

    async def record(scheduler: JobScheduler) -> None:
        dag = scheduler.workflow.dag
        for level in dag.toposorted():
            for job in level:
                for name in job.output:
                    path = Path(name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                if job.output:
                    await scheduler.workflow.persistence.finished(job)

    def schedule(scheduler: JobScheduler) -> bool:
        scheduler.workflow.async_run(record(scheduler))
        return True

    JobScheduler.schedule = schedule
    # Real features are larger than what Snakemake takes checksums of.
    sys.argv = ["snakemake", *ALWAYS, "--quiet", "all", "--max-checksum-file-size", "0"]
    main()


def build(house: Path, fresh: bool) -> tuple[str, float, float]:
    """A call until the first job would start; fresh: as if no call had been killed there before."""
    if fresh:
        (house / PLANNED).unlink(missing_ok=True)
    return call(house, "-c", "import dag; dag.until_scheduling()")


def make_outputs(house: Path, how: str) -> float:
    """All outputs, by stub jobs or from the graph; seconds it took."""
    began = time.perf_counter()
    if how == "stub":
        snakemake(house, "--quiet", "all")
    else:
        call(house, "-c", "import dag; dag.write_from_graph()")
    return time.perf_counter() - began


def seconds(calls: list[tuple[str, float, float]]) -> dict[str, list[float]]:
    """Wall and CPU seconds of repeated calls, each sorted."""
    wall, cpu = (sorted(round(c[i], 1) for c in calls) for i in (1, 2))
    return {"wall_s": wall, "cpu_s": cpu}


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the job graph on the official corpora.")
    parser.add_argument("--times", type=int, default=1, help="copies of every session")
    parser.add_argument("--made-by", choices=("stub", "graph"), default="stub")
    parser.add_argument("--folder", type=Path, help="keep the study here, and use it again")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    temporary = tempfile.TemporaryDirectory(prefix="dag-")
    house = (args.folder or Path(temporary.name)) / f"house-{args.times}"
    with temporary:
        if not house.exists():
            make_house(house, args.times)
        result = {"times": args.times, "load": round(os.getloadavg()[0], 1)}
        if not (house / "results").exists():
            result["build"] = seconds([build(house, True) for _ in range(args.repeat)])
            result["after_kill"] = seconds([build(house, False) for _ in range(args.repeat)])
            (house / PLANNED).unlink()
            dry = [snakemake(house, "--dry-run") for _ in range(args.repeat)]
            result["jobs"] = jobs(dry[0][0])
            result["dry_run"] = seconds(dry)
            result["made_in_s"] = round(make_outputs(house, args.made_by))
        again = [snakemake(house) for _ in range(args.repeat)]
        if not all("Nothing to be done" in text for text, _, _ in again):
            raise RuntimeError("a call over complete outputs found something to do")
        result["nothing_to_do"] = seconds(again)
        result["load_at_end"] = round(os.getloadavg()[0], 1)
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
