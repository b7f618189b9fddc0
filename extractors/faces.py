"""faces: one person's face in every frame of a recording, decoded once for all visual features.

Writes the faces file (HDF5, feature contract; rows are video frames, time is the presentation time
stamp) and the crop store (extractors/crops.py), whose frame k is row k.

    /values      (T, 936) float32: landmarks x0, y0, x1, y1, ... of MediaPipe's 468-point face mesh
                 in crop coordinates, 0..1 inside the crop
    /valid       (T,) the person's face was found
    /box         (T, 4) float32 x, y, w, h: extent of the landmarks in pixels of the upright picture
    /confidence  (T,) float32: face presence score of the landmark network, 0 where not valid
    /crop_box    (T, 4) float32 x, y, w, h: the square that was cropped, smoothed over time
Attributes width, height (upright picture), crop_size (pixels), margin.
A frame without the face holds NaN, valid = false and a black crop. See docs/faces.md.
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cv2 import BORDER_REPLICATE

from extractors.crops import CropWriter
from extractors.face_input import glances, in_background
from extractors.face_models import N_LANDMARKS, Face, FaceModels, Region, cut
from extractors.face_search import FINE_SHARES, TILE_SHARES, choose_person
from extractors.face_tracking import FaceTracker
from media.container import UNUSABLE
from media.video import parse_roi, video_frames
from runtime import InputError, get_logger, progress
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

log = get_logger("faces")

GLANCES, MORE_GLANCES = 14, 60  # pictures looked at to choose the person; when nobody is in them
ROWS = 256  # written at a time
TINY_S = 1e-6  # time stamps are rounded


@dataclass
class _Row:
    time_s: float
    face: Face | None
    rgb: np.ndarray | None  # let go once cropped


class Smoother:
    """Delays frames until the track around them is known, then places their crop.

    Centre and size of the crop are Gaussian means of the track over +-smoothing_s (standard
    deviation half of that), over the unbroken stretch with a face that holds the frame: at most
    2 * smoothing_s of rows are kept.
    """

    def __init__(self, margin: float, smoothing_s: float):
        self.margin = margin
        self.smoothing_s = smoothing_s
        self._rows: deque[_Row] = deque()
        self._next = 0  # first row in the deque that was not given out

    def push(self, row: _Row | None) -> Iterator[tuple[_Row, Region | None]]:
        """Add a row (None: the end); yields rows whose neighbourhood is complete, with crop."""
        if row is not None:
            self._rows.append(row)
        newest = self._rows[-1].time_s if self._rows else 0.0
        while self._next < len(self._rows) and (
            row is None or newest - self._rows[self._next].time_s >= self.smoothing_s - TINY_S
        ):
            done = self._rows[self._next]
            yield done, self._region(self._next)
            done.rgb = None
            self._next += 1
            while self._rows[0].time_s < done.time_s - self.smoothing_s - TINY_S:
                self._rows.popleft()
                self._next -= 1

    def _region(self, i: int) -> Region | None:
        rows = self._rows
        if rows[i].face is None:
            return None
        total, mean = 0.0, np.zeros(3)
        sigma = max(self.smoothing_s / 2, 1e-6)
        for step in (-1, 1):
            j = i if step == -1 else i + 1
            while 0 <= j < len(rows) and rows[j].face is not None:
                dt = rows[j].time_s - rows[i].time_s
                if abs(dt) > self.smoothing_s + TINY_S:
                    break
                weight = float(np.exp(-0.5 * (dt / sigma) ** 2))
                face = rows[j].face
                mean += weight * np.array([*face.centre, face.size])
                total += weight
                j += step
        x, y, size = mean / total
        return Region(float(x), float(y), float(size) * self.margin)


def check_settings(crop_size: int, margin: float, min_confidence: float, smoothing_s: float):
    """InputError for settings out of range."""
    if crop_size % 2 or not 32 <= crop_size <= 1024:
        raise InputError(
            f"faces.crop_size is {crop_size}", "choose an even number of pixels, 32 to 1024"
        )
    if not 1.0 <= margin <= 4.0:
        raise InputError(f"faces.margin is {margin}", "choose 1.0 to 4.0 (1.6 is usual)")
    if not 0.1 <= min_confidence <= 0.95:
        raise InputError(
            f"faces.min_confidence is {min_confidence}", "choose 0.1 to 0.95 (0.5 is usual)"
        )
    if not 0.0 <= smoothing_s <= 1.0:
        raise InputError(f"faces.smoothing_s is {smoothing_s} s", "choose 0 to 1 s (0.4 is usual)")


def extract(
    video: str | Path,
    out: str | Path,
    crops: str | Path,
    roi: str | None = None,
    crop_size: int = 224,
    margin: float = 1.6,
    min_confidence: float = 0.5,
    smoothing_s: float = 0.4,
    unusable: str = "invalid",
    threads: int = 1,
    fingerprint: str = "",
) -> dict[str, object]:
    """Find, follow and crop the person's face; write faces file and crop store.

    Parameters: see `build_parser`. Returns counts (frames, valid, gaps, longest_gap_s).

    Raises
    ------
    InputError : settings out of range, a recording that cannot be read; with `unusable` "refuse",
        no face in any frame (else no row is valid then).
    """
    check_settings(crop_size, margin, min_confidence, smoothing_s)
    video = Path(video)
    box = parse_roi(roi) if roi and roi.strip() else None
    nobody = InputError(
        f"{video}: no face was found in any frame{f' of roi {roi}' if box else ''}",
        "set `roi` to where they are, lower faces.min_confidence, exclude the participant in the sheet, or"
        " set media.unusable to invalid",
    )
    left, top = box[:2] if box else (0, 0)
    with FaceModels(min_confidence) as models:
        pictures = glances(video, box, GLANCES)
        person = choose_person(models, pictures, TILE_SHARES)
        if person is None:
            next(video_frames(video, box, threads=1))  # says so when the file itself is at fault
            person = choose_person(models, pictures, FINE_SHARES)
        if person is None:
            person = choose_person(models, glances(video, box, MORE_GLANCES), TILE_SHARES)
        if person is None and unusable == "refuse":
            raise nobody
        tracker = None if person is None else FaceTracker(models, person)
        smoother = Smoother(margin, smoothing_s)
        names = [f"{axis}{i}" for i in range(N_LANDMARKS) for axis in "xy"]
        attributes = FeatureAttributes(
            feature="faces",
            native_rate_hz=0.0,
            window_s=0.0,
            hop_s=0.0,
            dim_names=names,
            extractor="extractors.faces",
            model_id="mediapipe face_landmark + face_detection",
            model_revision="0.10.21",
            fingerprint=fingerprint,
            settings={
                "crop_size": crop_size,
                "margin": margin,
                "min_confidence": min_confidence,
                "smoothing_s": smoothing_s,
            },
            extra={"crop_size": crop_size, "margin": margin},
        )
        columns = {"box": ("f4", (4,)), "confidence": ("f4", ()), "crop_box": ("f4", (4,))}
        frames = video_frames(video, box, threads=1)
        if threads > 1:
            frames = in_background(frames)
        with (
            FeatureWriter(out, attributes, extra=columns) as writer,
            CropWriter(crops, crop_size) as store,
        ):
            block: list[tuple] = []
            counts = Counts()
            black = np.zeros((crop_size, crop_size, 3), np.uint8)

            def finish(row: _Row, region: Region | None) -> None:
                counts.add(row.time_s, region is not None)
                if region is None:
                    store.write(black)
                    nan4 = np.full(4, np.nan, np.float32)
                    block.append((np.full(2 * N_LANDMARKS, np.nan), row.time_s, nan4, 0.0, nan4))
                else:
                    store.write(cut(row.rgb, region, crop_size, BORDER_REPLICATE))
                    corner = np.array([region.x, region.y]) - region.side / 2
                    points = (row.face.points - corner) / region.side
                    place = row.face.box + np.array([left, top, 0, 0], np.float32)
                    square = np.array([corner[0] + left, corner[1] + top, region.side, region.side])
                    block.append((points.ravel(), row.time_s, place, row.face.score, square))
                if len(block) >= ROWS:
                    flush()

            def flush() -> None:
                if block:
                    values, times, places, scores, squares = map(np.array, zip(*block, strict=True))
                    writer.append(
                        values,
                        times,
                        np.isfinite(places[:, 0]),
                        box=places,
                        confidence=scores,
                        crop_box=squares,
                    )
                    block.clear()

            for frame in progress(frames, "faces", unit="frames"):
                if counts.frames == 0 and not attributes.extra.get("width"):
                    height, width = frame.rgb.shape[:2]
                    attributes.extra.update(width=width, height=height)
                face = tracker.step(frame.rgb, frame.time_s) if tracker else None
                for row, region in smoother.push(_Row(frame.time_s, face, frame.rgb)):
                    finish(row, region)
            for row, region in smoother.push(None):
                finish(row, region)
            flush()
            if not counts.valid:
                if unusable == "refuse":
                    raise nobody
                log.warning("%s: no row is valid", nobody.problem)
            attributes.native_rate_hz = counts.rate_hz()
            attributes.hop_s = 1 / attributes.native_rate_hz
    summary = counts.summary()
    log.info("face in %(valid)d of %(frames)d frames, %(gaps)d gaps", summary)
    return summary


class Counts:
    """Running facts of a recording."""

    def __init__(self):
        self.frames = self.valid = self.gaps = 0
        self.longest_gap_s = 0.0
        self._first = self._last = 0.0
        self._gap_start: float | None = None

    def add(self, time_s: float, valid: bool) -> None:
        if self.frames == 0:
            self._first = time_s
        self._last = time_s
        self.frames += 1
        self.valid += valid
        if valid:
            self._gap_start = None
            return
        if self._gap_start is None:
            self._gap_start = time_s
            self.gaps += 1
        self.longest_gap_s = max(self.longest_gap_s, time_s - self._gap_start)

    def rate_hz(self) -> float:
        """Mean frame rate; 25 for a single frame."""
        span = self._last - self._first
        return (self.frames - 1) / span if span > 0 else 25.0

    def summary(self) -> dict[str, object]:
        return {
            "frames": self.frames,
            "valid": self.valid,
            "gaps": self.gaps,
            "longest_gap_s": round(self.longest_gap_s, 3),
        }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.faces",
        description="Find and follow one person's face; write boxes, landmarks and face crops.",
    )
    parser.add_argument("--video", required=True, metavar="FILE", help="the recording")
    parser.add_argument(
        "--roi", default="", metavar="X,Y,W,H", help="look only there (pixels, upright picture)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="faces file to write (.h5)")
    parser.add_argument(
        "--crops", required=True, metavar="FILE", help="crop store to write (.mkv; personal data)"
    )
    parser.add_argument(
        "--crop-size", type=int, default=224, help="side of a crop, pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=1.6,
        help="side of the crop / longer side of the face (default: %(default)s)",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.5,
        help="detector score from which a face counts, 0..1 (default: %(default)s)",
    )
    parser.add_argument(
        "--smoothing-s",
        type=float,
        default=0.4,
        help="the crop follows the track averaged over +- this many seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--unusable",
        choices=UNUSABLE,
        default="invalid",
        help="no face in any frame: no row is valid (default), or the recording is refused",
    )
    add_job_arguments(parser)
    return parser


def run(args: argparse.Namespace, argv: list[str] | None = None) -> None:
    """Extract and write the sidecar."""
    limit_threads(args.threads)
    start = time.monotonic()
    settings = {
        name: getattr(args, name)
        for name in ("crop_size", "margin", "min_confidence", "smoothing_s", "roi")
    }
    counts = extract(
        args.video,
        args.out,
        args.crops,
        unusable=args.unusable,
        threads=args.threads,
        fingerprint=args.fingerprint,
        **settings,
    )
    write_sidecar(
        args.out,
        inputs={"video": args.video},
        settings=settings,
        fingerprint=args.fingerprint,
        packages=["av", "mediapipe", "numpy", "opencv-contrib-python"],
        command=command_line("extractors.faces", sys.argv[1:] if argv is None else argv),
        counts=counts,
        seconds=time.monotonic() - start,
        beside=[args.crops],
    )


def main(argv: list[str] | None = None) -> int:
    return run_job("extractors.faces", build_parser(), lambda args: run(args, argv), argv)


if __name__ == "__main__":
    sys.exit(main())
