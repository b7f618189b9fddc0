"""NVIDIA devices of this machine and of this process, found without importing torch."""

import os
from pathlib import Path


def gpus_of_machine() -> int:
    """NVIDIA devices of this machine; the variable GPUS says it where the driver does not (WSL)."""
    stated = os.environ.get("GPUS", "")
    if stated.isdecimal():
        return int(stated)
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def visible() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES writes them; no torch."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is None:
        return [str(i) for i in range(gpus_of_machine())]
    names = [d.strip() for d in stated.split(",")]
    names = names[: names.index("-1")] if "-1" in names else names  # CUDA stops there, too
    return list(dict.fromkeys(filter(None, names)))


def gpus_visible() -> int:
    """Number of NVIDIA devices this process may use."""
    return len(visible())
