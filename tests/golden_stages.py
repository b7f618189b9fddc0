"""Golden values: what every stage computes from small synthetic inputs, by its own command.

    python tests/golden_stages.py STAGE ...      # write tests/golden/STAGE.json

`python -m workflow.stages raise|confirm STAGE` calls this. Commands run with their defaults, so that a
changed default is a changed value. Of every output some values, mean and standard deviation are kept,
and are compared within a tolerance: another machine may round differently.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

GOLDEN = Path(__file__).with_name("golden")
SAMPLES = 48
TOLERANCE = 1e-4
# Of half floats, and of weights after some steps of training.
TOLERANCES = {
    "extractors.wav2vec2": 4e-3,
    "extractors.clip_face": 4e-3,
    "extractors.flow": 4e-3,
    "extractors.flow_magnitude": 4e-3,
    "extractors.faces": 2e-3,
    "corpora.demo.session": 2e-3,
    "evaluation.curves": 2e-2,
    "evaluation.efficiency": 1e-3,
    "training.train": 1e-3,
}
NOT_VALUES = {
    "bytes", "sha256", "schema_version", "seconds", "run", "versions", "record_sha256", "inputs", "manifest_version",
}  # fmt: skip

MAKERS: dict[str, Callable[[Path], dict[str, object]]] = {}


def golden(name: str):
    """Register the maker of a stage's values: scratch folder -> arrays by name."""

    def register(maker):
        MAKERS[name] = maker
        return maker

    return register


def summary(values) -> dict[str, object]:
    """Shape, evenly spread values, mean and standard deviation of the finite ones."""
    values = np.asarray(values, np.float64)
    flat = values.ravel()
    at = np.unique(np.linspace(0, max(flat.size - 1, 0), SAMPLES).round().astype(int))
    finite = flat[np.isfinite(flat)]
    kept = flat[at] if flat.size else flat
    return {
        "shape": list(values.shape),
        "finite": int(finite.size),
        "mean": _short(finite.mean()) if finite.size else None,
        "std": _short(finite.std()) if finite.size else None,
        "values": [_short(v) if np.isfinite(v) else None for v in kept],
    }


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    """All numbers of an output file, by their place in it."""
    if path.suffix == ".h5":
        found = {}
        with h5py.File(path, "r") as f:

            def collect(name, item):
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf":
                    found[name] = item[()]

            f.visititems(collect)
        return found
    if path.suffix in (".json", ".jsonl"):
        found: dict[str, list[float]] = {}
        for line in [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines():
            _walk(json.loads(line), "", found)
        return {key: np.array(values) for key, values in found.items()}
    if path.suffix in (".csv", ".tsv"):
        with open(path, newline="", encoding="utf-8") as f:
            rows = list(csv.reader(f, delimiter="\t" if path.suffix == ".tsv" else ","))
        return {"cells": np.array([v for row in rows for v in map(_number, row) if v is not None])}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        tensors = load_file(path)
        return {"weights": np.concatenate([tensors[name].ravel() for name in sorted(tensors)])}
    if path.suffix == ".png":
        from PIL import Image

        picture = Image.open(path).convert("L")
        return {"picture": np.asarray(picture.resize((12, 12), Image.Resampling.BOX))}
    raise ValueError(f"no reader of {path}")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _walk(item: object, place: str, found: dict[str, list[float]]) -> None:
    if isinstance(item, dict):
        for key, value in sorted(item.items()):
            if key not in NOT_VALUES:
                _walk(value, f"{place}.{key}".lstrip("."), found)
    elif isinstance(item, list):
        for value in item:
            _walk(value, place, found)
    elif isinstance(item, bool | int | float):
        found.setdefault(place, []).append(float(item))


def outputs(*paths: Path) -> dict[str, np.ndarray]:
    """Numbers of several outputs, by file and place."""
    return {f"{p.name}:{name}": v for p in paths for name, v in numbers_of(p).items()}


def run(module: str, *words: object) -> None:
    """Run a stage's command as the workflow does; RuntimeError where it fails."""
    import importlib

    status = importlib.import_module(module).main([str(word) for word in words])
    if status:
        raise RuntimeError(f"{module} ended with status {status}: {' '.join(map(str, words))}")


def compute(name: str) -> dict[str, dict]:
    """The golden values of a stage, by output. Raises KeyError for a stage without any."""
    import golden_recordings  # noqa: F401  (they register their makers)
    import golden_results  # noqa: F401

    if name not in MAKERS:
        raise KeyError(f"{name} has no golden values; known: {', '.join(sorted(MAKERS))}")
    with tempfile.TemporaryDirectory() as folder:
        return {key: summary(v) for key, v in sorted(MAKERS[name](Path(folder)).items())}


def differences(name: str, found: dict[str, dict]) -> list[str]:
    """Where values differ from the stage's golden ones, in words."""
    kept = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    lines = [f"only {where}: {key}" for where, a, b in (("now", found, kept), ("kept", kept, found)) for key in a.keys() - b.keys()]  # fmt: skip
    for key in sorted(kept.keys() & found.keys()):
        for what in ("shape", "finite"):
            if kept[key][what] != found[key][what]:
                lines.append(f"{key}: {what} was {kept[key][what]}, is {found[key][what]}")
        if kept[key]["shape"] != found[key]["shape"]:
            continue
        old, new = (np.array([s["mean"], s["std"], *s["values"]], float) for s in (kept[key], found[key]))  # fmt: skip
        limit = TOLERANCES.get(name, TOLERANCE) * np.nanmax(np.abs(np.append(old, 1e-12)))
        apart = ~(np.isclose(old, new, rtol=0, atol=limit) | (np.isnan(old) & np.isnan(new)))
        if apart.any():
            i = int(np.flatnonzero(apart)[0])
            lines.append(f"{key}: {apart.sum()} values differ, first {old[i]:g} -> {new[i]:g}")
    return lines


def write(name: str) -> None:
    """Write a stage's golden values."""
    values = compute(name)
    GOLDEN.mkdir(exist_ok=True)
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
    (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    import golden_stages  # the makers register there, not in __main__

    for chosen in sys.argv[1:]:
        golden_stages.write(chosen)
