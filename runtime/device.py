"""Which device, how many threads. Neither is a setting: outputs agree within a tested tolerance."""

import os


def pick_device():
    """CUDA when there is one, else CPU (torch.device). A GPU is leased first (runtime.lease)."""
    from runtime.lease import lease_gpu

    lease_gpu()
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device() -> str:
    """Name for the sidecar's run section."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "cpu"


def limit_threads(threads: int) -> None:
    """Make every loaded library obey `threads` (call after the heavy imports)."""
    import sys

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


def gpus_visible() -> int:
    """Number of NVIDIA devices this process may use, found without importing torch."""
    from runtime.lease import visible

    return len(visible())


def gpus_of_machine() -> int:
    """NVIDIA devices of this machine; the variable GPUS says it where the driver does not (WSL)."""
    stated = os.environ.get("GPUS", "")
    if stated.isdecimal():
        return int(stated)
    from pathlib import Path

    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
