"""DA-Mamba beside DAT at their papers' sizes: time and memory of a training step."""

import gc

from benchmarks.gpu.record import Options, Record

TITLE = "DA-Mamba and DAT: a training step by length and participants"
SECONDS = 75
MODELS = ("da_mamba", "dat")
LENGTHS, PEOPLE = (96, 64, 256, 512, 1024, 2048), (2, 4)
BATCH = 128  # target windows of up to 96 frames, as in the paper; longer ones share its frames
PAPER = "The paper states 11.2 GB for DA-Mamba and 18.4 GB for DAT at 96 frames, on a card it does not name."


def windows_of(length: int, people: int) -> int:
    """Target windows of a batch: whole conversations, about as many frames at any length."""
    wanted = BATCH if length <= 96 else max(people, BATCH * 96 // length)
    return -(-wanted // people) * people


def run(record: Record, options: Options) -> None:
    """A row per model, length and number of people; a cell that does not fit says so."""
    import torch

    from model.describe import PAPER_DIMS, parse_dims

    dims = parse_dims(PAPER_DIMS)
    lengths = (16,) if options.quick else LENGTHS
    record.table(
        "Paper preset, forward, losses, backward and optimiser",
        *("model", "frames", "people", "windows", "numbers", "ms per step", "ms per window"),
        *("peak GB in all", "GB of the step", "MB per window"),
    )
    for length in lengths:
        for people in (2,) if options.quick else PEOPLE:
            for numbers in ("fp32", "bf16") if length in (16, 96) else ("fp32",):
                for name in MODELS:
                    windows = people if options.quick else windows_of(length, people)
                    try:
                        cells = _cell(name, length, people, windows, numbers, dims, options)
                    except torch.OutOfMemoryError:
                        cells = ("out of memory", *[None] * 4)
                    record.row(name, length, people, windows, numbers, *cells)
                    gc.collect()
                    if options.device == "cuda":
                        torch.cuda.empty_cache()
    record.note(PAPER)


def _cell(name, length, people, windows, numbers, dims, options) -> tuple:
    """ms per step and per window, GB held at the peak, GB of the step alone, MB per window."""
    import torch

    from benchmarks.gpu.timing import median_seconds, peak_megabytes
    from model.cost import conversation
    from model.precision import autocast
    from model.registry import build
    from training.settings import parse
    from training.step import training_step

    settings = parse({"model": {"name": name}, "training": {"window": length, "core": length}})
    torch.manual_seed(0)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = build(settings, dims).to(options.device)
    batch = conversation(dims, people, windows, length, options.device)
    plain = training_step(model, settings, batch)

    def step() -> None:
        with autocast(numbers, batch.frames.device):
            plain()

    step()
    timed = median_seconds([step], options.device, 0.01 if options.quick else 0.3, 20)
    megabytes = peak_megabytes(step, options.device)
    held = torch.cuda.max_memory_allocated() / 1e9 if options.device == "cuda" else None
    return (
        1e3 * timed.median,
        1e3 * timed.median / windows,
        held,
        None if megabytes is None else megabytes / 1e3,
        None if megabytes is None else megabytes / windows,
    )
