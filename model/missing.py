"""Missing streams: which ones are taken away from which person-window, exactly at a given rate.

The unit is a feature stream of a person-window: N person-windows of M streams are N M cells. Of
these exactly round(rate N M) are dropped, and every person-window keeps at least one stream, so the
largest rate is (M - 1) / M. Among all patterns that hold both, each is equally likely.

The draw, exact without looking at any pattern: a row that loses k streams can do so in C(M, k) ways,
so a uniform pattern is N rows drawn independently with weight C(M, k) t^k for any t > 0, given that
their sum is right. How many rows lose k is multinomial; it is drawn with the t whose expected sum is
the wanted one, again until the sum is exactly that (about sqrt(2 pi N var) draws of M numbers). Which
rows these are, and which k streams each loses, is then uniform.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import comb

import numpy as np
import torch
from torch import Tensor

from model.batch import Batch
from model.configs.base import check_absent_rate

DRAWS = 1000  # multinomial draws at a time


def absent_pattern(
    n_units: int, n_streams: int, rate: float, seed: int, key: str = "absent_rate"
) -> np.ndarray:
    """Cells to drop, (n_units, n_streams) bool: exactly round(rate n_units n_streams), no row full.

    Equal arguments give equal patterns. Raises InputError for a rate above
    (n_streams - 1) / n_streams; `key` is the name of the setting in its message.
    """
    check_absent_rate(rate, n_streams, key)
    wanted = min(round(rate * n_units * n_streams), n_units * (n_streams - 1))
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(n_streams), _rows_by_loss(n_units, n_streams, wanted, rng))
    lost = rng.permutation(rows)  # (n_units,) streams that each row loses
    rank = rng.random((n_units, n_streams)).argsort(axis=1).argsort(axis=1)
    return rank < lost[:, None]


def _rows_by_loss(n: int, streams: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """(streams,) how many of n rows lose 0, 1 ... streams - 1, `wanted` in all."""
    counts = np.zeros(streams, np.int64)
    if wanted in (0, n * (streams - 1)):  # only one way, and t would be 0 or infinite
        counts[0 if wanted == 0 else -1] = n
        return counts
    losses = np.arange(streams)
    weight = _row_weights(n, streams, wanted)
    while True:
        drawn = rng.multinomial(n, weight, size=DRAWS)  # (DRAWS, streams)
        right = np.flatnonzero(drawn @ losses == wanted)
        if len(right):
            return drawn[right[0]]


@lru_cache(maxsize=1024)  # batches come in few sizes
def _row_weights(n: int, streams: int, wanted: int) -> np.ndarray:
    """(streams,) C(M, k) t^k, scaled to sum 1, with the t at which n rows lose `wanted` on average."""
    losses = np.arange(streams)
    ways = np.array([comb(streams, k) for k in losses], np.float64)
    low, high = -60.0, 60.0  # log t by bisection: the expected loss of a row grows with it
    for _ in range(100):
        log_t = (low + high) / 2
        weight = ways * np.exp(losses * log_t - np.max(losses * log_t))
        weight /= weight.sum()
        low, high = (log_t, high) if n * (weight @ losses) < wanted else (low, log_t)
    return weight


def drop_streams(batch: Batch, absent: Tensor, streams: list[str]) -> Batch:
    """The batch with `valid` false at every frame of the dropped cells.

    absent (R, M) bool, true where stream m of `streams` is dropped from person-window r. A model
    then puts its learned vector for absent frames there, or zeros after normalisation.
    """
    absent = absent.to(batch.frames.device)
    valid = dict(batch.valid)
    for m, name in enumerate(streams):
        valid[name] = valid[name] & ~absent[:, m, None]  # (R, L)
    return replace(batch, valid=valid)


def drop_in_training(batch: Batch, rate: float, streams: list[str]) -> Batch:
    """Drop exactly this share of the batch's cells, drawn from torch's random state."""
    seed = int(torch.randint(2**62, ()))
    absent = absent_pattern(len(batch.frames), len(streams), rate, seed, "model.absent_rate")
    return drop_streams(batch, torch.from_numpy(absent), streams)


class AbsentStreams:
    """Dropped streams of a whole prediction job: one draw over all its person-windows.

    What a person-window loses follows from `seed` and its place among the windows of the job, so it
    is the same for every batch size, and the same for a target and for a partner.

    units : (session, role, window) of every person-window (`Windows.person_windows`)
    realised : dropped share of the cells of all person-windows
    """

    def __init__(
        self, units: Iterable[tuple[int, int, int]], streams: Iterable[str], rate: float, seed: int
    ):
        self.streams = list(streams)
        self.row = {unit: i for i, unit in enumerate(sorted(units))}
        self.absent = torch.from_numpy(
            absent_pattern(len(self.row), len(self.streams), rate, seed, "prediction.absent_rate")
        )  # (N, M)
        self.realised = float(self.absent.double().mean())

    def drop(self, batch: Batch) -> Batch:
        """The batch of these windows without the dropped streams."""
        rows = [self.row[tuple(unit)] for unit in batch.person.tolist()]
        return drop_streams(batch, self.absent[rows], self.streams)
