"""kill -9 at random moments, in every stage; then byte-equal to an undisturbed run.

    python -m tests.soak --kills 50 --seed 0

Each kill hits, by chance, Snakemake with all its jobs (as a reboot does), Snakemake alone (its jobs
live on for a while), or one job. Then the lock is taken off and the same command is given again. The
first half falls where chance wills, the others on the stages that were hit least. At the end every
output must equal those of a run that nobody disturbed (logs, benchmarks, the report and the section
`run` of sidecars left out), nothing may be left over, and nothing to do.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from runtime import InputError
from runtime.job import run_job
from tests.soak.study import (
    CONFIG,
    PEOPLE,
    command,
    differences,
    digests,
    environment,
    make_house,
    run,
)

WAYS = ("all", "all", "snakemake", "job", "job")
LONGEST_S = 6.0  # a call is disturbed after at most this long with jobs running
SOON_S = (
    0.6  # the same, after a job of the stage that is aimed at has started (jobs import for 0.3 s)
)
START_S = 300.0


def stage_of(process: psutil.Process) -> str:
    """What a job runs: its module, and the name of an extractor behind it; "" for anything else."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    if "python" not in os.path.basename(words[0]) if words else True:
        return ""
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if module == "extractors":
        module = " ".join(words[words.index("-m") + 1 :][:2])
    return "" if module.startswith("snakemake") else module


def jobs_below(parent: psutil.Process) -> dict[str, psutil.Process]:
    try:
        found = {stage_of(p): p for p in parent.children(recursive=True)}
    except psutil.Error:
        return {}
    found.pop("", None)
    return found


