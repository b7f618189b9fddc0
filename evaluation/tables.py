"""The results table: one row per run, one column per dataset and split, and Combined.

    python -m evaluation.tables --scores S.json ... --columns noxi/test ... --out-dir results/tables/main
    python -m evaluation.tables show results/tables/main/ccc.csv

Writes ccc.csv (numbers), ccc.md and ccc.tex (text), sessions.csv (every participant of every seed)
and metrics.csv (Pearson's r, mean absolute error, bias and sd ratio beside the pooled CCC; accuracy
beside Cohen's kappa of classes). `--challenge test` adds challenge.csv, .md and .tex: the engagement
sets of one split alone, in the order of the challenge's README. See
evaluation.summary for what a cell is and evaluation.bootstrap for the interval.
"""

import argparse
import shutil
import sys
from pathlib import Path

import yaml

from evaluation.bootstrap import MIN_SESSIONS, RESAMPLES, SEED, too_few
from evaluation.confusion import Confusion
from evaluation.details import confusion_tables, metric_lines, session_lines
from evaluation.layouts import challenge_columns
from evaluation.metrics import Moments
from evaluation.render import (
    COMPUTED,
    REPORTED,
    Row,
    Table,
    confusion_markdown,
    csv_text,
    metric_text,
    size_text,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)
from evaluation.scorefile import Scores, read_scores
from evaluation.summary import Summary, split_of, summarise
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.atomic import write_text
from store.sidecar import write_sidecar

log = get_logger("tables")
SELECTIONS = ("last", "best_val")
REPORTED_FILE = Path(__file__).with_name("reported.yaml")
FILES = ("ccc.csv", "ccc.md", "ccc.tex", "sessions.csv", "metrics.csv")
CCC_NOTE = (
    "CCC: concordance correlation coefficient, population variance, over all labelled frames of "
    "all sessions and roles pooled, at the labels' time stamps"
)
KAPPA_NOTE = (
    "Cohen's kappa: unweighted, of classes, over all labelled frames of all sessions and roles "
    "pooled, each label against the nearest frame of the prediction"
)


def parse_selection(texts: list[str]) -> dict[str, list[str] | None]:
    """Parse ``run=last``, ``run=best_val`` or ``run=best_val:noxi/val,mpiigi/val``.

    Returns, for runs selected on val sets, those sets (None: every val set). Raises InputError.
    """
    selected = {}
    for text in texts:
        run, _, rule = text.partition("=")
        rule, _, sets = rule.partition(":")
        if not run or rule not in SELECTIONS:
            raise InputError(
                f"--selection {text} is not understood",
                "write run=last, run=best_val or run=best_val:noxi/val,mpiigi/val",
            )
        if rule == "best_val":
            selected[run] = sets.split(",") if sets else None
    return selected


def read_reported(path: Path) -> dict:
    """Read published rows (evaluation/reported.yaml); raises InputError on anything unexpected."""
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        means = {name: list(of) for name, of in record["means"].items()}
        for row in record["rows"]:
            if not row["run"] or not row["source"]:
                raise KeyError("run or source")
            combined = row.get("combined", {})
            if unknown := [name for name in combined if name not in means]:
                raise KeyError(f"{unknown[0]} among `means`")
            for column, value in (*row["values"].items(), *combined.items()):
                if not isinstance(value, str) or not -1 <= float(value) <= 1:
                    raise ValueError(f"{row['run']}: {column} must be a quoted CCC, is {value!r}")
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "correct the path of --reported") from e
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(
            f"{path} is not a list of published rows ({' '.join(str(e).split())[:120]})",
            "keep the form of evaluation/reported.yaml: means; run, source, values (numbers in quotes)",
        ) from e
    return {"means": means, "rows": record["rows"]}


def reported_rows(reported: dict, summary: Summary) -> list[Row]:
    """Published rows that have a number in a column of this table; Combined only if it is the same mean."""
    rows = []
    values_of = {c for c in summary.columns if summary.metrics.get(c) in (None, Moments.metric)}
    for record in reported["rows"]:
        published = {c: v for c, v in record["values"].items() if c in values_of}
        for name, value in record.get("combined", {}).items():
            same = set(summary.averaged.get("Combined", [])) == set(reported["means"][name])
            if published and same:
                published["Combined"] = value
        if published:
            notes = [record["source"], *([record["note"]] if "note" in record else [])]
            rows.append(Row(record["run"], REPORTED, published=published, notes=notes))
    return rows


