"""Curves: predicted against true engagement over time, and the course of a training.

    python -m evaluation.curves [predictions] --predictions SEED1.h5 SEED2.h5 --sessions SPEC ... --out C.png
    python -m evaluation.curves training --history H1.jsonl H2.jsonl --out T.png

Which sessions are shown is a rule, not a choice: of all labelled sessions given, ranked by their
CCC, or kappa of classes (roles pooled, mean over seeds; ties by name), the best, the median (the lower one of an even
number) and the worst. Line: mean over seeds; band: lowest to highest seed. Numbers only: no face,
frame or audio of a person. Equal input gives equal bytes.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.confusion import Confusion
from evaluation.metrics import TITLES, Moments, Statistics, merge_all
from evaluation.predictions import (
    PredictionFile,
    agreement,
    check_finite,
    read_labels,
    sample,
)
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store import layout
from store.atomic import atomic_path
from store.session_spec import SessionSpec, parse_spec
from store.sidecar import write_sidecar

log = get_logger("curves")
TRUTH, PREDICTION = "#222222", "#1f77b4"
WIDTH_IN, HEIGHT_IN, DPI = 4.2, 1.9, 110  # of one panel
NOT_DRAWN = ("epoch", "steps")
NO_LOSSES = {
    "val_ccc": "CCC of the validation sets",
    "val_kappa": "Cohen's kappa of the validation sets",
    "learning_rate": "learning rate",
}


@dataclass(frozen=True)
class Curve:
    """One participant. time (n,) s; truth (n,), NaN where not labelled; seeds (K, n)."""

    role: str
    time: np.ndarray
    truth: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class SessionCurves:
    """All labelled participants of a session, and its score (CCC, kappa of classes) per seed."""

    spec: SessionSpec
    curves: list[Curve]
    per_seed: list[float]
    classes: int = 0
    words: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        return TITLES[Confusion.metric if self.classes else Moments.metric]

    @property
    def score(self) -> float:
        return float(np.mean(self.per_seed))


def read_session(
    files: list[PredictionFile], results: Path, spec: SessionSpec
) -> SessionCurves | None:
    """Curves of a session's labelled participants; None when nobody has labels."""
    curves: list[Curve] = []
    statistics: list[list[Statistics]] = [[] for _ in files]
    words: tuple[str, ...] = ()
    for role in sorted(spec.roles):
        path = Path(layout.labels(results, *spec.key, role))
        if not path.exists():
            continue
        labels = read_labels(path)
        truth = np.where(labels.valid, labels.values, np.nan)
        rows = [sample(f.read(spec.session, role), labels.time)[0] for f in files]
        for k, row in enumerate(rows):
            place = f"{spec.session}/{role}"
            check_finite(files[k], place, labels.time, row)
            statistics[k].append(agreement(files[k], place, path, labels, row[labels.valid]))
        words = labels.words
        curves.append(Curve(role, labels.time, truth, np.stack(rows)))
    per_seed = [merge_all(s) for s in statistics]
    if not curves or per_seed[0].n == 0:
        return None
    return SessionCurves(spec, curves, [s.score for s in per_seed], files[0].classes, words)


def select(sessions: list[SessionCurves]) -> list[tuple[str, SessionCurves]]:
    """Best, median and worst by the rule of the module docstring, each session once."""
    ranked = sorted(sessions, key=lambda s: (-s.score, s.spec.split, s.spec.session))
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    if len(ranked) == 1:
        return [("only", ranked[0])]
    if len(ranked) == 2:
        del places["median"]
    return [(name, ranked[place]) for name, place in places.items()]


