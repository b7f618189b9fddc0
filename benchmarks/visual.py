"""Speed and memory of the visual extractors, beside the obvious per-frame script.

    python benchmarks/visual.py [--faces ROLE.h5 --crops ROLE.crops.mkv] [--seconds 40] [--only flow clip]

Without files a crop store of a moving, textured square is made. CLIP has the real shapes of
ViT-B-32 and random weights. Decoding and preprocessing are included everywhere; jobs are run as
the workflow runs them (own process, imports included). Figures depend on what else the machine
does: compare within one run only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from extractors.crops import CropWriter  # noqa: E402
from extractors.face_track import read_track  # noqa: E402
from tests.face_files import MESH, rgb, shifted, texture, write_faces  # noqa: E402

RATE = 25


def synthetic(folder: Path, seconds: float) -> tuple[Path, Path]:
    """Faces file and crop store of a textured square that swings, with noise."""
    n = int(seconds * RATE)
    rng = np.random.default_rng(0)
    base = [texture(224, s, blur=4) for s in range(3)]
    k = np.arange(n)
    dx, dy = 6 * np.sin(k / 9), 4 * np.cos(k / 13)
    crops = folder / "role.crops.mkv"
    noise = rng.normal(0, 2, (8, 224, 224))
    with CropWriter(crops, 224) as writer:
        for i in range(n):
            writer.write(rgb(shifted(base[i // 250 % 3], dx[i], dy[i]) + noise[i % 8]))
    landmarks = np.tile(rng.uniform(0.2, 0.8, (1, MESH, 2)).astype(np.float32), (n, 1, 1))
    return write_faces(folder / "role.h5", k / RATE, landmarks=landmarks), crops


def run_jobs(jobs: list[list[str]]) -> list[tuple[float, float, float]]:
    """Run command lines at the same time; returns (wall s, CPU s, peak MB) of each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    running = {}
    for i, job in enumerate(jobs):
        child = subprocess.Popen(
            [sys.executable, *job], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        running[child.pid] = i
    results = [(0.0, 0.0, 0.0)] * len(jobs)
    while running:
        pid, status, usage = os.wait4(-1, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(jobs[running[pid]])}")
        cpu = usage.ru_utime + usage.ru_stime
        results[running.pop(pid)] = (time.monotonic() - start, cpu, usage.ru_maxrss / 1024)
    return results


def line(name: str, value: str, note: str = "") -> None:
    print(f"{name:<44}{value:>20}  {note}", flush=True)


def naive_flow(crops: Path, frames: int) -> float:
    """Frames per second of the obvious script: Farneback on the whole crop, a loop over cells."""
    capture = cv2.VideoCapture(str(crops))
    before, rows = None, []
    start = time.monotonic()
    for _ in range(frames):
        ok, picture = capture.read()
        if not ok:
            break
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)
            speed, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1])
            row = []
            for r in range(4):
                for c in range(4):
                    cell = np.s_[r * 56 : r * 56 + 56, c * 56 : c * 56 + 56]
                    counts, _ = np.histogram(angle[cell], 8, (0, 2 * np.pi), weights=speed[cell])
                    row += [flow[cell][..., 0].mean(), flow[cell][..., 1].mean(), *counts]
            rows.append(row)
        before = grey
    return len(rows) / (time.monotonic() - start)


def benchmark_flow(faces: Path, crops: Path, folder: Path) -> None:
    track = read_track(faces)
    duration = float(track.time[-1] - track.time[0]) + track.hop_s
    files = ["--faces", str(faces), "--crops", str(crops)]
    jobs = {}
    for name in ("flow", "flow_magnitude"):
        jobs[name] = ["-m", "extractors", name, *files, "--out", str(folder / f"{name}.h5")]
    print(f"\nflow, flow_magnitude: {len(track)} frames, {duration:.0f} s of video")
    for name, job in jobs.items():
        (wall, cpu, memory), *_ = run_jobs([job])
        inside = json.loads((folder / f"{name}.json").read_text())["run"]["seconds"]
        line(f"{name} alone, 1 thread", f"{duration / inside:.0f} x real time", f"{memory:.0f} MB")
        line(f"{name}: CPU time of the whole job", f"{cpu:.2f} s", f"= {duration / cpu:.0f} x")
        line(f"{name}: overhead of the job", f"{wall - inside:.2f} s", "goal <= 1.5 s")
    together = run_jobs(list(jobs.values()))
    wall = max(w for w, *_ in together)
    line("both at once, whole jobs", f"{duration / wall:.0f} x real time", "goal >= 15")
    cv2.setNumThreads(2)
    fps = naive_flow(crops, min(len(track), 500))
    line(
        "per-frame script (Farneback 224), 2 threads", f"{fps / RATE:.1f} x real time", "flow only"
    )


