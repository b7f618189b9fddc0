"""Measurements behind docs/audio.md.

    python -m benchmarks.audio exact CORPUS      streaming against per-window openSMILE, per functional
    python -m benchmarks.audio chunking CORPUS   chunked wav2vec2 against one full pass
    python -m benchmarks.audio speed             multiples of real time, beside the obvious script
    python -m benchmarks.audio memory            peak memory at 5 and at 60 minutes

CORPUS is a folder that is searched for .wav files (real speech; nothing of it is stored). Models are
random checkpoints of real shapes, made in a temporary folder.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from extractors.declared import EXTRACTORS

RATE_HZ = 16000
CHUNK_S = EXTRACTORS["wav2vec2"].defaults["chunk_s"]
BASE: dict[str, object] = {}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [64] * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
SHAPES = {"base": BASE, "large": LARGE, "small": SMALL}  # base: group norm; others: layer norm


def checkpoint(name: str, folder: Path) -> Path:
    """Random wav2vec2 of the named shape in Hugging Face layout."""
    from runtime.torchvision_cpu import allow_torchvision_without_cuda

    allow_torchvision_without_cuda()
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    path = folder / name
    Wav2Vec2Model(Wav2Vec2Config(**SHAPES[name])).save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(path)
    return path


def speech_like(seconds: float) -> np.ndarray:
    """Buzz, noise and pauses: float32 at 16 kHz."""
    rng = np.random.default_rng(0)
    t = np.arange(round(60 * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2.5 * t)) / RATE_HZ
    buzz = sum(np.sin(h * phase) / h for h in range(1, 12))
    minute = 0.15 * buzz * (np.sin(5 * t) > -0.3) + 0.003 * rng.standard_normal(len(t))
    n = round(seconds * RATE_HZ)
    return np.resize(minute.astype(np.float32), n)


def clips(corpus: str, count: int) -> list[np.ndarray]:
    """Up to `count` clips, evenly taken from the corpus' sound files."""
    from media.audio import audio_blocks

    paths = sorted(Path(corpus).rglob("*.wav"))
    if not paths:
        raise SystemExit(f"no .wav file below {corpus}")
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    return [np.concatenate(list(audio_blocks(p, RATE_HZ))) for p in paths]


def exact(args: argparse.Namespace) -> None:
    """Per functional: correlation and difference between the two modes of egemaps."""
    from extractors.egemaps import functionals
    from extractors.opensmile_stream import dim_names

    streamed, per_window = [], []
    for signal in clips(args.corpus, args.clips):
        streamed.append(np.concatenate(list(functionals([signal])))[24:])
        per_window.append(np.concatenate(list(functionals([signal], "exact")))[24:])
    a, b = np.concatenate(streamed).astype(float), np.concatenate(per_window).astype(float)
    print(f"{len(streamed)} clips, {len(a)} windows of 1 s\n")
    print("| functional | correlation | equal to 0.1 % | mean rel. diff. | 99th pct. diff. / std |")
    print("|---|---|---|---|---|")
    rows = []
    for j, name in enumerate(dim_names("func")):
        x, y = a[:, j], b[:, j]
        difference = np.abs(x - y)
        correlation = np.corrcoef(x, y)[0, 1]
        equal = np.mean(difference <= 1e-3 * np.abs(y) + 1e-9)
        relative = difference.mean() / np.abs(y).mean()
        tail = np.percentile(difference, 99) / y.std()
        rows.append((correlation, equal, relative, tail))
        print(f"| {name} | {correlation:.4f} | {100 * equal:.1f} % | {relative:.4f} | {tail:.3f} |")
    r = np.array(rows)
    print(
        f"\nmedian over functionals: correlation {np.median(r[:, 0]):.4f}, "
        f"equal {100 * np.median(r[:, 1]):.1f} %, mean relative difference {np.median(r[:, 2]):.4f}; "
        f"correlation above 0.99: {(r[:, 0] > 0.99).sum()}, above 0.95: {(r[:, 0] > 0.95).sum()} of 88; "
        f"all values: {100 * np.mean(np.abs(a - b) <= 1e-3 * np.abs(b) + 1e-9):.1f} % equal to 0.1 %"
    )


