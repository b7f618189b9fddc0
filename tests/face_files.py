"""Faces files and crop stores of known content, in the formats that extractors/faces.py writes."""

import av
import h5py
import numpy as np

from store.features import FeatureAttributes, FeatureWriter

MESH = 478


def write_crops(path, pictures, rate=25):
    """Store pictures (uint8 RGB (S, S, 3)) without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_faces(path, time, valid=None, landmarks=None, crop_box=None):
    """A faces file with T rows; landmarks (T, L, 2) in 0..1, crop_box (T, 4) pixels."""
    time = np.asarray(time, np.float64)
    n = len(time)
    valid = np.ones(n, bool) if valid is None else np.asarray(valid, bool)
    if landmarks is None:
        landmarks = np.full((n, MESH, 2), 0.5, np.float32)
    if crop_box is None:
        crop_box = np.tile(np.float32([100, 80, 200, 200]), (n, 1))
    crop_box = np.where(valid[:, None], crop_box, np.nan).astype(np.float32)
    points = landmarks.shape[1]
    attributes = FeatureAttributes(
        feature="faces",
        native_rate_hz=25.0,
        window_s=0.0,
        hop_s=0.04,
        dim_names=[f"landmark{i}_{axis}" for i in range(points) for axis in "xy"],
        extractor="extractors.faces",
        model_id="found by",
        model_revision="hand",
        fingerprint="stage=extractors.faces version=4 margin=1.6",
        extra={"width": 640, "height": 480, "crop_size": 224},
    )
    extra = {"box": ("f4", (4,)), "confidence": ("f4", ()), "crop_box": ("f4", (4,))}
    with FeatureWriter(path, attributes, "float32", extra) as writer:
        writer.append(
            landmarks.reshape(n, -1),
            time,
            valid,
            box=crop_box,
            confidence=np.where(valid, 0.9, np.nan).astype(np.float32),
            crop_box=crop_box,
        )
    return path


def texture(size, seed=0, blur=6.0):
    """A periodic grey texture, float (size, size) in 0..255: noise smoothed in the Fourier domain."""
    rng = np.random.default_rng(seed)
    f = np.fft.fftfreq(size)
    smooth = np.exp(-2 * (np.pi * blur) ** 2 * (f[:, None] ** 2 + f[None, :] ** 2))
    x = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * smooth).real
    return np.clip(128 + 45 * x / x.std(), 0, 255)


def shifted(picture, dx, dy):
    """Move a periodic picture by (dx, dy) pixels, to the right and down: exact, by Fourier phase."""
    h, w = picture.shape
    phase = np.fft.fftfreq(w)[None, :] * dx + np.fft.fftfreq(h)[:, None] * dy
    # The Nyquist row has no sign; the texture holds no energy there.
    return np.fft.ifft2(np.fft.fft2(picture) * np.exp(-2j * np.pi * phase)).real


def rgb(picture):
    """Grey float (S, S) -> uint8 RGB (S, S, 3)."""
    return np.repeat(np.clip(np.round(picture), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def dataset(path, name):
    with h5py.File(path, "r") as file:
        return file[name][()]
