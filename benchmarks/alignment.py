"""Disk cost and read speed of aligned files, against the features at their native rates.

python benchmarks/alignment.py [--minutes 10] [--folder DIR]

Makes features of the real shapes (smooth random rows, a face lost now and then), aligns them with
the real command's code, and prints per feature: bytes of the native file, of the aligned file as
it is written (rows + index map), and of two other layouts: dense 100 Hz by hold with gzip and
shuffle, and the index map with gzip-compressed rows. Then windows of 96 frames on a 25 Hz grid at
random places, per second, one process, page cache warm.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from alignment.align import align
from alignment.aligned import AlignedFeature
from alignment.clock import make_clock
from store.features import FeatureAttributes, FeatureWriter

# name: (dim, native rate in Hz, stored type, from the face)
SHAPES = {
    "egemaps": (88, 25.0, "float32", False),
    "wav2vec2": (1024, 50.0, "float16", False),
    "clip_face": (512, 25.0, "float16", True),
    "flow": (714, 25.0, "float16", True),
    "flow_magnitude": (139, 25.0, "float16", True),
    "clip_face 29.97": (512, 30000 / 1001, "float16", True),
}
WINDOW, STEP = 96, 4


def make_feature(path: Path, name: str, seconds: float) -> None:
    """A feature file of real shape: first-order smooth rows; 3 % of the rows without a face."""
    dim, rate, dtype, face = SHAPES[name]
    rng = np.random.default_rng(0)
    rows = int(seconds * rate)
    attributes = FeatureAttributes(
        name, rate, 1 / rate, 1 / rate, [f"d{i}" for i in range(dim)], "benchmark"
    )
    state = np.zeros(dim)
    with FeatureWriter(path, attributes, dtype) as writer:
        for start in range(0, rows, 1024):
            n = min(1024, rows - start)
            noise = 0.3 * rng.standard_normal((n, dim))
            for i in range(n):
                noise[i] = state = 0.95 * state + noise[i]
            at = np.arange(start, start + n)
            valid = (at // 200 % 33 != 7) if face else np.ones(n, bool)
            writer.append(noise, at / rate, valid)


def other_layouts(folder: Path, aligned: Path) -> tuple[int, int]:
    """Bytes of dense hold (gzip, shuffle), and of the index map with gzip rows."""
    dense, packed = folder / "dense.h5", folder / "packed.h5"
    squeeze = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    with h5py.File(aligned) as f:
        rows, row = f["values"][()], f["row"][()]
        chunk = max(1, (1 << 18) // (rows.shape[1] * rows.dtype.itemsize))
        with h5py.File(dense, "w") as out:
            held = out.create_dataset(
                "values", (len(row), rows.shape[1]), rows.dtype, chunks=(4 * chunk, rows.shape[1]),
                **squeeze,
            )  # fmt: skip
            for start in range(0, len(row), 4 * chunk):
                held[start : start + 4 * chunk] = rows[
                    np.maximum(row[start : start + 4 * chunk], 0)
                ]
        with h5py.File(packed, "w") as out:
            out.create_dataset("values", data=rows, chunks=(chunk, rows.shape[1]), **squeeze)
            for name in ("native_time", "row", "weight"):
                f.copy(name, out)
    return dense.stat().st_size, packed.stat().st_size


def windows_per_second(path: Path, seconds: float = 1.0) -> float:
    """Windows of 96 frames at random places of an open file."""
    rng = np.random.default_rng(0)
    with AlignedFeature(path) as feature:
        last = feature.n_ticks - WINDOW * STEP
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            at = int(rng.integers(0, last // STEP)) * STEP
            feature.read(at, at + WINDOW * STEP, STEP)
            done += 1
        return done / (time.perf_counter() - start)


def gzip_windows_per_second(path: Path, seconds: float = 1.0) -> float:
    """Slabs of 96 rows at random places of gzip-compressed rows: what compression would cost."""
    rng = np.random.default_rng(0)
    with h5py.File(path) as f:
        values = f["values"]
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            at = int(rng.integers(0, len(values) - WINDOW))
            values[at : at + WINDOW].astype(np.float32)
            done += 1
        return done / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the recording")
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    seconds = 60 * args.minutes
    print(
        f"{'feature':<16} {'native MB':>10} {'aligned':>8} {'dense gzip':>11} {'map + gzip':>11}"
        f" {'align s':>8} {'windows/s':>10} {'gzip/s':>8}"
    )
    sums = np.zeros(4)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        clock = folder / "clock.json"
        person = {"dataset": "d", "session": "s", "role": "r", "duration_s": seconds}
        clock.write_text(json.dumps(make_clock([person], 100.0)))
        for feature in SHAPES:
            source, aligned = folder / "native.h5", folder / "aligned.h5"
            make_feature(source, feature, seconds)
            start = time.perf_counter()
            align(source, clock, aligned)
            took = time.perf_counter() - start
            dense, packed = other_layouts(folder, aligned)
            sizes = np.array([source.stat().st_size, aligned.stat().st_size, dense, packed])
            if feature.split()[0] == feature:
                sums += sizes
            ratio = sizes / sizes[0]
            print(
                f"{feature:<16} {sizes[0] / 1e6:10.1f} {ratio[1]:7.3f}x {ratio[2]:10.3f}x"
                f" {ratio[3]:10.3f}x {took:8.2f} {windows_per_second(aligned):10.0f}"
                f" {gzip_windows_per_second(folder / 'packed.h5'):8.0f}"
            )
    ratio = sums / sums[0]
    print(
        f"{'five together':<16} {sums[0] / 1e6:10.1f} {ratio[1]:7.3f}x {ratio[2]:10.3f}x {ratio[3]:10.3f}x"
    )


if __name__ == "__main__":
    main()
