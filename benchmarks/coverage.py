"""How often intervals from few sessions hold the true value: a simulation, printed as a table.

python -m benchmarks.coverage [--repeats 1000] [--resamples 2000] [--seed 0]

Sessions are drawn from a population of which the true CCC is known (that of very many sessions).
Each has two people. Level and spread of engagement and bias and skill of the model differ between
sessions and people as much as `sample` says, which is assumed and not measured. `heavy` makes one
session in ten one on which the model is far off. Of every sample an interval of the CCC, of the
paired difference of two models, and of the mean CCC over three sets is made: by
`evaluation.bootstrap` ("expanded"), and by scipy.stats.bootstrap as plain percentile and BCa
interval (of the CCC of one set). 95 % is right; the standard error of a percentage is 0.7 at 1,000
repeats.
"""

import argparse
import sys

import numpy as np
from scipy.stats import bootstrap

from evaluation.bootstrap import Draws, interval, mean_draws, pooled_ccc, seed_mean_draws
from evaluation.metrics import Moments, merge_all
from runtime.job import add_job_arguments, run_job

SESSIONS = (5, 10, 16, 32)
SETS = 3  # of the mean
POPULATION = 20_000  # sessions that stand for all


def sample(rng: np.random.Generator, n: int, heavy: bool) -> tuple[list[Moments], list[Moments]]:
    """Sessions (n) of two models on the same frames; the second follows the truth less closely."""
    a, b = [], []
    for level, bias in zip(rng.normal(0.5, 0.08, n), rng.normal(0, 0.07, n), strict=True):
        far_off = 3.0 if heavy and rng.random() < 0.1 else 1.0
        people_a, people_b = [], []
        for _ in range(2):
            frames = int(rng.integers(10_000, 40_000))
            truth = level + rng.normal(0, 0.08)
            variance = 0.012 * np.exp(rng.normal(0, 0.6))
            skill, ratio = rng.normal(0.7, 0.5), 0.7 * np.exp(rng.normal(0, 0.4))
            given = (frames, truth, 0.5 + 0.7 * (truth - 0.5) + rng.normal(0, 0.05), variance)
            people_a.append(_moments(*given, far_off * bias, skill, ratio))
            shift, less = rng.normal(0.02, 0.03), rng.normal(0.15, 0.1)
            people_b.append(_moments(*given, far_off * bias + shift, skill - less, ratio))
        a.append(merge_all(people_a))
        b.append(merge_all(people_b))
    return a, b


def _moments(frames, truth, prediction, variance, bias, skill, ratio) -> Moments:
    cross = np.tanh(skill) * variance * np.sqrt(ratio)
    spread = (frames * variance, frames * variance * ratio, frames * cross)
    return Moments(frames, truth, prediction + bias, *spread, abs_error=0.0)


def draws_of(sessions: list[Moments], name: str, resamples: int) -> Draws:
    named = {f"{i:03d}": m for i, m in enumerate(sessions)}
    return seed_mean_draws([named], name, resamples)


def by_scipy(sessions: list[Moments], method: str, resamples: int, rng) -> tuple[float, float]:
    """Interval of the pooled CCC; scipy resamples the sessions' numbers."""

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        drawn = np.moveaxis(drawn, axis, -1)
        rows = drawn.reshape(-1, drawn.shape[-1])
        counts = np.stack([(rows == i).sum(axis=1) for i in range(len(sessions))], axis=1)
        return pooled_ccc(sessions, counts).reshape(drawn.shape[:-1])

    found = bootstrap(
        (np.arange(len(sessions)),),
        statistic,
        n_resamples=resamples,
        method=method,
        rng=rng,
    ).confidence_interval
    return found.low, found.high


def coverage(n: int, heavy: bool, repeats: int, resamples: int, seed: int) -> dict[str, float]:
    """Share (0..1) of intervals from n sessions that hold the true value, per kind of interval."""
    rng = np.random.default_rng([seed, n, heavy])
    ccc_a, ccc_b = (merge_all(x).ccc for x in sample(rng, POPULATION, heavy))
    hits: dict[str, list[bool]] = {}
    for repeat in range(repeats):
        sets = [sample(rng, n, heavy) for _ in range(SETS)]
        # Another name gives other resamples, as another set has.
        draws = [
            [draws_of(x, f"{repeat}/{k}", resamples) for x in pair] for k, pair in enumerate(sets)
        ]
        bounds = {
            "percentile": (by_scipy(sets[0][0], "percentile", resamples, rng), ccc_a),
            "BCa": (by_scipy(sets[0][0], "BCa", resamples, rng), ccc_a),
            "expanded": (interval(draws[0][0]), ccc_a),
            "of a difference": (interval(draws[0][0] - draws[0][1]), ccc_a - ccc_b),
            "of a mean": (interval(mean_draws([d[0] for d in draws])), ccc_a),
        }
        for name, ((low, high), true) in bounds.items():
            hits.setdefault(name, []).append(low <= true <= high)
    return {name: float(np.mean(found)) for name, found in hits.items()}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage",
        description="How often intervals from few sessions hold the true value.",
    )
    add = parser.add_argument
    add("--repeats", type=int, default=1000, help="samples of sessions per row (1000)")
    add("--resamples", type=int, default=2000, help="bootstrap resamples of each (2000)")
    add("--seed", type=int, default=0, help="seed of the simulation (0)")
    add_job_arguments(parser)
    return parser


def report(repeats: int, resamples: int, seed: int) -> None:
    for i, (heavy, n) in enumerate((h, n) for h in (False, True) for n in SESSIONS):
        found = coverage(n, heavy, repeats, resamples, seed)
        if i == 0:
            print(f"| sessions | {' | '.join(found)} |\n|{'---|' * (1 + len(found))}")
        cells = " | ".join(f"{100 * share:.1f}" for share in found.values())
        print(f"| {n}{' (heavy)' if heavy else ''} | {cells} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "benchmarks.coverage",
        build_parser(),
        lambda a: report(a.repeats, a.resamples, a.seed),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
