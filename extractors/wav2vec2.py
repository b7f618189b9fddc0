"""`wav2vec2`: hidden states of a Hugging Face audio encoder, one row per 20 ms.

Any encoder that transformers' AutoModel loads from a local folder and that works on the waveform
(Wav2Vec2, XLS-R, MMS, HuBERT, WavLM, data2vec-audio, ...) or on stacked filter banks (w2v-BERT 2.0).

Long audio goes through the model in overlapping chunks of equal length that start on the model's
own frame grid, so frame count and time stamps are those of one full pass; each frame comes from the
chunk in which it lies farthest from an edge (extractors/chunks.py). The chunks are spread so that the
last one ends with the audio: there is no padding, hence no attention mask, and values do not depend
on the batch size. A recording shorter than a chunk is one full pass. Input normalisation, where the
model's feature extractor asks for it, uses mean and variance of the whole file from a first pass
over the audio. /time is the centre of a frame's receptive field.

Models with feat_extract_norm = "group" (wav2vec2-base, hubert-base) get whole-file statistics for
their first convolution as well. What chunking still changes: attention and the position convolution
see one chunk, not the whole recording. docs/audio.md has the measured distance to one full pass.
"""

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np

from runtime import InputError, get_logger, progress
from runtime.job import add_job_arguments, run_job

log = get_logger("wav2vec2")

PRECISIONS = ("fp32", "bf16", "fp16")
CHUNK_S = 30.0
CONTEXT_S = 1.0
ROWS = 4096  # of nothing, at a time


def extract(
    audio: str,
    out: str,
    weights: str,
    channel: int | None = None,
    layer: int = -1,
    chunk_s: float = CHUNK_S,
    context_s: float = CONTEXT_S,
    precision: str = "fp32",
    dtype: str = "float16",
    batch_size: int = 1,
    fingerprint: str = "",
) -> tuple[dict[str, object], dict[str, object]]:
    """Extract the hidden states of a recording into the feature file `out`.

    Returns counts and the identity of the weights. Of a silent recording no row is valid. Raises
    InputError for unreadable or too short audio, unusable weights or settings, values that do not
    fit into `dtype`.
    """
    from extractors.chunks import plan
    from extractors.encoder import load_encoder
    from extractors.sound import Listener, clear_of_gaps, warn_of_silence
    from extractors.weights import resolve
    from media.audio import audio_blocks
    from store.features import FeatureAttributes, FeatureWriter

    checkpoint = resolve(weights, "wav2vec2")
    encoder = load_encoder(checkpoint.directory, layer, precision)

    def blocks():
        return audio_blocks(audio, rate_hz=encoder.rate_hz, channel=channel)

    heard = Listener(blocks())
    encoder.fit(heard)
    n_frames = encoder.frames(encoder.n_samples)
    if n_frames < 1:
        raise InputError(
            f"{audio} holds {encoder.n_samples} samples of sound, {encoder.receptive} are needed for one frame",
            "exclude the participant in the sheet",
        )
    chunks = plan(
        n_frames,
        encoder.frames(round(chunk_s * encoder.rate_hz)),
        round(context_s * encoder.rate_hz / encoder.stride),
    )
    stream = blocks()
    hop_s = encoder.stride / encoder.rate_hz
    window_s = encoder.receptive / encoder.rate_hz
    attributes = FeatureAttributes(
        feature="wav2vec2",
        native_rate_hz=1 / hop_s,
        window_s=window_s,
        hop_s=hop_s,
        dim_names=[f"h{i}" for i in range(encoder.dim)],
        extractor="extractors.wav2vec2",
        model_id=checkpoint.model_id,
        model_revision=checkpoint.model_revision,
        precision=precision,
        fingerprint=fingerprint,
        settings={
            "weights": checkpoint.digest,
            "layer": layer,
            "chunk_s": chunk_s,
            "context_s": context_s,
            "precision": precision,
            "dtype": dtype,
        },
        extra={
            "architecture": encoder.architecture,
            "layer": layer,
            "chunk_s": chunk_s,
            "context_s": context_s,
        },
    )
    rows = n_valid = 0
    with FeatureWriter(out, attributes, dtype) as writer:
        if heard.silent:
            warn_of_silence(audio)
            steps = nothing(n_frames, encoder.dim)
        else:
            steps = encode_chunks(encoder, stream, chunks, batch_size)
        for values in progress(steps, "wav2vec2", len(chunks), "chunks"):
            start = stream.start_s + np.arange(rows, rows + len(values)) * hop_s
            valid = clear_of_gaps(start, start + window_s, stream.gaps) & (not heard.silent)
            writer.append(values, start + window_s / 2, valid)
            rows += len(values)
            n_valid += int(valid.sum())
    counts = {"rows": rows, "valid": n_valid, "chunks": len(chunks), "gaps": len(stream.gaps)}
    return counts, checkpoint.settings


