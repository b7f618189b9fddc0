"""CLIP image embedding of the face region (feature `clip_face`).

`encode_image` of an open_clip model, not L2-normalised (the length of the vector is kept; the
challenge's CLIP features are raw as well), of each picture of the crop store that holds the face;
the other rows are NaN and invalid. Default model ViT-B-32, 512 values per row.

Weights: a folder in open_clip's local layout (open_clip_config.json + open_clip_model.safetensors),
checked by extractors/weights.py. Only the image tower is built and read.
No pickle, no code from the folder. Preprocessing is open_clip's own for evaluation. Pictures are
decoded and prepared by the job's threads while the model computes.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from extractors.crops import read_crops
from extractors.face_track import FaceCrops, FaceTrack
from extractors.halving import Halving
from extractors.rows import FeatureRows
from runtime import InputError, progress
from runtime.device import pick_device
from runtime.torchvision_cpu import allow_torchvision_without_cuda

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
PURE = {"fp32": "fp32", "bf16": "pure_bf16", "fp16": "pure_fp16"}
# The text tower is never called; this is the smallest that open_clip builds.
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
READ_AHEAD = 2
ROWS = 2048


class ImageTower:
    """Image tower of an open_clip model, in evaluation mode.

    encode: uint8 RGB (B, S, S, 3) on the CPU -> float32 (B, dim), S = `size`.
    prepare: one picture uint8 RGB (H, W, 3) of any size -> (S, S, 3), as open_clip resizes it.
    """

    def __init__(self, folder: str | Path, precision: str = "fp32", device: str = "cpu"):
        folder = Path(folder)
        allow_torchvision_without_cuda()
        import open_clip
        import torch

        self.torch = torch
        self.device = torch.device(device)
        # open_clip reports each step, and that no weights were loaded: we load them ourselves.
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            model = open_clip.create_model(
                f"local-dir:{folder}",
                load_weights=False,
                precision=PURE[precision],
                device=self.device,
                text_cfg=dict(NO_TEXT),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as e:
            raise InputError(
                f"clip_face: open_clip cannot build the model of {folder / CONFIG_NAME} "
                f"({' '.join(str(e).split())[:120]})",
                "check model_cfg in that file against the open_clip version in the environment",
            ) from e
        finally:
            logging.disable(disabled)
        self.visual = model.visual.eval().requires_grad_(False)
        self._load(folder / WEIGHTS_NAME)
        cfg = self.visual.preprocess_cfg
        self._transform = open_clip.transform.image_transform_v2(
            open_clip.transform.PreprocessCfg(**cfg), is_train=False
        )
        size = cfg["size"]
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.dtype = next(self.visual.parameters()).dtype
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(cfg["mean"], device=self.device).view(shape)
        self._std = torch.tensor(cfg["std"], device=self.device).view(shape)
        self.dim = int(self.encode(np.zeros((1, *self.size, 3), np.uint8)).shape[1])

    def _load(self, checkpoint: Path) -> None:
        from safetensors import SafetensorError, safe_open

        prefix = "visual."
        try:
            with safe_open(checkpoint, framework="pt") as file:
                state = {
                    k[len(prefix) :]: file.get_tensor(k)
                    for k in file.keys()  # noqa: SIM118 - a safetensors file is no dict
                    if k.startswith(prefix)
                }
            self.visual.load_state_dict(state, strict=True)
        except (SafetensorError, RuntimeError, OSError) as e:
            raise InputError(
                f"clip_face: {checkpoint} does not hold the image tower of its {CONFIG_NAME} "
                f"({' '.join(str(e).split())[:120]})",
                "copy the file again; config and weights must come from the same model",
            ) from e

    def prepare(self, picture: np.ndarray) -> np.ndarray:
        """open_clip's resize and centre crop, before scaling to floats."""
        if picture.shape[:2] == self.size:
            return picture
        from PIL import Image

        image = Image.fromarray(picture)
        # The last two steps are ToTensor and Normalize; `encode` does them for a whole batch.
        for step in self._transform.transforms[:-2]:
            image = step(image)
        return np.asarray(image)

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Embed pictures (B, S, S, 3) uint8; returns float32 (B, dim)."""
        torch = self.torch
        with torch.inference_mode():
            x = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)  # (B, 3, S, S)
            x = x.to(torch.float32, memory_format=torch.contiguous_format)
            x = x.div_(255).sub_(self._mean).div_(self._std).to(self.dtype)
            y = self.visual(x)
            # CoCa's tower returns (pooled, tokens).
            y = y[0] if isinstance(y, tuple) else y
            return y.float().cpu().numpy()


def batches(
    crops: str | Path, track: FaceTrack, prepare: Callable, batch_size: int, threads: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows (B,), pictures (B, S, S, 3) uint8) of the valid rows, prepared in the background.

    threads : that decode and prepare; the batches wait in a queue of READ_AHEAD.
    """
    ready: queue.Queue = queue.Queue(READ_AHEAD)
    stop = threading.Event()

    def put(item) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def decode() -> None:
        try:
            rows, pictures = [], []
            shown = read_crops(
                crops, expected=len(track), threads=threads, apply=lambda p: prepare(p).copy()
            )
            with closing(shown):
                for k, picture in enumerate(shown):
                    if stop.is_set():
                        return
                    if track.valid[k]:
                        rows.append(k)
                        pictures.append(picture)
                    if len(rows) == batch_size:
                        put((np.array(rows), np.stack(pictures)))
                        rows, pictures = [], []
            if rows:
                put((np.array(rows), np.stack(pictures)))
            put(None)
        except BaseException as e:  # handed to the consumer, who raises it
            put(e)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def in_rows(
    track: FaceTrack, start: int, stop: int, dim: int, rows=(), values=None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows start..stop-1 piece by piece; `values` (len(rows), dim) go to `rows`, the rest is NaN."""
    for first in range(start, stop, ROWS):
        last = min(first + ROWS, stop)
        block = np.full((last - first, dim), np.nan, np.float32)
        if values is not None:
            inside = (rows >= first) & (rows < last)
            block[rows[inside] - first] = values[inside]
        yield block, track.time[first:last], track.valid[first:last]


def rows(face: FaceCrops, *, weights: Path, precision: str, batch_size: int) -> FeatureRows:
    """Embeddings of a recording, one row per video frame.

    weights : checked folder of a checkpoint. batch_size : pictures per call of the model.

    Raises InputError for foreign weights and for faces and crops that do not fit.
    """
    if batch_size < 1:
        raise InputError(f"clip_face: batch size {batch_size}", "choose a batch size of 1 or more")
    track = face.track
    tower = ImageTower(weights, precision, str(pick_device()))

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        encode = Halving(tower.encode, "pictures")
        threads = tower.torch.get_num_threads()  # those of the job
        done = 0
        work = progress(
            batches(face.crops, track, tower.prepare, batch_size, threads),
            "clip_face",
            total=-(-int(track.valid.sum()) // batch_size),
            unit="batches",
        )
        for at, pictures in work:
            stop = int(at[-1]) + 1
            yield from in_rows(track, done, stop, tower.dim, at, encode(pictures))
            done = stop
        yield from in_rows(track, done, len(track), tower.dim)

    return FeatureRows(
        rate_hz=track.rate_hz,
        window_s=0.0,
        hop_s=track.hop_s,
        dim_names=[f"clip_{i}" for i in range(tower.dim)],
        blocks=blocks(),
        precision=precision,
        attributes={"normalized": False},
    )


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors clip_face")