def build_table(
    summary: Summary,
    scores: Scores,
    selection: dict[str, list[str] | None],
    reported: dict | None,
    notes: list[str],
    resamples: int,
) -> Table:
    """Rows, subtitles and footnotes from the numbers."""
    found = set(summary.metrics.values()) or {Moments.metric}
    scored_by = {Moments.metric: CCC_NOTE, Confusion.metric: KAPPA_NOTE}
    footnotes = [
        "; ".join(note for metric, note in scored_by.items() if metric in found)
        + "; mean ± std over seeds "
        f"[95 % bootstrap interval: sessions resampled {resamples} times].",
        "Seeds: " + ", ".join(f"{r} {_n_seeds(summary, r)}" for r in summary.runs) + ".",
    ]
    footnotes += [f"{name}: mean of {', '.join(of)}." for name, of in summary.averaged.items()]
    subtitles = {}
    for column in summary.all_columns:
        sizes = _sizes(summary, column)
        if len(sizes) == 1:
            subtitles[column] = size_text(*sizes[0])
        elif sizes:
            subtitles[column] = "sessions differ"
            footnotes.append(f"{column}: the runs were scored on different numbers of sessions.")
        if not sizes:
            footnotes.append(f"{column}: no labels, nothing to score.")
        else:
            subtitles[column] = metric_text(summary.metrics, column) + subtitles[column]
        if reason := _no_interval(summary, column, sizes):
            footnotes.append(f"{column}: {reason}.")
        if len(_session_sets(scores, summary.runs, column)) > 1 and len(sizes) == 1:
            footnotes.append(f"{column}: the runs were scored on different sessions.")
    rows = [_computed_row(run, summary, selection, notes) for run in summary.runs]
    marked = [r for r in rows if r.marks]
    if marked:
        runs = ", ".join(r.run for r in marked)
        footnotes.append(
            f"† The checkpoint was selected on sessions of this set ({runs}): the number is optimistic."
        )
    footnotes += notes
    if reported:
        published = reported_rows(reported, summary)
        rows += published
        of: dict[str, list[str]] = {}
        for row in published:
            of.setdefault(row.notes[0], []).append(row.run)
        sources = "; ".join(f"{source} ({', '.join(runs)})" for source, runs in of.items())
        if sources:
            footnotes.append(f"(reported): published, not rerun here. Sources: {sources}.")
        footnotes += [f"{r.run} (reported): {note}." for r in published for note in r.notes[1:]]
    return Table(summary.all_columns, subtitles, rows, footnotes)


def _computed_row(
    run: str, summary: Summary, selection: dict[str, list[str] | None], notes: list[str]
) -> Row:
    row = Row(run, COMPUTED, cells=summary.cells[run], notes=list(notes))
    if run not in selection:
        return row
    sets = selection[run]
    if sets is None:
        sets = [c for c in summary.columns if split_of(c) == "val"]
    by = [c for c in summary.columns if c in sets]
    used = list(by)
    used += [name for name, of in summary.averaged.items() if set(of) & set(used)]
    for column in used:
        if row.cells[column].mean is not None:
            row.marks[column] = "†"
    if row.marks:
        row.notes.append(f"checkpoint selected on {', '.join(by)}")
    return row


def _n_seeds(summary: Summary, run: str) -> str:
    counts = sorted({c.n_seeds for c in summary.cells[run].values() if c.n_seeds})
    return " or ".join(map(str, counts)) or "0"


def _no_interval(summary: Summary, column: str, sizes: list[tuple[int, int]]) -> str | None:
    """Why numbers of a column have no interval; None where they have one."""
    parts = summary.averaged.get(column)
    if parts is None:
        small = [n for n, _ in sizes if n < MIN_SESSIONS]
        return too_few(small[0]) if small else None
    small = [p for p in parts if any(n < MIN_SESSIONS for n, _ in _sizes(summary, p))]
    return f"no interval, as {', '.join(small)} has none" if small else None


def _sizes(summary: Summary, column: str) -> list[tuple[int, int]]:
    cells = [summary.cells[run][column] for run in summary.runs]
    return sorted({(c.n_sessions, c.n_excluded) for c in cells if c.mean is not None})


def _session_sets(scores: Scores, runs: list[str], column: str) -> set[tuple[str, ...]]:
    found = [s for run in runs for s in scores.get(run, {}).get(column, {}).values()]
    return {tuple(sorted(s.sessions())) for s in found}


