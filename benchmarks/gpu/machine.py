"""Which machine this is: card, driver, packages, cores; and whether torch sees a GPU."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.record import Options, Record

TITLE = "Machine"
SECONDS = 60
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "numba",
    "transformers",
    "open_clip_torch",
    "av",
    "h5py",
    "mamba_ssm",
    "mambapy",
    "torchcodec",
    "nvidia-ml-py",
)


def version(package: str) -> str:
    """Its version, or "absent"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def processor() -> str:
    """Model name of the first CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def driver() -> str:
    """Version of the NVIDIA driver, or why it is not known."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no nvidia-smi"
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "nvidia-smi does not answer"
    return (done.stdout or done.stderr or "?").strip().splitlines()[0]


def run(record: Record, options: Options) -> None:
    """The first line of the page, and a table of versions."""
    import torch

    cores = len(os.sched_getaffinity(0))
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpu = f"{cores} cores of {processor()}, {gigabytes:.0f} GB"
    line = f"CPU only: {cpu}"
    if options.device == "cuda":
        if not torch.cuda.is_available():
            record.data["reason"] = "torch sees no GPU here: run it where there is one"
            record.check("a GPU", False, f"torch {torch.__version__} sees none")
            return
        card = torch.cuda.get_device_properties(0)
        line = (
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} SMs, "
            f"compute capability {card.major}.{card.minor}, driver {driver()}, "
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}; {cpu}"
        )
        record.data["gpus"] = torch.cuda.device_count()
    record.data["line"] = line
    record.table("Versions", "package", "version")
    record.row("Python", platform.python_version())
    for package in PACKAGES:
        record.row(package, version(package))
    if options.device == "cuda":
        listed = sorted(p.name for p in Path("/proc/driver/nvidia/gpus").glob("*"))
        record.note(
            f"/proc/driver/nvidia/gpus lists {len(listed)} card(s); CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}; torch sees {torch.cuda.device_count()}."
        )
