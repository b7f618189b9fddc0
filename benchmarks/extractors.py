"""Every extractor on one recording: speed beside the obvious script, and memory against length.

    python -m benchmarks.extractors speed  [--video V --audio A] [--seconds 60] [--excerpt 8]
    python -m benchmarks.extractors memory [--minutes 5 60]

`speed` runs the command lines that the workflow runs, each in a process of its own, on a 1080p25
recording with models of real shapes and random weights; the obvious per-frame or per-window script
does the same work on an excerpt. `memory` compares the peak memory of every job on recordings of
different lengths with a small picture. Nothing is kept. docs/performance.md explains the columns.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from extractors.declared import EXTRACTORS as DECLARED
from media.audio import audio_blocks
from runtime.device import limit_threads, pick_device
from runtime.torchvision_cpu import allow_torchvision_without_cuda

ROOT = Path(__file__).resolve().parent.parent
RATE, RATE_HZ, LOOP_S = 25, 16000, 10  # frames/s, samples/s, s that are repeated
FACES, CROPS = "faces", ("flow", "flow_magnitude")
SOUND = tuple(name for name, e in DECLARED.items() if e.reads == "sound")
EXTRACTORS = (FACES, *DECLARED)
TORCH = tuple(name for name, e in DECLARED.items() if e.checkpoint)
GOAL = {FACES: 3.5, "egemaps": 20.0, "flow + flow_magnitude": 15.0}  # multiples of real time
say = partial(print, flush=True)
# Peak memory is asked of a small launcher's child: a process starts with its parent's maximum.
LAUNCHER = """
import json, os, sys, time
start = time.monotonic()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[2:]], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as f:
    json.dump({"wall": time.monotonic() - start, "mb": usage.ru_maxrss / 1024,
               "cpu": usage.ru_utime + usage.ru_stime}, f)
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


def loop_frames(clip: Path | None, size: tuple[int, int], seconds: float) -> Iterator[np.ndarray]:
    """RGB frames of `size` (width, height) from a clip, else a drawn face; with grain, for the bit rate."""
    import cv2

    from benchmarks.faces import drawn_face, first_frames

    drawn = (drawn_face(640, 480, k)[120:360, 160:480] for k in range(round(seconds * RATE)))
    width, height = size
    noise = np.random.default_rng(0).standard_normal((8, height, width, 1), np.float32)
    noise = np.repeat(np.clip(3.2 * noise + 8, 0, 255).astype(np.uint8), 3, axis=3)
    for k, rgb in enumerate(first_frames(clip, seconds) if clip else drawn):
        inner = round(rgb.shape[1] * height / rgb.shape[0])
        sides = (width - inner) // 2, width - inner - (width - inner) // 2
        picture = cv2.resize(rgb, (inner, height), interpolation=cv2.INTER_AREA)
        picture = cv2.copyMakeBorder(picture, 0, 0, *sides, cv2.BORDER_REPLICATE)
        yield cv2.add(picture, noise[k % 8])


def repeat_video(loop: Path, out: Path, seconds: float) -> None:
    """Mux the packets of `loop` again and again, time stamps shifted: no encoding."""
    import av

    frames, target, stream = 0, round(seconds * RATE), None
    with av.open(str(out), "w") as container:
        while frames < target:
            with av.open(str(loop)) as source:
                track = source.streams.video[0]
                stream = stream or container.add_stream_from_template(track)
                shift = round(frames / RATE / track.time_base)
                for packet in source.demux(track):
                    if packet.dts is not None and frames < target:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        container.mux(packet)
                        frames += 1


def make_recording(
    folder: Path, seconds: float, size: tuple[int, int], clip: Path | None
) -> tuple[Path, Path]:
    """Video and wav (16 kHz mono) that repeat 10 s of a real clip, or of a drawn face and a buzz."""
    import soundfile

    from benchmarks.audio import speech_like
    from benchmarks.faces import write_video

    video, audio, loop_s = folder / "video.mp4", folder / "audio.wav", min(seconds, LOOP_S)
    write_video(folder / "loop.mp4", loop_frames(clip, size, loop_s), RATE, crf=23)
    repeat_video(folder / "loop.mp4", video, seconds)
    sound = clip and clip.with_name(clip.name.replace(".video.mp4", ".audio.wav"))
    loop = np.concatenate(list(audio_blocks(sound, RATE_HZ))) if sound else speech_like(LOOP_S)
    soundfile.write(audio, np.resize(loop, round(seconds * RATE_HZ)), RATE_HZ)
    what, rate = "real clip" if clip else "drawn face", video.stat().st_size * 8e-6 / seconds
    say(f"recording: {what}, {size[0]}x{size[1]}, {RATE} fps, {rate:.1f} Mb/s, {seconds:g} s")
    return video, audio


