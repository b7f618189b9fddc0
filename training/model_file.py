"""Model files and resume checkpoints: safetensors with one JSON text as metadata, no pickle."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.registry import build
from runtime import InputError
from store.atomic import atomic_path
from store.intact import check_intact
from store.session_spec import SessionSpec
from training.sessions import check_identities
from training.settings import Settings, other_network, parse

SCHEMA_VERSION = 1
MOST_BUFFER_BYTES = 1 << 30


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write atomically; equal content gives equal bytes (one metadata key: their order is not kept).

    Raises OSError when the disk is full.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, {"json": json.dumps(metadata, sort_keys=True)})
        except SafetensorError as e:
            # The library wraps what the system said: "I/O error: ... (os error 28)".
            number = re.search(r"\(os error (\d+)\)", str(e))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from e


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of ours; InputError when it is missing, damaged or exchanged."""
    check_intact(path)
    try:
        with safe_open(str(path), framework="pt") as f:
            metadata = json.loads(f.metadata()["json"])
            if not isinstance(metadata, dict):
                raise ValueError("its metadata is no record")
            return {name: f.get_tensor(name) for name in f.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "train the run first") from e
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as e:
        raise InputError(
            f"{path} is not a checkpoint of this program ({' '.join(str(e).split())[:100]})",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e


class _Shapes(TorchFunctionMode):
    """Shapes alone: some functions torch knows on the device "meta" by way of its compiler only,
    whose import takes a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.log, Tensor.log):
            return torch.empty_like(args[0])
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def _check_claims(
    settings: Settings, dims: dict[str, int], domains: tuple[str, ...], tensors: dict[str, Tensor]
) -> None:
    """ValueError unless the network that a file describes is the one whose weights it holds.

    It is built without memory first: settings can claim a network of any size in a few bytes.
    """
    if not all(isinstance(d, int) and d > 0 for d in dims.values()):
        raise ValueError("its dims are no numbers of columns")
    for key, value in vars(settings.model).items():
        if key.endswith(("depth", "layers")) and value > len(tensors):
            raise ValueError(f"{value} {key}, and {len(tensors)} tensors")
    with torch.device("meta"), _Shapes():
        claimed = build(settings, dims, domains)
    shapes = {name: tuple(t.shape) for name, t in claimed.state_dict().items()}
    for name in sorted(shapes.keys() | tensors.keys()):
        held = tuple(tensors[name].shape) if name in tensors else None
        if shapes.get(name) != held:
            raise ValueError(f"{name} is {held}, its settings say {shapes.get(name)}")
    if sum(b.numel() * b.element_size() for b in claimed.buffers()) > MOST_BUFFER_BYTES:
        raise ValueError("its settings claim gigabytes of tables")


@dataclass
class Trained:
    """A model file in memory; metadata: run, seed, fingerprint, dims, settings, epoch ..."""

    model: nn.Module
    settings: Settings
    dims: dict[str, int]
    metadata: dict[str, Any]


def save_model(
    path: str | Path, state: dict[str, Tensor], settings: Settings, metadata: dict[str, Any]
) -> None:
    """Write the model file: weights, normalisation (buffers), and the settings to rebuild it.

    metadata must hold run, seed, fingerprint and dims.
    """
    record = {"schema_version": SCHEMA_VERSION, "settings": settings.canonical(), **metadata}
    save_tensors(path, state, record)


def load_model(path: str | Path) -> Trained:
    """Rebuild a trained model in evaluation mode; nothing but this file is needed."""
    tensors, metadata = load_tensors(path)
    try:
        if metadata["schema_version"] != SCHEMA_VERSION:
            raise KeyError(f"schema version {metadata['schema_version']}")
        settings, dims = parse(metadata["settings"]), dict(metadata["dims"])
        domains = tuple(metadata.get("domains", ()))
        _check_claims(settings, dims, domains, tensors)
        model = build(settings, dims, domains)
        model.load_state_dict(tensors)
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
        raise InputError(
            f"{path} does not fit this program ({' '.join(str(e).split())[:100]})",
            f"it was trained with another version; train again: rm '{path}'",
        ) from e
    return Trained(model.eval(), settings, dims, metadata)


def load_initial(
    path: str | Path,
    model: nn.Module,
    settings: Settings,
    domains: tuple[str, ...],
    results: str | Path,
    specs: list[SessionSpec],
) -> None:
    """Give a new model the weights of a trained one of the same network.

    Its normalisation comes along and must be overwritten by `load_statistics`. Raises InputError
    where network, dimensions or feature identities (of the training sessions `specs`) differ.
    """
    start = load_model(path)
    cure = "choose another run for `initial`, or give both the same settings"
    if odd := other_network(start.settings, settings):
        raise InputError(f"{path} has other {odd} than this run", cure)
    for name, dim in model.dims.items():
        if start.dims[name] != dim:
            raise InputError(
                f"{path} reads {name} with {start.dims[name]} dimensions, this run has {dim}", cure
            )
    old = tuple(start.metadata.get("domains", ()))
    if old != tuple(domains):
        raise InputError(
            f"{path} has prompts for {', '.join(old)}, this run for {', '.join(domains)}",
            "choose model: {prompts: 0} in both runs, or train both on the same datasets",
        )
    check_identities(results, specs, start.metadata.get("features", {}), str(path))
    model.load_state_dict(start.model.state_dict())


def resume_key(**what: Any) -> str:
    """Digest of everything a resumed run must share with the interrupted one."""
    text = json.dumps({"torch": torch.__version__, **what}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors under a prefix, for one file of several dicts."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`."""
    start = prefix + "/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
