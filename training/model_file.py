"""Model files: a trained network, its settings and what made its features (model.checkpoint)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import check_claims, load_tensors, save_tensors
from model.registry import build
from model.settings import other_network
from runtime import InputError
from store.identity import Identity
from store.session_spec import SessionSpec
from training.identities import check_trained
from training.settings import Settings, parse

SCHEMA_VERSION = 1


@dataclass
class Trained:
    """A model file in memory; metadata: run, seed, fingerprint, dims, settings, epoch ...

    features: identity of each feature it was trained on, as far as the file says (store.identity).
    """

    model: nn.Module
    settings: Settings
    dims: dict[str, int]
    metadata: dict[str, Any]
    features: dict[str, Identity]


def save_model(
    path: str | Path, state: dict[str, Tensor], settings: Settings, metadata: dict[str, Any]
) -> None:
    """Write the model file: weights, normalisation (buffers), and the settings to rebuild it.

    metadata must hold run, seed, fingerprint, dims and features (what made each, store.identity).
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
        said = metadata.get("features", {})
        features = {name: {"dims": dim} | said.get(name, {}) for name, dim in dims.items()}
        if settings.model.prompts and not domains:
            raise ValueError("it has prompts, and names no dataset they belong to")
        check_claims(settings, dims, domains, tensors)
        model = build(settings, dims, domains)
        model.load_state_dict(tensors)
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError) as e:
        raise InputError(
            f"{path} does not fit this program ({' '.join(str(e).split())[:100]})",
            f"it was trained with another version; train again: rm '{path}'",
        ) from e
    return Trained(model.eval(), settings, dims, metadata, features)


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
        there, here = (", ".join(names) or "no dataset" for names in (old, domains))
        raise InputError(
            f"{path} has prompts for {there}, this run for {here}",
            "choose model: {prompts: 0} in both runs, or train both on the same datasets",
        )
    check_trained(results, specs, start.features, str(path))
    model.load_state_dict(start.model.state_dict())


def resume_key(**what: Any) -> str:
    """Digest of everything a resumed run must share with the interrupted one."""
    text = json.dumps({"torch": torch.__version__, **what}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
