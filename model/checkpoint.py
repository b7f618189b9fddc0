"""The checkpoint format: safetensors with one JSON text as metadata, no pickle.

Whatever reads a file of it checks that the network which the settings describe is the one whose
weights it holds (`check_claims`) before memory is taken for it.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.registry import build
from model.settings import NetworkSettings
from runtime import InputError
from store.atomic import atomic_path
from store.intact import check_intact

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


def pack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors under a prefix, for one file of several dicts."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unpack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `pack`."""
    start = prefix + "/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


class _Shapes(TorchFunctionMode):
    """Shapes alone: some functions torch knows on the device "meta" by way of its compiler only,
    whose import takes a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.log, Tensor.log):
            return torch.empty_like(args[0])
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def check_claims(
    settings: NetworkSettings,
    dims: dict[str, int],
    domains: tuple[str, ...],
    tensors: dict[str, Tensor],
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