def draw_predictions(chosen: list[tuple[str, SessionCurves]], title: str, out: Path) -> None:
    """One row per chosen session, one panel per role."""
    from matplotlib.figure import Figure

    columns = max(len(s.curves) for _, s in chosen)
    figure = Figure(
        figsize=(WIDTH_IN * columns, 0.5 + HEIGHT_IN * len(chosen)), layout="constrained"
    )
    grid = figure.subplots(len(chosen), columns, squeeze=False, sharey=True)
    shown = [c for _, s in chosen for c in s.curves]
    low = min(0.0, *(float(np.nanmin(c.truth)) if np.isfinite(c.truth).any() else 0 for c in shown))
    low = min(low, *(float(c.seeds.min()) for c in shown))
    high = max(1.0, *(float(c.seeds.max()) for c in shown), *(s.classes - 1 for _, s in chosen))
    for row, (name, session) in zip(grid, chosen, strict=True):
        for panel in row[len(session.curves) :]:
            panel.set_axis_off()
        for panel, curve in zip(row, session.curves, strict=False):
            minutes = curve.time[-1] > 300
            time = curve.time / 60 if minutes else curve.time
            if session.classes:  # classes have no mean: one line of steps per seed
                lines = panel.step(
                    time, curve.seeds.T, color=PREDICTION, linewidth=0.6, where="mid"
                )
                lines[0].set_label("prediction")
            elif len(curve.seeds) > 1:
                ends = curve.seeds.min(axis=0), curve.seeds.max(axis=0)
                panel.fill_between(time, *ends, color=PREDICTION, alpha=0.25, linewidth=0)
            style = {"color": TRUTH, "linewidth": 1, "label": "label"}
            if session.classes:
                panel.step(time, curve.truth, where="mid", **style)
            else:
                panel.plot(time, curve.truth, **style)
                mean = curve.seeds.mean(axis=0)
                panel.plot(time, mean, color=PREDICTION, linewidth=1, label="prediction")
            panel.set_ylim(low - 0.02, high + 0.02)
            panel.set_title(plain(curve.role), fontsize=8, loc="right")
            panel.set_xlabel("time (min)" if minutes else "time (s)", fontsize=7)
            panel.tick_params(labelsize=7)
            if session.classes:
                names = [plain(word) for word in session.words] or None
                panel.set_yticks(range(session.classes), names)
        where = f"{name}: {session.spec.session} ({session.spec.split}), {session.metric} {session.score:.2f}"
        row[0].set_title(plain(where), fontsize=8, loc="left")
        row[0].set_ylabel("class" if session.classes else "engagement", fontsize=7)
    grid[0][0].legend(fontsize=7, loc="upper right", framealpha=0.6)
    figure.suptitle(plain(title), fontsize=9)
    save(figure, out)


def plain(text: str) -> str:
    """Text that matplotlib writes as it is, without reading formulas between dollar signs."""
    return text.replace("$", r"\$")


def save(figure, out: Path) -> None:
    """Write a PNG without date or version inside."""
    with atomic_path(out, suffix=".png") as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def curves(
    predictions: list[Path], results: Path, sessions: list[str], out: Path
) -> list[tuple[str, SessionCurves]]:
    """Draw predictions against labels; returns the chosen sessions.

    Raises InputError when the files are not seeds of one run, or no session given has labels.
    """
    files = [PredictionFile(p) for p in predictions]
    try:
        keys = sorted({(f.run, f.dataset, f.classes) for f in files})
        if len(keys) != 1 or len({f.seed for f in files}) != len(files):
            raise InputError(
                f"{', '.join(str(p) for p in predictions)} are not seeds of one run and dataset",
                "give one predictions file per seed of one run on one dataset",
            )
        files.sort(key=lambda f: f.seed)
        found = [
            read_session(files, results, parse_spec(text, with_split=True)) for text in sessions
        ]
    finally:
        for f in files:
            f.__exit__(None, None, None)
    labelled = [s for s in found if s is not None]
    if not labelled:
        raise InputError(
            f"none of the {len(sessions)} sessions given has labels below {results / 'labels'}",
            "curves need labels: name labelled sessions",
        )
    chosen = select(labelled)
    seeds = f"{len(files)} seed{'s' if len(files) > 1 else ''}"
    run, dataset, classes = keys[0]
    band = ", band: lowest to highest" if len(files) > 1 and not classes else ""
    title = f"{run} on {dataset}: {len(labelled)} labelled sessions, {seeds}{band}"
    draw_predictions(chosen, title, out)
    for name, s in chosen:
        log.info("%s: %s/%s, %s %.3f", name, s.spec.dataset, s.spec.session, s.metric, s.score)
    return chosen


