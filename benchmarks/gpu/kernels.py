"""The scans on this device against the plain loop in float64 on the CPU: outputs and all gradients."""

import time
from dataclasses import dataclass

from benchmarks.gpu.record import Options, Record

TITLE = "Scan kernels against the float64 loop"
SECONDS = 80
# Largest |difference| over largest |value|; half of one unit in the last place of bf16 is 0.002.
LIMITS = {"fp32": 1e-5, "bf16": 4e-3}
LONG, LONG_LIMIT = 1024, 5e-5  # longer sequences sum more rounding


@dataclass(frozen=True)
class Case:
    """A call of `selective_scan`; absent: names of inputs that are not given."""

    batch: int
    length: int
    width: int
    states: int
    reverse: bool = False
    dtype: str = "fp32"
    absent: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = [f"without {' '.join(self.absent)}"] if self.absent else []
        extra += ["reversed"] if self.reverse else []
        return ", ".join([f"B{self.batch} L{self.length} D{self.width} N{self.states}", *extra])


# The most telling first: what is left when time is out is left out.
CASES = [
    Case(2, 96, 512, 16),
    Case(2, 96, 512, 16, reverse=True),
    Case(2, 96, 512, 16, dtype="bf16"),
    Case(3, 1, 70, 4),
    Case(1, 4096, 96, 16),
    Case(3, 33, 70, 16, reverse=True),
    Case(2, 96, 512, 16, absent=("D", "z", "h0")),
    Case(2, 2, 33, 3, reverse=True),
    Case(1, 4095, 33, 16, reverse=True),
    Case(1, 4096, 96, 16, dtype="bf16"),
    Case(2, 17, 65, 5, dtype="bf16"),
    Case(3, 1000, 70, 5, absent=("z",)),
    Case(3, 15, 1, 1),
    Case(2, 255, 65, 16, reverse=True, absent=("D",)),
    Case(3, 16, 64, 64),
    Case(2, 2048, 512, 16),
    Case(2, 40, 33, 200),
]
QUICK = [Case(2, 17, 33, 4), Case(1, 1, 3, 1, reverse=True), Case(2, 5, 8, 4, dtype="bf16")]
GATED = [(3, 1, 70), (2, 96, 512), (2, 70, 300), (1, 4096, 129)]  # batch, length, width
QUICK_GATED = [(2, 9, 5)]


def engines(device: str) -> list[str]:
    """What can run here, beside the reference."""
    from model.scan import compiled_cuda, native, triton_engine

    if device == "cpu":
        return ["torch", *(["native"] if native.available() else [])]
    found = ["triton"] if triton_engine.available() else []
    return [*found, "torch", *(["mamba_ssm"] if compiled_cuda.compiled_scan() else [])]


def run(record: Record, options: Options) -> None:
    """Every case in every engine; what differs from the loop by more than LIMITS is a failure."""
    import torch

    deadline = time.monotonic() + 0.85 * options.seconds
    torch.set_num_threads(min(4, options.threads))
    names = engines(options.device)
    for absent in sorted({"triton", "mamba_ssm"} - set(names)):
        record.note(f"{absent}: not run (needs a GPU and the package).")
    _selective(record, options, names, deadline)
    _gated(record, options, [n for n in names if n != "mamba_ssm"], deadline)
    _repeatable(record, options, names)


def _limit(case: Case) -> float:
    long = case.length > LONG and case.dtype == "fp32"
    return LONG_LIMIT if long else LIMITS[case.dtype]


