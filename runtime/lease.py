"""One job per GPU on a workstation: a lease per device, for as long as the process lives.

A lease is a POSIX lock on a file in a folder of the user's own, so it ends with the process however
that ends, kill -9 included. The process sees its GPU alone (CUDA_VISIBLE_DEVICES), which must be
decided before torch looks for devices: `runtime.device.pick_device` asks for the lease first.

Nothing is leased without GPUs (no torch, no file), where a scheduler has assigned devices, or in a
process whose parent holds the lease.
"""

import fcntl
import os
import stat
import time
from pathlib import Path

from runtime.errors import InputError
from runtime.log import get_logger

log = get_logger("gpu")

# Their jobs have devices of their own, often all called 0: no business of a lock on this machine.
SCHEDULERS = (
    "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "GPU_DEVICE_ORDINAL",
    "LOCAL_RANK",
)  # fmt: skip
HELD = "GPU_LEASE"  # set for the children of a process that holds one
TOLD_EVERY_S = 60.0

_lock: int | None = None  # open while the lease lasts


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES writes them; no torch."""
    from runtime.device import gpus_of_machine

    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is None:
        return [str(i) for i in range(gpus_of_machine())]
    return [d.strip() for d in stated.split(",") if d.strip() not in ("", "-1")]


def folder() -> Path:
    """The user's folder of locks; InputError when somebody else put it there.

    Not below XDG_RUNTIME_DIR or TMPDIR: a desktop session, ssh and cron must meet in one place.
    """
    place = Path(os.environ.get("GPU_LEASE_DIR") or f"/tmp/gpu-leases-{os.getuid()}")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = os.lstat(place)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise InputError(
            f"{place} is not a folder of yours", "remove it, or set GPU_LEASE_DIR to another folder"
        )
    return place


def _try(device: str, place: Path) -> bool:
    global _lock
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in device)
    handle = os.open(place / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)  # fmt: skip
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    _lock = handle
    return True


def lease_gpu(pause_s: float = 0.5) -> str | None:
    """Wait for a free GPU, take it until the process ends, and show it alone to CUDA.

    Returns its name, or None where there is nothing to lease.
    """
    devices = visible()
    if not devices or _lock is not None or HELD in os.environ:
        return None
    if any(name in os.environ for name in SCHEDULERS):
        return None
    place = folder()
    told = -TOLD_EVERY_S
    while True:
        for device in devices:
            if _try(device, place):
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
                os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[HELD] = device
                log.info("GPU %s of %d", device, len(devices))
                return device
        if time.monotonic() - told >= TOLD_EVERY_S:
            log.info("all %d GPUs are taken (%s): waiting", len(devices), place)
            told = time.monotonic()
        time.sleep(pause_s)


def release() -> None:
    """Give the GPU back before the process ends (tests; jobs simply end)."""
    global _lock
    if _lock is not None:
        os.close(_lock)
        _lock = None
        del os.environ[HELD]
