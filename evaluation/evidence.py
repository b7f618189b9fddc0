"""Do the partners carry the gain? Runs compared over several demo corpora and seeds.

    python -m evaluation.evidence --corpus c1=results/evidence/c1/scores --corpus c2=... \\
        --sets noxi/test noxi-add/test mpiigi/test --out-dir results/tables/evidence

Number of a corpus: CCC pooled over all frames of all its test sessions (the demo's datasets share
one label distribution), mean over seeds. ``all``: mean over corpora. Intervals: percentile
bootstrap of sessions, resampled within each corpus (sessions are nested in corpora, the corpora are
kept), the same draws for every run, so that differences are paired.

Claims checked, on the mean over corpora:
  1. da_mamba - da_mamba_no_partner: interval above 0
  2. da_mamba and da_mamba_no_partner above egemaps_mlp and above constant: intervals above 0
  3. no run above the oracle
  4. shuffled partners: the gain over da_mamba_no_partner vanishes - its interval does not lie
     above 0 - and the gain with true partners is larger, interval above 0
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.bootstrap import (
    MIN_SESSIONS,
    RESAMPLES,
    SEED,
    Draws,
    interval,
    mean_draws,
    seed_mean_draws,
)
from evaluation.metrics import Moments, merge_all
from evaluation.render import COMPUTED, Row, Table, size_text, to_csv, to_latex, to_markdown
from evaluation.scorefile import Scores, read_scores, seeds_of
from evaluation.summary import Cell, mean_and_std
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text

ALL = "all"


@dataclass(frozen=True)
class Names:
    """Run names that play a part in the claims."""

    full: str = "da_mamba"
    without: str = "da_mamba_no_partner"
    shuffled: str = "da_mamba_shuffled"
    mlp: str = "egemaps_mlp"
    constant: str = "constant"
    oracle: str = "oracle"


@dataclass(frozen=True)
class Result:
    """One run on one corpus (or ``all``): CCC per seed, their mean, and its resamples."""

    per_seed: list[float]
    mean: float
    draws: Draws
    n_sessions: int


@dataclass(frozen=True)
class Claim:
    """A difference with its interval, and whether it came out as claimed."""

    text: str
    difference: float
    low: float
    high: float
    holds: bool

    def line(self) -> str:
        """One line of text."""
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return (
            f"{self.text}: {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] - {verdict}"
        )


def gather(scores: Scores, run: str, sets: list[str]) -> list[dict[str, Moments]]:
    """Per seed, the sessions of all sets: ``dataset/split/session`` -> moments."""
    merged: list[dict[str, Moments]] = []
    used: list[int] | None = None
    for name in sets:
        by_seed = scores[run].get(name, {})
        if used is not None and sorted(by_seed) != used:
            raise InputError(
                f"run {run} was scored with seeds {sorted(by_seed)} on {name}, with {used} elsewhere",
                "score every seed on every set",
            )
        used = sorted(by_seed)
        seeds = seeds_of(by_seed, run, name) if by_seed else []
        merged = merged or [{} for _ in seeds]
        for whole, part in zip(merged, seeds, strict=True):
            whole.update({f"{name}/{session}": m for session, m in part.items()})
    if not merged or not merged[0]:
        raise InputError(f"run {run} has no scored session on {' '.join(sets)}", "score it there")
    return merged


def measure(
    corpora: dict[str, Scores],
    runs: list[str],
    sets: list[str],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, dict[str, Result]]:
    """Results per run and corpus, and for ``all``. Raises InputError for runs not comparable."""
    results: dict[str, dict[str, Result]] = {}
    frames: dict[str, dict[str, int]] = {}
    for run in runs:
        results[run] = {}
        for corpus, scores in corpora.items():
            if run not in scores:
                raise InputError(f"corpus {corpus} has no scores of run {run}", "run it there too")
            seeds = gather(scores, run, sets)
            own = {name: m.n for name, m in seeds[0].items()}
            if frames.setdefault(corpus, own) != own:
                raise InputError(
                    f"corpus {corpus}: run {run} was scored on other sessions than {runs[0]}",
                    "score all runs with the same sheet",
                )
            draws = seed_mean_draws(seeds, f"evidence/{corpus}", resamples, seed)
            if draws is None:
                raise InputError(
                    f"corpus {corpus} has {len(own)} labelled test sessions on {' '.join(sets)}",
                    f"make a larger corpus: intervals need at least {MIN_SESSIONS} sessions",
                )
            per_seed = [merge_all(s.values()).ccc for s in seeds]
            results[run][corpus] = Result(per_seed, float(np.mean(per_seed)), draws, len(own))
        parts = list(results[run].values())
        mean = float(np.mean([p.mean for p in parts]))
        draws = mean_draws([p.draws for p in parts])
        results[run][ALL] = Result(
            [p.mean for p in parts], mean, draws, sum(p.n_sessions for p in parts)
        )
    return results


def claims(results: dict[str, dict[str, Result]], names: Names) -> list[Claim]:
    """The claims of the module docstring that the given runs allow to check."""

    def draws(run: str) -> tuple[float, Draws]:
        return results[run][ALL].mean, results[run][ALL].draws

    def claim(text: str, a: str, b: str, above: bool = True) -> Claim:
        (mean_a, draws_a), (mean_b, draws_b) = draws(a), draws(b)
        low, high = interval(draws_a - draws_b)
        return Claim(text, mean_a - mean_b, low, high, low > 0 if above else low <= 0)

    n = names
    found = [claim(f"{n.full} above {n.without}", n.full, n.without)]
    for run in (n.full, n.without):
        for base in (n.mlp, n.constant):
            found.append(claim(f"{run} above {base}", run, base))
    if n.oracle in results:
        best = max(
            (r for r in results if not r.startswith(n.oracle)), key=lambda r: results[r][ALL].mean
        )
        found.append(claim(f"{n.oracle} above the best run ({best})", n.oracle, best))
    if n.shuffled in results:
        text = f"no gain with shuffled partners ({n.shuffled} over {n.without})"
        found.append(claim(text, n.shuffled, n.without, above=False))
        # The gains over no_partner differ by exactly full - shuffled.
        text = f"gain with true partners larger than with shuffled ({n.full} over {n.shuffled})"
        found.append(claim(text, n.full, n.shuffled))
    return found


def build_table(
    results: dict[str, dict[str, Result]], found: list[Claim], notes: list[str]
) -> Table:
    """One row per run, one column per corpus and ``all``; the claims as footnotes."""
    columns = list(next(iter(results.values())))
    rows = []
    for run, by_corpus in results.items():
        cells = {}
        for column, r in by_corpus.items():
            mean, std = mean_and_std(r.per_seed)
            low, high = interval(r.draws)
            cells[column] = Cell(mean, std, low, high, len(r.per_seed), r.n_sessions, 0)
        rows.append(Row(run, COMPUTED, cells=cells, notes=list(notes)))
    first = rows[0].cells
    subtitles = {c: size_text(first[c].n_sessions, 0).partition(",")[0] for c in columns}
    footnotes = [
        "CCC pooled over all frames of all test sessions of a corpus; mean ± std over seeds, in the "
        f"column {ALL} mean ± std over corpora [95 % bootstrap interval of sessions within corpora].",
        *notes,
        *(c.line() for c in found),
    ]
    return Table(columns, subtitles, rows, footnotes)


def read_corpora(texts: list[str]) -> dict[str, Scores]:
    """Parse ``NAME=SCORES_FOLDER`` and read all scores below; raises InputError."""
    corpora = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in corpora or name == ALL:
            raise InputError(
                f"--corpus {text} is not a new NAME=FOLDER", "write c1=results/c1/scores"
            )
        paths = sorted(Path(folder).glob("*/seed-*/*.json"))
        if not paths:
            raise InputError(
                f"{folder} holds no RUN/seed-N/DATASET.json",
                "run the workflow on this corpus first",
            )
        corpora[name] = read_scores(paths)
    return corpora


def evidence(
    corpus: list[str],
    sets: list[str],
    out_dir: Path,
    names: Names,
    notes: list[str],
    resamples: int = RESAMPLES,
    seed: int = SEED,
    strict: bool = False,
) -> list[Claim]:
    """Read, measure, print, and write evidence.{csv,md,tex}; with `strict` fail on a failed claim."""
    corpora = read_corpora(corpus)
    known = set.intersection(*(set(s) for s in corpora.values()))
    ordered = [getattr(names, f) for f in ("full", "without", "shuffled", "mlp", "constant")]
    optional = [names.shuffled, names.oracle]
    runs = [r for r in ordered if r in known or r not in optional]
    runs += sorted(r for r in known if r.startswith(names.oracle))
    results = measure(corpora, runs, sets, resamples, seed)
    found = claims(results, names)
    table = build_table(results, found, notes)
    write_text(out_dir / "evidence.csv", to_csv(table))
    write_text(out_dir / "evidence.tex", to_latex(table))
    text = to_markdown(table)
    write_text(out_dir / "evidence.md", text)
    print(text.replace("\\[", "[").replace("\\]", "]"))
    failed = [c.text for c in found if not c.holds]
    missing = [r for r in optional if r not in known]
    if strict and (failed or missing):
        what = failed or [f"no scores of {r}" for r in missing]
        raise InputError(
            f"the evidence does not come out: {'; '.join(what)}",
            f"see {out_dir / 'evidence.md'}; find out why before changing anything else",
        )
    return found


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.evidence",
        description="Compare runs over several demo corpora and seeds, with paired intervals.",
    )
    add = parser.add_argument
    add(
        "--corpus",
        action="append",
        required=True,
        metavar="NAME=FOLDER",
        help="a corpus and its scores folder (RUN/seed-N/DATASET.json below); repeat per corpus",
    )
    add(
        "--sets",
        nargs="+",
        default=["noxi/test", "noxi-add/test", "mpiigi/test"],
        metavar="DATASET/SPLIT",
        help="sets whose sessions count",
    )
    for name, default in vars(Names()).items():
        add(f"--{name}", default=default, help=f"name of this run (default: {default})")
    add("--note", action="append", default=[], help="footnote; repeatable")
    add("--resamples", type=int, default=RESAMPLES, help="bootstrap resamples of sessions")
    add("--bootstrap-seed", type=int, default=SEED, help="seed of the bootstrap")
    add("--strict", action="store_true", help="exit with status 1 when a claim does not hold")
    add("--out-dir", type=Path, default=Path("results/tables/evidence"), help="folder to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.evidence",
        build_parser(),
        lambda a: evidence(
            a.corpus,
            a.sets,
            a.out_dir,
            Names(**{name: getattr(a, name) for name in vars(Names())}),
            a.note,
            a.resamples,
            a.bootstrap_seed,
            a.strict,
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
