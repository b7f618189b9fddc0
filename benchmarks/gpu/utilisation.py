"""How busy the GPU is, sampled beside the work: by NVML, else by nvidia-smi, else the reason why not.

The driver's figure is the share of its last period (1/6 s to 1 s) in which any kernel ran.
"""

import os
import shutil
import subprocess
import threading
import time

PERIOD_S = 0.1


class Utilisation:
    """Context manager that samples in a thread until its block ends.

    source: "NVML", "nvidia-smi", or why there are no samples.
    """

    def __init__(self, device: str):
        self.samples: list[tuple[float, float]] = []  # (time.monotonic(), percent)
        self._stop = threading.Event()
        self._read = None
        self._process = None
        self.source = "no GPU"
        if device == "cuda":
            self._read = self._nvml()

    def _nvml(self):
        """A function that reads the share, or None where NVML does not answer (then `source`)."""
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
        try:
            import pynvml

            pynvml.nvmlInit()
            if shown.isdecimal():
                handle = pynvml.nvmlDeviceGetHandleByIndex(int(shown))
            else:
                handle = pynvml.nvmlDeviceGetHandleByUUID(shown)
            pynvml.nvmlDeviceGetUtilizationRates(handle)
        except Exception as e:  # not installed, no library, MIG: each raises a type of its own
            self.source = f"NVML: {type(e).__name__}: {e}"
            return self._smi(shown)
        self.source = "NVML"
        return lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    def _smi(self, shown: str):
        tool = shutil.which("nvidia-smi")
        if tool is None:
            self.source += "; no nvidia-smi"
            return None
        command = [tool, "-i", shown, "--query-gpu=utilization.gpu", f"-lms={int(1e3 * PERIOD_S)}"]
        self._process = subprocess.Popen(
            [*command, "--format=csv,noheader,nounits"], stdout=subprocess.PIPE, text=True
        )
        self.source = "nvidia-smi"

        def read() -> float:
            return float(self._process.stdout.readline())

        return read

    def __enter__(self) -> "Utilisation":
        if self._read is not None:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.is_set():
            try:
                percent = self._read()
            except Exception as e:
                self.source += f" stopped ({type(e).__name__}: {e})"
                return
            self.samples.append((time.monotonic(), percent))
            self._stop.wait(PERIOD_S if self._process is None else 0.0)

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._read is not None:
            self._thread.join(timeout=2.0)

    def percent(self, since: float = 0.0, until: float = float("inf")) -> float | None:
        """Mean of the samples between two times of time.monotonic(); None without any."""
        found = [p for t, p in self.samples if since <= t <= until]
        return sum(found) / len(found) if found else None