def _selective(record: Record, options: Options, names: list[str], deadline: float) -> None:
    import torch

    from tests.scan_data import error, results, scan_inputs

    record.table(
        "selective_scan: largest difference over largest value",
        *("engine", "case", "numbers", "y", "last state", "worst gradient", "of"),
        *("limit", "holds", "first call s", "second call s"),
    )
    left = 0
    for case in QUICK if options.quick else CASES:
        if time.monotonic() > deadline:
            left += 1
            continue
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[case.dtype]
        t = scan_inputs(case.batch, case.length, case.width, case.states, dtype)
        t = {name: value for name, value in t.items() if name not in case.absent}
        want = results("reference", {k: v.double() for k, v in t.items()}, case.reverse)
        given = {k: v.to(options.device) for k, v in t.items()}
        for engine in names:
            if engine == "mamba_ssm":
                continue  # it takes no initial state and gives the last one no gradient
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                got = {k: v.cpu() for k, v in results(engine, given, case.reverse).items()}
                seconds.append(time.perf_counter() - start)
            errors = {k: error(got[k], want[k]) for k in want}
            gradients = {k: e for k, e in errors.items() if k not in ("y", "state")}
            worst = max(gradients, key=lambda k: _order(gradients[k]))
            largest = max(errors.values(), key=_order)
            limit = _limit(case)
            holds = record.check(f"{engine}, {case}, {case.dtype}", largest <= limit, errors)
            record.row(
                *(engine, str(case), case.dtype, errors["y"], errors["state"]),
                *(gradients[worst], worst, limit, holds, *seconds),
            )
    if left:
        record.note(f"{left} cases of selective_scan were left out: the part's time was used up.")


def _order(error: float) -> float:
    return float("inf") if error != error else error


def _gated(record: Record, options: Options, names: list[str], deadline: float) -> None:
    import torch

    from model.scan import gated_scan
    from tests.scan_data import error

    record.table(
        "gated_scan: largest difference over largest value",
        *("engine", "case", "states", "da", "db", "dh0", "holds", "first call s"),
    )

    def outcome(backend, leaves):
        leaves = [v.clone().requires_grad_() for v in leaves]
        states = gated_scan(*leaves, reverse=True, backend=backend)
        weight = torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)
        (states * weight.to(states)).sum().backward()
        return [states.detach().cpu(), *(v.grad.cpu() for v in leaves)]

    for batch, length, width in QUICK_GATED if options.quick else GATED:
        if time.monotonic() > deadline:
            record.note("gated_scan: the rest was left out, the part's time was used up.")
            return
        g = torch.Generator().manual_seed(0)
        a = torch.rand(batch, length, width, generator=g)
        b = torch.randn(batch, length, width, generator=g)
        h0 = torch.randn(batch, width, generator=g)
        want = outcome("reference", [v.double() for v in (a, b, h0)])
        for engine in names:
            start = time.perf_counter()
            got = outcome(engine, [v.to(options.device) for v in (a, b, h0)])
            first = time.perf_counter() - start
            errors = [error(x, y) for x, y in zip(got, want, strict=True)]
            limit = LONG_LIMIT if length > LONG else LIMITS["fp32"]
            case = f"B{batch} L{length} K{width}, reversed"
            holds = record.check(
                f"{engine}, gated, {case}", max(errors, key=_order) <= limit, errors
            )
            record.row(engine, case, *errors, holds, first)


def _repeatable(record: Record, options: Options, names: list[str]) -> None:
    """Equal bits from run to run, and with and without the backward pass's kept states."""
    import torch

    from model.scan import selective_scan
    from tests.scan_data import results, scan_inputs

    shape = (2, 9, 8, 4) if options.quick else (4, 200, 256, 16)
    given = {k: v.to(options.device) for k, v in scan_inputs(*shape, torch.float32).items()}
    record.table("Bit by bit", "engine", "twice the same bits", "the same y without gradients")
    for engine in names:
        if engine == "mamba_ssm":
            continue
        one, two = results(engine, given), results(engine, given)
        same = all(torch.equal(one[k], two[k]) for k in one)
        with torch.no_grad():
            plain = selective_scan(**given, backend=engine)
        record.row(
            engine,
            record.check(f"{engine} gives the same bits twice", same),
            record.check(
                f"{engine} gives the same y without gradients", torch.equal(plain, one["y"])
            ),
        )
