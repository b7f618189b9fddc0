"""Wheels for a machine that has torch but neither a network nor the rest: a folder to carry along.

    python -m benchmarks.gpu.pack --to .whl

There: python3 -m pip install --no-index --no-deps --target site .whl/*.whl, then
PYTHONPATH=site python3 -m benchmarks.gpu. The machine is taken to have Python 3.12, torch with CUDA,
triton, transformers, numba, h5py, scipy, pytest, hypothesis and opencv.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from runtime import InputError
from runtime.job import add_job_arguments, run_job

PACKAGES = (
    *("av", "open_clip_torch", "ftfy", "wcwidth", "defusedxml", "soundfile", "cffi", "pycparser"),
    *("jsonschema", "jsonschema_specifications", "referencing", "rpds-py", "attrs"),
    *("threadpoolctl", "mambapy"),
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST_MB = 64


def pack(folder: Path, python: str) -> float:
    """Download the wheels into `folder`; returns megabytes. InputError where they are too large."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, *PACKAGES], check=True)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6
    if size > MOST_MB:
        raise InputError(f"{folder} holds {size:.0f} MB of wheels", f"at most {MOST_MB} MB travel")
    return size


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--to", type=Path, default=Path(".whl"), help="folder (default: .whl)")
    parser.add_argument("--python", default="3.12", help="version there (default: 3.12)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        print(f"{args.to}: {pack(args.to, args.python):.0f} MB")

    return run_job("benchmarks.gpu.pack", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
