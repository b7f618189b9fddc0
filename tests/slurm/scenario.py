"""The workflow on a real SLURM of one node, through faults: `make test-slurm`.

    python tests/slurm/scenario.py [--keep]

Two generated sessions, one feature, one training, from recordings to the table, every job through
sbatch with profiles/slurm as it stands (faster polling and the test's partition aside).

1. `scancel` of a running job: Snakemake submits it again and asks for twice the memory.
2. The node dies (kill -9 of slurmd and of the jobs on it), SLURM notices, Snakemake is stopped.
3. The node comes back; the same command ends with the table. What had been finished is untouched,
   what was missing has been made, each job was finished once.
4. A further call has nothing to do; one lost file is remade through profiles/cluster-generic.

Every wait has a limit. Where SLURM is missing and cannot be installed, one line says so, status 0.
"""

import argparse
import base64
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import yaml
from daemons import PROGRAMS, Slurm, missing

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = SETTINGS["tool"]["importlinter"]["root_packages"]
COPIED = [*ROOMS, "envs", "profiles", "Snakefile", "config.yaml", "studies.yaml"]
ON = ("noxi\ttrain\t001\t", "noxi\ttest\t002\texpert\t")
CONFIG = {
    "sessions": "sessions.tsv",
    "demo": {"seconds": 12},
    "features": {
        name: {"enabled": False} for name in ("wav2vec2", "clip_face", "flow", "flow_magnitude")
    },
    "defaults": {"evaluate": ["noxi/test"], "seeds": [1]},
    "runs": {"egemaps_mlp": {"training": {"epochs": 2}}},
    "tables": {"main": {"runs": ["egemaps_mlp"], "bootstrap": 100}},
}
FASTER = [
    *("--slurm-status-command", "squeue", "--slurm-no-account", "--latency-wait", "20"),
    *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
    *("--jobs", "6"),
]
# The working folder's name, and a home that nobody can make: jobs need none.
HOUSE, HOME = "a $(touch pwned) `study` of $HOME", "/proc/none"
LIMIT_S = 900
TABLE = "results/tables/main/ccc.csv"
SUBMITTED = re.compile(
    r"Job (\d+) has been submitted with SLURM jobid (\d+) \(log: .*?/slurm_logs/(.+?)/\d+\.log\)"
)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} slurm | {text}", flush=True)


def check(truth: bool, what: str) -> None:
    if not truth:
        raise AssertionError(what)


def make_house(house: Path) -> None:
    """A copy of the workflow, so that nothing of the caller's folder is touched, and its corpus."""
    house.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, house / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, house / name)
    header, *rows = (ROOT / "corpora/demo/sessions.tsv").read_text().splitlines()
    rows = [row for row in rows if row.startswith(ON)]
    (house / "sessions.tsv").write_text("\n".join([header, *rows]) + "\n")
    (house / "own.yaml").write_text(yaml.safe_dump(CONFIG))


