"""Paired comparisons, the evidence over several corpora, and the oracle's predictions."""

import csv
import json

import numpy as np
import pytest
from evaluation_data import write_labels, write_scores

from corpora.demo.composition import session_files
from evaluation import compare, evidence, oracle
from evaluation.bootstrap import resample_counts
from evaluation.compare import paired_difference
from evaluation.metrics import Moments
from evaluation.score import score
from runtime import InputError

SETS = ["noxi/test", "noxi-add/test", "mpiigi/test"]
GAINS = {  # how much of the truth each run follows
    "da_mamba": 0.95,
    "da_mamba_no_partner": 0.6,
    "da_mamba_shuffled": 0.6,
    "egemaps_mlp": 0.3,
    "constant": 0.0,
    "oracle": 1.0,
}


def concordance(x, y):
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def frames(corpus, run, seed, dataset, gain, n_sessions):
    """{session: {role: (truth, prediction)}}; the truth depends on corpus, set and session alone."""
    out = {}
    for k in range(n_sessions):
        truth = np.random.default_rng([corpus, len(dataset), k]).random(80)
        noise = np.random.default_rng([corpus, len(dataset), k, seed, len(run)]).random(80)
        prediction = 0.5 + gain * (truth - 0.5) + (1 - gain) * 0.2 * (noise - 0.5) * (gain > 0)
        out[f"{k:03d}"] = {"a": (truth, prediction)}
    return out


def write_corpus(folder, corpus, gains=GAINS, seeds=(1, 2)):
    for run, gain in gains.items():
        for seed in (0,) if run == "oracle" else seeds:
            for dataset, n in (("noxi", 6), ("noxi-add", 5), ("mpiigi", 1)):
                data = {"test": frames(corpus, run, seed, dataset, gain, n)}
                path = folder / f"c{corpus}" / run / f"seed-{seed}" / f"{dataset}.json"
                write_scores(path, run, seed, dataset, data)
    return f"c{corpus}={folder / f'c{corpus}'}"


def moments(pairs):
    return {str(i): Moments.of(x, y) for i, (x, y) in enumerate(pairs)}


def test_paired_difference_against_explicit_resampling():
    rng = np.random.default_rng(0)
    truths = [rng.random(50) for _ in range(6)]
    seeds_a = [[(t, 0.9 * t + 0.1 * rng.random(50)) for t in truths] for _ in range(2)]
    seeds_b = [[(t, 0.7 * t + 0.1 * rng.random(50)) for t in truths] for _ in range(3)]
    (found,) = paired_difference(
        {"s": [moments(p) for p in seeds_a]}, {"s": [moments(p) for p in seeds_b]}, 300
    )

    def value(seeds, counts):
        drawn = [i for i, c in enumerate(counts) for _ in range(c)]
        return np.mean(
            [
                concordance(*(np.concatenate([p[i][k] for i in drawn]) for k in (0, 1)))
                for p in seeds
            ]
        )

    draws = [value(seeds_a, c) - value(seeds_b, c) for c in resample_counts(6, "s", 300)]
    assert found.difference == pytest.approx(
        value(seeds_a, np.ones(6, int)) - value(seeds_b, np.ones(6, int)), abs=1e-10
    )
    # Of 6 sessions the quantiles lie sqrt(6 / 5) t(5) = 2.8159 standard deviations out.
    tails = [0.0024319, 1 - 0.0024319]
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, tails), abs=1e-6)


def test_pairing_narrows_the_interval():
    """Sessions differ more than runs: only a paired interval sees a small, steady gain."""
    rng = np.random.default_rng(1)
    a, b = [], []
    for _ in range(12):
        truth, noise = rng.random(200), rng.normal(0, rng.uniform(0.05, 0.5), 200)
        a.append((truth, truth + noise))
        b.append((truth, truth + 1.1 * noise))
    paired = paired_difference({"s": [moments(a)]}, {"s": [moments(b)]})[0]
    alone = [
        paired_difference({"s": [moments(x)]}, {"s": [moments([(t, t) for t, _ in x])]})[0]
        for x in (a, b)
    ]
    assert paired.low > 0
    assert paired.high - paired.low < 0.5 * (alone[0].high - alone[0].low)


def test_compare_prints_and_refuses(tmp_path, capsys):
    write_corpus(tmp_path, 1)
    folder = tmp_path / "c1"

    def of(run):
        return [str(p) for p in sorted(folder.glob(f"{run}/*/*.json"))]

    arguments = ["--scores-a", *of("da_mamba"), "--scores-b", *of("egemaps_mlp")]
    out = tmp_path / "out.json"
    assert compare.main([*arguments, "--out", str(out)]) == 0
    screen = capsys.readouterr().out
    assert (
        "da_mamba - egemaps_mlp" in screen and "(1 session, so no interval (it needs 5))" in screen
    )
    assert "(12 sessions)  no interval: a set has none" in screen
    found = json.loads(out.read_text())["differences"]
    assert [d["name"] for d in found] == ["mpiigi/test", "noxi-add/test", "noxi/test", "mean"]
    assert found[3]["difference"] == pytest.approx(np.mean([d["difference"] for d in found[:3]]))
    assert found[2]["low"] > 0 and found[0]["low"] is None and found[3]["low"] is None

    assert compare.main(["--scores-a", *of("*"), "--scores-b", *of("constant")]) == 1
    assert "one run" in capsys.readouterr().err
    shorter = {"test": frames(1, "x", 1, "noxi", 0.5, 2)}
    write_scores(tmp_path / "x.json", "x", 1, "noxi", shorter)
    with pytest.raises(InputError, match="not scored on the same frames of noxi/test"):
        compare.compare([*folder.glob("da_mamba/*/noxi.json")], [tmp_path / "x.json"])
    with pytest.raises(InputError, match="no scored session on mpiigi/test"):
        compare.compare(sorted(folder.glob("da_mamba/*/*.json")), [tmp_path / "x.json"])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return [write_corpus(folder, k) for k in (1, 2, 3)]