def random_vit_b_32(folder: Path) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    tower = open_clip.create_model("ViT-B-32").visual
    state = {f"visual.{k}": v for k, v in tower.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config("ViT-B-32"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def naive_clip(crops: Path, weights: Path, frames: int) -> float:
    """Frames per second of the obvious script: PIL and a batch of one, fp32."""
    import open_clip
    import torch
    from PIL import Image

    from extractors.clip_face import ImageTower

    visual = ImageTower(weights).visual
    transform = open_clip.image_transform(224, is_train=False)
    capture = cv2.VideoCapture(str(crops))
    start = time.monotonic()
    with torch.no_grad():
        for _ in range(frames):
            picture = capture.read()[1]
            image = Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            visual(transform(image)[None]).numpy()
    return frames / (time.monotonic() - start)


def benchmark_clip(faces: Path, crops: Path, folder: Path, frames: int, threads: int) -> None:
    from runtime.torchvision_cpu import allow_torchvision_without_cuda

    allow_torchvision_without_cuda()
    import torch

    from extractors import clip_face
    from runtime.device import limit_threads

    weights = random_vit_b_32(folder / "ViT-B-32")
    limit_threads(threads)
    track = read_track(faces)
    print(f"\nclip_face: ViT-B-32, random weights, batch 32, {threads} threads")
    for precision in ("fp32", "bf16"):
        tower = clip_face.ImageTower(weights, precision)
        x = torch.zeros(32, 3, 224, 224, dtype=tower.dtype)
        bare = whole = 0.0
        done = 0
        with torch.inference_mode():
            tower.visual(x)
        for _ in range(2):  # in turns, so that both meet the same machine
            start = time.monotonic()
            with torch.inference_mode():
                for _ in range(frames // 64):
                    tower.visual(x)
            bare += time.monotonic() - start
            start = time.monotonic()
            work = clip_face.batches(crops, track, tower.prepare, 32)
            for _, (_, pictures) in zip(range(frames // 64), work, strict=False):
                tower.encode(pictures)
                done += len(pictures)
            whole += time.monotonic() - start
            work.close()
        share = bare / whole
        line(f"bare model, {precision}", f"{done / bare:.1f} pictures/s")
        line(
            f"decode + preprocess + model, {precision}",
            f"{done / whole:.1f} pictures/s",
            f"{100 * share:.0f} % of the bare model, goal >= 90 %",
        )
        line("", f"{done / whole / RATE:.2f} x real time")
    fps = naive_clip(crops, weights, min(96, len(track)))
    line(
        "per-frame script (PIL, batch 1, fp32)",
        f"{fps:.1f} pictures/s",
        f"{fps / RATE:.2f} x real time",
    )
    short = write_faces(
        folder / "short.h5", np.arange(len(track)) / RATE, np.arange(len(track)) < 32
    )
    job = ["-m", "extractors", "clip_face", "--faces", str(short), "--crops", str(crops)]
    job += [
        "--weights",
        str(weights),
        "--out",
        str(folder / "clip_face.h5"),
        "--threads",
        str(threads),
    ]
    (wall, _, memory), *_ = run_jobs([job])
    inside = json.loads((folder / "clip_face.json").read_text())["run"]["seconds"]
    line("job with one batch (32 faces), fp32", f"{wall:.1f} s", f"{memory:.0f} MB")
    line(
        "clip_face: overhead of the job", f"{wall - inside:.2f} s", "outside the work; goal <= 5 s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, help="faces file (default: a made one)")
    parser.add_argument("--crops", type=Path, help="its crop store")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the made one, s")
    parser.add_argument(
        "--clip-frames", type=int, default=256, help="pictures per CLIP measurement"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of CLIP")
    parser.add_argument("--only", nargs="+", choices=["flow", "clip"], default=["flow", "clip"])
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faces, crops = (a.faces, a.crops) if a.faces else synthetic(folder, a.seconds)
        megabytes = crops.stat().st_size / 1e6
        print(f"crop store {crops.name}: {megabytes:.1f} MB")
        if "flow" in a.only:
            benchmark_flow(faces, crops, folder)
        if "clip" in a.only:
            benchmark_clip(faces, crops, folder, a.clip_frames, a.threads)


if __name__ == "__main__":
    main()
