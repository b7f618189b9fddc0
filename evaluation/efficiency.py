"""Memory and time against sequence length and number of participants, model beside model.

    python -m evaluation.efficiency --out-dir results/tables/efficiency --models da_mamba dat \\
        --lengths 64 96 128 192 512 1024 2048 --persons 2 4 6 8 12 --preset demo --batch 8

Random features, fp32, on the GPU if there is one; --batch target windows at a time, rounded up to whole
conversations in which everybody is a target. Lengths are measured in conversations of
--at-persons, participants at --at-length frames; a cell that both share is measured once. What is
measured, and how, stands in model.cost. Every cell runs in a process of its own: where memory runs
out, the cell says "out of memory" (on a CPU the limit is --memory-gb), where time does, "over N s".

Writes to the folder
    efficiency.csv   one row per model, length and number of participants
    efficiency.md, efficiency.tex   a table per axis
    efficiency.png   training memory, step and inference time per window over both axes, log-log
    efficiency.json  sidecar
"""

import argparse
import sys
import time
from pathlib import Path

from evaluation.efficiency_cell import QUANTITIES, Cell, measure
from evaluation.render import csv_text, escape_latex, escape_markdown
from model.configs import model_names
from model.configs.base import check_choice
from model.describe import PAPER_DIMS, parse_dims
from model.settings import PRESETS
from runtime import InputError, get_logger, progress
from runtime.device import describe_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.atomic import atomic_path, write_text
from store.sidecar import write_sidecar
from training.settings import parse

log = get_logger("efficiency")

AXES = {"frames": "sequence length (frames)", "persons": "participants"}
SHOWN = ("training_mb", "step_ms", "inference_ms")
PANEL_IN, DPI = (4.4, 2.9), 110

Row = dict[str, object]  # model, frames, persons, windows and QUANTITIES


def sizes(args: argparse.Namespace) -> list[tuple[int, int]]:
    """(frames, persons) of every cell, each once: lengths first, then participants."""
    cells = [(length, args.at_persons) for length in args.lengths]
    cells += [(args.at_length, persons) for persons in args.persons]
    return list(dict.fromkeys(cells))


