"""Which device, how many threads. Neither is a setting: outputs agree within a tested tolerance."""

import os
import sys

from threadpoolctl import threadpool_limits

from runtime.lease import lease_gpu


def pick_device():
    """CUDA when there is one, else CPU (torch.device). A GPU is leased first (runtime.lease)."""
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
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
    threadpool_limits(threads)