def make_tables(
    scores_paths: list[Path],
    out_dir: Path,
    runs: list[str] | None = None,
    columns: list[str] | None = None,
    reported: Path | None = None,
    selection: list[str] | None = None,
    notes: list[str] | None = None,
    resamples: int = RESAMPLES,
    bootstrap_seed: int = SEED,
    fingerprint: str = "",
    command: str = "",
    challenge: str | None = None,
) -> Table:
    """Read scores, write all files of the table into `out_dir`, return the table.

    challenge: the split of which a table in the challenge's order is written, too.
    """
    scores = read_scores(scores_paths)
    runs = runs or list(scores)
    columns = columns or sorted({c for sets in scores.values() for c in sets})
    for name, given in (("--runs", runs), ("--columns", columns)):
        if len(set(given)) != len(given):
            raise InputError(f"{name} names one twice: {' '.join(given)}", "name each once")
    notes = [line for note in notes or [] for line in note.splitlines() if line.strip()]
    chosen = parse_selection(selection or [])
    published = read_reported(reported) if reported else None
    summary = summarise(scores, runs, columns, resamples, bootstrap_seed)
    table = build_table(summary, scores, chosen, published, notes, resamples)
    confusions = confusion_tables(scores, runs, columns)
    text = to_markdown(table) + "".join(confusion_markdown(*found) for found in confusions)
    write_text(out_dir / "ccc.md", text)
    write_text(out_dir / "ccc.tex", to_latex(table))
    write_text(out_dir / "sessions.csv", csv_text(session_lines(scores, runs, columns)))
    write_text(out_dir / "metrics.csv", csv_text(metric_lines(scores, runs, columns)))
    write_text(out_dir / "ccc.csv", to_csv(table))
    if challenge:
        own = challenge_columns(columns, challenge)
        summary = summarise(scores, runs, list(own), resamples, bootstrap_seed)
        ordered = build_table(summary, scores, chosen, published, notes, resamples)
        ordered.titles = own
        write_text(out_dir / "challenge.csv", to_csv(ordered))
        write_text(out_dir / "challenge.md", to_markdown(ordered))
        write_text(out_dir / "challenge.tex", to_latex(ordered))
    inputs = {"/".join(p.parts[-3:]): p for p in map(Path, scores_paths)}
    write_sidecar(
        out_dir / "ccc.csv",
        inputs=inputs | ({"reported": reported} if reported else {}),
        settings={
            "runs": runs,
            "columns": columns,
            "selection": selection or [],
            "notes": notes,
            "resamples": resamples,
            "bootstrap_seed": bootstrap_seed,
            "challenge": challenge,
        },
        fingerprint=fingerprint,
        packages=["numpy", "pyyaml"],
        command=command,
        counts={"runs": len(runs), "scores": len(scores_paths)},
    )
    log.info("wrote %s to %s", ", ".join(FILES), out_dir)
    return table


def show(path: Path) -> None:
    """Print a csv made here, laid out for a terminal. Raises InputError."""
    try:
        width = shutil.get_terminal_size((120, 40)).columns
        print(to_terminal(path.read_text(encoding="utf-8"), width))
    except (KeyError, ValueError, TypeError, IndexError) as e:
        raise InputError(f"{path} is not a table made here", "give tables/NAME/ccc.csv") from e


def build_parser(command: str = "make") -> argparse.ArgumentParser:
    if command == "show":
        parser = argparse.ArgumentParser(
            prog="python -m evaluation.tables show", description="Print a table in the terminal."
        )
        parser.add_argument("table", type=Path, help="ccc.csv, metrics.csv or sessions.csv")
        return parser
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.tables",
        description="Write the CCC table (csv, Markdown, LaTeX) of several runs from their scores.",
        epilog="To print one: python -m evaluation.tables show results/tables/main/ccc.csv",
    )
    add = parser.add_argument
    add("--scores", nargs="+", type=Path, required=True, help="scores files of all runs and seeds")
    add("--runs", nargs="+", help="rows, in this order (default: as the scores come)")
    add("--columns", nargs="+", metavar="DATASET/SPLIT", help="columns, in this order")
    add("--reported", type=Path, help="published rows to append, e.g. evaluation/reported.yaml")
    add(
        "--selection",
        nargs="*",
        default=[],
        metavar="RUN=RULE",
        help="run=last, run=best_val or run=best_val:noxi/val; val cells used for selection get a footnote",
    )
    add("--note", action="append", default=[], help="footnotes for all computed rows, one a line")
    add("--resamples", type=int, default=RESAMPLES, help="bootstrap resamples of sessions")
    add("--bootstrap-seed", type=int, default=SEED, help="seed of the bootstrap")
    add("--challenge", choices=("test", "val"), help="also a table in the challenge's order")
    add("--out-dir", type=Path, default=Path("results/tables/main"), help="folder to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["show"]:
        return run_job("evaluation.tables", build_parser("show"), lambda a: show(a.table), argv[1:])
    return run_job(
        "evaluation.tables",
        build_parser(),
        lambda a: make_tables(
            a.scores,
            a.out_dir,
            a.runs,
            a.columns,
            a.reported,
            a.selection,
            a.note,
            a.resamples,
            a.bootstrap_seed,
            a.fingerprint,
            command_line("evaluation.tables", argv),
            a.challenge,
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