def nothing(n_frames: int, dim: int) -> Iterator[np.ndarray]:
    """Rows of a recording in which nothing is heard: NaN, (m, D) at a time, n_frames in all."""
    for start in range(0, n_frames, ROWS):
        yield np.full((min(ROWS, n_frames - start), dim), np.nan, np.float32)


def encode_chunks(encoder, blocks, chunks, batch_size: int) -> Iterator[np.ndarray]:
    """Run the chunks of one recording through the encoder; yields each chunk's own rows, in order.

    encoder : extractors.encoder.Encoder, fitted. blocks : mono float32 blocks from the first sample.
    chunks : extractors.chunks.plan(...). Yields float32 (m, D) per chunk.
    """
    from extractors.chunks import cut
    from extractors.halving import Halving

    encode = Halving(encoder, "chunks")
    waiting: list[np.ndarray] = []
    done = 0
    for samples in cut(blocks, chunks, encoder.stride, encoder.receptive, encoder.n_samples):
        waiting.append(samples)
        if len(waiting) == batch_size or done + len(waiting) == len(chunks):
            for hidden in encode(np.stack(waiting)):  # (frames, D) per chunk
                chunk = chunks[done]
                yield hidden[chunk.keep_from - chunk.start : chunk.keep_to - chunk.start]
                done += 1
            waiting = []


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.wav2vec2",
        description="Hidden states of a Hugging Face audio encoder, 50 rows per second.",
    )
    parser.add_argument("--audio", required=True, help="recording: sound file, or video with sound")
    parser.add_argument("--out", required=True, help="feature file to write (.h5)")
    parser.add_argument(
        "--weights", required=True, help="manifest of extractors.weights, or a local weights folder"
    )
    parser.add_argument(
        "--audio-channel", type=int, help="channel, from 0 (default: mean of all channels)"
    )
    parser.add_argument(
        "--layer",
        type=int,
        default=-1,
        help="0: input of the first transformer layer; k: output of layer k; -1: the model's output",
    )
    parser.add_argument("--chunk-s", type=float, default=CHUNK_S, help="longest chunk, seconds")
    parser.add_argument(
        "--context-s",
        type=float,
        default=CONTEXT_S,
        help="seconds at a chunk's inner edges that are left to its neighbours",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the model")
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="of the stored values"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, help="chunks per forward pass (GPU: 8; not a setting)"
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        from runtime.device import describe_device, limit_threads
        from runtime.log import command_line
        from store.sidecar import write_sidecar

        begin = time.perf_counter()
        import torch  # noqa: F401  (so that the thread limit reaches it)

        limit_threads(args.threads)
        counts, weights = extract(
            args.audio,
            args.out,
            args.weights,
            channel=args.audio_channel,
            layer=args.layer,
            chunk_s=args.chunk_s,
            context_s=args.context_s,
            precision=args.precision,
            dtype=args.dtype,
            batch_size=args.batch_size,
            fingerprint=args.fingerprint,
        )
        seconds = time.perf_counter() - begin
        log.info("%d rows, %d valid, %.1f s", counts["rows"], counts["valid"], seconds)
        write_sidecar(
            args.out,
            inputs={"audio": args.audio},
            settings={
                "audio_channel": args.audio_channel,
                "weights": weights,
                "layer": args.layer,
                "chunk_s": args.chunk_s,
                "context_s": args.context_s,
                "precision": args.precision,
                "dtype": args.dtype,
            },
            fingerprint=args.fingerprint,
            packages=["torch", "transformers", "safetensors", "av", "numpy", "h5py"],
            command=command_line("extractors.wav2vec2", sys.argv[1:] if argv is None else argv),
            counts=counts,
            seconds=seconds,
            device=describe_device(),
        )

    return run_job("extractors.wav2vec2", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
