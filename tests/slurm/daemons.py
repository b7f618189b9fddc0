"""A SLURM of one node that lives in one folder: munged, slurmctld and slurmd of its own.

Nothing outside the folder is written, other daemons of the machine are left alone: the clients find
this one by SLURM_CONF, munge by its own socket and key, both daemons listen on free ports. The node
says it has 16 CPUs and a GPU, so that a profile made for real nodes is tested as it stands; SLURM
only counts them.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scancel",
    "scontrol",
    "sinfo",
)
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={at}/munge.socket
CredType=cred/munge
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
SlurmdParameters=config_overrides
SlurmdTimeout=5
MinJobAge=600
KillWait=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
GresTypes=gpu
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs of SLURM and munge that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for s in held:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


class Slurm:
    """Started by `with Slurm(folder) as slurm`; stopped, jobs included, at the end.

    environment : for every process that talks to this SLURM.
    """

    def __init__(self, folder: Path):
        self.at = Path(folder)
        path = f"{self.at}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self.environment = dict(os.environ, SLURM_CONF=f"{self.at}/slurm.conf", PATH=path)
        self.daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool", "bin"):
            (self.at / name).mkdir(parents=True)
        # The plugin takes SLURM_* out of a job's environment, and srun would not find this SLURM.
        srun = self.at / "bin" / "srun"
        conf = self.environment["SLURM_CONF"]
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        self.at.chmod(0o755)
        key = self.at / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        host = socket.gethostname().split(".")[0]
        conf = CONF.format(at=self.at, host=host, ports=_free_ports(2))
        (self.at / "slurm.conf").write_text(conf)
        (self.at / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        try:
            files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
            self._start(
                "munged",
                "--foreground",
                "--force",
                *(f"--{option}={self.at}/munge.{end}" for option, end in files.items()),
                f"--seed-file={self.at}/munge.seed",
            )
            self._wait("munge", lambda: (self.at / "munge.socket").exists())
            self._start("slurmctld", "-D", "-i")
            self.start_node()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._alive("slurmctld"):
            self.ask("scancel", "--user=root", "--signal=KILL", "--full", check=False)
            self.ask("scancel", "--user=root", check=False)
            with contextlib.suppress(TimeoutError):
                self._wait("the last jobs' end", lambda: not self.jobs(), 15)
        for name in ("slurmd", "slurmctld", "munged"):
            self._stop(name, signal.SIGTERM)
        self.stop_orphans()

    def _start(self, name: str, *words: str) -> None:
        with open(self.at / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(
                [shutil.which(name), *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _alive(self, name: str) -> bool:
        return name in self.daemons and self.daemons[name].poll() is None

    def _stop(self, name: str, how: signal.Signals) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        if daemon.poll() is None:
            daemon.send_signal(how)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(10)

    def stop_orphans(self) -> int:
        """Kill what outlived its daemon: processes whose environment is this SLURM's; how many."""
        marks = f"SLURM_CONF={self.at}/slurm.conf".encode(), f"PATH={self.at}/bin:".encode()
        stopped = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
                ours = any(word.startswith(marks) for word in words)
                if ours and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)
                    stopped += 1
            except OSError:
                continue  # gone, or not ours to see
        return stopped

    def _wait(self, what: str, done, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come within {seconds} s; see {self.at}")
            time.sleep(0.2)

    def ask(self, *words: str, check: bool = True) -> str:
        """Output of a client command."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start_node(self) -> None:
        """Start slurmd and wait until the node takes jobs."""
        self._start("slurmd", "-D")
        ready = ("idle", "mixed", "allocated")
        self._wait(
            "the node",
            lambda: self.ask("sinfo", "--noheader", "--format=%T", check=False).strip() in ready,
        )

    def kill_node(self) -> None:
        """kill -9 of slurmd and of the jobs' own daemons and processes: the node's power fails."""
        self._stop("slurmd", signal.SIGKILL)
        mark = str(self.at).encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes()
                in_job = b"\0SLURM_JOB_ID=" in b"\0" + environ and mark in environ
                if in_job or command.startswith(b"slurmstepd") and mark in environ:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue

    def jobs(self, *states: str) -> dict[str, tuple[str, str]]:
        """SLURM id -> (state, comment) of the jobs that are not finished, or in these states."""
        words = ["squeue", "--noheader", "--format=%i|%T|%k"]
        words += [f"--states={','.join(states)}"] if states else []
        lines = [line.split("|", 2) for line in self.ask(*words).splitlines()]
        return {job: (state, comment) for job, state, comment in lines}
