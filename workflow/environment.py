"""The shell lines of the rules find the right `python` and the repository's packages."""

import os
import platform
import sys
from pathlib import Path

from runtime.gpus import gpus_visible
from runtime.lease import SCHEDULERS

ROOT = Path(__file__).resolve().parent.parent


def use_this_python() -> None:
    """Put the running interpreter first on PATH and the repository on PYTHONPATH of all jobs.

    `snakemake` may be called without activating its environment, and from another folder.
    """
    bins = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([bins, os.environ.get("PATH", "")])
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    caches_of_this_node()


def caches_of_this_node() -> None:
    """Give the libraries of a scheduler's job folders of their own for what they compile.

    By default that is the home folder, which some clusters keep from their nodes, or, for numba, the
    folder of the source: there, two nodes with different processors that compile at the same time
    can swap their files. A path of the user's own stays.
    """
    if any(name in os.environ for name in SCHEDULERS):
        at = Path.cwd() / ".snakemake" / "nodes" / (platform.node() or "node")
        for name in ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, str(at / name.split("_")[0].lower()))


def one_job_per_gpu(workflow) -> None:
    """Let as many jobs with `gpu: 1` run as this machine has GPUs (call in onstart).

    A limit of the user's own stays (--resources gpu=N); jobs on a cluster ask the cluster.
    """
    scheduler = getattr(workflow, "scheduler", None)
    limits = getattr(scheduler, "global_resources", None)
    if limits is None or "gpu" in limits or not getattr(workflow, "local_exec", True):
        return
    limits["gpu"] = scheduler.resources["gpu"] = max(1, gpus_visible())


def spare_the_scheduler(workflow) -> None:
    """Take the job rate limit off local runs (call in onstart).

    Snakemake 9.27 starts one more timer per finished job, and each of them looks through all jobs
    every second: a few hundred jobs cost a fifth of a core, a large study all of it. The limit is
    there for submissions to a cluster, where it stays.
    """
    scheduler = getattr(workflow, "scheduler", None)
    if getattr(workflow, "local_exec", True) and getattr(scheduler, "job_rate_limiter", None):
        scheduler.job_rate_limiter = None
