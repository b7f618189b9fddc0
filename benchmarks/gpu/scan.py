"""Speed and memory of the scans beside the unbind loop and other packages (benchmarks/scan.py)."""

import gc

from benchmarks.gpu.record import Options, Record

TITLE = "Scan speed"
SECONDS = 60
# batch, length, width, states; twice about as many frames
SHAPES = [(128, 96, 512, 16), (16, 2048, 512, 16)]
QUICK = [(2, 24, 32, 16)]
SETS = 3  # of inputs that take turns: one batch may otherwise stay in the card's cache


def run(record: Record, options: Options) -> None:
    """A table per shape; forward + backward, with skip and gate, then forward alone."""
    import torch

    from benchmarks import scan as rows_of_scan

    torch.set_num_threads(options.threads)
    rows, absent = rows_of_scan.rows_of(options.device, None)
    for row in absent:
        record.note(f"{row}: not installed, left out.")
    rate = rows_of_scan.copy_rate(options.device, 5, 8 if options.quick else 512)
    record.note(f"A copy moves {rate / 1e9:.0f} GB/s.")
    for shape in QUICK if options.quick else SHAPES:
        for forward in (False, True):
            _table(record, options, rows, shape, forward, rate)


def _table(record, options, rows, shape, forward, rate) -> None:
    import torch

    from benchmarks.gpu.timing import median_seconds, peak_megabytes
    from benchmarks.scan import inputs, least_bytes, scan_of

    what = "forward" if forward else "forward + backward"
    record.table(
        f"Batch {shape[0]}, length {shape[1]}, width {shape[2]}, state {shape[3]}, fp32, with skip "
        f"and gate, {what}",
        *("row", "ms", "times reference", "peak MB", "of copy bandwidth", "first call s"),
        "times mamba_ssm",
    )
    moved = least_bytes(shape, forward, True)
    found: dict[str, tuple] = {}
    sums: dict[str, list[float]] = {}
    for row in reversed(rows):  # the compiled package first, so that all can be compared to it
        sets = []
        try:
            scan = scan_of(row)
            for seed in range(SETS if row not in ("reference", "mambapy") else 1):
                leaves = inputs(*shape, True, options.device, seed)
                sets.append([t.requires_grad_(not forward) for t in leaves])

            def call(leaves, scan=scan):
                for t in leaves:
                    t.grad = None
                with torch.set_grad_enabled(not forward):
                    y = scan(*leaves)
                if not forward:
                    y.backward(torch.ones_like(y))
                return y

            y = call(sets[0])
            sums[row] = [y.detach().double().square().mean().item()]
            sums[row] += [t.grad.double().abs().mean().item() for t in sets[0] if not forward]
            for t in sets[0]:
                t.grad = None
            del y
            runs = [lambda leaves=leaves, call=call: call(leaves) for leaves in sets]
            megabytes = peak_megabytes(runs[0], options.device)
            timed = median_seconds(runs, options.device, 0.02 if options.quick else 0.5)
            found[row] = (timed.median, megabytes, timed.first)
        except torch.OutOfMemoryError as e:
            record.note(f"{row} at {shape}, {what}: out of memory ({str(e)[:100]}).")
        del sets
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    base, compiled = found.get("reference"), found.get("mamba_ssm")
    for row in [r for r in rows if r in found]:
        seconds, megabytes, first = found[row]
        record.row(
            *(row, 1e3 * seconds, base[0] / seconds if base else None, megabytes),
            *(moved / seconds / rate, first, compiled[0] / seconds if compiled else None),
        )
    if "reference" in sums:
        for row, values in sums.items():
            pairs = zip(values, sums["reference"], strict=True)
            close = all(abs(a - b) <= 1e-4 * abs(b) for a, b in pairs)
            record.check(
                f"{row} computes what the reference does at {shape}, {what}", close, values
            )
