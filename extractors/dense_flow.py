"""Dense optical flow of the stabilised face region, shared by `flow` and `flow_magnitude`.

The face region is the crop store: a square that follows the head smoothly and shows it at one size.
Flow is the apparent motion inside that square from frame k-1 to frame k, so head motion slower than
the square's smoothing is taken out, while nods, shakes and expressions stay.

Units: crop widths per second, u to the right, v downwards, with the true interval between the two
frames' time stamps: 25 and 30 fps agree. The field of row k lies on the pixel grid of frame k (flow
is computed from k back to k-1 and negated), which is where that frame's landmarks are.

Method: DIS (Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016), OpenCV's
preset "fast" with one finer pyramid level, at 112 x 112 grey pixels; docs/visual.md has the
measurement behind the choice.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from extractors.crops import read_crops
from extractors.face_track import FaceTrack

SIZE = 112
METHOD = "opencv DISOpticalFlow fast, finest scale 1"
# A pair of frames further apart than this many usual intervals is no pair (dropped frames).
MAX_INTERVALS = 3.0
# A square that moves by this share of its side, or changes its side by it, from one frame to the
# next has been placed anew: what moves in it is the square, not the face.
MAX_BOX_JUMP = 0.25


def make_dis() -> "cv2.DISOpticalFlow":
    """The flow method with the settings of this feature."""
    # Stripes of so small a picture cost more than they gain.
    cv2.setNumThreads(1)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    # Half the resolution instead of a quarter: large motions and small moving parts come out a
    # third more exact, for 0.4 ms a frame.
    dis.setFinestScale(1)
    return dis


def flow_rows(track: FaceTrack) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a flow, and over which interval.

    Returns valid (T,) bool and interval (T,) float64 s (row 0: nan). Row k is valid when frames k-1
    and k both hold the face, are at most `MAX_INTERVALS` usual intervals apart, and the square was
    not placed anew between them.
    """
    interval = np.diff(track.time, prepend=np.nan)
    valid = track.valid & np.roll(track.valid, 1)
    valid[0] = False
    if len(track) > 1:
        valid[1:] &= interval[1:] <= MAX_INTERVALS * track.hop_s
        x, y, w, h = track.crop_box.T.astype(np.float64)
        side = np.minimum(w[1:], w[:-1])
        shift = np.maximum(np.abs(np.diff(x + w / 2)), np.abs(np.diff(y + h / 2)))
        # NaN boxes compare false: without a box there is no flow either.
        with np.errstate(invalid="ignore"):
            valid[1:] &= (shift <= MAX_BOX_JUMP * side) & (
                np.abs(np.diff(w)) <= MAX_BOX_JUMP * side
            )
    return valid, interval


def motion(before: np.ndarray, after: np.ndarray, dis: "cv2.DISOpticalFlow") -> np.ndarray:
    """Displacement that brought each pixel of `after` there, from grey uint8 pictures (S, S).

    Returns (S, S, 2) float32 (u, v) in picture widths.
    """
    return dis.calc(after, before, None) * np.float32(-1.0 / after.shape[1])


def dense_flow(crops: str | Path, track: FaceTrack) -> Iterator[np.ndarray | None]:
    """Yield one item per frame: flow (SIZE, SIZE, 2) float32 in crop widths per second, or None.

    None where `flow_rows` says there is none. Raises InputError when the crop store does not hold
    exactly one picture per row of the track.
    """
    dis = make_dis()
    valid, interval = flow_rows(track)
    before = None
    for k, picture in enumerate(read_crops(crops, expected=len(track), gray=True, size=SIZE)):
        if valid[k]:
            yield motion(before, picture, dis) * np.float32(1.0 / interval[k])
        else:
            yield None
        # The reader may reuse its buffer; 12 kB per frame is nothing.
        before = picture.copy()
