"""Speed of the optical flow at facial landmarks (feature `flow_magnitude`).

33 values per row: the mean length of the flow vectors in a window around each of 32 landmarks of
MediaPipe's face mesh (`LANDMARKS`; left and right are the person's own), and `face`, the mean over
all 468 landmarks. The window is a square with a side of 1/16 of the crop. All values in crop
widths per second. Row k describes the motion between frames k-1 and k, is read at frame k's
landmarks and carries frame k's time; row 0 is invalid. A landmark outside the crop takes the value
at the nearest edge; the sidecar counts them.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from extractors.dense_flow import METHOD, SIZE, dense_flow, flow_rows
from extractors.face_track import FaceCrops, landmark_rows
from extractors.rows import FeatureRows
from runtime import InputError, progress

ROWS = 512
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


def rows(face: FaceCrops) -> FeatureRows:
    """Speed at the landmarks of a recording, one row of 33 columns per video frame.

    Raises InputError when the faces file has fewer than 468 landmarks or does not fit the crops.
    """
    track = face.track
    if track.landmarks < MESH:
        raise InputError(
            f"{face.faces} holds {track.landmarks} landmarks per frame, the face mesh has {MESH}",
            f"delete it and run the faces job again: rm '{face.faces}'",
        )
    valid, _ = flow_rows(track)
    counts = {"landmarks_outside_crop": 0}

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        block = np.full((ROWS, len(DIM_NAMES)), np.nan, np.float32)
        fields = progress(
            dense_flow(face.crops, track), "flow_magnitude", total=len(track), unit="frames"
        )
        for k, (field, landmarks) in enumerate(
            zip(fields, landmark_rows(track, MESH), strict=True)
        ):
            if field is None:
                block[k % ROWS] = np.nan
            else:
                block[k % ROWS] = gather(field, landmarks)
                outside = ((landmarks < 0) | (landmarks > 1)).any(axis=1)[_CHOSEN]
                counts["landmarks_outside_crop"] += int(outside.sum())
            if k % ROWS == ROWS - 1 or k == len(track) - 1:
                part = slice(k - k % ROWS, k + 1)
                yield block[: k % ROWS + 1], track.time[part], valid[part]

    return FeatureRows(
        rate_hz=track.rate_hz,
        window_s=track.hop_s,
        hop_s=track.hop_s,
        dim_names=DIM_NAMES,
        blocks=blocks(),
        model_id=METHOD,
        attributes={"unit": "crop widths per second", "flow_size": SIZE, "window": WINDOW},
        counts=counts,
    )


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors flow_magnitude")
