"""One job per GPU on a workstation: a lease per device, for as long as the process lives.

A lease is a POSIX lock on a file in a folder of the user's own, so it ends with the process however
that ends, kill -9 included. The process sees its GPU alone (CUDA_VISIBLE_DEVICES), which must be
decided before torch looks for devices: `runtime.device.pick_device` asks for the lease first.

Nothing is leased without GPUs (no torch, no file), by a process of torchrun, below a process that
holds the lease, or where a scheduler has assigned one device. Of several that it assigned (Snakemake
inside one large job) the processes of this job take one each.
"""

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import InputError
from runtime.gpus import visible
from runtime.log import get_logger

log = get_logger("gpu")

# Names of a scheduler's job. Its devices are its own, often called 0 whichever they are: locks on them
# are no business of other jobs.
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "OAR_JOB_ID", "FLUX_JOB_ID")
SCHEDULERS = (*JOBS, "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "GPU_DEVICE_ORDINAL", "_CONDOR_SLOT")
RANK = "LOCAL_RANK"  # torchrun has a process for every GPU
HELD = "GPU_LEASE"  # set for the children of a process that holds one
TOLD_EVERY_S = 60.0

_lock: int | None = None  # open while the lease lasts


def folder() -> Path:
    """The user's folder of locks; InputError when somebody else put it there.

    Not below XDG_RUNTIME_DIR or TMPDIR: a desktop session, ssh and cron must meet in one place.
    """
    place = Path(os.environ.get("GPU_LEASE_DIR") or f"/tmp/gpu-leases-{os.getuid()}")
    with _said(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = os.lstat(place)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise InputError(
            f"{place} is not a folder of yours", "remove it, or set GPU_LEASE_DIR to another folder"
        )
    return place


@contextmanager
def _said(place: Path):
    """A folder that takes no locks, in one sentence."""
    try:
        yield
    except OSError as e:
        raise InputError(
            f"no GPU can be leased in {place} ({os.strerror(e.errno or 0)})",
            "set GPU_LEASE_DIR to a folder of yours on a local disk",
        ) from e


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def _try(device: str, place: Path) -> bool:
    global _lock
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(place / f"{_file_name(device)}.lock", flags, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(handle)
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return False  # taken
        raise  # no locks on this file system: waiting would never end
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    _lock = handle
    return True


def _to_share() -> tuple[list[str], str]:
    """Devices of which this process may take one ([]: none to take), and whose locks they are."""
    if _lock is not None or HELD in os.environ or RANK in os.environ:
        return [], ""
    if not any(name in os.environ for name in SCHEDULERS):
        return visible(), ""
    job = next((os.environ[name] for name in JOBS if os.environ.get(name)), "")
    assigned = visible() if job and "CUDA_VISIBLE_DEVICES" in os.environ else []
    return (assigned if len(assigned) > 1 else []), f"job-{job}."


def lease_gpu(pause_s: float = 0.5) -> str | None:
    """Wait for a free GPU, take it until the process ends, and show it alone to CUDA.

    Returns its name, or None where there is nothing to lease.
    """
    devices, whose = _to_share()
    if not devices:
        return None
    place = folder()
    told = -TOLD_EVERY_S
    while True:
        for device in devices:
            with _said(place):
                got = _try(whose + device, place)
            if got:
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[HELD] = device
                log.info("GPU %s of %d", device, len(devices))
                return device
        if time.monotonic() - told >= TOLD_EVERY_S:
            log.info("all %d GPUs are taken (%s): waiting", len(devices), place)
            told = time.monotonic()
        time.sleep(pause_s)
