"""Missing streams: exact rates, nobody without any, every admissible pattern equally likely."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from model_data import DIMS, DYAD, write_corpus, write_session
from scipy.stats import chisquare

from model.batch import Batch
from model.missing import AbsentStreams, absent_pattern, drop_in_training, drop_streams
from model.registry import build
from runtime import InputError
from store.session_spec import parse_specs
from training import statistics as statistics_module
from training import train as train_module
from training.losses import ccc
from training.model_file import load_model
from training.settings import parse
from training.windows import Windows

torch.set_num_threads(1)
CASES = list(
    itertools.product([1, 2, 7, 64, 4001], [1, 2, 3, 5], [0.0, 0.1, 0.37, 0.5, 2 / 3, 0.8])
)


@pytest.mark.parametrize("units, streams, rate", CASES)
def test_the_rate_is_exact_and_everybody_keeps_a_stream(units, streams, rate):
    if rate > (streams - 1) / streams + 1e-9:
        with pytest.raises(InputError, match="must stay"):
            absent_pattern(units, streams, rate, 0)
        return
    absent = absent_pattern(units, streams, rate, 5)
    assert absent.shape == (units, streams) and absent.dtype == bool
    assert absent.sum() == round(rate * units * streams)
    assert not absent.all(axis=1).any()


@pytest.mark.parametrize("units, streams, dropped", [(2, 3, 2), (2, 3, 3), (3, 3, 5), (4, 2, 2)])
def test_every_admissible_pattern_is_equally_likely(units, streams, dropped):
    """Oracle: all patterns by enumeration; chi-square over fixed seeds."""
    cells = units * streams
    admissible = {}
    for chosen in itertools.combinations(range(cells), dropped):
        pattern = np.zeros(cells, bool)
        pattern[list(chosen)] = True
        if not pattern.reshape(units, streams).all(axis=1).any():
            admissible[pattern.tobytes()] = 0
    draws = 60 * len(admissible)
    for seed in range(draws):
        admissible[absent_pattern(units, streams, dropped / cells, seed).tobytes()] += 1
    assert sum(admissible.values()) == draws
    assert chisquare(list(admissible.values())).pvalue > 1e-3


def test_large_jobs_are_drawn_quickly_and_evenly():
    absent = absent_pattern(200_000, 5, 0.3, 1)
    assert absent.sum() == 300_000
    share = absent.mean(axis=0)
    assert np.abs(share - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / 200_000)
    # Rows of a uniform pattern: Binomial(5, p) without its last value, with p such that the mean
    # is 1.5; the share that lose nothing distinguishes it from "one kept, the rest at random".
    p = 0.3
    for _ in range(100):
        p = 0.3 * (1 - p**5) / (1 - p**4)
    expected = (1 - p) ** 5 / (1 - p**5)
    assert (absent.sum(axis=1) == 0).mean() == pytest.approx(expected, abs=0.005)


def test_the_seed_decides():
    assert (absent_pattern(50, 5, 0.4, 1) == absent_pattern(50, 5, 0.4, 1)).all()
    assert (absent_pattern(50, 5, 0.4, 1) != absent_pattern(50, 5, 0.4, 2)).any()


def test_too_high_a_rate_names_the_largest():
    for call in (
        lambda: absent_pattern(10, 3, 0.7, 0, "prediction.absent_rate"),
        lambda: parse({"features": ["a", "b", "c"], "model": {"name": "mlp", "absent_rate": 0.7}}),
        lambda: parse({"features": ["a"], "model": {"name": "mlp", "absent_rate": 0.1}}),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "absent_rate is 0." in error.value.problem
        assert "2/3" in error.value.cure or "0/1" in error.value.cure
    parse({"features": ["a", "b", "c"], "model": {"name": "mlp", "absent_rate": 0.666666667}})
    with pytest.raises(InputError, match="absent_rate"):
        absent_pattern(10, 3, -0.1, 0)


def small_batch(R=6, L=10, seed=0):
    g = torch.Generator().manual_seed(seed)
    dims = {"egemaps": 3, "clip_face": 4, "flow": 2}
    return Batch(
        {n: torch.randn(R, L, d, generator=g) for n, d in dims.items()},
        {n: torch.rand(R, L, generator=g) > 0.2 for n in dims},
        torch.ones(R, L, dtype=torch.bool),
        torch.arange(0, R, 2),
        torch.arange(1, R, 2)[:, None],
    )


def test_dropped_cells_are_invalid_and_nothing_else_changes():
    batch = small_batch()
    names = list(batch.streams)
    absent = torch.from_numpy(absent_pattern(6, 3, 0.5, 3))
    dropped = drop_streams(batch, absent, names)
    for m, name in enumerate(names):
        for r in range(6):
            expected = torch.zeros(10, dtype=torch.bool) if absent[r, m] else batch.valid[name][r]
            assert torch.equal(dropped.valid[name][r], expected)
        assert dropped.streams[name] is batch.streams[name]
    assert dropped.frames is batch.frames
    assert any(not torch.equal(dropped.valid[n], batch.valid[n]) for n in names)


def test_training_draws_from_torchs_random_state():
    batch, names = small_batch(), ["egemaps", "clip_face", "flow"]

    def draw(seed):
        torch.manual_seed(seed)
        valid = drop_in_training(batch, 0.5, names).valid
        return torch.stack([valid[n].any(1) for n in names], 1)  # (R, M) kept

    assert torch.equal(draw(1), draw(1)) and (~draw(1)).sum() == 9
    assert any(not torch.equal(draw(1), draw(s)) for s in range(2, 6))


@pytest.mark.parametrize("name", ["da_mamba", "mlp"])
def test_models_drop_streams_in_training_only(name):
    features = {"egemaps": 3, "clip_face": 4, "flow": 2}
    config = {"preset": "demo", "features": list(features)}
    model = {"name": name, "dropout": 0.0, "input_shift": 0.0, "absent_rate": 0.5}
    torch.manual_seed(0)
    model = build(parse(config | {"model": model}), features)
    seen = []
    inner = model.estimate
    model.estimate = lambda batch: seen.append(batch.valid) or inner(batch)
    batch = small_batch()
    model.train()(batch)
    kept = torch.stack([v.any(1) for v in seen[-1].values()], 1)
    assert (~kept).sum() == 9 and kept.any(1).all()
    out = model.eval()(batch)["engagement"]
    assert seen[-1] is batch.valid and torch.isfinite(out).all()


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    results = tmp_path_factory.mktemp("missing")
    specs = write_corpus(results, 2, 9.0)
    specs.append(write_session(results, "noxi", "003", ("a", "b", "c"), 7.3, 4))
    settings = parse({"preset": "demo", "features": list(DIMS)})

    def make(partners="own"):
        return Windows(results, parse_specs(specs), settings, False, partners, 1)

    return make


def dropped_cells(windows, absent, size):
    found = {}
    for session in range(len(windows.specs)):
        for _, batch in windows.in_order(session, size):
            after = absent.drop(batch)
            for r, unit in enumerate(batch.person.tolist()):
                cell = tuple(bool(after.valid[n][r].any()) for n in windows.dims)
                assert found.setdefault(tuple(unit), cell) == cell  # target and partner agree
    return found


@pytest.mark.parametrize("partners", ["own", "shuffled"])
def test_prediction_loses_exactly_the_rate_whatever_the_batch(windows, partners):
    windows = windows(partners)
    units = windows.person_windows()
    absent = AbsentStreams(units, windows.dims, 0.6, 7)
    assert absent.realised == pytest.approx(0.6, abs=0.5 / len(units) / 5 + 1e-9)
    one, other = (dropped_cells(windows, absent, size) for size in (5, 64))
    assert one == other and set(one) == units
    lost = sum(not kept for cells in one.values() for kept in cells)
    assert lost == round(0.6 * len(units) * 5) == round(absent.realised * len(units) * 5)
    again = AbsentStreams(units, windows.dims, 0.6, 7)
    assert torch.equal(again.absent, absent.absent)
    assert not torch.equal(AbsentStreams(units, windows.dims, 0.6, 8).absent, absent.absent)


def test_rows_of_a_batch_know_whose_window_they_are(windows):
    windows = windows()
    assert len(windows.specs) == 3 and windows.specs[0].roles == DYAD
    for session in range(3):
        for targets, batch in windows.in_order(session, 7):
            person = batch.person[batch.target].tolist()
            places = zip(targets.session, targets.role, targets.window, strict=True)
            assert person == [list(map(int, place)) for place in places]
            for row, (s, r, w) in enumerate(person):
                for partner in batch.partners[row].tolist():
                    if partner >= 0:
                        ps, pr, pw = batch.person[partner].tolist()
                        assert (ps, pw) == (s, w) and pr != r


@torch.no_grad()
def ccc_under_drops(checkpoint, results, specs, rate):
    model = load_model(checkpoint)
    w = Windows(results, parse_specs(specs), model.settings, True)
    absent = AbsentStreams(w.person_windows(), w.dims, rate, 0)
    centre = slice(w.context, w.context + w.core)
    parts = []
    for session in range(len(w.specs)):
        for _, batch in w.in_order(session, 64):
            score = model.model(absent.drop(batch))["engagement"]
            parts.append([x[:, centre].flatten() for x in (score, batch.label, batch.label_mask)])
    return float(ccc(*(torch.cat(x) for x in zip(*parts, strict=True))))


def test_training_with_dropped_streams_helps_where_streams_are_dropped(tmp_path):
    """Two streams show the same latent; with one of them gone the other must do. (Three seeds: CCC
    0.62, 0.61, 0.61 without and 0.68, 0.69, 0.67 with dropped streams in training.)"""
    train = write_corpus(tmp_path, 3, 16.0, seed=1)
    test = [write_session(tmp_path, "noxi", f"20{i}", DYAD, 16.0, 9) for i in range(2)]
    features, common = ["egemaps", "wav2vec2"], ["--results", str(tmp_path)]
    common += ["--log", str(tmp_path / "log.txt")]
    argv = ["--sessions", *train, "--features", *features, "--out", str(tmp_path / "s.h5")]
    assert statistics_module.main([*argv, *common]) == 0
    found = {}
    for rate in (0.0, 0.5):
        model = {"name": "mlp", "absent_rate": rate, "dropout": 0.2, "input_shift": 0.0}
        training = {"epochs": 6, "batch": 16, "window": 48, "core": 16}
        config = {"preset": "demo", "features": features, "model": model, "training": training}
        argv = ["--settings", json.dumps(config), "--train", *train, "--seed", "0"]
        argv += ["--statistics", str(tmp_path / "s.h5"), "--history", str(tmp_path / "h.jsonl")]
        out = tmp_path / f"{rate}.safetensors"
        assert train_module.main([*argv, "--out", str(out), *common]) == 0
        found[rate] = ccc_under_drops(out, tmp_path, test, 0.5)
    assert found[0.5] > found[0.0] + 0.03
