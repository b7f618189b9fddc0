"""The shell lines of the rules find the right `python` and the repository's packages."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def use_this_python() -> None:
    """Put the running interpreter first on PATH and the repository on PYTHONPATH of all jobs.

    `snakemake` may be called without activating its environment, and from another folder.
    """
    bins = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([bins, os.environ.get("PATH", "")])
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
