"""Optical flow of the stabilised face region, summarised on a grid (feature `flow`).

Per cell (row r from the top, column c from the left; default 4 x 4): `cell_r0c0_u`, `cell_r0c0_v`,
the mean flow to the right and downwards, and `cell_r0c0_bin0`..`bin7`, an orientation histogram in
which every pixel's speed is shared linearly between the two nearest bins. Bin b is centred on
b * 360/bins degrees, from right (0) over down (90). A bin is the sum of its shares divided by the
cell's pixels, so the bins of a cell add up to its mean speed. All values in crop widths per second.
Row k describes the motion between frames k-1 and k and carries frame k's time; row 0 is invalid.
"""

from collections.abc import Iterator

import numpy as np

from extractors.dense_flow import METHOD, SIZE, dense_flow, flow_rows
from extractors.face_track import FaceCrops
from extractors.rows import FeatureRows
from runtime import InputError, progress

ROWS = 512


class GridSummary:
    """Flow field (SIZE, SIZE, 2) -> vector (grid * grid * (2 + bins),) float32."""

    def __init__(self, grid: int, bins: int, size: int = SIZE):
        self.grid, self.bins = grid, bins
        line = np.arange(size) * grid // size
        self.cell = (line[:, None] * grid + line[None, :]).ravel()
        self.pixels = np.bincount(self.cell, minlength=grid * grid)
        self.dim_names = [
            f"cell_r{r}c{c}_{name}"
            for r in range(grid)
            for c in range(grid)
            for name in ("u", "v", *(f"bin{b}" for b in range(bins)))
        ]

    def __call__(self, flow: np.ndarray) -> np.ndarray:
        """Summarise flow (size, size, 2) in crop widths per second."""
        u, v = flow[..., 0].ravel(), flow[..., 1].ravel()
        cells = self.grid * self.grid
        speed = np.hypot(u, v)
        place = np.arctan2(v, u) * np.float32(self.bins / (2 * np.pi))
        lower = np.floor(place)
        upper_share = speed * (place - lower)
        low = lower.astype(np.int64) % self.bins
        first = self.cell * self.bins
        size = cells * self.bins
        histogram = np.bincount(first + low, speed - upper_share, size)
        histogram += np.bincount(first + (low + 1) % self.bins, upper_share, size)
        out = np.empty((cells, 2 + self.bins), np.float32)
        out[:, 0] = np.bincount(self.cell, u, cells) / self.pixels
        out[:, 1] = np.bincount(self.cell, v, cells) / self.pixels
        out[:, 2:] = histogram.reshape(cells, self.bins) / self.pixels[:, None]
        return out.ravel()


def rows(face: FaceCrops, *, grid: int, bins: int) -> FeatureRows:
    """Flow of a recording, one row per video frame. grid : cells per side; bins : per cell.

    Raises InputError when grid or bins make no sense, or faces file and crop store do not fit.
    """
    if not 1 <= grid <= SIZE // 4 or not 2 <= bins <= 64:
        raise InputError(
            f"flow: grid {grid} and bins {bins} are out of range",
            f"choose grid 1..{SIZE // 4} and bins 2..64 in features.flow of the config",
        )
    track = face.track
    valid, _ = flow_rows(track)
    summary = GridSummary(grid, bins)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        block = np.full((ROWS, len(summary.dim_names)), np.nan, np.float32)
        frames = progress(dense_flow(face.crops, track), "flow", total=len(track), unit="frames")
        for k, field in enumerate(frames):
            block[k % ROWS] = np.nan if field is None else summary(field)
            if k % ROWS == ROWS - 1 or k == len(track) - 1:
                part = slice(k - k % ROWS, k + 1)
                yield block[: k % ROWS + 1], track.time[part], valid[part]

    return FeatureRows(
        rate_hz=track.rate_hz,
        window_s=track.hop_s,
        hop_s=track.hop_s,
        dim_names=summary.dim_names,
        blocks=blocks(),
        model_id=METHOD,
        attributes={
            "unit": "crop widths per second",
            "grid": grid,
            "bins": bins,
            "flow_size": SIZE,
        },
    )


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors flow")
