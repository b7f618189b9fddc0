"""Parameters and FLOPs of models, as text. See model.cost for the rule by which FLOPs are counted."""

import json
import sys
from collections.abc import Iterator

from model.configs import model_config, model_names
from model.cost import SCAN_FLOPS, conversation, count_flops, inference
from model.registry import build, count_parameters
from model.settings import PRESETS, NetworkSettings, parse_network
from runtime import InputError

PAPER_DIMS = "egemaps=88,wav2vec2=1024,clip_face=512,flow=714,flow_magnitude=139"
PEOPLE = 2
FRAMES = 96  # of a window, as in DA-Mamba's paper
RULE = """FLOPs: forward, one target window of {frames} frames of a conversation of two; two per multiply-add of
products and attention, {scan} per state and frame of a scan. For memory and time: python -m evaluation.efficiency"""


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


def parse_settings(text: str, dims: dict[str, int]) -> NetworkSettings:
    """A network's settings from JSON; InputError where they are not readable or dims lack a feature."""
    try:
        settings = parse_network(json.loads(text))
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


def _parts(settings: NetworkSettings, dims: dict[str, int]) -> str:
    counts = count_parameters(build(settings, dims))
    total = counts.pop("total")
    lines = [
        f"  {part:24s}{n:>12,d}  {100 * n / max(1, total):5.1f} %" for part, n in counts.items()
    ]
    return "\n".join([*lines, f"  {'total':24s}{total:>12,d}"])


def flops_per_window(settings: NetworkSettings, dims: dict[str, int]) -> int:
    """FLOPs of a forward pass for one target window of FRAMES frames in a conversation of two."""
    model = build(settings, dims)
    dims = {name: dims[name] for name in settings.features}
    return (
        count_flops(model, inference(model, conversation(dims, PEOPLE, PEOPLE, FRAMES))) // PEOPLE
    )


def published(name: str) -> dict[str, dict]:
    """Title -> settings of everything that is listed of a model: presets, then published variants."""
    titles = {f"{name}, preset {p}": {"preset": p, "model": {"name": name}} for p in PRESETS}
    for variant, keys in model_config(name).PUBLISHED.items():
        titles[f"{name}, {variant}"] = {"model": {"name": name, **keys}}
    return titles


def describe_all(dims_text: str, models: list[str] | None = None) -> Iterator[str]:
    """Every model, preset and published variant, piece by piece: parameters per part, FLOPs."""
    dims = parse_dims(dims_text)
    yield RULE.format(scan=SCAN_FLOPS, frames=FRAMES)
    yield f"inputs {dims_text}"
    for name in models or model_names():
        for title, keys in published(name).items():
            settings = parse_settings(json.dumps(keys), dims)
            yield f"\n{title}\n" + _parts(settings, dims)
            yield f"  per window of {FRAMES} frames: {flops_per_window(settings, dims) / 1e9:,.3f} GFLOP"


def print_all(dims_text: str, models: list[str] | None = None) -> None:
    """`describe_all` on the screen, each piece as soon as it is there."""
    for piece in describe_all(dims_text, models):
        print(piece)
        sys.stdout.flush()
