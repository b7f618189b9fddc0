"""Speed of the optical flow at facial landmarks (feature `flow_magnitude`).

    python -m extractors.flow_magnitude --faces ROLE.h5 --crops ROLE.crops.mkv --out flow_magnitude.h5

33 values per row: the mean length of the flow vectors in a window around each of 32 landmarks of
MediaPipe's face mesh (`LANDMARKS`; left and right are the person's own), and `face`, the mean over
all 468 landmarks. The window is a square with a side of 1/16 of the crop. All values in crop
widths per second. Row k describes the motion between frames k-1 and k, is read at frame k's
landmarks and carries frame k's time; row 0 is invalid. A landmark outside the crop takes the value
at the nearest edge; the sidecar counts them.
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from extractors.dense_flow import METHOD, SIZE, dense_flow, flow_rows
from extractors.face_track import landmark_rows, read_track
from runtime import InputError, progress
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

ROWS = 512
PACKAGES = ["av", "h5py", "numpy", "opencv-contrib-python"]
WINDOW = SIZE // 16
MESH = 468
# Name -> index in MediaPipe's canonical face mesh.
LANDMARKS = {
    "right_brow_outer": 70,
    "right_brow_middle": 105,
    "right_brow_inner": 107,
    "left_brow_inner": 336,
    "left_brow_middle": 334,
    "left_brow_outer": 300,
    "right_eye_outer": 33,
    "right_eye_upper_lid": 159,
    "right_eye_lower_lid": 145,
    "right_eye_inner": 133,
    "left_eye_inner": 362,
    "left_eye_upper_lid": 386,
    "left_eye_lower_lid": 374,
    "left_eye_outer": 263,
    "forehead": 151,
    "nose_bridge": 168,
    "nose_tip": 1,
    "right_nostril": 98,
    "left_nostril": 327,
    "right_cheek": 205,
    "left_cheek": 425,
    "right_mouth_corner": 61,
    "left_mouth_corner": 291,
    "upper_lip_outer": 0,
    "upper_lip_inner": 13,
    "lower_lip_inner": 14,
    "lower_lip_outer": 17,
    "right_jaw_angle": 132,
    "right_jaw": 172,
    "chin": 152,
    "left_jaw": 397,
    "left_jaw_angle": 361,
}
DIM_NAMES = [*LANDMARKS, "face"]
_CHOSEN = np.array(list(LANDMARKS.values()))


def gather(flow: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Mean speed around landmarks.

    flow (S, S, 2) in any unit; landmarks (MESH, 2) x, y in crop coordinates: 0 is the left or top
    edge of the crop, 1 the right or bottom one. Returns (33,) float32 in the flow's unit.
    """
    speed = cv2.magnitude(flow[..., 0], flow[..., 1])
    mean = cv2.blur(speed, (WINDOW, WINDOW), borderType=cv2.BORDER_REPLICATE)
    # Pixel i covers i/S..(i+1)/S, so its centre has the index x * S - 0.5.
    place = landmarks * np.float32(flow.shape[0]) - np.float32(0.5)
    at = cv2.remap(
        mean, place[:, 0], place[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).ravel()
    return np.append(at[_CHOSEN], at.mean(dtype=np.float64)).astype(np.float32)


def extract_flow_magnitude(
    faces: str | Path,
    crops: str | Path,
    out: str | Path,
    *,
    dtype: str = "float16",
    threads: int = 1,
    fingerprint: str = "",
    command: str = "",
) -> None:
    """Write the feature file `out` (T rows, 33 columns) and its sidecar.

    Raises InputError when the faces file has fewer than 468 landmarks or does not fit the crops.
    """
    start = time.monotonic()
    limit_threads(threads)
    track = read_track(faces)
    if track.landmarks < MESH:
        raise InputError(
            f"{faces} holds {track.landmarks} landmarks per frame, the face mesh has {MESH}",
            f"delete it and run the faces job again: rm '{faces}'",
        )
    valid, _ = flow_rows(track)
    attributes = FeatureAttributes(
        feature="flow_magnitude",
        native_rate_hz=track.rate_hz,
        window_s=track.hop_s,
        hop_s=track.hop_s,
        dim_names=DIM_NAMES,
        extractor="extractors.flow_magnitude",
        model_id=METHOD,
        fingerprint=fingerprint,
        settings={"dtype": dtype, "faces": track.settings},
        extra={"unit": "crop widths per second", "flow_size": SIZE, "window": WINDOW},
    )
    rows = np.full((ROWS, len(DIM_NAMES)), np.nan, np.float32)
    outside = 0
    with FeatureWriter(out, attributes, dtype) as writer:
        fields = progress(
            dense_flow(crops, track), "flow_magnitude", total=len(track), unit="frames"
        )
        for k, (field, landmarks) in enumerate(
            zip(fields, landmark_rows(track, MESH), strict=True)
        ):
            if field is None:
                rows[k % ROWS] = np.nan
            else:
                rows[k % ROWS] = gather(field, landmarks)
                outside += int(((landmarks < 0) | (landmarks > 1)).any(axis=1)[_CHOSEN].sum())
            if k % ROWS == ROWS - 1 or k == len(track) - 1:
                part = slice(k - k % ROWS, k + 1)
                writer.append(rows[: k % ROWS + 1], track.time[part], valid[part])
    write_sidecar(
        out,
        inputs={"faces": faces, "crops": crops},
        settings={"dtype": dtype},
        fingerprint=fingerprint,
        packages=PACKAGES,
        command=command,
        counts={
            "rows": len(track),
            "valid": int(valid.sum()),
            "landmarks_outside_crop": outside,
        },
        seconds=time.monotonic() - start,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.flow_magnitude",
        description="Length of the optical flow around 32 facial landmarks and over the whole face, "
        "in crop widths per second.",
    )
    parser.add_argument("--faces", required=True, metavar="FILE", help="faces file (.h5)")
    parser.add_argument("--crops", required=True, metavar="FILE", help="crop store (.crops.mkv)")
    parser.add_argument("--out", required=True, metavar="FILE", help="feature file to write (.h5)")
    parser.add_argument(
        "--dtype", choices=["float16", "float32"], default="float16", help="how values are stored"
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(a: argparse.Namespace) -> None:
        extract_flow_magnitude(
            a.faces,
            a.crops,
            a.out,
            dtype=a.dtype,
            threads=a.threads,
            fingerprint=a.fingerprint,
            command=command_line(
                "extractors.flow_magnitude", list(sys.argv[1:] if argv is None else argv)
            ),
        )

    return run_job("extractors.flow_magnitude", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
