"""Prediction of a session in windows, with carried state and live (benchmarks/live.py)."""

from benchmarks.gpu.record import Options, Record

TITLE = "Prediction: windows, carried state, live"
SECONDS = 60
MINUTES = 20.0


def run(record: Record, options: Options) -> None:
    """Seconds for a dyad of MINUTES in each mode, then milliseconds per live frame."""
    import torch

    from benchmarks import live

    device = torch.device(options.device)
    settings = {"preset": "demo"} if options.quick else {}
    record.table(
        f"A dyad of {MINUTES:g} min, measured over {live.SAMPLE} frames and scaled",
        *("how", "numbers", "s", "times carry"),
    )
    for bf16 in (False, True):
        times = live.time_sessions(settings, MINUTES, 1 if options.quick else 3, bf16, device)
        base = next(iter(times.values()))[0]
        for name, (wall, _) in times.items():
            record.row(name, "bf16" if bf16 else "fp32", wall, wall / base)
    record.table(
        "Live, everybody's frame of an instant at once, ms per frame",
        *("people", "local attention", "mean", "median", "worst", "look-ahead ms"),
    )
    for people in (2,) if options.quick else (2, 4):
        for causal in (True, False):
            row = live.time_live(settings, people, causal, 3 if options.quick else 150, device)
            how = "causal" if causal else "as given"
            record.row(people, how, row.mean, row.median, row.worst, row.wait)
    _agreement(record, options)


def _agreement(record: Record, options: Options) -> None:
    """Carried state on this device equals one pass over the whole session on the CPU."""
    import torch

    from benchmarks.live import conversation, live_settings
    from inference.carry import Carry
    from model.describe import PAPER_DIMS, parse_dims
    from model.registry import build

    settings = live_settings({"preset": "demo"}, 2, False)
    torch.manual_seed(0)
    model = build(settings, parse_dims(PAPER_DIMS)).eval()
    piece = conversation(2, 64, torch.device("cpu"))
    found = {}
    for where in dict.fromkeys(("cpu", options.device)):
        network, given = model.to(where), piece.to(where)
        state = Carry(network, 2, given.target, given.partners, settings.training.window)
        outs = [state.advance(given) for _ in range(2)]
        found[where] = torch.cat([scores(out) for out in outs], -1).float().cpu()
    difference = float((found["cpu"] - found[options.device]).abs().max())
    record.check("carry on this device equals the CPU within 1e-3", difference <= 1e-3, difference)
    record.note(f"Carried state, largest difference to the CPU: {difference:.2g}.")


def scores(out):
    """Engagement (people, frames) of what `Carry.advance` returns."""
    return out["engagement"] if isinstance(out, dict) else out
