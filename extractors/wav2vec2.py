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

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from extractors.chunks import cut, plan
from extractors.encoder import load_encoder
from extractors.halving import Halving
from extractors.rows import FeatureRows
from extractors.sound import Listener, Sound, clear_of_gaps
from runtime import InputError, progress

ROWS = 4096  # of nothing, at a time


def rows(
    sound: Sound,
    *,
    weights: Path,
    layer: int,
    chunk_s: float,
    context_s: float,
    precision: str,
    batch_size: int,
) -> FeatureRows:
    """Hidden states of a recording.

    weights : checked folder of a checkpoint (extractors/weights.py). chunk_s, context_s : longest
    chunk, and what its inner edges leave to the neighbours, in seconds. batch_size : chunks per
    forward pass.

    Raises InputError for unreadable or too short audio, and for weights or settings that
    cannot be used.
    """
    encoder = load_encoder(weights, layer, precision)
    heard = Listener(sound.blocks(encoder.rate_hz))
    encoder.fit(heard)
    n_frames = encoder.frames(encoder.n_samples)
    if n_frames < 1:
        raise InputError(
            f"{sound.audio} holds {encoder.n_samples} samples of sound, {encoder.receptive} are needed for one frame",
            "exclude the participant in the sheet",
        )
    chunks = plan(
        n_frames,
        encoder.frames(round(chunk_s * encoder.rate_hz)),
        round(context_s * encoder.rate_hz / encoder.stride),
    )
    stream = sound.blocks(encoder.rate_hz)
    hop_s = encoder.stride / encoder.rate_hz
    window_s = encoder.receptive / encoder.rate_hz
    counts = {"chunks": len(chunks)}

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        done = 0
        if heard.silent:
            steps = nothing(n_frames, encoder.dim)
        else:
            steps = encode_chunks(encoder, stream, chunks, batch_size)
        for values in progress(steps, "wav2vec2", len(chunks), "chunks"):
            start = stream.start_s + np.arange(done, done + len(values)) * hop_s
            valid = clear_of_gaps(start, start + window_s, stream.gaps) & (not heard.silent)
            yield values, start + window_s / 2, valid
            done += len(values)
        counts["gaps"] = len(stream.gaps)

    return FeatureRows(
        rate_hz=1 / hop_s,
        window_s=window_s,
        hop_s=hop_s,
        dim_names=[f"h{i}" for i in range(encoder.dim)],
        blocks=blocks(),
        precision=precision,
        attributes={
            "architecture": encoder.architecture,
            "layer": layer,
            "chunk_s": chunk_s,
            "context_s": context_s,
        },
        counts=counts,
        heard=heard,
    )


def nothing(n_frames: int, dim: int) -> Iterator[np.ndarray]:
    """Rows of a recording in which nothing is heard: NaN, (m, D) at a time, n_frames in all."""
    for start in range(0, n_frames, ROWS):
        yield np.full((min(ROWS, n_frames - start), dim), np.nan, np.float32)


def encode_chunks(encoder, blocks, chunks, batch_size: int) -> Iterator[np.ndarray]:
    """Run the chunks of one recording through the encoder; yields each chunk's own rows, in order.

    encoder : extractors.encoder.Encoder, fitted. blocks : mono float32 blocks from the first sample.
    chunks : extractors.chunks.plan(...). Yields float32 (m, D) per chunk.
    """
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


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors wav2vec2")
