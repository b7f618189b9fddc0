"""Training through the real loader: steps a second, how busy the card is, and what binds a step."""

import json
import time

from benchmarks.gpu.record import Options, Record

TITLE = "Training: steps a second and what binds them"
SECONDS = 90
RUNS = [
    ("demo", "fp32", 40, 240),
    ("paper", "fp32", 10, 40),
    ("paper", "bf16", 10, 40),
]  # preset, numbers, steps of a short and of a long training: their difference has no start in it
QUICK = [("demo", "fp32", 1, 2), ("demo", "bf16", 1, 2)]


def settings_of(preset: str, numbers: str, steps: int, quick: bool) -> dict:
    training = {"steps": steps, "warmup_steps": 0, "precision": numbers}
    if quick:
        training["batch"] = 4
    return {"preset": preset, "training": training}


def run(record: Record, options: Options) -> None:
    """One row per run: whole steps, the same step on a ready batch, the loader alone, kernels alone."""
    import torch

    from benchmarks.gpu.utilisation import Utilisation
    from benchmarks.synthetic import write_corpus, write_statistics
    from training.train import main as train

    folder = options.folder
    specs = write_corpus(folder, 2, 20.0 if options.quick else 240.0)
    statistics = write_statistics(folder, specs)
    common = ["--train", *specs, "--results", str(folder), "--statistics", str(statistics)]
    common += ["--threads", str(min(4, options.threads)), "--log", str(folder / "train.log")]
    common += ["--run", "gpu", "--seed", "1", "--history", str(folder / "h.jsonl")]
    record.table(
        "Two dyads of four minutes, batch of the preset",
        *("preset", "numbers", "steps/s", "ms whole step", "ms ready batch", "ms kernels"),
        *("ms loader", "GPU busy %", "bound by"),
    )
    for preset, numbers, few, many in QUICK if options.quick else RUNS:
        took, busy = [], None
        for steps in (few, many):
            settings = settings_of(preset, numbers, steps, options.quick)
            start = time.monotonic()
            with Utilisation(options.device) as sampled:
                status = train(
                    [
                        *common,
                        "--settings",
                        json.dumps(settings),
                        "--out",
                        str(folder / "m.safetensors"),
                    ]
                )
            took.append(time.monotonic() - start)
            # The last half of the long training: steps alone, no start in it.
            busy = sampled.percent(since=start + took[-1] / 2)
            if status:
                text = (folder / "train.log").read_text()[-1500:]
                record.check(f"{preset}, {numbers}: training", False, text)
                return
        whole = max(0.0, (took[1] - took[0]) / (many - few))
        ready, kernels, loader = _parts(preset, numbers, specs, options)
        record.row(
            *(preset, numbers, 1 / whole if whole else None, 1e3 * whole, 1e3 * ready),
            *(None if kernels is None else 1e3 * kernels, 1e3 * loader, busy),
            bound_by(whole, ready, kernels, loader),
        )
    if options.device == "cuda":
        torch.cuda.empty_cache()


def bound_by(whole: float, ready: float, kernels: float | None, loader: float) -> str:
    """What a step waits for, from seconds a step."""
    if whole > 1.25 * ready and loader > 0.5 * whole:
        return "loader"
    if kernels is None:
        return "arithmetic"
    return "launches" if kernels < 0.7 * ready else "arithmetic"


def _parts(preset, numbers, specs, options) -> tuple[float, float | None, float]:
    """Seconds of a step on a batch that lies ready, of its kernels, and of the loader per batch."""
    import torch

    from benchmarks.gpu.timing import clock
    from model.registry import build
    from store.session_spec import parse_specs
    from training.optim import MovingAverage, make_optimiser
    from training.resume import State
    from training.settings import parse
    from training.train import optimise
    from training.windows import Windows

    settings = parse(settings_of(preset, numbers, 0, options.quick))
    device = torch.device(options.device)
    windows = Windows(options.folder, parse_specs(specs), settings, True, seed=1, device=device)
    torch.manual_seed(0)
    model = build(settings, windows.dims).to(device)
    state = State(
        model, MovingAverage(model, settings.training.ema), make_optimiser(model, settings.training)
    )
    batches = list(windows.training_batches(0, 1))  # the pool is warm afterwards
    start = time.monotonic()
    batches = list(windows.training_batches(1, 1))
    loader = (time.monotonic() - start) / len(batches)
    batch = max(batches, key=lambda b: len(b.target)).to(device)

    def steps(n: int) -> None:
        for _ in range(n):
            optimise(state, batch, settings, 1e-4)

    steps(1 if options.quick else 5)
    n = 2 if options.quick else 20
    ready = clock(lambda: steps(n), options.device) / n
    kernels = _kernel_seconds(lambda: steps(5), 5) if options.device == "cuda" else None
    return ready, kernels, loader


def _kernel_seconds(work, calls: int) -> float:
    """Time in which the card computed, per call, as torch's profiler saw it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
    return sum(e.self_device_time_total for e in seen.key_averages()) / 1e6 / calls
