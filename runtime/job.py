"""Run a command line as a job: log file, friendly errors, exit status.

Exit status: 0 done, 1 bad input (`InputError`) or full disk, 2 wrong arguments, 3 a defect of ours.
"""

import argparse
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable

from runtime.encoding import check_encoding
from runtime.errors import InputError
from runtime.log import set_up_logging


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """``--log``, ``--threads`` and ``--fingerprint``: what every job of the workflow takes."""
    group = parser.add_argument_group("job")
    group.add_argument("--log", metavar="FILE", help="log file (default: stderr)")
    group.add_argument("--threads", type=int, default=1, help="threads every library may use")
    group.add_argument(
        "--fingerprint",
        default="",
        help="what these numbers depend on (from the workflow); stored in the output",
    )


def run_job(
    module: str,
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    argv: list[str] | None = None,
) -> int:
    """Parse, run `work(args)`, turn exceptions into at most three lines on screen.

    The traceback goes to the end of the log file; without ``--log`` it is kept back unless
    the environment has ``DEBUG=1``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(argv)
    log_file = getattr(args, "log", None)
    set_up_logging(module, argv, log_file)
    try:
        check_encoding()
        work(args)
        return 0
    except InputError as e:
        return _fail(e.lines(), 1, log_file)
    except KeyboardInterrupt:
        return _fail(["stopped by the user; unfinished outputs were removed"], 130, log_file)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        name = e.filename or "the output folder"
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            lines = [
                f"error: no space left while writing {name}",
                "cure:  free disk space, then start again: finished files are kept",
            ]
        elif e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            lines = [
                f"error: no permission for {name}",
                "cure:  make the folder writable or choose another `results` in the config",
            ]
        elif e.errno == errno.ENOENT:
            lines = [
                f"error: {name} does not exist",
                "cure:  check the path in the sheet or the command",
            ]
        else:
            lines = [
                f"error: {type(e).__name__}: {' '.join(str(e).split())[:300]}",
                _where(log_file),
            ]
        return _fail(lines, 1, log_file)
    except Exception as e:  # the last resort: nothing may leave a traceback on screen
        text = " ".join(str(e).split())[:300]
        return _fail(
            [f"unexpected error in {module}: {type(e).__name__}: {text}", _where(log_file)],
            3,
            log_file,
        )


def _where(log_file: str | None) -> str:
    if log_file:
        return f"the traceback is at the end of {log_file}; please report it"
    return "run again with DEBUG=1 for the traceback; please report it"


def _fail(lines: list[str], status: int, log_file: str | None) -> int:
    for line in lines[:3]:
        print(line, file=sys.stderr)
    if log_file:
        for line in lines[:3]:
            logging.getLogger("job").error(line)
        logging.shutdown()
        with open(log_file, "a", encoding="utf-8") as f:
            f.write(traceback.format_exc())
    elif os.environ.get("DEBUG"):
        traceback.print_exc()
    return status
