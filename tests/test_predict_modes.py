"""Prediction of whole sessions: windows merged, carried and streamed, against plain loops."""

import json

import h5py
import numpy as np
import pytest
import torch
from model_data import DIMS, DYAD, write_session

from benchmarks import live as benchmark
from inference import predict as predict_module
from inference.config import parse_prediction
from inference.predict import finish, seam_steps
from inference.session import borders_of
from model.batch import Batch
from model.frame_model import FrameModel
from model.registry import build
from runtime import InputError
from store.session_spec import parse_specs
from training.model_file import save_model
from training.sessions import SessionReader
from training.settings import parse
from training.windows import Windows

torch.set_num_threads(1)  # small tensors: threads only wait for each other

FEW = {"window": 24, "core": 8}
GROUP = ("subjectPos1", "subjectPos2", "subjectPos3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two dyads of unequal length and a group of three."""
    results = tmp_path_factory.mktemp("modes")
    specs = [
        write_session(results, "noxi", "001", DYAD, 6.3, 0, labels=False),
        write_session(results, "noxi", "002", DYAD, 4.4, 0, labels=False),
        write_session(results, "mpiigi", "009", GROUP, 5.0, 0, labels=False),
    ]
    return results, specs


def save(path, domains=(), name="da_mamba", task=None, **model):
    torch.manual_seed(0)
    small = {"local_chunk": 8} if name == "da_mamba" else {}
    settings = parse(
        {
            "preset": "demo",
            "features": list(DIMS),
            "model": {"name": name} | small | model,
            "training": FEW,
            **(task or {}),
        }
    )
    network = build(settings, DIMS, domains)
    with torch.no_grad():
        network.label_mean.fill_(0.5)
        network.label_std.fill_(0.2)
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    metadata = {"run": "a", "seed": 3, "fingerprint": "f", "dims": DIMS, "domains": list(domains)}
    save_model(path, network.state_dict(), settings, metadata)
    return network.eval()


def run(corpus, folder, specs, *extra):
    argv = ["--checkpoint", str(folder / "m.safetensors"), "--sessions", *specs]
    argv += ["--results", str(corpus[0]), "--out", str(folder / "p.h5")]
    status = predict_module.main([*argv, "--log", str(folder / "log"), *extra])
    if status:
        return (folder / "log").read_text()
    with h5py.File(folder / "p.h5") as f:
        scores = {
            (s, r): (f[s][r]["engagement"][()], f[s][r]["valid"][()]) for s in f for r in f[s]
        }
        return scores, dict(f.attrs), json.loads((folder / "p.json").read_text())


def read_session(corpus, text):
    (spec,) = parse_specs([text])
    streams, valid = {}, {}
    with SessionReader(corpus[0], spec, list(DIMS), 25.0) as reader:
        for name in DIMS:
            both = [reader.read(role, name, 0, reader.n_frames) for role in spec.roles]
            streams[name] = torch.from_numpy(np.stack([values for values, _ in both]))
            valid[name] = torch.from_numpy(np.stack([ok for _, ok in both]))
    return spec, streams, valid


def one_pass(network, corpus, text, reach, domain=0, partners_from=None):
    """The whole session as one window: role -> engagement."""
    spec, streams, valid = read_session(corpus, text)
    people, L = len(spec.roles), valid["flow"].shape[1]
    frames = torch.ones(people, L, dtype=torch.bool)
    partners = torch.tensor([[(r + k) % people for k in range(1, people)] for r in range(people)])
    if partners_from:
        other, more, ok = read_session(corpus, partners_from)
        n = min(L, ok["flow"].shape[1])
        for name in DIMS:
            empty = torch.zeros(len(other.roles), L - n, DIMS[name])
            streams[name] = torch.cat([streams[name], torch.cat([more[name][:, :n], empty], 1)])
            gone = torch.zeros(len(other.roles), L - n, dtype=torch.bool)
            valid[name] = torch.cat([valid[name], torch.cat([ok[name][:, :n], gone], 1)])
        frames = torch.cat([frames, torch.arange(L).expand(len(other.roles), L) < n])
        partners = torch.tensor([[people + (r + 1) % len(other.roles)] for r in range(people)])
    batch = Batch(
        streams,
        valid,
        frames,
        torch.arange(people),
        partners,
        domain=torch.full((len(frames),), domain),
    )
    with torch.no_grad():
        K = network.config.prompts
        out = network.estimate(network.prompts(batch) if K else batch, reach=reach)
    return dict(zip(spec.roles, out["engagement"][:, K:].numpy(), strict=True))


CONFIGURATIONS = [
    {"partner_context": "separate"},
    {"partner_context": "interleave", "causal": True, "prompts": 3},
    {"partner_context": "separate", "causal": True, "partner_encoder": "separate"},
]


@pytest.mark.parametrize("mode", ["carry", "stream"])
@pytest.mark.parametrize("options", CONFIGURATIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_live_modes_equal_one_pass_over_the_session(corpus, tmp_path, monkeypatch, options, mode):
    monkeypatch.setattr("inference.session.PIECE", 40)
    network = save(tmp_path / "m.safetensors", ("noxi", "mpiigi"), **options)
    for specs, domain in ((corpus[1][:2], 1), (corpus[1][2:], 2)):
        scores, attributes, _ = run(corpus, tmp_path, specs, "--mode", mode)
        assert attributes["mode"] == mode
        for text in specs:
            for role, expected in one_pass(network, corpus, text, 24, domain).items():
                engagement, valid = scores[text.split(":")[0].split("/")[1], role]
                np.testing.assert_allclose(engagement, expected, atol=1e-5)
                assert valid.all() and engagement.dtype == np.float32
                assert engagement.std() > 1e-3


def test_partners_of_a_shorter_session_are_absent_from_its_end(corpus, tmp_path):
    network = save(tmp_path / "m.safetensors")
    one, two = corpus[1][:2]
    scores, _, _ = run(corpus, tmp_path, [one, two], "--mode", "carry", "--partners", "shuffled")
    for text, other in ((one, two), (two, one)):
        for role, expected in one_pass(network, corpus, text, 24, partners_from=other).items():
            engagement, _ = scores[text.split(":")[0].split("/")[1], role]
            np.testing.assert_allclose(engagement, expected, atol=1e-5)


def test_the_band_of_partner_context_is_an_option(corpus, tmp_path):
    network = save(tmp_path / "m.safetensors")
    text = corpus[1][0]
    scores, attributes, sidecar = run(
        corpus, tmp_path, [text], "--mode", "carry", "--partner-context", "5"
    )
    for role, expected in one_pass(network, corpus, text, 5).items():
        np.testing.assert_allclose(scores["001", role][0], expected, atol=1e-5)
    assert attributes["partner_context"] == 5 == sidecar["settings"]["partner_context"]
    wide, _, _ = run(corpus, tmp_path, [text], "--mode", "carry")
    assert np.abs(wide["001", "expert"][0] - scores["001", "expert"][0]).max() > 1e-4


def windows_one_by_one(network, corpus, text, merge):
    """frame -> values of the windows that hold it, by a plain loop."""
    settings = parse({"preset": "demo", "features": list(DIMS), "training": FEW})
    w = Windows(corpus[0], parse_specs([text]), settings, False)
    kept = {}
    with torch.no_grad():
        for targets, batch in w.in_order(0, 5):
            out = network(batch)
            values = out.get("logits", out["engagement"].unsqueeze(-1))
            if "logits" in out:
                values = values.softmax(-1)
            for i in range(len(targets)):
                for k in range(24):
                    frame = int(targets.window[i]) * 8 - 8 + k
                    if merge == "mean" or 8 <= k < 16:
                        kept.setdefault((int(targets.role[i]), frame), []).append(values[i, k])
    return w, kept


@pytest.mark.parametrize("merge", ["centre", "mean"])
@pytest.mark.parametrize("task", [None, {"task": "classification", "classes": 3}])
def test_windows_are_merged_as_said(corpus, tmp_path, merge, task):
    network = save(tmp_path / "m.safetensors", task=task)
    text = corpus[1][0]
    scores, _, sidecar = run(corpus, tmp_path, [text], "--merge", merge)
    w, kept = windows_one_by_one(network, corpus, text, merge)
    most = 0
    for r, role in enumerate(DYAD):
        engagement, _ = scores["001", role]
        assert len(engagement) == w.n_frames[0]
        for frame, value in enumerate(engagement):
            every = torch.stack(kept[r, frame])
            most = max(most, len(every))
            mean = every.mean(0)
            expected = mean.argmax().item() if task else mean.item()
            assert value == pytest.approx(expected, abs=1e-5)
    assert most == (3 if merge == "mean" else 1)
    # Seams: where another set of windows holds the frame than before.
    holders = [
        {
            i
            for i in range(w.n_windows(0))
            if (8 * i <= t < 8 * i + 8 if merge == "centre" else 8 * i - 8 <= t < 8 * i + 16)
        }
        for t in range(w.n_frames[0])
    ]
    seams = [t for t in range(1, len(holders)) if holders[t] != holders[t - 1]]
    inside = [t for t in range(1, len(holders)) if t not in seams]
    steps = [np.abs(np.diff(e)) for e, _ in scores.values()]
    counts = sidecar["counts"]
    assert counts["step_at_seams"] == pytest.approx(
        np.mean([d[t - 1] for d in steps for t in seams]), rel=1e-5
    )
    assert counts["step_inside"] == pytest.approx(
        np.mean([d[t - 1] for d in steps for t in inside]), rel=1e-5
    )
    assert "where windows meet" in (tmp_path / "log").read_text()


def test_steps_next_to_missing_frames_do_not_count():
    y = np.array([0, 1, 1, 5, 5, 2], np.float32)
    valid = np.array([1, 1, 1, 0, 1, 1], bool)
    at, inside = seam_steps({"a": (y, valid)}, np.array([0, 2, 4]))
    assert at.tolist() == [0.0] and inside.tolist() == [1.0, 3.0]


def test_smoothing_takes_valid_frames_alone():
    """Means over one frame to each side, by hand; a frame without input keeps its value."""
    y = np.array([1, 9, 3, 5, -7], np.float32)
    valid = np.array([1, 0, 1, 1, 0], bool)
    config = parse_prediction({"smooth_s": 3.0})
    assert finish(y, valid, config, 1.0).tolist() == [1.0, 9.0, 4.0, 4.0, -7.0]
    assert finish(y, np.ones(5, bool), config, 1.0) == pytest.approx([5, 13 / 3, 17 / 3, 1 / 3, -1])
    clipped = parse_prediction({"smooth_s": 3.0, "clip": True})
    assert finish(y, valid, clipped, 1.0).tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]


def test_absent_streams_follow_rate_and_seed(corpus, tmp_path):
    save(tmp_path / "m.safetensors")
    text = corpus[1][:1]
    full, _, _ = run(corpus, tmp_path, text)
    some, attributes, sidecar = run(corpus, tmp_path, text, "--absent-rate", "0.4")
    assert attributes["absent_rate"] == 0.4 and attributes["absent_seed"] == 0
    assert sidecar["counts"]["absent_realised"] == pytest.approx(0.4, abs=0.005)
    assert np.abs(full["001", "expert"][0] - some["001", "expert"][0]).max() > 1e-4
    assert some["001", "expert"][1].all()
    again, _, _ = run(corpus, tmp_path, text, "--absent-rate", "0.4")
    other, _, _ = run(corpus, tmp_path, text, "--absent-rate", "0.4", "--absent-seed", "1")
    assert np.array_equal(again["001", "expert"][0], some["001", "expert"][0])
    assert not np.array_equal(other["001", "expert"][0], some["001", "expert"][0])


@pytest.mark.parametrize("n", [1, 7, 40, 41, 100])
@pytest.mark.parametrize("prompts, chunk", [(0, 0), (0, 8), (5, 8), (40, 8), (50, 8)])
def test_pieces_end_at_borders_of_chunks(n, prompts, chunk):
    borders = borders_of(n, 40, chunk, prompts)
    assert borders[0] == 0 and borders[-1] == n and borders == sorted(set(borders))
    assert all((b + prompts) % max(1, chunk) == 0 for b in borders[1:-1])


@pytest.mark.parametrize(
    "saved, arguments, words",
    [
        ({}, ["--mode", "carry", "--merge", "mean"], ["merge", "mode: window"]),
        ({}, ["--mode", "stream", "--absent-rate", "0.2"], ["absent_rate", "mode: window"]),
        ({}, ["--partner-context", "9"], ["partner_context", "carry"]),
        ({}, ["--absent-rate", "0.9"], ["absent_rate", "0.8"]),
        ({"mixer": "bimamba"}, ["--mode", "carry"], ["mixer", "bimamba", "mode: window"]),
        ({"name": "mlp"}, ["--mode", "stream"], ["mlp", "mode: window"]),
        (
            {"partner_context": "concat"},
            ["--mode", "carry"],
            ["concat", "not causal", "interleave"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_cure(corpus, tmp_path, saved, arguments, words):
    save(tmp_path / "m.safetensors", **saved)
    log = run(corpus, tmp_path, corpus[1][2:], *arguments)
    assert isinstance(log, str) and all(word in log for word in words), log
    assert not (tmp_path / "p.h5").exists()


def test_settings_of_prediction_are_checked():
    with pytest.raises(InputError, match=r"(?s)prediction.mode.*carry"):
        parse_prediction({"mode": "cary"})
    assert parse_prediction({"mode": "carry", "partner_context": 50}).partner_context == 50


def test_the_benchmark_prints_times_and_look_ahead(tmp_path, capsys):
    argv = ["--settings", '{"preset": "demo"}', "--frames", "40", "--people", "2", "3"]
    argv += ["--repeats", "1", "--minutes", "0", "--log", str(tmp_path / "log"), "--threads", "1"]
    assert benchmark.main(argv) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["2", "2", "3", "3"]
    assert [float(row[-2]) for row in rows] == [0, 1240, 0, 1240]  # 31 of 25 frames a second
    for row in rows:
        mean, median, worst = (float(word) for word in row[-6:-3])
        assert 0 < mean <= worst and median <= worst


def test_both_sides_of_the_session_benchmark_predict_the_same_frames(monkeypatch):
    monkeypatch.setattr(benchmark, "SAMPLE", 64)
    monkeypatch.setattr(benchmark, "PIECE", 32)
    config, shapes = parse({"preset": "demo", "model": {"partner_context": "separate"}}), []
    result = FrameModel.result

    def spy(self, *args):
        shapes.append(tuple(args[0].shape[:2]))
        return result(self, *args)

    monkeypatch.setattr(FrameModel, "result", spy)
    benchmark.session_work(config, True, torch.device("cpu"))()
    assert shapes == [(2, 32), (2, 32)]  # 64 frames of two people
    shapes.clear()
    benchmark.session_work(config, False, torch.device("cpu"))()
    assert shapes == [(2 * 64 // config.training.core, config.training.window)]
