"""One-screen summaries and contract checks of every HDF5 file the workflow writes.

Kinds: feature (native rate; faces and labels too), aligned, predictions, statistics, told apart by
their content.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from runtime import InputError
from store.aligned import check_aligned
from store.features import check_features
from store.hdf5 import DAMAGE, members, open_hdf5, reading

BLOCK_BYTES = 1 << 24
SHOWN_DIMS = 6


def kind_of(f: h5py.File) -> str:
    """Which of our files this is; "" for a foreign one."""
    if "values" in f and "row" in f and "weight" in f:
        return "aligned"
    if "values" in f or "feature" in f.attrs:
        return "feature"
    if {"run", "seed", "dataset"} <= set(f.attrs):
        return "predictions"
    if "label" in f and "frame_rate_hz" in f.attrs:
        return "statistics"
    return ""


def _damaged(path: str | Path, error: Exception | str) -> InputError:
    return InputError(
        f"{path}: {' '.join(str(error).split())[:200]}",
        f"delete it and run again, it will be remade: rm '{path}'",
    )


def _ranges(values: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest finite value per dimension (D,), read block by block."""
    dim = values.shape[1]
    least, largest = np.full(dim, np.inf), np.full(dim, -np.inf)
    step = max(1, BLOCK_BYTES // max(1, dim * values.dtype.itemsize))
    for start in range(0, len(values), step):
        block = values[start : start + step].astype(np.float64)
        known = np.isfinite(block)
        least = np.minimum(least, np.where(known, block, np.inf).min(axis=0))
        largest = np.maximum(largest, np.where(known, block, -np.inf).max(axis=0))
    return least, largest


def _describe_rows(f: h5py.File, time: np.ndarray, valid: np.ndarray, unit: str) -> Iterator[str]:
    values = f["values"]
    rate = float(f.attrs["native_rate_hz"])
    span = f"{time[0]:.3f} .. {time[-1]:.3f} s" if len(time) else "empty"
    yield f"rows        {values.shape[0]} x {values.shape[1]} {values.dtype}, {rate:g} Hz, {span}"
    share = valid.mean() if len(valid) else 0.0
    yield f"valid       {int(valid.sum())} of {len(valid)} {unit} ({100 * share:.1f} %)"
    names = json.loads(f.attrs["dim_names"])
    least, largest = _ranges(values)
    if np.isfinite(least).any():
        yield f"range       {least.min():g} .. {largest.max():g}"
    for name, a, b in list(zip(names, least, largest, strict=True))[:SHOWN_DIMS]:
        yield f"  {name:<44} " + (f"{a:g} .. {b:g}" if a <= b else "no valid value")
    if len(names) > SHOWN_DIMS:
        yield f"  ... {len(names) - SHOWN_DIMS} more dimensions, the last is {names[-1]}"


def _describe_feature(f: h5py.File) -> Iterator[str]:
    yield from _describe_rows(f, f["time"][()], f["valid"][()], "rows")
    others = [n for n in f if n not in ("values", "time", "valid")]
    if others:
        yield "also        " + ", ".join(f"{n} {f[n].shape}" for n in others)


def _describe_aligned(f: h5py.File) -> Iterator[str]:
    a = f.attrs
    yield (
        f"clock       {int(a['n_ticks'])} ticks at {float(a['rate_hz']):g} Hz"
        f" ({int(a['n_ticks']) / float(a['rate_hz']):.2f} s), {a['method']}"
    )
    yield from _describe_rows(f, f["native_time"][()], f["row"][()] >= 0, "ticks")


def _describe_predictions(f: h5py.File) -> Iterator[str]:
    yield f"run         {f.attrs['run']}, seed {f.attrs['seed']}, dataset {f.attrs['dataset']}"
    for session in f:
        for role in members(f, session):
            group = f[session][role]
            y, valid = group["engagement"][()], group["valid"][()].astype(bool)
            known = y[valid]
            span = f"{known.min():.4f} .. {known.max():.4f}" if len(known) else "nothing valid"
            yield f"  {session}/{role:<16} {len(y)} frames, {int(valid.sum())} valid, {span}"


def _describe_statistics(f: h5py.File) -> Iterator[str]:
    label = f["label"].attrs
    yield f"label       mean {label['mean']:.4f}, std {label['std']:.4f}, {int(label['count'])} frames"
    for name in f:
        if name != "label":
            mean, std = f[name]["mean"][()], f[name]["std"][()]
            yield (
                f"  {name:<16} {len(mean)} dims, {int(f[name].attrs['count'])} frames,"
                f" mean {mean.min():g} .. {mean.max():g}, std {std.min():g} .. {std.max():g}"
            )


DESCRIBERS = {
    "feature": _describe_feature,
    "aligned": _describe_aligned,
    "predictions": _describe_predictions,
    "statistics": _describe_statistics,
}


def _text(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def describe(path: str | Path) -> str:
    """Summary of a file of ours (of a foreign HDF5 file: its names and shapes), one screen.

    Raises InputError for a missing or damaged file.
    """
    with open_hdf5(path) as f:
        with reading(path):
            kind = kind_of(f)
        lines = [f"{Path(path).name}: {kind or 'not a file of this workflow'}"]
        try:
            if kind:
                lines += DESCRIBERS[kind](f)
            else:
                f.visititems(lambda name, item: lines.append(f"  {name}  {_text(item)}"))
            lines.append("attributes")
            lines += [f"  {name:<20} {_text(f.attrs[name])}" for name in sorted(f.attrs)]
        except DAMAGE as e:
            raise _damaged(path, f"unreadable data ({e})") from e
    return "\n".join(lines)


def _check_predictions(path: str | Path) -> list[str]:
    problems = []
    with open_hdf5(path) as f:
        if "schema_version" not in f.attrs or "fingerprint" not in f.attrs:
            return ["attributes schema_version and fingerprint are needed"]
        if not len(f):
            return ["no session in it"]
        for place in (f"{s}/{r}" for s in f for r in members(f, s)):
            group = f[place]
            missing = [n for n in ("time", "engagement", "valid") if n not in group]
            if missing:
                problems.append(f"{place}: {', '.join(missing)} missing")
                continue
            time, y, valid = (group[n][()] for n in ("time", "engagement", "valid"))
            if not len(time) == len(y) == len(valid):
                problems.append(f"{place}: lengths differ ({len(time)}, {len(y)}, {len(valid)})")
            elif not np.isfinite(y[valid.astype(bool)]).all():
                problems.append(f"{place}: a valid prediction is not finite")
            elif not np.isfinite(time).all() or (np.diff(time) <= 0).any():
                problems.append(f"{place}: time is not finite and increasing")
    return problems


def _check_statistics(path: str | Path) -> list[str]:
    problems = []
    with open_hdf5(path) as f:
        for name in f:
            group = f[name]
            if int(group.attrs["count"]) < 1:
                problems.append(f"{name} was counted over no frame")
            if name == "label":
                mean = np.array([group.attrs["mean"]])
                std = np.array([group.attrs["std"]])
            else:
                mean, std = group["mean"][()], group["std"][()]
            if mean.shape != std.shape or not np.isfinite(mean).all() or not np.isfinite(std).all():
                problems.append(f"{name}: mean and std are not finite and equally long")
            elif (std <= 0).any():
                problems.append(f"{name}: a std is not positive")
    return problems


CHECKS = {
    "feature": check_features,
    "aligned": check_aligned,
    "predictions": _check_predictions,
    "statistics": _check_statistics,
}


def validate(path: str | Path) -> tuple[str, list[str]]:
    """(kind, problems) of a file; no problem means that it keeps its contract.

    Raises InputError when the file is missing, not HDF5, or not ours.
    """
    with open_hdf5(path) as f, reading(path):
        kind = kind_of(f)
    if not kind:
        raise InputError(
            f"{path} is not a file of this workflow",
            "give a feature, aligned, predictions or statistics file",
        )
    try:
        return kind, CHECKS[kind](path)
    except DAMAGE as e:
        return kind, [f"unreadable data ({' '.join(str(e).split())[:120]})"]


def validate_all(paths: list[str]) -> Iterator[str]:
    """One line per sound file; InputError for the first that is not, after all were checked."""
    failures = []
    for path in paths:
        try:
            kind, problems = validate(path)
        except InputError as e:
            failures.append(e)
            continue
        if problems:
            failures.append(_damaged(path, "; ".join(problems)))
        else:
            yield f"ok  {path} ({kind})"
    if failures:
        more = f" ({len(failures) - 1} more files have problems)" if len(failures) > 1 else ""
        raise InputError(failures[0].problem + more, failures[0].cure)
