"""Reading a faces file (extractors/faces.py): what the visual features need of it.

One row per video frame: /time (T,) s, /valid (T,), /crop_box (T, 4) x, y, w, h in pixels of the
full picture, /values (T, 2 L) landmarks x0, y0, x1, y1, ... in crop coordinates (0..1). Row k
belongs to picture k of the crop store.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from runtime import InputError
from store.hdf5 import open_hdf5
from store.identity import stage_version

ROWS = 1024


@dataclass(frozen=True)
class FaceCrops:
    """The face of one person: faces file and crop store, as extractors/faces.py wrote them."""

    faces: str | Path
    crops: str | Path

    @cached_property
    def track(self) -> "FaceTrack":
        """The faces file, read once; raises InputError (read_track)."""
        return read_track(self.faces)

    @property
    def inputs(self) -> dict[str, str | Path]:
        """For the sidecar: the files that are read."""
        return {"faces": self.faces, "crops": self.crops}

    @property
    def below(self) -> dict[str, object]:
        """Settings of what the feature stands on: how the faces were found and cropped."""
        return {"faces": self.track.settings}

    @property
    def settings(self) -> dict[str, object]:
        """For the sidecar: how they are read; nothing to choose."""
        return {}


@dataclass(frozen=True)
class FaceTrack:
    """One face through one video.

    path: the faces file. time (T,) float64 s, presentation time stamps. valid (T,) bool, face
    present. crop_box (T, 4) float32 x, y, w, h in picture pixels, NaN without a crop.
    landmarks: number of landmarks per row. rate_hz: mean video rate. settings: of the faces, and the
    models that found them.
    """

    path: Path
    time: np.ndarray
    valid: np.ndarray
    crop_box: np.ndarray
    landmarks: int
    rate_hz: float
    settings: dict[str, object]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def hop_s(self) -> float:
        """The frame interval that is usual in this video, seconds (0 for a single frame)."""
        return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 0.0


def read_track(path: str | Path) -> FaceTrack:
    """Read everything but the landmarks (memory: 25 bytes per frame).

    Raises InputError when the file is missing, damaged or no faces file.
    """
    path = Path(path)
    remake = f"delete it and run the faces job again: rm '{path}'"
    with open_hdf5(path) as file:
        missing = [n for n in ("values", "time", "valid", "crop_box") if n not in file]
        if missing or "dim_names" not in file.attrs:
            absent = ", ".join(f"/{n}" for n in missing) or "attribute dim_names"
            raise InputError(f"{path} is not a faces file ({absent} missing)", remake)
        try:
            time, valid = file["time"][()], file["valid"][()].astype(bool)
            crop_box = file["crop_box"][()].astype(np.float32)
        except OSError as e:
            raise InputError(
                f"{path} cannot be read ({' '.join(str(e).split())[:100]})", remake
            ) from e
        width = len(json.loads(file.attrs["dim_names"]))
        rows = {len(time), len(valid), len(crop_box), len(file["values"])}
        if len(rows) != 1 or crop_box.shape[1:] != (4,) or width % 2:
            raise InputError(f"{path}: its datasets do not fit each other", remake)
        if not len(time):
            raise InputError(f"{path} holds no frame", "check the video; exclude the participant")
        rate_hz = float(file.attrs["native_rate_hz"])
        # A file of an earlier version says what it can: its crops.
        known = {k: file.attrs[k].item() for k in ("crop_size", "margin") if k in file.attrs}
        settings = known | json.loads(file.attrs.get("settings", "{}"))
        if (version := stage_version(str(file.attrs.get("fingerprint", "")))) is not None:
            settings["version"] = version
        models = " ".join(str(file.attrs.get(k, "")) for k in ("model_id", "model_revision"))
    return FaceTrack(
        path, time, valid, crop_box, width // 2, rate_hz, settings | {"models": models}
    )


def landmark_rows(track: FaceTrack, count: int) -> Iterator[np.ndarray]:
    """Yield T arrays (count, 2) float32: the first `count` landmarks in crop coordinates (0..1)."""
    with open_hdf5(track.path) as file:
        values: h5py.Dataset = file["values"]
        for start in range(0, len(track), ROWS):
            block = values[start : start + ROWS, : 2 * count].astype(np.float32)
            yield from block.reshape(len(block), count, 2)
