"""What training changes, and the file from which an interrupted training goes on."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import load_tensors, pack, save_tensors, unpack
from runtime import InputError, get_logger
from training import distributed
from training.optim import MovingAverage

log = get_logger("train")


@dataclass
class State:
    """Everything that training changes.

    sums: running sums of the losses of this epoch. unread: names of the losses, and a tensor of
    gradient norm and losses, of each step since the sums were brought up to date.
    """

    model: nn.Module
    average: MovingAverage
    optimiser: torch.optim.Optimizer | None
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    unread: list[tuple[tuple[str, ...], Tensor]] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    best_score: float = -2.0
    best: dict[str, Tensor] = field(default_factory=dict)


def random_states() -> dict[str, Tensor]:
    """Where this process's random numbers stand."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def digest(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """sha256 of all that a resume checkpoint holds: it has no sidecar, and a flipped bit would train on."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def save_resume(path: Path, key: str, state: State) -> None:
    """Write everything an uninterrupted run would have in memory; the first process writes."""
    tensors = pack("model", state.model.state_dict()) | pack("average", state.average.weights)
    for i, moments in state.optimiser.state_dict()["state"].items():
        tensors |= pack(f"optimiser/{i}", moments)
    tensors |= pack("best", state.best)
    for rank, states in enumerate(distributed.gather(random_states())):
        tensors |= pack(f"rng/{rank}", states)
    if distributed.rank():
        return
    metadata = {
        "key": key,
        "step": state.step,
        "updates": state.average.updates,
        "sums": state.sums,
        "history": state.history,
        "best_score": state.best_score,
    }
    save_tensors(path, tensors, metadata | {"sha256": digest(tensors, metadata)})


def load_resume(path: Path, key: str, state: State, device: torch.device) -> None:
    """Continue from a resume checkpoint; one of another run or program version is left alone."""
    if not path.exists():
        return
    try:
        tensors, metadata = load_tensors(path)
    except InputError as e:
        log.warning("resume checkpoint ignored: %s", e.problem)
        return
    if metadata.get("key") != key:
        log.warning("resume checkpoint %s ignored: it belongs to other settings or data", path.name)
        return
    stated = metadata.pop("sha256", None)
    if stated != digest(tensors, metadata):
        log.warning("resume checkpoint %s ignored: it is damaged (sha256 differs)", path.name)
        return
    tensors = {n: t if n.startswith("rng/") else t.to(device) for n, t in tensors.items()}
    state.model.load_state_dict(unpack("model", tensors))
    state.average.weights = unpack("average", tensors)
    state.average.updates = metadata["updates"]
    record = state.optimiser.state_dict()
    count = sum(len(group["params"]) for group in record["param_groups"])
    record["state"] = {i: unpack(f"optimiser/{i}", tensors) for i in range(count)}
    state.optimiser.load_state_dict(record)
    state.best = unpack("best", tensors)
    state.step, state.sums = metadata["step"], metadata["sums"]
    state.history, state.best_score = metadata["history"], metadata["best_score"]
    states = unpack(f"rng/{distributed.rank()}", tensors)
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
    log.info("continuing after step %d", state.step)