def run_evidence(corpora, out, **options):
    return evidence.evidence(
        corpora, SETS, out, evidence.Names(), ["a caveat"], resamples=400, **options
    )


def test_evidence_numbers(tmp_path, corpora, capsys):
    found = run_evidence(corpora, tmp_path, strict=True)
    assert all(claim.holds for claim in found) and len(found) == 8
    rows = {
        r["run"]: r for r in csv.DictReader((tmp_path / "evidence.csv").read_text().splitlines())
    }
    assert list(rows) == [*list(GAINS)[:5], "oracle"]
    expected = {}
    for run in ("da_mamba", "da_mamba_no_partner"):
        for corpus in (1, 2, 3):
            values = []
            for seed in (1, 2):
                pairs = [
                    roles["a"]
                    for dataset, n in (("noxi", 6), ("noxi-add", 5), ("mpiigi", 1))
                    for roles in frames(corpus, run, seed, dataset, GAINS[run], n).values()
                ]
                values.append(concordance(*(np.concatenate([p[i] for p in pairs]) for i in (0, 1))))
            expected[run, corpus] = np.mean(values)
            assert float(rows[run][f"c{corpus}"]) == pytest.approx(np.mean(values), abs=1e-6)
            assert rows[run][f"c{corpus} n_sessions"] == "12"
        mean = np.mean([expected[run, k] for k in (1, 2, 3)])
        assert float(rows[run]["all"]) == pytest.approx(mean, abs=1e-6)
    gain = np.mean(
        [expected["da_mamba", k] - expected["da_mamba_no_partner", k] for k in (1, 2, 3)]
    )
    assert found[0].difference == pytest.approx(gain, abs=1e-9)
    assert found[0].low < gain < found[0].high
    assert float(rows["constant"]["all"]) == 0
    screen = capsys.readouterr().out
    assert "da_mamba above da_mamba_no_partner" in screen and "a caveat" in screen


def test_evidence_that_does_not_come_out(tmp_path):
    """Claims can fail: a gain that shuffled partners give too, and a gain that is none."""
    gains = GAINS | {"da_mamba_shuffled": 0.95, "da_mamba_no_partner": 0.6}
    texts = [write_corpus(tmp_path / "a", k, gains) for k in (1, 2)]
    failed = [c.text for c in run_evidence(texts, tmp_path / "out") if not c.holds]
    assert len(failed) >= 1 and failed[0].startswith("no gain with shuffled partners")
    with pytest.raises(InputError, match="does not come out: no gain with shuffled"):
        run_evidence(texts, tmp_path / "out", strict=True)
    assert "DOES NOT HOLD" in (tmp_path / "out" / "evidence.md").read_text()
    gains = {k: v for k, v in GAINS.items() if k not in ("oracle", "da_mamba_shuffled")}
    texts = [write_corpus(tmp_path / "b", k, gains | {"da_mamba": 0.55}) for k in (1, 2)]
    found = run_evidence(texts, tmp_path / "out")
    assert not found[0].holds and found[0].difference < 0
    with pytest.raises(InputError, match="does not come out"):
        run_evidence(texts, tmp_path / "out", strict=True)


def test_evidence_bad_input(tmp_path, corpora):
    for bad in ("x", "x=", f"x={tmp_path}"):
        with pytest.raises(InputError):
            run_evidence([bad], tmp_path)
    with pytest.raises(InputError, match="not a new NAME"):
        run_evidence([corpora[0], corpora[0]], tmp_path)
    lacking = write_corpus(tmp_path / "l", 4, {"da_mamba": 0.9})
    with pytest.raises(InputError, match="no scores of run da_mamba_no_partner"):
        run_evidence([lacking], tmp_path)


def test_oracle_is_scored_like_a_run(tmp_path):
    """Oracle csv of the demo corpus -> predictions -> score, on time and against its own labels."""
    files = session_files("noxi", "002")
    truth = {}
    for role in ("expert", "novice"):
        values = np.random.default_rng(len(role)).random(100)
        path = tmp_path / "corpus" / files[role]["oracle"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{v:.6f}\n" for v in values))
        truth[role] = values + np.linspace(-0.01, 0.01, 100)
        write_labels(tmp_path, "noxi", "002", role, truth[role])
    out = tmp_path / "noxi.h5"
    arguments = ["--corpus", str(tmp_path / "corpus"), "--sessions", "noxi/002:expert,novice@test"]
    assert oracle.main([*arguments, "--out", str(out)]) == 0
    record = score(out, tmp_path, ["noxi/002:expert,novice@test"], None, [], tmp_path / "s.json")
    assert (record["run"], record["seed"]) == ("oracle", 0)
    assert record["splits"]["test"]["ccc"] > 0.99
    assert record["splits"]["test"]["mae"] == pytest.approx(0.005, abs=3e-4)
    first = out.read_bytes()
    oracle.main([*arguments, "--out", str(out)])
    assert out.read_bytes() == first
    assert oracle.main([*arguments, "--kind", "oracle_own", "--out", str(tmp_path / "own.h5")]) == 1
    assert not (tmp_path / "own.h5").exists()