def read_history(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Number per epoch of a history.jsonl: name -> (epochs (n,), values (n,)). Raises InputError."""
    series: dict[str, list[tuple[float, float]]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            for name, value in record.items():
                if name not in NOT_DRAWN and isinstance(value, int | float):
                    series.setdefault(name, []).append((float(record["epoch"]), float(value)))
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file") from e
    except (ValueError, KeyError, AttributeError, TypeError, ArithmeticError, RecursionError) as e:
        raise InputError(
            f"{path} is not a training history ({str(e)[:80]})",
            f"delete it and train again, it will be remade: rm '{path}'",
        ) from e
    return {name: tuple(np.array(pairs).T) for name, pairs in series.items()}


def panels_of(names: Iterable[str]) -> dict[str, str]:
    """Number of a history -> title of its panel, in order: losses (whatever the model has), the rest."""
    names = set(names)
    losses = {n: f"{n} loss, before its weight" for n in sorted(names - {"loss", *NO_LOSSES})}
    titles = {"loss": "loss: weighted sum of all"} | losses | NO_LOSSES
    return {name: title for name, title in titles.items() if name in names}


def training_curves(histories: list[Path], out: Path) -> None:
    """Draw every number of the histories over epochs, one panel each, one line per history."""
    from matplotlib.figure import Figure

    found = [read_history(path) for path in histories]
    names = panels_of(name for series in found for name in series)
    figure = Figure(figsize=(WIDTH_IN, 0.5 + HEIGHT_IN * max(1, len(names))), layout="constrained")
    panels = figure.subplots(max(1, len(names)), 1, squeeze=False, sharex=True)[:, 0]
    if not names:
        panels[0].set_title("nothing was trained (no epochs)", fontsize=8)
    for panel, (name, title) in zip(panels, names.items(), strict=False):
        for path, series in zip(histories, found, strict=True):
            if name in series:
                label = plain("/".join(path.parts[-3:-1]))
                panel.plot(*series[name], marker=".", markersize=3, linewidth=1, label=label)
        panel.set_title(title, fontsize=8, loc="left")
        panel.tick_params(labelsize=7)
    panels[-1].set_xlabel("epoch", fontsize=7)
    if names:
        panels[0].legend(fontsize=6)
    else:
        panels[0].set_axis_off()
    save(figure, out)


def build_parser(command: str = "predictions") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m evaluation.curves {command}",
        description="Draw a training's losses and validation CCC over epochs."
        if command == "training"
        else "Draw predicted against true engagement of the best, median and worst session.",
        epilog="Commands: predictions (default), training.",
    )
    add = parser.add_argument
    if command == "training":
        add("--history", nargs="+", type=Path, required=True, help="history.jsonl of each seed")
    else:
        add("--predictions", nargs="+", type=Path, required=True, help="one file (.h5) per seed")
        add("--results", type=Path, default=Path("results"), help="results folder with labels/")
        add(
            "--sessions",
            nargs="+",
            required=True,
            metavar="SPEC",
            help="dataset/session:role1,role2@split",
        )
    add("--out", type=Path, required=True, help="picture to write (.png)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    command = argv.pop(0) if argv[:1] in (["predictions"], ["training"]) else "predictions"

    def work(a: argparse.Namespace) -> None:
        if command == "training":
            training_curves(a.history, a.out)
            inputs, settings = {"/".join(p.parts[-3:]): p for p in a.history}, {}
        else:
            curves(a.predictions, a.results, a.sessions, a.out)
            inputs = {"/".join(p.parts[-3:]): p for p in a.predictions}
            settings = {"sessions": a.sessions}
        write_sidecar(
            a.out,
            inputs=inputs,
            settings=settings,
            fingerprint=a.fingerprint,
            packages=["matplotlib", "numpy"],
            command=command_line("evaluation.curves", [command, *argv]),
        )

    return run_job("evaluation.curves", build_parser(command), work, argv)


if __name__ == "__main__":
    sys.exit(main())
