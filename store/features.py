"""The feature file: one participant, one feature, native rate (HDF5).

Layout (schema version 1)
    /values  (T, D)  float16 or float32; rows that are not valid hold NaN
    /time    (T,)    float64, seconds in the recording's own time: the instant a row describes
    /valid   (T,)    bool: false where there was no face, no audio, not enough left context ...
    further datasets with T rows, where the extractor documents them (``confidence`` ...)
Root attributes
    schema_version, feature, native_rate_hz, window_s, hop_s, dim_names (JSON list), extractor,
    model_id, model_revision, precision, fingerprint; settings (JSON: every setting that changes the
    values, with those of what the feature stands on); extractors may add their own.

No timestamps inside: equal input gives equal bytes. One writer per file, written beside and
renamed. Provenance lies in the JSON sidecar next to it (store/sidecar.py).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime import InputError
from store.hdf5 import DAMAGE, create_hdf5, open_hdf5, reading, remake

SCHEMA_VERSION = 1
CHUNK_BYTES = 1 << 18
REQUIRED_ATTRIBUTES = (
    "schema_version",
    "feature",
    "native_rate_hz",
    "window_s",
    "hop_s",
    "dim_names",
    "extractor",
    "model_id",
    "model_revision",
    "precision",
    "fingerprint",
)


@dataclass
class FeatureAttributes:
    """Root attributes of a feature file; see the module docstring.

    native_rate_hz is the nominal rate of rows (mean video rate for video features), window_s the
    seconds of media a row summarises, hop_s the nominal step. settings: every setting that changes
    the values, by its name in the config; `faces` holds those of the faces, `weights` the digest of
    the checkpoint's content. It is what a trained model compares (store.identity).
    """

    feature: str
    native_rate_hz: float
    window_s: float
    hop_s: float
    dim_names: list[str]
    extractor: str
    model_id: str = ""
    model_revision: str = ""
    precision: str = "fp32"
    fingerprint: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    extra: dict[str, object] = field(default_factory=dict)


@dataclass
class Features:
    """A feature file in memory. values (T, D), time (T,) float64 s, valid (T,) bool."""

    values: np.ndarray
    time: np.ndarray
    valid: np.ndarray
    attributes: dict[str, object]
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def dim_names(self) -> list[str]:
        return json.loads(self.attributes["dim_names"])  # type: ignore[arg-type]


class FeatureWriter:
    """Append rows piece by piece; memory does not grow with length.

    >>> with FeatureWriter(path, attributes, dtype="float16") as writer:   # doctest: +SKIP
    ...     writer.append(values, time, valid)

    Raises InputError when a finite value does not fit into `dtype` (float16 ends at 65504), when
    time does not increase, or when a valid row is not finite. Nothing appears under `path` unless
    the block ends without an exception.

    `extra` maps names of further per-row datasets to (dtype, trailing shape).
    """

    def __init__(
        self,
        path: str | Path,
        attributes: FeatureAttributes,
        dtype: str = "float32",
        extra: dict[str, tuple[str, tuple[int, ...]]] | None = None,
    ):
        self.path = Path(path)
        self.attributes = attributes
        self.dtype = np.dtype(dtype)
        self.extra = dict(extra or {})
        self.rows = 0
        self._last_time = -np.inf
        self._context = None

    def __enter__(self) -> "FeatureWriter":
        self._context = create_hdf5(self.path)
        self._new = self._context.__enter__()
        d = len(self.attributes.dim_names)
        rows = int(np.clip(CHUNK_BYTES // max(1, d * self.dtype.itemsize), 16, 8192))
        self._file = self._new.file
        make = self._file.create_dataset
        make("values", (0, d), self.dtype, maxshape=(None, d), chunks=(rows, d))
        make("time", (0,), "f8", maxshape=(None,), chunks=(4096,))
        make("valid", (0,), bool, maxshape=(None,), chunks=(4096,), compression="gzip")
        for name, (kind, shape) in self.extra.items():
            width = max(1, int(np.prod(shape)) * np.dtype(kind).itemsize)
            length = int(np.clip(CHUNK_BYTES // width, 16, 8192))
            make(name, (0, *shape), kind, maxshape=(None, *shape), chunks=(length, *shape))
        return self

    def append(
        self, values: np.ndarray, time: np.ndarray, valid: np.ndarray, **extra: np.ndarray
    ) -> None:
        """Add rows: values (t, D), time (t,) s, valid (t,) bool, and each declared extra (t, ...)."""
        values = np.asarray(values)
        time = np.asarray(time, np.float64)
        valid = np.asarray(valid, bool)
        n = len(time)
        if n == 0:
            return
        if values.shape != (n, len(self.attributes.dim_names)) or valid.shape != (n,):
            raise ValueError(
                f"rows do not match: values {values.shape}, time {time.shape}, valid {valid.shape}"
            )
        if set(extra) != set(self.extra):
            raise ValueError(
                f"extra datasets {sorted(extra)} are not the declared {sorted(self.extra)}"
            )
        steps = np.diff(time, prepend=self._last_time)
        if not np.all(steps > 0):
            i = int(np.argmin(steps > 0))
            raise InputError(
                f"{self.path.name}: time does not increase at row {self.rows + i} ({time[i]:.6f} s)",
                "the media file has broken time stamps; remux it (ffmpeg -i IN -c copy OUT) and try again",
            )
        finite = np.isfinite(values)
        bad = valid & ~finite.all(axis=1)
        if bad.any():
            i = int(np.argmax(bad))
            raise InputError(
                f"{self.path.name}: row {self.rows + i} ({time[i]:.3f} s) is not finite although its input was present",
                "check the weights and the precision setting of this feature (bf16 or fp32 instead of fp16)",
            )
        limit = np.finfo(self.dtype).max
        large = finite & (np.abs(np.where(finite, values, 0)) > limit)
        if large.any():
            i, j = map(int, np.argwhere(large)[0])
            raise InputError(
                f"{self.path.name}: {self.attributes.dim_names[j]} = {values[i, j]:g} at {time[i]:.3f} s does not fit into {self.dtype}",
                f"set features.{self.attributes.feature}.dtype to float32 in the config",
            )
        values = np.where(valid[:, None], values, np.nan).astype(self.dtype)
        self._extend("values", values)
        self._extend("time", time)
        self._extend("valid", valid)
        for name, rows in extra.items():
            self._extend(name, np.asarray(rows))
        self._new.check()
        self.rows += n
        self._last_time = time[-1]

    def _extend(self, name: str, rows: np.ndarray) -> None:
        dataset = self._file[name]
        dataset.resize(self.rows + len(rows), axis=0)
        dataset[self.rows :] = rows

    def invalidate(self) -> None:
        """Make every row so far not valid: what they were computed from held nothing."""
        values = self._file["values"]
        step = values.chunks[0]
        for start in range(0, self.rows, step):
            values[start : start + step] = np.nan
        self._file["valid"][...] = False

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            a = self.attributes
            attributes = {
                "schema_version": SCHEMA_VERSION,
                "feature": a.feature,
                "native_rate_hz": float(a.native_rate_hz),
                "window_s": float(a.window_s),
                "hop_s": float(a.hop_s),
                "dim_names": json.dumps(a.dim_names),
                "extractor": a.extractor,
                "model_id": a.model_id,
                "model_revision": a.model_revision,
                "precision": a.precision,
                "fingerprint": a.fingerprint,
                "settings": json.dumps(a.settings, sort_keys=True),
                **a.extra,
            }
            for name in sorted(attributes):
                self._file.attrs[name] = attributes[name]
        self._context.__exit__(kind, error, traceback)


@dataclass(frozen=True)
class Declared:
    """What a feature file must be for its reader; None where the declaration leaves it open.

    feature : name; extractor : module that computes it; dim : columns; rate_hz : rows per second.
    """

    feature: str
    extractor: str
    dim: int | None = None
    rate_hz: float | None = None


def check_declared(path: str | Path, attributes: Mapping, declared: Declared) -> None:
    """InputError when a feature file's root attributes are not those that are declared."""
    held = (
        ("feature", str(attributes["feature"]), declared.feature),
        ("extractor", str(attributes["extractor"]), declared.extractor),
        ("columns", len(json.loads(attributes["dim_names"])), declared.dim),
        ("rows per second", float(attributes["native_rate_hz"]), declared.rate_hz),
    )
    for what, found, wanted in held:
        same = (
            math.isclose(found, wanted) if wanted and what == "rows per second" else found == wanted
        )
        if wanted is not None and not same:
            raise InputError(
                f"{path} is not the declared {declared.feature}: {what} {found}, not {wanted}",
                remake(path),
            )


