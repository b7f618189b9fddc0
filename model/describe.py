"""Parameters, FLOPs and training memory of models, as text. See model.cost for the rules."""

import json
import sys
from collections.abc import Iterator

from model.configs import model_names
from runtime import InputError
from training.settings import PRESETS, Settings, parse

PAPER_DIMS = "egemaps=88,wav2vec2=1024,clip_face=512,flow=714,flow_magnitude=139"
PEOPLE = 2
BATCH = {"demo": 8, "paper": 2}  # target windows for the memory: large models in little time
RULE = """FLOPs: forward, one target window of a conversation of two; two per multiply-add of products and
attention, {scan} per state and frame of a scan. Memory: the most that forward, backward and optimiser
step hold above model, gradients, optimiser state and inputs, {batch} target
windows; {device}, {method}."""


def parse_dims(text: str) -> dict[str, int]:
    """ "feature=dimension,..." -> feature -> dimension; InputError if it is not readable."""
    try:
        dims = {name: int(n) for name, n in (item.split("=") for item in text.split(","))}
    except ValueError as e:
        raise InputError(
            f"dims {text!r} is not readable ({e})", "write feature=dimension,feature=dimension"
        ) from e
    if min(dims.values()) < 1:
        raise InputError(f"dims {text!r} has a dimension below 1", "give every feature its width")
    return dims


def parse_settings(text: str, dims: dict[str, int]) -> Settings:
    """A run's settings from JSON; InputError where they are not readable or dims lack a feature."""
    try:
        settings = parse(json.loads(text))
    except ValueError as e:
        raise InputError(f"settings are not readable ({e})", "give JSON") from e
    missing = [name for name in settings.features if name not in dims]
    if missing:
        raise InputError(f"--dims names no {missing[0]}", f"add {missing[0]}=DIMENSION to --dims")
    return settings


def describe(settings_json: str, dims_text: str) -> str:
    """Table of parameters per part of one run: settings as JSON text, "feature=dimension,..."."""
    dims = parse_dims(dims_text)
    settings = parse_settings(settings_json, dims)
    return f"{settings.name}, inputs {dims_text}\n" + _parts(settings, dims)


def _parts(settings: Settings, dims: dict[str, int]) -> str:
    from model.registry import build, count_parameters

    counts = count_parameters(build(settings, dims))
    total = counts.pop("total")
    lines = [
        f"  {part:24s}{n:>12,d}  {100 * n / max(1, total):5.1f} %" for part, n in counts.items()
    ]
    return "\n".join([*lines, f"  {'total':24s}{total:>12,d}"])


def describe_cost(settings: Settings, dims: dict[str, int], windows: int) -> str:
    """FLOPs and memory per window of one run, in a line. windows: of the measured batch."""
    import torch

    from model.cost import conversation, count_flops, inference, peak_bytes, training_step
    from model.registry import build
    from runtime.device import pick_device

    device = pick_device()
    torch.manual_seed(0)
    model = build(settings, dims).to(device)
    dims = {name: dims[name] for name in settings.features}
    pair = conversation(dims, PEOPLE, PEOPLE, settings.training.window, device)
    flops = count_flops(model, inference(model, pair)) / PEOPLE
    batch = conversation(dims, PEOPLE, windows, settings.training.window, device)
    step = training_step(model, settings, batch)
    step()  # gradients and optimiser state now exist
    memory = peak_bytes(step, device) / windows
    return (
        f"  per window of {settings.training.window} frames: {flops / 1e9:,.3f} GFLOP, "
        f"{memory / 1e6:,.1f} MB of training memory ({windows} windows at a time)"
    )


def describe_all(dims_text: str, models: list[str] | None = None) -> Iterator[str]:
    """Every model and preset, piece by piece: parameters per part, FLOPs, memory."""
    from model.cost import SCAN_FLOPS
    from runtime.device import describe_device

    dims = parse_dims(dims_text)
    device = describe_device()
    method = "allocations that torch's profiler records" if device == "cpu" else "torch's allocator"
    batch = " or ".join(f"{n} ({preset})" for preset, n in sorted(BATCH.items()))
    yield RULE.format(scan=SCAN_FLOPS, batch=batch, device=device, method=method)
    yield f"inputs {dims_text}"
    for name in models or model_names():
        for preset in PRESETS:
            text = json.dumps({"preset": preset, "model": {"name": name}})
            settings = parse_settings(text, dims)
            yield f"\n{name}, preset {preset}\n" + _parts(settings, dims)
            yield describe_cost(settings, dims, BATCH[preset])


def print_all(dims_text: str, models: list[str] | None = None) -> None:
    """`describe_all` on the screen, each piece as soon as it is there."""
    for piece in describe_all(dims_text, models):
        print(piece)
        sys.stdout.flush()