class Call:
    """One call of Snakemake in the house, its output in a file."""

    def __init__(self, house: Path, slurm: Slurm, log: Path, *words: str, profile: str = "slurm"):
        self.log = log
        # Snakemake itself needs a cache where it submits; what jobs need is in the profiles.
        elsewhere = {"HOME": HOME, "XDG_CACHE_HOME": f"{slurm.at}/cache"}
        environment = slurm.environment | elsewhere
        environment.pop("SNAKEMAKE_PROFILE", None)
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "snakemake", "--configfile", "own.yaml", "--nocolor"),
                    *("--workflow-profile", f"profiles/{profile}", *words),
                ],
                cwd=house, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def stop(self, seconds: float = 15) -> None:
        """SIGINT, as by Ctrl-C; SIGKILL to the group where that does not end it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def submitted(self) -> dict[str, list[str]]:
        """Job (rule and wildcards) -> its SLURM ids, in order."""
        found: dict[str, list[str]] = {}
        for _, slurm_id, job in SUBMITTED.findall(self.text):
            found.setdefault(job, []).append(slurm_id)
        return found

    def finished(self, slurm: Slurm) -> set[str]:
        """Jobs that SLURM ran to a good end; Snakemake may not have asked yet."""
        well = slurm.jobs("COMPLETED")
        return {job for job, ids in self.submitted().items() if any(i in well for i in ids)}


def wait_for(what: str, find, call: Call | None = None, seconds: float = 180):
    end = time.monotonic() + seconds
    while True:
        found = find()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {seconds} s")
        if call is not None and call.process.poll() is not None:
            raise AssertionError(f"Snakemake ended before {what}")
        time.sleep(0.3)


def declared(house: Path, slurm: Slurm, log: Path) -> list[str]:
    """Every file that the table needs, by `snakemake --summary`."""
    call = Call(house, slurm, log, "--summary", "--", TABLE)
    check(call.wait(120) == 0, "snakemake --summary failed")
    lines = [line.split("\t") for line in call.text.splitlines()]
    return [cells[0] for cells in lines if len(cells) >= 5 and cells[0].startswith("results/")]


def complete(house: Path, files: list[str]) -> dict[str, tuple]:
    """Files that exist and that no unfinished job claims -> what changes when they are rewritten."""
    marks = (house / ".snakemake" / "incomplete").rglob("*")
    claimed = {mark.name for mark in marks}
    found = {}
    for name in files:
        path = house / name
        if path.exists() and base64.b64encode(name.encode()).decode() not in claimed:
            status = path.stat()
            found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def with_rule(slurm: Slurm, rule: str) -> str | None:
    """SLURM id of a running job of the rule."""
    running = slurm.jobs("RUNNING").items()
    return next((i for i, (_, comment) in running if comment.startswith(f"rule_{rule}_")), None)


def environment_of(house: Path, job: str) -> dict[str, str]:
    """Environment of a running job of the house, by the words behind -m; {} where there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            wanted = [b"-m", *job.encode().split()]
            if words[1 : len(wanted) + 1] == wanted and (entry / "cwd").resolve() == house:
                lines = (entry / "environ").read_text(errors="replace").split("\0")
                return dict(line.split("=", 1) for line in lines if "=" in line)
        except OSError:
            continue
    return {}


def scenario(at: Path, slurm: Slurm) -> None:
    house = at / HOUSE
    make_house(house)
    files = declared(house, slurm, at / "summary.txt")
    say(f"{len(files)} files to make")

    first = Call(house, slurm, at / "first.txt", *FASTER, "--", TABLE)
    try:
        what = "process of egemaps"
        given = wait_for(what, lambda: environment_of(house, "extractors egemaps"), first)
        check(given.get("HDF5_USE_FILE_LOCKING") == "FALSE", "HDF5 would lock its files")
        victim = wait_for("job of egemaps", lambda: with_rule(slurm, "egemaps"), first)
        slurm.ask("scancel", victim)
        job = next(name for name, ids in first.submitted().items() if victim in ids)
        say(f"scancel of job {victim}, {job}")
        wait_for("second submission", lambda: len(first.submitted()[job]) > 1, first)
        memory = [
            re.search(r"MinMemoryNode=(\d+)", slurm.ask("scontrol", "show", "job", i))[1]
            for i in first.submitted()[job]
        ]
        check(int(memory[1]) == 2 * int(memory[0]), f"memory did not grow: {memory}")
        say(f"submitted again with {memory[1]} instead of {memory[0]} MB")
        wait_for("end of the second attempt", lambda: job in first.finished(slurm), first)
        wait_for("job of align", lambda: with_rule(slurm, "align"), first)
        lost = slurm.jobs("RUNNING")
        slurm.kill_node()
        say(f"the node died with {len(lost)} jobs running")
        state = wait_for(
            "notice of the dead node",
            lambda: (s := slurm.ask("sinfo", "-h", "-o", "%T").strip()).startswith("down") and s,
        )
        say(f"SLURM calls the node {state}; stopping Snakemake")
    finally:
        first.stop()
    before = complete(house, files)
    done = first.finished(slurm)
    check(0 < len(before) < len(files), f"{len(before)} of {len(files)} files: nothing to show")
    slurm.ask("scancel", "--user=root")
    slurm.start_node()
    if list((house / ".snakemake" / "locks").glob("*")):
        unlock = Call(house, slurm, at / "unlock.txt", "--unlock")
        check(unlock.wait(120) == 0, "--unlock failed")
    say(f"the node is back; {len(before)} files of {len(done)} jobs are there")

    second = Call(house, slurm, at / "second.txt", *FASTER, "--", TABLE)
    try:
        given = wait_for("training", lambda: environment_of(house, "training.train"), second)
        check(given.get("CUDA_VISIBLE_DEVICES") == "0", "training has no GPU of SLURM's")
        own = {given.get("HOME"), given.get("XDG_CACHE_HOME")}
        check(own == {HOME, f"{house}/.snakemake/cache"}, f"home folders of jobs: {own}")
        check(given["NUMBA_CACHE_DIR"].startswith(f"{house}/.snakemake/nodes/"), "shared cache")
        status = second.wait(300)
    finally:
        second.stop()
    check(status == 0, f"the rerun ended with status {status}")
    after = complete(house, files)
    check(not set(files) - set(after), f"not made: {sorted(set(files) - set(after))}")
    remade = {name for name in before if after[name] != before[name]}
    check(not remade, f"finished, and made again: {sorted(remade)}")
    again = set(second.submitted())
    check(not done & again, f"finished jobs that ran again: {sorted(done & again)}")
    total = int(re.findall(r"(?m)^total\s+(\d+)$", first.text)[0])
    # Of a job that ended as its node died SLURM may not know the end: its files, above, are whole.
    kept = set(first.submitted()) - again
    check(len(kept) + len(again) == total, f"{len(kept)} + {len(again)} jobs, not {total}")
    with open(house / TABLE, newline="") as f:
        rows = list(csv.reader(f))
    check(any("egemaps_mlp" in row for row in rows), "the table has no row of the run")
    say(f"the rerun made the other {len(files) - len(before)} files with {len(again)} jobs,")
    say(f"left {len(before)} files of {len(done)} jobs alone, and ended with the table")

    afterwards(at, slurm, house)


