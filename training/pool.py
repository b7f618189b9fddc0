"""Slices of sessions in memory, and windows cut from them.

One tensor per stream holds the frames of all slices, one slice after the other, so that a batch of
windows is one gather per stream. On a GPU the pool lies on the GPU: slices travel there once, and
windows are cut there.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from training.sessions import SessionReader

BLOCK_FRAMES = 512  # of one reading: what it needs on the way stays in the processor's cache
Key = tuple[int, int, int]  # session, role, number of the slice


class Pool:
    """Slices of participants; dims: stream -> D.

    start : first row of each slice, values : stream -> (N, D) float32, valid : stream -> (N,) bool
    """

    def __init__(self, dims: dict[str, int], device: torch.device | str = "cpu"):
        self.dims, self.device = dims, torch.device(device)
        self.start: dict[Key, int] = {}
        self.values: dict[str, Tensor] = {}
        self.valid: dict[str, Tensor] = {}

    def load(
        self, spans: dict[Key, tuple[int, int]], open_session: Callable[[int], SessionReader]
    ) -> None:
        """Hold these slices, spans: frames lo..hi of each. Nothing is read if all are held.

        Streams are read side by side, by as many threads as torch may use.
        """
        if set(spans) <= set(self.start):
            return
        self.start, self.values, self.valid, total = {}, {}, {}, 0  # free before allocating
        for key, (lo, hi) in spans.items():
            self.start[key] = total
            total += hi - lo
        for name, dim in self.dims.items():
            self.values[name] = torch.empty(total, dim, device=self.device)  # (N, D)
            self.valid[name] = torch.empty(total, dtype=torch.bool, device=self.device)  # (N,)
        with ThreadPoolExecutor(torch.get_num_threads()) as workers:
            for session in sorted({key[0] for key in spans}):
                with open_session(session) as reader:
                    keys = [key for key in spans if key[0] == session]
                    work = [(reader, key, name, *spans[key]) for name in self.dims for key in keys]
                    list(workers.map(lambda part: self._read(*part), work))

    def _read(self, reader: SessionReader, key: Key, name: str, lo: int, hi: int) -> None:
        """One stream of a slice, block after block of BLOCK_FRAMES into its place."""
        role, at = reader.spec.roles[key[1]], self.start[key] - lo
        for start in range(lo, hi, BLOCK_FRAMES):
            stop = min(start + BLOCK_FRAMES, hi)
            values, valid = reader.read(role, name, start, stop)
            for held, read in ((self.values[name], values), (self.valid[name], valid)):
                if self.device.type == "cpu":  # copies gain nothing from torch's threads
                    held.numpy()[at + start : at + stop] = read
                else:
                    held[at + start : at + stop] = torch.from_numpy(read)

    def cut(
        self, rows: np.ndarray, inside: np.ndarray
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Windows: rows (R, L) of the pool, inside (R, L) false where a window has no frame.

        Returns streams (R, L, D), valid (R, L) and frames (R, L); a frame that is not inside holds
        whatever row it names.
        """
        frames = torch.from_numpy(inside).to(self.device)  # (R, L)
        index = torch.from_numpy(rows).to(self.device)  # (R, L)
        streams = {name: self._take(values, index) for name, values in self.values.items()}
        valid = {name: self._take(ok, index) & frames for name, ok in self.valid.items()}
        return streams, valid, frames

    def _take(self, held: Tensor, index: Tensor) -> Tensor:
        """held (N, ...), index (R, L) -> (R, L, ...)."""
        if self.device.type == "cpu":
            return torch.from_numpy(held.numpy().take(index.numpy(), axis=0))
        return held[index]
