"""`egemaps`: openSMILE eGeMAPSv02, 88 functionals over a sliding 1 s window, every 40 ms.

Row k describes the 40 ms frame k of the audio: its /time is start + k * 0.04 s (as in the
challenge's feature streams), its window the 960 ms before that instant and the 40 ms after it.
Rows 0..23 lack left context and rows whose window touches a gap of the track miss audio: both are
valid = false. There is one row for every complete 40 ms frame.

Modes
    streaming  one openSMILE pass over the recording (extractors/opensmile_stream.py)
    exact      one openSMILE call per window, as the challenge extracted its features; about 40x
               slower. The difference is the context of pitch tracking and smoothing at the window's
               edges; docs/audio.md has it per functional.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata

import numpy as np

from runtime import get_logger
from runtime.job import add_job_arguments, run_job

log = get_logger("egemaps")

HOP_S = 0.04
WINDOW_S = 1.0
CONTEXT_ROWS = 24  # 960 ms of left context
MODES = ("streaming", "exact")


def functionals(blocks: Iterable[np.ndarray], mode: str = "streaming") -> Iterator[np.ndarray]:
    """Functionals of every complete 40 ms frame.

    Parameters
    ----------
    blocks : float32 mono blocks (n,) at 16 kHz, full scale 1, of any lengths.
    mode : "streaming" or "exact".

    Yields
    ------
    float32 (m, 88), together n_samples // 640 rows; the first 24 are NaN.
    """
    from extractors.opensmile_stream import RATE_HZ

    hop = round(HOP_S * RATE_HZ)
    n = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal n
        for block in blocks:
            n += len(block)
            yield block

    rows = exact_windows(counted()) if mode == "exact" else _streamed(counted())
    pending = np.full((CONTEXT_ROWS, 88), np.nan, np.float32)
    done = 0
    for more in rows:
        pending = np.concatenate([pending, more])
        # A row may be ready a few samples before its frame is complete: hold it back.
        ready = max(0, min(len(pending), n // hop - done))
        yield pending[:ready]
        done += ready
        pending = pending[ready:]
    yield pending[: n // hop - done]


def _streamed(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    from extractors.opensmile_stream import stream_rows

    yield from stream_rows(blocks, "func")


def exact_windows(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """One `process_signal` call per 1 s window, every 40 ms: float32 (m, 88) per block."""
    import opensmile

    from extractors.opensmile_stream import FULL_SCALE, RATE_HZ

    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals, num_workers=1
    )
    hop, window = round(HOP_S * RATE_HZ), round(WINDOW_S * RATE_HZ)
    held = np.zeros(0, np.float32)
    for block in blocks:
        # opensmile turns +1.0 into -32768: keep full scale one step below.
        block = np.clip(block, -1.0, (FULL_SCALE - 1) / FULL_SCALE)
        held = np.concatenate([held, block])
        rows = []
        while len(held) >= window:
            rows.append(smile.process_signal(held[:window], RATE_HZ).to_numpy(np.float32))
            held = held[hop:]
        if rows:
            yield np.concatenate(rows)


def extract(
    audio: str,
    out: str,
    channel: int | None,
    mode: str,
    dtype: str,
    fingerprint: str = "",
) -> dict[str, object]:
    """Extract the functionals of a recording into the feature file `out`; returns counts.

    Of a silent recording no row is valid. Raises InputError for unreadable audio.
    """
    from extractors.opensmile_stream import RATE_HZ, dim_names
    from extractors.sound import Listener, clear_of_gaps, warn_of_silence
    from media.audio import audio_blocks
    from store.features import FeatureAttributes, FeatureWriter

    stream = audio_blocks(audio, rate_hz=RATE_HZ, channel=channel)
    attributes = FeatureAttributes(
        feature="egemaps",
        native_rate_hz=1 / HOP_S,
        window_s=WINDOW_S,
        hop_s=HOP_S,
        dim_names=dim_names("func"),
        extractor="extractors.egemaps",
        model_id="openSMILE eGeMAPSv02 functionals",
        model_revision=metadata.version("opensmile"),
        fingerprint=fingerprint,
        settings={"mode": mode, "dtype": dtype},
        extra={"mode": mode},
    )
    heard = Listener(stream)
    rows = n_valid = 0
    with FeatureWriter(out, attributes, dtype) as writer:
        for values in functionals(heard, mode):
            k = np.arange(rows, rows + len(values))
            instant = stream.start_s + k * HOP_S
            valid = (k >= CONTEXT_ROWS) & clear_of_gaps(
                instant + HOP_S - WINDOW_S, instant + HOP_S, stream.gaps
            )
            writer.append(values, instant, valid)
            rows += len(values)
            n_valid += int(valid.sum())
        if heard.silent:
            warn_of_silence(audio)
            writer.invalidate()
            n_valid = 0
    return {"rows": rows, "valid": n_valid, "gaps": len(stream.gaps)}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.egemaps",
        description="88 eGeMAPSv02 functionals over a sliding 1 s window, 25 rows per second.",
    )
    parser.add_argument("--audio", required=True, help="recording: sound file, or video with sound")
    parser.add_argument("--out", required=True, help="feature file to write (.h5)")
    parser.add_argument(
        "--audio-channel", type=int, help="channel, from 0 (default: mean of all channels)"
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="streaming",
        help="streaming: one pass, about 90x real time; exact: one openSMILE call per window, "
        "as the challenge's extraction, about 2x real time",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the stored values; some functionals exceed float16",
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        from runtime.device import limit_threads
        from runtime.log import command_line
        from store.sidecar import write_sidecar

        begin = time.perf_counter()
        limit_threads(args.threads)
        counts = extract(
            args.audio, args.out, args.audio_channel, args.mode, args.dtype, args.fingerprint
        )
        seconds = time.perf_counter() - begin
        log.info("%d rows, %d valid, %.1f s", counts["rows"], counts["valid"], seconds)
        write_sidecar(
            args.out,
            inputs={"audio": args.audio},
            settings={
                "audio_channel": args.audio_channel,
                "mode": args.mode,
                "dtype": args.dtype,
            },
            fingerprint=args.fingerprint,
            packages=["opensmile", "av", "numpy", "h5py"],
            command=command_line("extractors.egemaps", sys.argv[1:] if argv is None else argv),
            counts=counts,
            seconds=seconds,
        )

    return run_job("extractors.egemaps", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
