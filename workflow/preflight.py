"""Is everything here? Names a missing system library or package in one line with its cure.

python -m workflow.preflight
"""

import argparse
import importlib
import sys

from runtime import InputError
from runtime.job import run_job

LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libsndfile.so.1": "libsndfile1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
}
MODULES = ("av", "cv2", "h5py", "mediapipe", "opensmile", "safetensors", "soundfile", "torch")


def check(modules: tuple[str, ...] = MODULES) -> None:
    """Import what the jobs import; raises InputError for the first that is missing."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as e:
            raise InputError(
                f"the Python package {e.name} is missing",
                "run `make test` or `make demo` once, they install everything into .venv",
            ) from e
        except (ImportError, OSError) as e:
            raise InputError(*library_message(name, str(e))) from e


def library_message(module: str, text: str) -> tuple[str, str]:
    """Problem and cure for an import that failed with `text` (the loader's message)."""
    for library, package in LIBRARIES.items():
        if library in text:
            return (
                f"the system library {library} is missing (needed by {module})",
                f"apt-get install {package} (Debian, Ubuntu) or its equivalent",
            )
    return (
        f"{module} cannot be imported: {' '.join(text.split())[:160]}",
        "reinstall: rm -r .venv && make demo",
    )


def build_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="python -m workflow.preflight", description=__doc__.splitlines()[0]
    )


def main(argv: list[str] | None = None) -> int:
    return run_job("workflow.preflight", build_parser(), lambda args: check(), argv)


if __name__ == "__main__":
    sys.exit(main())
