"""Every architecture on this device against the same network in float64 on the CPU.

One step of training, without what is drawn at random: scores, loss and the gradients of all
parameters. fp32 as the trainer runs it, fp32 with cuDNN's TF32 switched off, and bf16 autocast;
beside them fp32 on the CPU, which shows how much of a difference is rounding.
"""

import copy
import dataclasses
import time

from benchmarks.gpu.record import Options, Record

TITLE = "Every architecture against float64 on the CPU"
SECONDS = 60
# Differences of norms. fp32: of the exact device; bf16 has 8 bits.
LIMITS = {"fp32, no TF32": 1e-4, "bf16": 0.15}
RANDOM = (
    "input_shift",
    "absent_rate",
)  # drawn in training, as every dropout but that of prompts is
SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}


def settings_of(name: str, preset: str, frames: int):
    """Settings of an architecture without anything drawn at random."""
    from training.settings import parse

    window = {"window": frames, "core": frames}
    resolved = parse({"preset": preset, "model": {"name": name}, "training": window}).canonical()
    for key in resolved["model"]:
        # Without domains every prompt is the one of unknown domains, which this dropout brings about.
        if key != "prompt_dropout" and (key in RANDOM or key.endswith("dropout")):
            resolved["model"][key] = 0.0
    return parse(resolved)


def step(model, batch, settings, precision: str = "fp32"):
    """Scores (B, L), loss, and parameter -> gradient, all on the CPU in float64."""
    from model.precision import autocast
    from training.losses import score_losses

    model.train()  # dropout is 0; cuDNN's recurrent cells have gradients in this mode alone
    model.zero_grad()
    with autocast(precision, batch.frames.device):
        out = model(batch)
        losses = score_losses(out, batch, settings.training) | out["losses"]
    weights = settings.loss_weights()
    loss = sum(weights[name] * value for name, value in losses.items())
    if loss.requires_grad:
        loss.backward()
    gradients = {
        n: p.grad.cpu().double() for n, p in model.named_parameters() if p.grad is not None
    }
    return out["engagement"].detach().cpu().double(), loss.detach().cpu().double(), gradients


def distance(one: dict, other: dict) -> tuple[float, float, str]:
    """Of all gradients as one vector |a - b| / |b|; the worst tensor's, and its name.

    A tensor that is next to nothing (a bias before a normalisation) counts against 1e-4 of the
    longest gradient, not against itself.
    """
    if not other:
        return 0.0, 0.0, "-"
    floor = 1e-4 * max(float(g.norm()) for g in other.values())
    parts = {n: float((one[n] - g).norm()) / max(floor, float(g.norm())) for n, g in other.items()}
    whole = sum(float((one[n] - g).norm()) ** 2 for n, g in other.items())
    length = sum(float(g.norm()) ** 2 for g in other.values())
    worst = max(parts, key=lambda n: float("inf") if parts[n] != parts[n] else parts[n])
    return (whole / length) ** 0.5, parts[worst], worst


def run(record: Record, options: Options) -> None:
    """Every architecture, each preset; what differs by more than LIMITS is a failure."""
    import torch

    from model.configs import model_names
    from model.cost import conversation
    from model.describe import PAPER_DIMS, parse_dims
    from model.registry import build

    torch.set_num_threads(options.threads)
    dims = SMALL if options.quick else parse_dims(PAPER_DIMS)
    frames, people = (16, 2) if options.quick else (96, 4)
    record.table(
        f"Difference to float64, {people} windows of {frames} frames in one conversation",
        *("model", "preset", "where", "numbers", "scores", "loss", "gradients", "worst tensor"),
        *("its name", "holds", "first step s"),
    )
    presets = ("demo",) if options.quick else ("paper", "demo")
    for preset in presets:
        for name in model_names():
            settings = settings_of(name, preset, frames)
            torch.manual_seed(0)
            model = build(settings, dims)
            batch = conversation(dims, people, people, frames)
            exact = step(
                copy.deepcopy(model).double(),
                dataclasses.replace(
                    batch,
                    streams={k: v.double() for k, v in batch.streams.items()},
                    label=batch.label.double(),
                ),
                settings,
            )
            for where, numbers in _ways(options):
                network, given = copy.deepcopy(model).to(where), batch.to(where)
                torch.backends.cudnn.allow_tf32 = numbers != "fp32, no TF32"
                precision = "bf16" if numbers == "bf16" else "fp32"
                start = time.perf_counter()
                scores, loss, gradients = step(network, given, settings, precision)
                first = time.perf_counter() - start
                torch.backends.cudnn.allow_tf32 = True
                scale = max(1e-30, float((exact[0] - exact[0].mean()).norm()))
                score_error = float((scores - exact[0]).norm()) / max(
                    scale, 1e-3 * float(exact[0].norm())
                )
                whole, worst, tensor = distance(gradients, exact[2])
                loss_error = float((loss - exact[1]).abs() / exact[1].abs().clamp(min=1e-30))
                limit = LIMITS.get(numbers)
                holds = "-"
                if limit is not None:
                    close = max(score_error, loss_error, whole) <= limit
                    complete = set(gradients) == set(exact[2])
                    holds = record.check(
                        f"{name}, {preset}, {where}, {numbers}",
                        close and complete,
                        f"scores {score_error:.2g}, loss {loss_error:.2g}, gradients {whole:.2g}",
                    )
                record.row(
                    *(name, preset, where, numbers, score_error, loss_error, whole, worst),
                    *(tensor, holds, first),
                )
                del network, given
    record.note(
        "Scores: norm of the difference over the norm of the scores' spread. Only `fp32, no TF32` and "
        f"bf16 are held to limits ({LIMITS}); the plain fp32 row has torch's defaults, with TF32 in "
        "cuDNN's convolutions and recurrent cells."
    )


def _ways(options: Options) -> list[tuple[str, str]]:
    """(device, numbers) of each row."""
    cpu = [("cpu", "fp32")]
    if options.device == "cpu":
        return [*cpu, ("cpu", "bf16")]
    return [*cpu, ("cuda", "fp32"), ("cuda", "fp32, no TF32"), ("cuda", "bf16")]