def afterwards(at: Path, slurm: Slurm, house: Path) -> None:
    """Nothing is left to do; a file that is lost then comes back through profiles/cluster-generic."""
    third = Call(house, slurm, at / "third.txt", *FASTER, "--", TABLE)
    check(third.wait(120) == 0 and "Nothing to be done" in third.text, "a third call found work")
    check(not list(at.rglob("pwned")), "the working folder's name was run by a shell")
    house = house.rename(at / "a study")  # cluster-generic's plugin quotes no more than spaces
    lost_file = "results/media/noxi/002/expert.json"
    (house / lost_file).unlink()
    words = ("--latency-wait", "20", "--seconds-between-status-checks", "2")
    generic = Call(
        house, slurm, at / "generic.txt", *words, "--", lost_file, profile="cluster-generic"
    )
    try:
        check(generic.wait(120) == 0, "cluster-generic failed")
    finally:
        generic.stop()
    check((house / lost_file).exists(), "cluster-generic made nothing")
    say("nothing to do afterwards; cluster-generic remade a lost file")


def install() -> str:
    """Install SLURM by apt; the reason why not, or ""."""
    if os.geteuid() != 0:
        return "needs root"
    if missing() and not shutil.which("apt-get"):
        return f"{', '.join(missing())} not installed, and no apt to install them"
    why = ""
    if missing():
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        # The lists of packages may be good enough where one of the mirrors cannot be reached.
        for words in (
            ["update"],
            ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"],
        ):
            say(f"apt-get {words[0]}")
            try:
                done = subprocess.run(
                    ["apt-get", "-qq", *words],
                    env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"apt-get {words[0]} did not end within 240 s"
            if done.returncode:
                why = f"; apt-get {words[0]}: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    return f"{', '.join(missing())} missing{why}" if missing() else ""


def stop_leftovers() -> None:
    """Daemons of an earlier run that was killed; its folder stays, with the logs."""
    for at in Path(tempfile.gettempdir()).glob("slurm-test-*"):
        owner = at / "pid"
        pid = int(owner.read_text() or 0) if owner.exists() else 0
        if pid and not Path(f"/proc/{pid}").exists():
            stopped = Slurm(at / "slurm").stop_orphans()
            if stopped:
                say(f"stopped {stopped} processes that a killed run had left ({at})")


def out_of_time(*_) -> None:
    raise TimeoutError(f"not done within {LIMIT_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="The workflow on a real SLURM, through faults.")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    keep = parser.parse_args().keep
    why = install()
    if why:
        print(f"skipped: make test-slurm ({why})")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT_S)
    began = time.monotonic()
    stop_leftovers()
    at = Path(tempfile.mkdtemp(prefix="slurm-test-"))
    (at / "pid").write_text(str(os.getpid()))
    try:
        with Slurm(at / "slurm") as slurm:
            say(f"SLURM runs ({slurm.ask('sinfo', '--version').strip()}, {len(PROGRAMS)} programs)")
            scenario(at, slurm)
    except BaseException as e:
        keep = True
        say(f"FAILED: {type(e).__name__}: {e}")
        say(f"logs stay in {at}")
        if not isinstance(e, Exception):
            raise
        return 1
    finally:
        if not keep:
            shutil.rmtree(at)
    say(f"passed in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