def plan(args: argparse.Namespace) -> list[Cell]:
    """Every cell to measure. Raises InputError for what cannot be built, before anything runs."""
    dims = parse_dims(args.dims)
    small = {
        "lengths": (min([*args.lengths, args.at_length]), 1),
        "persons": (min([*args.persons, args.at_persons]), 1),
        "batch": (args.batch, 1),
    }
    for key, (least, minimum) in small.items():
        if least < minimum:
            raise InputError(f"--{key} has {least}", f"choose at least {minimum}")
    if args.memory_gb <= 0 or args.cell_seconds <= 0:
        raise InputError("--memory-gb or --cell-seconds is not positive", "choose more than 0")
    cells = []
    for name in args.models:
        check_choice("--models", name, tuple(model_names()))
        for frames, persons in sizes(args):
            settings = parse(
                {
                    "preset": args.preset,
                    "features": list(dims),
                    "model": {"name": name},
                    # All frames are predicted: any length then fits.
                    "training": {"window": frames, "core": frames},
                }
            )
            cells.append(
                Cell(
                    name,
                    frames,
                    persons,
                    -(-args.batch // persons) * persons,
                    settings.canonical(),
                    dims,
                    args.threads,
                    args.memory_gb,
                )
            )
    return cells


def value_text(key: str, value: object) -> str:
    """A measured value with a fixed number of decimals, or the reason why there is none."""
    if isinstance(value, str):
        return value
    if key == "parameters":
        return f"{value:d}"
    return f"{value:.4f}" if key == "gflop" else f"{value:.2f}"


def to_csv(rows: list[Row]) -> str:
    """One line per cell."""
    columns = ["model", *AXES, "windows"]
    lines = [[*(r[c] for c in columns), *(value_text(q, r[q]) for q in QUANTITIES)] for r in rows]
    return csv_text([[*columns, *QUANTITIES], *lines])


def axis_table(rows: list[Row], axis: str, fixed: int) -> list[list[str]]:
    """Header and body of one axis: a line per size, a column per quantity and model."""
    other = next(a for a in AXES if a != axis)
    chosen = [r for r in rows if r[other] == fixed]
    models = list(dict.fromkeys(r["model"] for r in rows))
    at = {(r["model"], r[axis]): r for r in chosen}
    table = [[AXES[axis], *(f"{m}: {QUANTITIES[q]}" for q in SHOWN for m in models)]]
    for size in sorted({r[axis] for r in chosen}):
        cells = [value_text(q, at[m, size][q]) for q in SHOWN for m in models]
        table.append([str(size), *cells])
    return table


def to_markdown(tables: dict[str, list[list[str]]], notes: list[str]) -> str:
    """The tables under their titles, then the notes."""
    parts = []
    for title, (header, *body) in tables.items():
        lines = [header, [":--", *["--:"] * (len(header) - 1)], *body]
        texts = [
            [c if i == 1 else escape_markdown(c) for c in line] for i, line in enumerate(lines)
        ]
        parts += [f"**{escape_markdown(title)}**", ""]
        parts += ["| " + " | ".join(line) + " |" for line in texts] + [""]
    return "\n".join([*parts, *(f"- {escape_markdown(note)}" for note in notes), ""])


def to_latex(tables: dict[str, list[list[str]]], notes: list[str]) -> str:
    """One tabular with booktabs rules per axis, then the notes."""
    lines = ["% needs \\usepackage{booktabs}"]
    for title, (header, *body) in tables.items():
        lines += [f"\\par {escape_latex(title)}\\par", f"\\begin{{tabular}}{{{'r' * len(header)}}}"]
        for rule, block in (("\\toprule", [header]), ("\\midrule", body)):
            lines.append(rule)
            lines += [" & ".join(escape_latex(c) for c in line) + r" \\" for line in block]
        lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par{{\\footnotesize {escape_latex(note)}}}" for note in notes]
    return "\n".join([*lines, ""])


def draw(rows: list[Row], fixed: dict[str, int], title: str, out: Path) -> None:
    """A panel per quantity and axis, log-log; a cell without a number is a cross at the top."""
    from matplotlib.figure import Figure

    shape = (PANEL_IN[0] * len(AXES), PANEL_IN[1] * len(SHOWN))
    figure = Figure(figsize=shape, layout="constrained")
    panels = figure.subplots(len(SHOWN), len(AXES), squeeze=False)
    models = list(dict.fromkeys(r["model"] for r in rows))
    for line, quantity in zip(panels, SHOWN, strict=True):
        for panel, axis in zip(line, AXES, strict=True):
            other = next(a for a in AXES if a != axis)
            for i, model in enumerate(models):
                chosen = [r for r in rows if r["model"] == model and r[other] == fixed[other]]
                chosen.sort(key=lambda r: r[axis])
                there = [r for r in chosen if not isinstance(r[quantity], str)]
                gone = [r for r in chosen if isinstance(r[quantity], str)]
                color = f"C{i}"
                panel.plot(
                    [r[axis] for r in there],
                    [r[quantity] for r in there],
                    marker="o",
                    markersize=3,
                    color=color,
                    label=model,
                )
                for r in gone:
                    panel.annotate(
                        f"x {r[quantity]}",
                        (r[axis], 0.98 - 0.3 * i),
                        xycoords=("data", "axes fraction"),
                        rotation=90,
                        ha="center",
                        va="top",
                        fontsize=6,
                        color=color,
                    )
            ticks = sorted({r[axis] for r in rows if r[other] == fixed[other]})
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
            panel.set_xticks(ticks, [str(t) for t in ticks], fontsize=7)
            panel.minorticks_off()
            panel.set_xlabel(AXES[axis], fontsize=8)
            panel.set_ylabel(QUANTITIES[quantity], fontsize=8)
            panel.tick_params(labelsize=7)
            panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=7)
    figure.suptitle(title, fontsize=9)
    with atomic_path(out, suffix=".png") as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def work(args: argparse.Namespace, command: str) -> None:
    """Measure every cell and write all files."""
    start = time.monotonic()
    rows = []
    for cell in progress(plan(args), "efficiency", None, "cells"):
        found = measure(cell, args.cell_seconds)
        row = {"model": cell.model, "frames": cell.frames, "persons": cell.persons}
        rows.append({**row, "windows": cell.windows, **found})
        texts = [f"{QUANTITIES[q]} {value_text(q, v)}" for q, v in found.items()]
        log.info("%s, %d frames, %d: %s", cell.model, cell.frames, cell.persons, "; ".join(texts))
    device = describe_device()
    fixed = {"frames": args.at_length, "persons": args.at_persons}
    tables = {
        f"Sequence length, {args.at_persons} participants": axis_table(
            rows, "frames", args.at_persons
        ),
        f"Participants, {args.at_length} frames": axis_table(rows, "persons", args.at_length),
    }
    limit = f", at most {args.memory_gb:g} GB per cell" if device == "cpu" else ""
    counts = {r["model"]: value_text("parameters", r["parameters"]) for r in rows}
    notes = [
        f"Device {device}, {args.threads} threads, fp32{limit}, at most {args.cell_seconds:g} s per "
        "cell.",
        f"Preset {args.preset}, at least {args.batch} target windows at a time, in whole "
        f"conversations where everybody is a target; inputs {args.dims}.",
        "Parameters at the first size: " + ", ".join(f"{m} {n}" for m, n in counts.items()) + ".",
        "Training memory: the most that forward, backward and optimiser step hold above model, "
        "gradients, optimiser state and inputs, divided by the windows.",
    ]
    out = args.out_dir
    write_text(out / "efficiency.md", to_markdown(tables, notes))
    write_text(out / "efficiency.tex", to_latex(tables, notes))
    title = f"preset {args.preset}, {args.batch} windows at a time, {device}"
    draw(rows, fixed, title, out / "efficiency.png")
    write_text(out / "efficiency.csv", to_csv(rows))
    write_sidecar(
        out / "efficiency.csv",
        inputs={},
        settings={
            key: getattr(args, key)
            for key in (
                "models",
                "preset",
                "lengths",
                "persons",
                "at_length",
                "at_persons",
                "batch",
                "dims",
                "memory_gb",
                "cell_seconds",
                "threads",
            )
        },
        fingerprint=args.fingerprint,
        packages=["matplotlib", "numba", "numpy", "torch"],
        command=command,
        counts={"cells": len(rows)},
        seconds=time.monotonic() - start,
        device=device,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.efficiency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out-dir", type=Path, required=True, help="folder of the tables and the picture")
    add("--models", nargs="+", default=["da_mamba", "dat"], help="values of model.name")
    add("--preset", choices=PRESETS, default="demo")
    lengths = [64, 96, 128, 192, 512, 1024, 2048]
    add("--lengths", type=int, nargs="+", default=lengths, help="frames of a window")
    add("--persons", type=int, nargs="+", default=[2, 4, 6, 8, 12], help="participants")
    add("--at-persons", type=int, default=2, help="participants while the length varies")
    add("--at-length", type=int, default=96, help="frames while the participants vary")
    add("--batch", type=int, default=8, help="least target windows at a time")
    add("--dims", default=PAPER_DIMS, help=f"input dimensions (default: {PAPER_DIMS})")
    add("--memory-gb", type=float, default=4.0, help="limit of a cell's memory on a CPU")
    add("--cell-seconds", type=float, default=120.0, help="limit of a cell's time")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    command = command_line("evaluation.efficiency", argv if argv is not None else sys.argv[1:])
    return run_job("evaluation.efficiency", build_parser(), lambda a: work(a, command), argv)


if __name__ == "__main__":
    sys.exit(main())