def launch(folder: Path, name: str, command: list[str]) -> subprocess.Popen:
    launcher = [sys.executable, "-c", LAUNCHER, str(folder / f"{name}.usage"), *command]
    settings = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    return subprocess.Popen(launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def finish(folder: Path, name: str, running: subprocess.Popen) -> tuple[dict, str]:
    output, errors = running.communicate()
    if running.returncode:
        sys.exit(f"{name} failed:\n{errors.strip()[-2000:]}")
    return json.loads((folder / f"{name}.usage").read_text()), output


def job_command(
    name: str, folder: Path, video: Path, audio: Path, weights: dict[str, Path], threads: int
) -> list[str]:
    """The command line of an extractor; `folder` holds what it reads and writes."""
    module = ["extractors.faces"] if name == FACES else ["extractors", name]
    command = ["-m", *module, "--out", str(folder / f"{name}.h5")]
    crops = str(folder / "faces.crops.mkv")
    if name == FACES:
        command += ["--video", str(video), "--crops", crops]
    elif name in SOUND:
        command += ["--audio", str(audio)]
    else:
        command += ["--faces", str(folder / "faces.h5"), "--crops", crops]
    if name in TORCH:
        command += ["--weights", str(weights[name])]
    return [*command, "--threads", str(threads), "--log", str(folder / f"{name}.log")]


def sidecar(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def covered_seconds(folder: Path, name: str) -> float:
    """Length of what an extractor saw: its rows times its hop."""
    with h5py.File(folder / f"{name}.h5") as f:
        time_s = f["time"][:]
    return float(time_s[-1] - time_s[0] + np.median(np.diff(time_s)))


# The same work as an afternoon's script: returns the seconds of the recording and what is timed.


def obvious_faces(args: argparse.Namespace) -> tuple[float, Callable]:
    import cv2
    import mediapipe as mp

    capture = cv2.VideoCapture(str(args.video))
    detector = mp.solutions.face_detection.FaceDetection(model_selection=1)
    mesh = mp.solutions.face_mesh.FaceMesh()

    def work() -> None:
        for _ in range(round(args.seconds * (capture.get(cv2.CAP_PROP_FPS) or RATE))):
            rgb = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
            detector.process(rgb)
            mesh.process(rgb)

    return args.seconds, work


def sound_of(args: argparse.Namespace) -> np.ndarray:
    return np.concatenate(list(audio_blocks(args.audio, RATE_HZ)))[: round(args.seconds * RATE_HZ)]


def obvious_egemaps(args: argparse.Namespace) -> tuple[float, Callable]:
    from extractors.egemaps import exact_windows

    return args.seconds - 0.96, lambda: list(exact_windows([sound_of(args)]))


def obvious_egemaps_lld(args: argparse.Namespace) -> tuple[float, Callable]:
    import opensmile as o

    smile = o.Smile(o.FeatureSet.eGeMAPSv02, o.FeatureLevel.LowLevelDescriptors)
    return args.seconds, lambda: smile.process_signal(sound_of(args), RATE_HZ)


def obvious_wav2vec2(args: argparse.Namespace) -> tuple[float, Callable]:
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    model = AutoModel.from_pretrained(args.weights).eval()
    prepare = AutoFeatureExtractor.from_pretrained(args.weights)

    @torch.no_grad()
    def work() -> None:
        for piece in sound_of(args)[: int(args.seconds) * RATE_HZ].reshape(-1, RATE_HZ):
            inputs = prepare(piece, sampling_rate=RATE_HZ, return_tensors="pt")
            model(**inputs).last_hidden_state.numpy()

    return int(args.seconds), work


def obvious_clip_face(args: argparse.Namespace) -> tuple[float, Callable]:
    import cv2
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32")  # random weights
    model.eval()
    capture = cv2.VideoCapture(str(args.crops))

    @torch.no_grad()
    def work() -> None:
        for _ in range(round(args.seconds * RATE)):
            image = Image.fromarray(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
            model.encode_image(transform(image)[None]).numpy()

    return args.seconds, work


def obvious_flow(args: argparse.Namespace) -> tuple[float, Callable]:
    from benchmarks.visual import naive_flow

    return args.seconds, lambda: naive_flow(args.crops, round(args.seconds * RATE))


obvious_flow_magnitude = obvious_flow  # the same costly half, the dense flow


def bare_model(args: argparse.Namespace) -> tuple[float, Callable]:
    """The model alone on ready inputs, at the job's batch (1 chunk, 32 pictures) and precision."""
    if args.name == "wav2vec2":
        from benchmarks.audio import CHUNK_S
        from extractors.encoder import load_encoder

        encoder = load_encoder(args.weights, -1, "fp32")
        x = np.resize(sound_of(args), (1, round(CHUNK_S * RATE_HZ)))
        encoder.fit([x[0, :RATE_HZ]])
        return CHUNK_S, lambda: encoder(x)

    from extractors.clip_face import ImageTower

    tower = ImageTower(args.weights, "fp32", str(pick_device()))
    x = tower.torch.zeros(32, 3, *tower.size, device=pick_device())
    return 32 / RATE, tower.torch.inference_mode()(lambda: float(tower.visual(x).sum()))


def script(args: argparse.Namespace) -> None:
    """Time one obvious script (or bare model) and print {x, x_core, loading} as JSON."""
    begin = time.monotonic()
    if args.name in TORCH:
        if not args.bare:  # loaded by the extractor's own function there
            allow_torchvision_without_cuda()
        import torch  # noqa: F401  (so that the thread limit reaches it)
    limit_threads(args.threads)
    seconds, work = (bare_model if args.bare else globals()[f"obvious_{args.name}"])(args)
    loading, calls = time.monotonic() - begin, 1
    if args.bare:
        work()  # warm up
        calls = math.ceil(args.seconds / seconds)
    start, busy = time.monotonic(), time.process_time()
    for _ in range(calls):
        work()
    wall, busy, done = time.monotonic() - start, time.process_time() - busy, calls * seconds
    print(json.dumps({"x": done / wall, "x_core": done / busy, "loading": loading}))


def speed(args: argparse.Namespace) -> None:
    from benchmarks.audio import checkpoint
    from benchmarks.faces import clips
    from benchmarks.visual import random_vit_b_32

    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        video, audio = args.video, args.audio or args.video
        if not video:
            clip = next(iter(clips()[14:]), None)
            video, audio = make_recording(folder, args.seconds, (1920, 1080), clip)
        weights = {"wav2vec2": checkpoint("base", folder)}
        weights["clip_face"] = random_vit_b_32(folder / "ViT-B-32")
        say(f"{now()}; ViT-B-32 and wav2vec2-base, random weights, fp32\n")
        row("extractor", "threads", "work s", "x real time", "x per core", "peak MB", "overhead s", "obvious x", "obvious x per core", "obvious MB", "ours / obvious", "goal")  # fmt: skip
        row(*["---"] * 12)
        work, length, notes, files = {}, {}, [], (folder, video, audio, weights)
        threads = {name: 1 if name in CROPS else args.threads for name in EXTRACTORS}
        for name in args.only:
            job = job_command(name, *files, threads[name])
            usage, _ = finish(folder, name, launch(folder, name, job))
            work[name] = sidecar(folder, name)["run"]["seconds"]
            length[name] = covered_seconds(folder, name)
            x, limit = length[name] / work[name], 5.0 if name in TORCH else 1.5
            overhead = usage["wall"] - work[name]
            script = ["-m", "benchmarks.extractors", "script", name, f"--threads={args.threads}",
                      f"--seconds={min(args.excerpt, length[name])}", f"--video={video}",
                      f"--audio={audio}", f"--crops={folder / 'faces.crops.mkv'}",
                      f"--weights={weights.get(name)}"]  # fmt: skip
            theirs, text = finish(folder, "script", launch(folder, "script", script))
            obvious = json.loads(text.splitlines()[-1])
            row(name, threads[name], f"{work[name]:.1f}", f"{x:.1f}", f"{length[name] / usage['cpu']:.1f}",
                f"{usage['mb']:.0f}", f"{overhead:.1f}" + f" (goal {limit:g})" * (overhead > limit), f"{obvious['x']:.2f}", f"{obvious['x_core']:.2f}",
                f"{theirs['mb']:.0f}", f"{x / obvious['x']:.1f}", goal(name, x))  # fmt: skip
            if name in TORCH:
                _, text = finish(folder, "bare", launch(folder, "bare", [*script, "--bare"]))
                bare = json.loads(text.splitlines()[-1])
                share = length[name] / max(1e-3, work[name] - bare["loading"]) / bare["x"]
                notes.append(f"{name}: bare model {bare['x']:.2f} x real time at the job's batch; the job "
                             f"{100 * x / bare['x']:.0f} % of it, {100 * share:.0f} % without the "
                             f"{bare['loading']:.1f} s of imports and loading")  # fmt: skip
        if set(CROPS) <= set(args.only):
            for job in [(n, launch(folder, n, job_command(n, *files, 1))) for n in CROPS]:
                finish(folder, *job)
            at_once = length["flow"] / max(sidecar(folder, n)["run"]["seconds"] for n in CROPS)
            in_turn = length["flow"] / sum(work[n] for n in CROPS)
            both = " + ".join(CROPS)
            notes.append(f"{both}: {in_turn:.1f} x real time one after the other on 1 core; at once on 2 "
                         f"cores {at_once:.1f} x ({goal(both, at_once)})")  # fmt: skip
        say("\n" + "\n".join(notes) + f"\n{now()}")


def now() -> str:
    load = os.getloadavg()[0]
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, load {load:.1f}"


def row(*cells: object) -> None:
    say("| " + " | ".join(str(c) for c in cells) + " |")


def goal(name: str, x: float) -> str:
    return f">= {GOAL[name]:g} x: {'met' if x >= GOAL[name] else 'missed'}" if name in GOAL else ""


def memory(args: argparse.Namespace) -> None:
    peaks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as top:
        weights = {feature: Path(top) / feature for feature in TORCH}
        for feature, out in weights.items():
            made = ["-m", "corpora.demo", "weights", "--feature", feature, "--out", str(out)]
            finish(Path(top), "weights", launch(Path(top), "weights", made))
        for minutes in args.minutes:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                video, audio = make_recording(folder, 60 * minutes, (160, 120), None)
                for name in args.only:
                    job = job_command(name, folder, video, audio, weights, args.threads)
                    usage, _ = finish(folder, name, launch(folder, name, job))
                    if abs((seconds := covered_seconds(folder, name)) - 60 * minutes) > 1:
                        sys.exit(f"{name} covers {seconds:.1f} s of {60 * minutes:g}")
                    peaks.setdefault(name, []).append(usage["mb"])
                    say(
                        f"{name}: {usage['wall']:.0f} s, {usage['mb']:.0f} MB, {seconds:.2f} s covered"
                    )
    say(f"\n{now()}; peak MB\n")
    row("extractor", *(f"{m:g} min" for m in args.minutes), "last / first", "within 10 %")
    row(*["---"] * (len(args.minutes) + 3))
    for name, values in peaks.items():
        ratio = values[-1] / values[0]
        cells = [f"{mb:.0f}" for mb in values]
        row(name, *cells, f"{ratio:.3f}", "yes" if abs(ratio - 1) <= 0.1 else "no")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("speed", help="multiples of real time, beside the obvious script")
    p.add_argument(
        "--video", type=os.path.abspath, help="recording (default: a 1080p25 one is made)"
    )
    p.add_argument(
        "--audio", type=os.path.abspath, help="its sound (default: the sound of --video)"
    )
    p.add_argument("--seconds", type=float, default=60, help="length of the made recording, s")
    p.add_argument("--excerpt", type=float, default=8, help="for the obvious scripts, s (from 2)")
    p.add_argument("--threads", type=int, default=2, help="per job (flow, flow_magnitude: 1)")
    p.add_argument("--only", nargs="+", choices=EXTRACTORS, default=EXTRACTORS)
    p.set_defaults(work=speed)
    p = commands.add_parser("memory", help="peak memory against length")
    p.add_argument("--minutes", type=float, nargs="+", default=[5, 60], help="lengths to compare")
    p.add_argument("--threads", type=int, default=1, help="per job")
    p.add_argument("--only", nargs="+", choices=EXTRACTORS, default=EXTRACTORS)
    p.set_defaults(work=memory)
    p = commands.add_parser("script", help="one obvious script alone (speed calls it)")
    p.add_argument("name", choices=EXTRACTORS)
    for option in ("--video", "--audio", "--crops", "--weights"):
        p.add_argument(option, type=Path)
    p.add_argument("--seconds", type=float, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--bare", action="store_true", help="the model alone instead of the script")
    p.set_defaults(work=script)
    args = parser.parse_args()
    if args.command != "script":  # in order; the visual ones read what faces writes
        chosen = {*args.only, FACES} if set(args.only) - set(SOUND) else set(args.only)
        args.only = [name for name in EXTRACTORS if name in chosen]
    args.work(args)


if __name__ == "__main__":
    main()
