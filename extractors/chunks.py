"""Long audio in overlapping chunks on a model's frame grid.

Frame f of a model with receptive field R and stride S (samples) sees the samples f*S .. f*S + R.
A chunk of L frames that starts at frame a is the samples a*S .. (a + L - 1)*S + R, and its frame i
is frame a + i of the recording.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from runtime import InputError


@dataclass(frozen=True)
class Chunk:
    """Frames start .. stop go through the model; keep_from .. keep_to are taken from it."""

    start: int
    stop: int
    keep_from: int
    keep_to: int


def plan(n_frames: int, length: int, context: int) -> list[Chunk]:
    """Chunks of at most `length` frames that overlap by at least twice `context` and cover n_frames.

    As few chunks as possible, all of the same length, evenly spread: no short remainder that would
    need padding or see little context, and next to no frame computed more often than the overlap
    asks for. A frame is taken from the chunk in which it lies farthest from an edge; the two ends
    of the recording are no edges; on a tie the earlier chunk gives it.

    Raises InputError when the context leaves nothing of a chunk.
    """
    if context < 0 or length <= 2 * context:
        raise InputError(
            f"chunk_s of {length} frames leaves nothing between two contexts of {context} frames",
            "make chunk_s longer than twice context_s",
        )
    if n_frames <= length:
        return [Chunk(0, n_frames, 0, n_frames)]
    count = -(-(n_frames - 2 * context) // (length - 2 * context))
    length = -(-(n_frames + 2 * context * (count - 1)) // count)
    starts = [i * (n_frames - length) // (count - 1) for i in range(count)]
    # Frame f is as far from the right edge of one chunk as from the left edge of the next at
    # f - next = previous + length - 1 - f; the earlier one keeps the middle.
    borders = [
        (previous + length - 1 + following) // 2 + 1
        for previous, following in zip(starts, starts[1:], strict=False)
    ]
    keep = [0, *borders, n_frames]
    return [Chunk(a, a + length, keep[i], keep[i + 1]) for i, a in enumerate(starts)]


def cut(
    blocks: Iterable[np.ndarray], chunks: list[Chunk], stride: int, receptive: int, n_samples: int
) -> Iterator[np.ndarray]:
    """Cut blocks of samples into the samples (n,) of each chunk; holds about one chunk at a time.

    A single chunk gets all n_samples: the few after its last frame belong to a full pass as well
    (models with group norm see them).
    """
    source = iter(blocks)
    held: list[np.ndarray] = []  # blocks from sample `first` on
    first = end = 0
    for chunk in chunks:
        start = chunk.start * stride
        stop = (chunk.stop - 1) * stride + receptive if len(chunks) > 1 else n_samples
        while end < stop:
            held.append(next(source))
            end += len(held[-1])
        while first + len(held[0]) <= start:
            first += len(held.pop(0))
        joined = np.concatenate(held) if len(held) > 1 else held[0]
        yield joined[start - first : stop - first]
