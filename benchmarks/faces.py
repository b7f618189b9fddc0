"""Measure `faces` on real clips: small faces, a crossing person, speed, crop codecs.

    python benchmarks/faces.py small-faces [--seconds 8] [--every 1]
    python benchmarks/faces.py crossing
    python benchmarks/faces.py speed [--seconds 20]
    python benchmarks/faces.py memory
    python benchmarks/faces.py codecs

Needs the clips of real people (REALCLIPS or ../shared/corpora/realclips); `speed` and `memory`
draw a face (`speed` only where the clips are absent). Everything runs through the real job on files; nothing is kept.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extractors.face_models import Region, cut, iou
from extractors.faces import extract
from media.video import video_frames
from store.features import Features, read_features

ROOT = Path(__file__).resolve().parent.parent


def clips() -> list[Path]:
    """The real clips, sorted; empty when absent."""
    folder = os.environ.get("REALCLIPS") or ROOT.parent / "shared" / "corpora" / "realclips"
    return sorted(Path(folder).rglob("*.mp4"))


def write_video(path: Path, frames, rate: int = 25, crf: int = 14) -> None:
    """Encode RGB frames (H, W, 3) with H.264, key frame every 2 s."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": str(crf), "g": str(2 * rate)}
        stream = container.add_stream("libx264", rate=rate, options=options)
        for k, rgb in enumerate(frames):
            if k == 0:
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def first_frames(path: Path, seconds: float):
    """RGB frames of the first seconds of a clip."""
    for frame in video_frames(path, threads=1):
        if frame.time_s >= seconds:
            return
        yield frame.rgb


def on_canvas(frames, factor: int, corner: tuple[int, int], shade: int = 96):
    """Paste each frame unscaled at `corner` on a plain canvas `factor` times as large."""
    x, y = corner
    for rgb in frames:
        h, w = rgb.shape[:2]
        canvas = np.full((factor * h, factor * w, 3), shade, np.uint8)
        canvas[y : y + h, x : x + w] = rgb
        yield canvas


def faces_of(video: Path, folder: Path) -> Features:
    """Run the job on a video and read its faces file."""
    out = folder / (video.stem + ".faces.h5")
    extract(video, out, folder / (video.stem + ".crops.mkv"), threads=2)
    return read_features(out)


def agreement(result: Features, truth: Features, shift: tuple[int, int]) -> tuple[float, float]:
    """Share of the truth's frames found with IoU >= 0.5; share of frames with a false track.

    A false track is a valid row whose box has IoU < 0.1 with the shifted true box (or that has no
    true box at all).
    """
    good = false = 0
    for k in range(len(truth.time)):
        if not result.valid[k]:
            continue
        box = result.extra["box"][k] - np.array([*shift, 0, 0])
        overlap = iou(box, truth.extra["box"][k]) if truth.valid[k] else 0.0
        good += overlap >= 0.5
        false += overlap < 0.1
    return good / max(1, int(truth.valid.sum())), false / len(truth.time)


def small_faces(seconds: float, every: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    print("clip | face/width | found at 1x | 2x: IoU>=0.5, false | 3x: IoU>=0.5, false")
    for path in clips()[::every]:
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp)
            video = folder / "full.mp4"
            write_video(video, first_frames(path, seconds))
            truth = faces_of(video, folder)
            h, w = int(truth.attributes["height"]), int(truth.attributes["width"])
            row = [float(np.nanmedian(truth.extra["box"][:, 2])) / w, truth.valid.mean()]
            for factor in (2, 3):
                corner = (int(rng.integers(0, w * (factor - 1))), 0)
                corner = (corner[0], int(rng.integers(0, h * (factor - 1))))
                large = folder / f"canvas{factor}.mp4"
                write_video(large, on_canvas(first_frames(path, seconds), factor, corner))
                row += agreement(faces_of(large, folder), truth, corner)
        rows.append(row)
        name = "/".join(path.parts[-2:]).removesuffix(".mp4").removesuffix(".video")
        print(
            f"{name} | {row[0]:.3f} | {row[1]:.3f} | {row[2]:.3f}, {row[3]:.4f} | {row[4]:.3f}, {row[5]:.4f}",
            flush=True,
        )
    table = np.array(rows)
    mean, worst = table.mean(axis=0), table.min(axis=0)
    print(
        f"mean | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f}, {mean[3]:.4f} | {mean[4]:.3f}, {mean[5]:.4f}"
    )
    print(
        f"worst | | {worst[1]:.3f} | {worst[2]:.3f}, {table[:, 3].max():.4f} | {worst[4]:.3f}, {table[:, 5].max():.4f}"
    )