def chunking(args: argparse.Namespace) -> None:
    """Distance of chunked hidden states to one full pass over the whole clip."""
    from extractors.chunks import plan
    from extractors.encoder import load_encoder
    from extractors.wav2vec2 import encode_chunks

    signals = clips(args.corpus, args.clips)
    print("| model | chunk s | context s | cosine mean | cosine 1st pct. | rms / std |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for shape in args.shapes:
            encoder = load_encoder(checkpoint(shape, Path(name)), -1, "fp32")
            whole = []
            for signal in signals:
                encoder.fit([signal])
                whole.append(encoder(signal[None])[0])
            for chunk_s, context_s in ((10, 1), (15, 0.5), (15, 1), (15, 2), (20, 1)):
                cosine, error, spread = [], [], []
                for signal, full in zip(signals, whole, strict=True):
                    encoder.fit([signal])
                    chunks = plan(
                        encoder.frames(len(signal)),
                        encoder.frames(chunk_s * RATE_HZ),
                        round(context_s * 50),
                    )
                    got = np.concatenate(list(encode_chunks(encoder, [signal], chunks, 1)))
                    product = (got * full).sum(1)
                    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(full, axis=1)
                    cosine.append(product / norms)
                    error.append((got - full) ** 2)
                    spread.append((full - full.mean(0)) ** 2)
                c = np.concatenate(cosine)
                ratio = np.sqrt(np.concatenate(error).mean() / np.concatenate(spread).mean())
                print(
                    f"| {shape} | {chunk_s} | {context_s} | {c.mean():.5f} | "
                    f"{np.percentile(c, 1):.5f} | {ratio:.4f} |",
                    flush=True,
                )


def timed(what: str, seconds: float, work: Callable[[], object]) -> float:
    """Run work once on `seconds` of audio; prints multiples of real time by wall and processor time.

    Returns the one by processor time, which other programs on the machine disturb less.
    """
    begin, busy = time.perf_counter(), time.process_time()
    work()
    wall = seconds / (time.perf_counter() - begin)
    processor = seconds / (time.process_time() - busy)
    print(f"{what:50s} {wall:7.1f} x real time, {processor:7.1f} x per core", flush=True)
    return processor


def speed(args: argparse.Namespace) -> None:
    """Multiples of real time of whole jobs (decoding included), and of the obvious script."""
    import soundfile
    import torch

    from extractors import egemaps
    from extractors.run import extract
    from extractors.sound import Sound

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = 60 * args.minutes
        audio, out = str(folder / "a.wav"), str(folder / "a.h5")
        soundfile.write(audio, speech_like(seconds), RATE_HZ)
        timed("egemaps, streaming", seconds, lambda: extract("egemaps", out, Sound(audio)))
        timed("egemaps_lld", seconds, lambda: extract("egemaps_lld", out, Sound(audio)))
        timed(
            "per-window script (process_signal every 40 ms)",
            9,
            lambda: list(egemaps.exact_windows([speech_like(10)])),
        )
        for shape in args.shapes:
            path = checkpoint(shape, folder)
            for precision in args.precisions:
                wav2vec2_speed(f"{shape} {precision}", path, precision, audio, seconds, args)


def wav2vec2_speed(
    what: str, path: Path, precision: str, audio: str, seconds: float, args: argparse.Namespace
) -> None:
    """The whole job against the bare model on chunks of the same shape, by turns."""
    from extractors.encoder import load_encoder
    from extractors.run import extract
    from extractors.sound import Sound

    encoder = load_encoder(path, -1, precision)
    frames = encoder.frames(round(CHUNK_S * RATE_HZ))
    n = (frames - 1) * encoder.stride + encoder.receptive
    batch = np.stack([speech_like(CHUNK_S)[:n]] * args.batch)
    encoder.fit([batch[0]])
    encoder(batch)
    calls = max(1, round(seconds / CHUNK_S / args.batch / 2))

    def bare() -> None:
        for _ in range(calls):
            encoder(batch)

    def job() -> None:
        extract(
            "wav2vec2", path.parent / "a.h5", Sound(audio), weights=path, precision=precision,
            batch_size=args.batch, threads=args.threads,
        )  # fmt: skip

    length = calls * args.batch * n / RATE_HZ
    models, jobs = [], []
    for _ in range(args.repeats):
        models.append(timed(f"bare model, {what}, batch {args.batch}", length, bare))
        jobs.append(timed(f"wav2vec2 job, {what}, batch {args.batch}", seconds, job))
        models.append(timed(f"bare model, {what}, batch {args.batch}", length, bare))
    print(f"{'':20s}job / bare model: {np.median(jobs) / np.median(models):.3f}", flush=True)


def memory(args: argparse.Namespace) -> None:
    """Peak resident memory of a job's process at two lengths (small checkpoint)."""
    import soundfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = checkpoint("small", folder)
        for extractor, more in (
            ("egemaps", []),
            ("egemaps_lld", []),
            ("wav2vec2", ["--weights", str(weights)]),
        ):
            peaks = []
            for minutes in args.minutes:
                audio = folder / f"{minutes}.wav"
                if not audio.exists():
                    with soundfile.SoundFile(audio, "w", RATE_HZ, 1) as f:
                        for _ in range(minutes):
                            f.write(speech_like(60))
                begin = time.perf_counter()
                job = [
                    "extractors",
                    extractor,
                    "--audio",
                    str(audio),
                    "--out",
                    str(folder / "o.h5"),
                ]
                code = (
                    # not ru_maxrss: that starts with the memory of the process that forked
                    "import re, runpy, sys\n"
                    "sys.argv = sys.argv[1:]\n"
                    "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
                    "except SystemExit as e: assert not e.code, e.code\n"
                    "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
                )
                done = subprocess.run(
                    [sys.executable, "-c", code, *job, *more, "--log", str(folder / "log")],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peaks.append(int(done.stdout.split()[-1]) / 1024)
                print(
                    f"{extractor:12s} {minutes:3d} min: {peaks[-1]:6.0f} MB peak, {time.perf_counter() - begin:.0f} s",
                    flush=True,
                )
            print(f"{extractor:12s} grows by {100 * (peaks[-1] / peaks[0] - 1):.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("exact", help="egemaps: streaming against one call per window")
    p.add_argument("corpus")
    p.add_argument("--clips", type=int, default=4)
    p.set_defaults(work=exact)
    p = commands.add_parser("chunking", help="wav2vec2: chunks against one full pass")
    p.add_argument("corpus")
    p.add_argument("--clips", type=int, default=2)
    p.add_argument("--shapes", nargs="+", choices=SHAPES, default=["base", "small"])
    p.set_defaults(work=chunking)
    p = commands.add_parser("speed", help="multiples of real time")
    p.add_argument("--minutes", type=float, default=3)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--repeats", type=int, default=1)
    p.add_argument("--shapes", nargs="*", choices=SHAPES, default=["base"], help="of wav2vec2")
    p.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), default=["fp32"])
    p.set_defaults(work=speed)
    p = commands.add_parser("memory", help="peak memory by length")
    p.add_argument("--minutes", type=int, nargs=2, default=[5, 60])
    p.set_defaults(work=memory)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