def kill_at_random(
    house: Path, rng: random.Random, hit: Counter, *words: str, stage: str = ""
) -> str:
    """Start the workflow, kill something; returns what, or "finished" when there was no chance.

    stage: wait for a job of this module, and kill soon after it started.
    """
    log = open(house / "call.log", "ab")  # noqa: SIM115  closed below
    call = subprocess.Popen(
        command(*words),
        cwd=house,
        env=environment(),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    main = psutil.Process(call.pid)
    way = rng.choice(WAYS)
    early = not stage and rng.random() < 0.1  # sometimes before any job runs
    start, delay = time.monotonic(), rng.uniform(0, SOON_S if stage else LONGEST_S)
    while call.poll() is None and time.monotonic() - start < START_S:
        running = jobs_below(main)
        if early or (stage in running if stage else running):
            break
        time.sleep(0.02)
    end = time.monotonic() + (delay if not early else delay / 4)
    while call.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if call.poll() is not None:
        if call.returncode:
            raise InputError(
                f"an undisturbed call failed: {(house / 'call.log').read_text()[-1500:]}",
                "see above",
            )
        return "finished"
    running = jobs_below(main)
    if way == "job" and running:
        name = rng.choice(sorted(running))
        try:
            running[name].kill()
        except psutil.NoSuchProcess:
            name = "a job that had just ended"
        hit[name] += 1
        # The rest is completed; not all of it, or nothing would be left for the next kill.
        try:
            call.wait(rng.uniform(0, 2 * LONGEST_S))
            return f"job {name}"
        except subprocess.TimeoutExpired:
            os.killpg(call.pid, signal.SIGKILL)
            call.wait()
            return f"job {name}, then everything"
    hit.update(list(running))
    if way == "snakemake":
        os.kill(call.pid, signal.SIGKILL)
    else:
        os.killpg(call.pid, signal.SIGKILL)
    call.wait()
    return f"{'snakemake' if way == 'snakemake' else 'everything'} during {', '.join(sorted(running)) or 'the job graph'}"


# Rules -> modules of their jobs. From the half of the kills on, or as soon as everything is finished,
# each aims at a stage that was hit least (by chance alone the long jobs would get nearly all), and
# the rule is made again for it with all that depends on it.
STAGES = {
    "demo_session_noxi_001": "corpora.demo", "probe": "media.probe", "faces": "extractors.faces",
    "weights": "extractors.weights", "egemaps": "extractors egemaps", "clip_face": "extractors clip_face",
    "flow_magnitude": "extractors flow_magnitude", "labels": "alignment.labels", "clock": "alignment.clock",
    "align": "alignment.align", "statistics": "training.statistics",
    "train": "training.train", "predict": "inference.predict", "score": "evaluation.score",
    "table": "evaluation.tables", "curves": "evaluation.curves", "qc_session": "alignment.qc",
}  # fmt: skip


def least_hit(stages: dict[str, str], hit: Counter, rng: random.Random) -> str:
    """One of the rules whose stage was hit least."""
    least = min(hit[module] for module in stages.values())
    return rng.choice([rule for rule, module in stages.items() if hit[module] == least])


def off(config: dict) -> set[str]:
    """Rules that a study does not have: its features that are not enabled, and faces without any."""
    features = {n for n, s in config["features"].items() if not s["enabled"]}
    return features | ({"faces", "weights"} if "clip_face" in features else set())


def soak(
    kills: int,
    seed: int,
    house: Path,
    show=print,
    minutes: float = float("inf"),
    people: set = PEOPLE,
    config: dict = CONFIG,
    expected: dict[str, str] | None = None,
) -> Counter:
    """Run the study undisturbed and with kills below `house`; returns stage -> kills that hit it.

    It stops killing after `minutes`, whatever is left, and ends as always. people, config: the
    study (tests/soak/study.py); expected: digests of an undisturbed run of it that was made before.

    Raises InputError when the outcomes differ, something is left over, or a call does not recover.
    """
    rng = random.Random(seed)
    start = time.monotonic()
    wild = make_house(house / "wild", people, config)
    if expected is None:
        calm = make_house(house / "calm", people, config)
        done = run(calm)
        if done.returncode:
            raise InputError(
                f"the undisturbed run fails: {done.stdout[-1500:]}{done.stderr[-1500:]}",
                "see above",
            )
        expected = digests(calm / "results")
        show(f"undisturbed: {len(expected)} files, {time.monotonic() - start:.0f} s")
    hit: Counter = Counter()
    stages = {rule: module for rule, module in STAGES.items() if rule not in off(config)}
    aim = ""  # a rule
    again: list[str] = []
    spent = 0
    begin = time.monotonic()
    while spent < kills and time.monotonic() - begin < 60 * minutes:
        if not aim and spent >= kills / 2:
            aim = least_hit(stages, hit, rng)
        what = kill_at_random(wild, rng, hit, *again, stage=stages.get(aim, ""))
        if what == "finished":
            aim = aim or least_hit(stages, hit, rng)
            again = ["--forcerun", aim]
            show(f"all was finished after {spent} kills; made again: {aim}")
            continue
        aim, again = "", []
        spent += 1
        show(f"kill {spent:>3}: {what}")
        unlocked = run(wild, "--unlock")
        if unlocked.returncode:
            raise InputError(f"--unlock fails: {unlocked.stderr[-1500:]}", "see above")
    done = run(wild)
    if done.returncode:
        raise InputError(
            f"the last call fails: {done.stdout[-1500:]}{done.stderr[-1500:]}", "see above"
        )
    wait_for_orphans(wild)
    found = digests(wild / "results")
    different = differences(expected, found)
    if different:
        raise InputError(
            f"{len(different)} of {len(expected)} files differ after {spent} kills: {', '.join(different[:8])}",
            f"the same kills again: python -m tests.soak --kills {kills} --seed {seed}",
        )
    left = run(wild, "--dry-run")
    if "Nothing to be done" not in left.stdout + left.stderr:
        raise InputError(f"something is still to do: {left.stdout[-1500:]}", "see above")
    show(
        f"{spent} kills, seed {seed}: {len(found)} files byte-equal, {time.monotonic() - start:.0f} s"
    )
    return hit


def wait_for_orphans(house: Path) -> None:
    """Jobs of a Snakemake that was killed alone may still be at work: they must end by themselves."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not any(stage_of(p) and _in(p, house) for p in psutil.process_iter()):
            return
        time.sleep(0.2)
    raise InputError(
        "jobs of a killed call are still running after a minute", "look at them with ps"
    )


def _in(process: psutil.Process, house: Path) -> bool:
    try:
        return process.cwd() == str(house)
    except psutil.Error:
        return False


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="kill for at most this long"
    )
    parser.add_argument(
        "--dir", type=Path, help="work here and keep it (default: a temporary folder)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        house = args.dir or Path(tempfile.mkdtemp(prefix="soak-"))
        try:
            hit = soak(
                args.kills, args.seed, house, lambda text: print(text, flush=True), args.minutes
            )
        finally:
            if args.dir is None:
                shutil.rmtree(house, ignore_errors=True)
        print("kills by stage: " + ", ".join(f"{name} {n}" for name, n in sorted(hit.items())))

    return run_job("tests.soak", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
