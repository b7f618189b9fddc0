"""Two jobs on one card: the lease with the real driver (runtime.lease)."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.record import Options, Record

TITLE = "One job per GPU: the lease"
SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]
JOB = """
import json, os, time
asked = time.monotonic()
from runtime.device import pick_device
device = pick_device()
import torch
got = time.monotonic()
if device.type == "cuda":
    torch.ones(8, device=device).sum().item()
time.sleep(HOLD)
print(json.dumps({"asked": asked, "got": got, "ends": time.monotonic(), "device": device.type,
                  "shown": os.environ.get("CUDA_VISIBLE_DEVICES"), "seen": torch.cuda.device_count()}))
"""


def run(record: Record, options: Options) -> None:
    """As many jobs as cards plus one: no two hold the same card at one time, and all finish."""
    from runtime.gpus import gpus_of_machine

    environment = {
        k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "GPU_LEASE")
    }
    environment |= {
        "GPU_LEASE_DIR": str(options.folder / "leases"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    cards = gpus_of_machine()
    listed = "the driver's list"
    if not cards:
        import torch

        # Some virtual machines hide /proc/driver/nvidia; the variable GPUS then says it.
        cards, listed = max(1, torch.cuda.device_count()), "the variable GPUS"
        environment["GPUS"] = str(cards)
    record.note(f"{cards} card(s) by {listed}.")
    hold = 0.5 if options.quick else 2.0
    command = [sys.executable, "-c", JOB.replace("HOLD", str(hold))]
    jobs = [
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(cards + 1)
    ]
    found = []
    for job in jobs:
        text, _ = job.communicate(timeout=options.seconds)
        if record.check("a job ends well", job.returncode == 0, job.returncode) == "yes":
            found.append(json.loads(text.splitlines()[-1]))
    record.table("Jobs", "job", "device", "shown", "cards seen", "waited s", "held s")
    for number, job in enumerate(sorted(found, key=lambda j: j["got"]), 1):
        waited, held = job["got"] - job["asked"], job["ends"] - job["got"]
        record.row(number, job["device"], job["shown"], job["seen"], waited, held)
        if options.device == "cuda":
            record.check("a job sees one card", job["seen"] == 1, job["seen"])
    for one in found:
        for other in found:
            if one is not other and one["shown"] == other["shown"]:
                apart = one["ends"] <= other["got"] or other["ends"] <= one["got"]
                record.check("two jobs never hold one card", apart, (one, other))
