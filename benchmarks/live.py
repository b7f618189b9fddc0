"""Time of live prediction, and of whole sessions with carried state beside DAT in windows.

python -m benchmarks.live [--threads 1] [--settings JSON] [--minutes 20] [--bf16]

Weights and features are random: times depend on neither. Sessions are measured over SAMPLE frames
and scaled to --minutes, which is exact in the frames: carried state never grows and windows are
independent. Both sides are measured in turn, so that other load on the machine meets both; the
least of all repeats counts. CPU seconds (of all threads) stand beside seconds on the wall.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from inference.carry import Carry
from inference.config import check_live
from inference.session import PIECE
from inference.stream import look_ahead, open_stream
from model.batch import Batch
from model.registry import build
from runtime import InputError
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from training.settings import Settings, parse

DIMS = {"egemaps": 88, "wav2vec2": 1024, "clip_face": 512, "flow": 714, "flow_magnitude": 139}
SAMPLE = 1024  # frames of a session that are measured
WARM = 64  # frames before a stream is measured: two local chunks of the paper
DAT = {"model": {"name": "dat"}}  # variant M of its paper preset


def conversation(people: int, frames: int, device: torch.device, windows: int = 1) -> Batch:
    """Random features of `windows` instants with everybody a target: rows person by person."""
    rows = people * windows
    person = torch.arange(rows, device=device)
    turn = torch.arange(1, people, device=device)
    partners = person[:, None] // people * people + (person[:, None] + turn) % people
    return Batch(
        {n: torch.randn(rows, frames, d, device=device) for n, d in DIMS.items()},
        {n: torch.ones(rows, frames, dtype=torch.bool, device=device) for n in DIMS},
        torch.ones(rows, frames, dtype=torch.bool, device=device),
        person,
        partners,
    )


def live_settings(settings: dict, people: int, causal: bool) -> Settings:
    """These settings as they can run live: partners of more than a dyad interleaved."""
    model = dict(settings.get("model", {}))
    partners = parse(settings).model
    if getattr(partners, "partner_context", "") == "concat" and (people > 2 or causal):
        model["partner_context"] = "interleave"
    if causal:
        model["causal"] = True
    return parse(settings | {"model": model})


def seconds_of(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of one call: on the wall, and of all threads."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class LiveTime:
    """One row of the live table: ms per frame on the wall (mean, median of pushes, worst push) and
    in CPU time; wait: longest wait for frames that follow, ms."""

    people: int
    causal: bool
    context: str
    mean: float
    median: float
    worst: float
    cpu: float
    wait: float


def time_live(
    settings: dict, people: int, causal: bool, frames: int, device: torch.device
) -> LiveTime:
    """Push frames one by one, everybody's of an instant at once."""
    chosen = live_settings(settings, people, causal)
    model = build(chosen, DIMS).eval().to(device)
    check_live(chosen.name, chosen.model, people - 1)
    frame = conversation(people, 1, device)
    reach = chosen.training.window
    stream = open_stream(model, people, frame.target, frame.partners, reach)
    for _ in range(WARM):
        stream.push(frame)
    times = [seconds_of(lambda: stream.push(frame), device) for _ in range(frames)]
    wall = [1e3 * w for w, _ in times]
    return LiveTime(
        people,
        causal,
        chosen.model.partner_context,
        sum(wall) / frames,
        sorted(wall)[frames // 2],
        max(wall),
        1e3 * sum(c for _, c in times) / frames,
        1e3 * look_ahead(model) / chosen.frame_rate_hz,
    )


def session_work(settings: Settings, carry: bool, device: torch.device) -> Callable[[], object]:
    """Prediction of SAMPLE frames of a dyad, in windows or with carried state."""
    model = build(settings, DIMS).eval().to(device)
    if carry:
        check_live(settings.name, settings.model)
        piece = conversation(2, PIECE, device)
        state = Carry(model, 2, piece.target, piece.partners, settings.training.window)
        return lambda: [state.advance(piece) for _ in range(SAMPLE // PIECE)]
    windows = SAMPLE // settings.training.core
    batch = conversation(2, settings.training.window, device, windows)

    @torch.inference_mode()
    def work() -> None:
        model(batch)

    return work


def time_sessions(
    settings: dict, minutes: float, repeats: int, bf16: bool, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Seconds (wall, CPU) for a dyad of `minutes`: carried, in windows, and DAT in windows."""
    own = live_settings(settings, 2, False)
    other = parse(DAT)
    works = {
        f"{own.name} carry": session_work(own, True, device),
        f"{own.name} window": session_work(own, False, device),
        f"{other.name} {other.model.variant} window": session_work(other, False, device),
    }
    precision = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    best: dict[str, tuple[float, float]] = {}
    scale = minutes * 60 * own.frame_rate_hz / SAMPLE
    with precision:
        for work in works.values():
            work()  # compiles kernels, fills caches
        for _ in range(repeats):
            for name, work in works.items():
                wall, cpu = (scale * t for t in seconds_of(work, device))
                before = best.get(name, (wall, cpu))
                best[name] = (min(wall, before[0]), min(cpu, before[1]))
    return best


def report(args: argparse.Namespace) -> str:
    """Both tables as text."""
    try:
        settings = json.loads(args.settings)
    except ValueError as e:
        raise InputError(f"--settings is not readable ({e})", "give JSON") from e
    device = pick_device()
    lines = [
        f"live, {args.frames} frames, everybody scored; {describe_device()}, threads: {args.threads}",
        "people  local attention  partners      ms per frame    median     worst       CPU   look-ahead",
    ]
    for people in args.people:
        for causal in (True, False):
            row = time_live(settings, people, causal, args.frames, device)
            lines.append(
                f"{people:6d}  {'causal' if causal else 'as given':15s}  {row.context:12s}"
                f"{row.mean:14.2f}{row.median:10.2f}{row.worst:10.2f}{row.cpu:10.2f}"
                f"{row.wait:10.0f} ms"
            )
    if args.minutes:
        for bf16 in (False, True) if args.bf16 else (False,):
            times = time_sessions(settings, args.minutes, args.repeats, bf16, device)
            lines += [
                "",
                f"a dyad of {args.minutes:g} min, measured over {SAMPLE} frames and scaled; "
                f"{'bf16' if bf16 else 'fp32'}, threads: {args.threads}",
                f"{'':24s}      wall s     CPU s   times carry (wall, CPU)",
            ]
            base = next(iter(times.values()))
            for name, (wall, cpu) in times.items():
                lines.append(
                    f"{name:24s}{wall:12.1f}{cpu:10.1f}{wall / base[0]:10.1f}{cpu / base[1]:8.1f}"
                )
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    add = parser.add_argument
    add("--settings", default="{}", metavar="JSON", help="a run's settings (default: paper preset)")
    add("--people", type=int, nargs="+", default=[2, 4], help="sizes of conversations, live")
    add("--frames", type=int, default=200, help="frames to measure live")
    add("--minutes", type=float, default=20.0, help="length of the whole session; 0: live only")
    add("--repeats", type=int, default=2, help="measurements of the whole session")
    add("--bf16", action="store_true", help="the whole session under bf16 autocast, too")
    add_job_arguments(parser)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    limit_threads(args.threads)
    print(report(args))


def main(argv: list[str] | None = None) -> int:
    return run_job("benchmarks.live", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