def write_features(
    path: str | Path,
    values: np.ndarray,
    time: np.ndarray,
    valid: np.ndarray,
    attributes: FeatureAttributes,
    dtype: str = "float32",
) -> None:
    """Write a whole feature file at once: values (T, D), time (T,) s, valid (T,) bool."""
    with FeatureWriter(path, attributes, dtype) as writer:
        writer.append(values, time, valid)


def read_features(path: str | Path) -> Features:
    """Read a whole feature file; raises InputError if it breaks the contract."""
    problems = check_features(path)
    if problems:
        raise InputError(
            f"{path}: {problems[0]}", f"delete it and run again, it will be remade: rm '{path}'"
        )
    with open_hdf5(path) as f, reading(path):
        extra = {name: f[name][()] for name in f if name not in ("values", "time", "valid")}
        return Features(f["values"][()], f["time"][()], f["valid"][()], dict(f.attrs), extra)


def check_features(path: str | Path) -> list[str]:
    """Check a feature file against the contract; returns problems, empty when sound."""
    problems = []
    with open_hdf5(path) as f, reading(path):
        missing = [name for name in REQUIRED_ATTRIBUTES if name not in f.attrs]
        if missing:
            return [f"attributes missing: {', '.join(missing)}"]
        if int(f.attrs["schema_version"]) != SCHEMA_VERSION:
            return [
                f"schema version {f.attrs['schema_version']}, this program reads {SCHEMA_VERSION}"
            ]
        for name in ("values", "time", "valid"):
            if name not in f:
                return [f"dataset /{name} is missing"]
        try:
            values, time, valid = f["values"], f["time"][()], f["valid"][()]
            d = len(json.loads(f.attrs["dim_names"]))
            if values.ndim != 2 or values.shape[1] != d:
                problems.append(f"/values has shape {values.shape}, dim_names name {d} columns")
            if not len(values) == len(time) == len(valid):
                problems.append(
                    f"lengths differ: values {len(values)}, time {len(time)}, valid {len(valid)}"
                )
                return problems
            if values.dtype.kind != "f" or time.dtype != np.float64 or valid.dtype != bool:
                problems.append(f"types are {values.dtype}, {time.dtype}, {valid.dtype}")
            if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
                problems.append("/time is not finite and increasing")
            for start in range(0, len(values), 65536):
                block = values[start : start + 65536]
                ok = valid[start : start + 65536]
                if not np.isfinite(block[ok]).all():
                    problems.append(f"a valid row in {start}..{start + len(block)} is not finite")
                    break
        except DAMAGE as e:
            problems.append(f"unreadable data ({' '.join(str(e).split())[:120]})")
    return problems
