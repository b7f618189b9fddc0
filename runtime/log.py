"""Log files: first line the command, last lines the traceback if there was one."""

import logging
import shlex
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s | %(message)s"


def get_logger(name: str) -> logging.Logger:
    """Logger of a stage, for example ``get_logger("faces")``."""
    return logging.getLogger(name)


def command_line(module: str, argv: list[str]) -> str:
    """The command as a user would paste it."""
    return shlex.join(["python", "-m", module, *argv])


def set_up_logging(module: str, argv: list[str], log_file: str | None) -> None:
    """Send log lines to `log_file` (first line: the command), or to stderr without one."""
    handlers: list[logging.Handler] = []
    if log_file:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        with open(log_file, "w", encoding="utf-8") as f:
            f.write(command_line(module, argv) + "\n")
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    else:
        handlers.append(logging.StreamHandler(sys.stderr))
    logging.basicConfig(
        level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    for noisy in ("absl", "h5py", "matplotlib", "PIL", "numba", "httpx", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