def crossed(
    frames: list[np.ndarray], others: list[np.ndarray], box, scale: float, start: int, y0: float
):
    """Another head (`box` in `others`), `scale` times larger, crosses at height y0 in 3 s."""
    x, y, w, h = (float(v) for v in box)
    side = int(max(w, h) * 2.2)
    height, width = frames[0].shape[:2]
    for k, rgb in enumerate(frames):
        j = k - start
        if 0 <= j < 75:
            size = int(side * scale)
            head = cut(others[k], Region(x + w / 2, y + h / 2, side), size)
            left = int(-size + (width + size) * j / 74)
            top = int(y0) - size // 2
            mask = np.zeros((size, size), np.uint8)
            cv2.ellipse(mask, (size // 2, size // 2), (size * 2 // 5, size // 2), 0, 0, 360, 1, -1)
            rgb = rgb.copy()
            a, b = max(0, left), min(width, left + size)
            c, d = max(0, top), min(height, top + size)
            if a < b and c < d:
                part = np.s_[c - top : d - top, a - left : b - left]
                inside = mask[part].astype(bool)
                rgb[c:d, a:b][inside] = head[part][inside]
        yield rgb


def crossing(scale: float = 1.6) -> None:
    """A larger face crosses; count rows whose box is not the person's."""
    chosen = clips()
    pairs = [(10, 0), (14, 20), (20, 2), (3, 9), (5, 12), (24, 25), (9, 3), (17, 21)]
    print("person | who crosses | frames found | found while they cross | wrong frames")
    for i, j in [(a % len(chosen), b % len(chosen)) for a, b in pairs]:
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp)
            frames = list(first_frames(chosen[i], 10.0))
            others = list(first_frames(chosen[j], 10.0))
            n = min(len(frames), len(others))
            write_video(folder / "one.mp4", frames[:n])
            write_video(folder / "other.mp4", others[:n])
            truth, other = (
                faces_of(folder / "one.mp4", folder),
                faces_of(folder / "other.mp4", folder),
            )
            box = np.nanmedian(other.extra["box"], axis=0)
            y0 = float(np.nanmedian(truth.extra["box"][:, 1] + truth.extra["box"][:, 3] / 2))
            write_video(folder / "two.mp4", crossed(frames[:n], others[:n], box, scale, 100, y0))
            both = faces_of(folder / "two.mp4", folder)
            found, wrong = agreement(both, truth, (0, 0))
            while_there = both.valid[100:175].mean()
            print(
                f"{'/'.join(chosen[i].parts[-2:])} | {'/'.join(chosen[j].parts[-2:])} | {found:.3f} | "
                f"{while_there:.2f} | {round(wrong * n)}",
                flush=True,
            )


def drawn_face(width: int, height: int, k: int) -> np.ndarray:
    """A drawn face that nods, for machines without the clips."""
    picture = np.full((height, width, 3), (150, 160, 170), np.uint8)
    r = width // 16
    x, y = width // 2 + int(r * np.sin(k / 20)), height // 2
    cv2.ellipse(picture, (x, y), (r, int(1.35 * r)), 0, 0, 360, (224, 180, 150), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (x + side * int(0.4 * r), y - int(0.25 * r))
        cv2.ellipse(picture, eye, (r // 5, r // 9), 0, 0, 360, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(picture, eye, r // 10, (40, 30, 20), -1, cv2.LINE_AA)
        brow = (eye[0], eye[1] - r // 4)
        cv2.ellipse(picture, brow, (r // 4, r // 12), 0, 180, 360, (60, 40, 30), r // 14 + 1)
    cv2.ellipse(picture, (x, y + r // 4), (r // 7, r // 8), 0, 0, 180, (170, 120, 95), r // 16 + 1)
    cv2.ellipse(picture, (x, y + int(0.7 * r)), (r // 3, r // 9), 0, 0, 360, (170, 70, 70), -1)
    return picture


def speed(seconds: float) -> None:
    """1080p25: a real clip pasted on a noisy 1920x1080 picture; the job in a process of its own."""
    noise = np.random.default_rng(0).normal(0, 4, (8, 1080, 1920, 1))
    n = int(seconds * 25)
    chosen = clips()

    def frames():
        source = first_frames(chosen[14], seconds) if chosen else None
        for k in range(n):
            if source is None:
                picture = drawn_face(1920, 1080, k)
            else:
                picture = cv2.resize(next(source), (1440, 1080))
                picture = cv2.copyMakeBorder(picture, 0, 0, 240, 240, cv2.BORDER_REPLICATE)
            yield np.clip(picture + noise[k % 8], 0, 255).astype(np.uint8)

    with tempfile.TemporaryDirectory() as tmp:
        video = Path(tmp) / "speed.mp4"
        write_video(video, frames(), crf=23)
        bits = video.stat().st_size * 8 / seconds / 1e6
        for threads in (2, 1):
            used = job(video, threads)
            print(
                f"1080p25, {bits:.1f} Mb/s, {seconds:.0f} s, {threads} thread(s): "
                f"{seconds / used['wall']:.2f}x real time ({used['wall']:.1f} s with start-up, "
                f"{used['cpu']:.1f} s of CPU), {used['megabytes']:.0f} MB, valid {used['valid']:.3f}; "
                f"load of the machine {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def job(video: Path, threads: int) -> dict[str, float]:
    """Run the job in a process of its own: wall and CPU seconds, peak megabytes, valid share."""
    out = video.with_suffix(".h5")
    command = [sys.executable, "-m", "extractors.faces", "--video", str(video), "--out", str(out)]
    command += ["--crops", str(video.with_suffix(".mkv")), "--threads", str(threads)]
    code = (
        "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]).returncode; "
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(u.ru_maxrss, u.ru_utime + u.ru_stime); sys.exit(r)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True
    )
    wall = time.monotonic() - start
    if done.returncode:
        sys.exit(done.stderr)
    kilobytes, cpu = done.stdout.split()
    valid = float(read_features(out).valid.mean())
    return {"wall": wall, "cpu": float(cpu), "megabytes": int(kilobytes) / 1024, "valid": valid}


def memory() -> None:
    """Peak memory of the job against the length of the recording (drawn face, 320x240)."""
    for seconds in (30, 300):
        with tempfile.TemporaryDirectory() as tmp:
            video = Path(tmp) / "long.mp4"
            write_video(video, (drawn_face(320, 240, k) for k in range(seconds * 25)))
            print(f"{seconds} s: {job(video, 2)['megabytes']:.0f} MB", flush=True)


def codecs() -> None:
    """Bytes, speed and effect on optical flow of codecs for the crop store."""
    candidates = {
        "libx264 crf 14 4:2:0": ("libx264", "yuv420p", {"crf": "14"}),
        "libx264 crf 16 4:2:0": ("libx264", "yuv420p", {"crf": "16"}),
        "libx264 crf 18 4:2:0": ("libx264", "yuv420p", {"crf": "18"}),
        "libx264 crf 16 4:4:4": ("libx264", "yuv444p", {"crf": "16"}),
        "mjpeg q 2": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2", "flags": "+qscale"}),
        "ffv1": ("ffv1", "yuv444p", {}),
    }
    raw: list[np.ndarray] = []
    starts = []
    for path in clips()[::5]:
        with tempfile.TemporaryDirectory() as tmp:
            video = Path(tmp) / "full.mp4"
            write_video(video, first_frames(path, 6.0), crf=0)
            squares = faces_of(video, Path(tmp)).extra["crop_box"]
            starts.append(len(raw))
            for frame, (x, y, side, _) in zip(video_frames(video, threads=1), squares, strict=True):
                if np.isfinite(x):
                    region = Region(x + side / 2, y + side / 2, side)
                    raw.append(cut(frame.rgb, region, 224, cv2.BORDER_REPLICATE))
    gray = [cv2.cvtColor(c, cv2.COLOR_RGB2GRAY) for c in raw]
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def flows(pictures):
        for k in range(1, len(pictures)):
            if k not in starts:
                yield flow_of.calc(pictures[k - 1], pictures[k], None)

    truth = [f.copy() for f in flows(gray)]
    size = float(np.mean([np.abs(f).mean() for f in truth]))
    print(f"{len(raw)} crops of {len(starts)} clips; mean |u|, |v| of the flow {size:.3f} px")
    print("codec | MB/h at 25 fps | encode fps | decode fps (gray) | flow error px | grey error")
    for name, (codec, pixels, options) in candidates.items():
        if codec == "libx264":
            options = {
                **options,
                "preset": "veryfast",
                "x264-params": "threads=1:mbtree=0:bframes=0",
            }
        buffer = io.BytesIO()
        start = time.perf_counter()
        with av.open(buffer, "w", format="matroska") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width = stream.height = 224
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = 1
            for k, crop in enumerate(raw):
                frame = av.VideoFrame.from_ndarray(crop, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        encode = len(raw) / (time.perf_counter() - start)
        megabytes = len(buffer.getvalue()) / len(raw) * 90_000 / 1e6
        buffer.seek(0)
        start = time.perf_counter()
        with av.open(buffer) as container:
            container.streams.video[0].codec_context.thread_count = 1
            back = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
        decode = len(raw) / (time.perf_counter() - start)
        error = np.mean([np.abs(a - b).mean() for a, b in zip(flows(back), truth, strict=True)])
        grey = np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(back, gray, strict=True)])
        print(
            f"{name} | {megabytes:.0f} | {encode:.0f} | {decode:.0f} | {error:.4f} | {grey:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["small-faces", "crossing", "speed", "memory", "codecs"])
    parser.add_argument("--seconds", type=float, help="length of the clips (8) or the video (20)")
    parser.add_argument("--every", type=int, default=1, help="every n-th clip only")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.what not in ("speed", "memory") and not clips():
        sys.exit("no real clips: set REALCLIPS to their folder")
    if args.what == "small-faces":
        small_faces(args.seconds or 8.0, args.every)
    elif args.what == "crossing":
        crossing()
    elif args.what == "speed":
        speed(args.seconds or 20.0)
    elif args.what == "memory":
        memory()
    else:
        codecs()


if __name__ == "__main__":
    main()
