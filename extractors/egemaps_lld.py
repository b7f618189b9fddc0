"""`egemaps_lld`: openSMILE eGeMAPSv02, the 25 low-level descriptors, every 10 ms.

/time of a row is the centre of its 20 ms analysis frame: row j looks at the audio from
j * 10 ms to j * 10 ms + 20 ms, so it describes start + j * 0.01 + 0.01 s. The descriptors that hang
on the pitch (F0, jitter, shimmer, HNR, harmonics, formant amplitudes) look at 60 ms from the same
left edge, that is from 10 ms before to 50 ms after /time. openSMILE then smooths all of them over
three rows, and its pitch tracker decides with up to 0.4 s of what follows.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata

import numpy as np

from runtime import get_logger
from runtime.job import add_job_arguments, run_job

log = get_logger("egemaps_lld")

HOP_S = 0.01
FRAME_S = 0.02
# Audio behind a row: 60 ms frames of the pitch, one more row on both sides from the smoothing.
BEFORE_S = 0.02
AFTER_S = 0.06


def descriptors(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Low-level descriptors of 16 kHz mono float32 blocks: float32 (m, 25) piece by piece."""
    from extractors.opensmile_stream import stream_rows

    yield from stream_rows(blocks, "lld")


def extract(
    audio: str, out: str, channel: int | None, dtype: str, fingerprint: str = ""
) -> dict[str, object]:
    """Extract the descriptors of a recording into the feature file `out`; returns counts.

    Of a silent recording no row is valid. Raises InputError for unreadable audio.
    """
    from extractors.opensmile_stream import RATE_HZ, dim_names
    from extractors.sound import Listener, clear_of_gaps, warn_of_silence
    from media.audio import audio_blocks
    from store.features import FeatureAttributes, FeatureWriter

    stream = audio_blocks(audio, rate_hz=RATE_HZ, channel=channel)
    attributes = FeatureAttributes(
        feature="egemaps_lld",
        native_rate_hz=1 / HOP_S,
        window_s=FRAME_S,
        hop_s=HOP_S,
        dim_names=dim_names("lld"),
        extractor="extractors.egemaps_lld",
        model_id="openSMILE eGeMAPSv02 low-level descriptors",
        model_revision=metadata.version("opensmile"),
        fingerprint=fingerprint,
        settings={"dtype": dtype},
    )
    heard = Listener(stream)
    rows = n_valid = 0
    with FeatureWriter(out, attributes, dtype) as writer:
        for values in descriptors(heard):
            instant = stream.start_s + np.arange(rows, rows + len(values)) * HOP_S + FRAME_S / 2
            valid = clear_of_gaps(instant - BEFORE_S, instant + AFTER_S, stream.gaps)
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
        prog="python -m extractors.egemaps_lld",
        description="25 eGeMAPSv02 low-level descriptors, 100 rows per second.",
    )
    parser.add_argument("--audio", required=True, help="recording: sound file, or video with sound")
    parser.add_argument("--out", required=True, help="feature file to write (.h5)")
    parser.add_argument(
        "--audio-channel", type=int, help="channel, from 0 (default: mean of all channels)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the stored values; float16 rounds formants to 2-4 Hz",
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
        counts = extract(args.audio, args.out, args.audio_channel, args.dtype, args.fingerprint)
        seconds = time.perf_counter() - begin
        log.info("%d rows, %d valid, %.1f s", counts["rows"], counts["valid"], seconds)
        write_sidecar(
            args.out,
            inputs={"audio": args.audio},
            settings={"audio_channel": args.audio_channel, "dtype": args.dtype},
            fingerprint=args.fingerprint,
            packages=["opensmile", "av", "numpy", "h5py"],
            command=command_line("extractors.egemaps_lld", sys.argv[1:] if argv is None else argv),
            counts=counts,
            seconds=seconds,
        )

    return run_job("extractors.egemaps_lld", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
