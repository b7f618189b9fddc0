"""On PYTHONPATH, every Python process writes down which files it opened for reading.

TRACE_READS: folder for one file per process (its command line, then the paths); TRACE_BELOW: only
files below this folder count. Opening by C libraries (HDF5, FFmpeg) is not seen; the checksum that
our readers compare first is.
"""

import atexit
import json
import os
import sys

FOLDER, BELOW = os.environ.get("TRACE_READS"), os.environ.get("TRACE_BELOW", "")


def trace() -> None:
    opened = set()

    def hook(event: str, args: tuple) -> None:
        if event != "open" or not isinstance(args[0], str | bytes):
            return
        _, mode, flags = args
        writes = any(c in mode for c in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
        path = os.fsdecode(args[0])
        if not writes and os.path.abspath(path).startswith(BELOW):
            opened.add(os.path.abspath(path))

    def write() -> None:
        with open(os.path.join(FOLDER, f"{os.getpid()}.json"), "w") as f:
            json.dump({"argv": sys.orig_argv, "opened": sorted(opened)}, f)

    sys.addaudithook(hook)
    atexit.register(write)


if FOLDER:
    trace()
