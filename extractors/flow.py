"""Optical flow of the stabilised face region, summarised on a grid (feature `flow`).

    python -m extractors.flow --faces ROLE.h5 --crops ROLE.crops.mkv --out flow.h5

Per cell (row r from the top, column c from the left; default 4 x 4): `cell_r0c0_u`, `cell_r0c0_v`,
the mean flow to the right and downwards, and `cell_r0c0_bin0`..`bin7`, an orientation histogram in
which every pixel's speed is shared linearly between the two nearest bins. Bin b is centred on
b * 360/bins degrees, from right (0) over down (90). A bin is the sum of its shares divided by the
cell's pixels, so the bins of a cell add up to its mean speed. All values in crop widths per second.
Row k describes the motion between frames k-1 and k and carries frame k's time; row 0 is invalid.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from extractors.dense_flow import METHOD, SIZE, dense_flow, flow_rows
from extractors.face_track import read_track
from runtime import InputError, progress
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

ROWS = 512
PACKAGES = ["av", "h5py", "numpy", "opencv-contrib-python"]


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


def extract_flow(
    faces: str | Path,
    crops: str | Path,
    out: str | Path,
    *,
    grid: int = 4,
    bins: int = 8,
    dtype: str = "float16",
    threads: int = 1,
    fingerprint: str = "",
    command: str = "",
) -> None:
    """Write the feature file `out` (T rows) and its sidecar.

    Raises InputError when grid or bins make no sense, or faces file and crop store do not fit.
    """
    start = time.monotonic()
    if not 1 <= grid <= SIZE // 4 or not 2 <= bins <= 64:
        raise InputError(
            f"flow: grid {grid} and bins {bins} are out of range",
            f"choose grid 1..{SIZE // 4} and bins 2..64 in features.flow of the config",
        )
    limit_threads(threads)
    track = read_track(faces)
    valid, _ = flow_rows(track)
    summary = GridSummary(grid, bins)
    attributes = FeatureAttributes(
        feature="flow",
        native_rate_hz=track.rate_hz,
        window_s=track.hop_s,
        hop_s=track.hop_s,
        dim_names=summary.dim_names,
        extractor="extractors.flow",
        model_id=METHOD,
        fingerprint=fingerprint,
        settings={"grid": grid, "bins": bins, "dtype": dtype, "faces": track.settings},
        extra={"unit": "crop widths per second", "grid": grid, "bins": bins, "flow_size": SIZE},
    )
    rows = np.full((ROWS, len(summary.dim_names)), np.nan, np.float32)
    with FeatureWriter(out, attributes, dtype) as writer:
        frames = progress(dense_flow(crops, track), "flow", total=len(track), unit="frames")
        for k, field in enumerate(frames):
            rows[k % ROWS] = np.nan if field is None else summary(field)
            if k % ROWS == ROWS - 1 or k == len(track) - 1:
                part = slice(k - k % ROWS, k + 1)
                writer.append(rows[: k % ROWS + 1], track.time[part], valid[part])
    write_sidecar(
        out,
        inputs={"faces": faces, "crops": crops},
        settings={"grid": grid, "bins": bins, "dtype": dtype},
        fingerprint=fingerprint,
        packages=PACKAGES,
        command=command,
        counts={"rows": len(track), "valid": int(valid.sum())},
        seconds=time.monotonic() - start,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.flow",
        description="Optical flow of the face region on a grid: mean u, v and orientation histogram "
        "per cell, in crop widths per second.",
    )
    parser.add_argument("--faces", required=True, metavar="FILE", help="faces file (.h5)")
    parser.add_argument("--crops", required=True, metavar="FILE", help="crop store (.crops.mkv)")
    parser.add_argument("--out", required=True, metavar="FILE", help="feature file to write (.h5)")
    parser.add_argument("--grid", type=int, default=4, help="cells per side (default: 4)")
    parser.add_argument("--bins", type=int, default=8, help="orientation bins (default: 8)")
    parser.add_argument(
        "--dtype", choices=["float16", "float32"], default="float16", help="how values are stored"
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(a: argparse.Namespace) -> None:
        extract_flow(
            a.faces,
            a.crops,
            a.out,
            grid=a.grid,
            bins=a.bins,
            dtype=a.dtype,
            threads=a.threads,
            fingerprint=a.fingerprint,
            command=command_line("extractors.flow", list(sys.argv[1:] if argv is None else argv)),
        )

    return run_job("extractors.flow", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
