"""Domain prompts: frames per corpus before every window, cut off again, for every model with time."""

import json
from dataclasses import replace

import h5py
import pytest
import torch
from model_data import DIMS, DYAD, write_corpus, write_session

from inference import predict as predict_module
from model.batch import Batch
from model.checkpoint import load_tensors
from model.configs import model_config, model_names
from model.prompts import conversations
from model.registry import build, count_parameters
from runtime import InputError
from store.session_spec import parse_specs
from training import statistics as statistics_module
from training import train as train_module
from training.model_file import load_model
from training.settings import parse
from training.windows import Windows

torch.set_num_threads(1)
FEATURES = {"egemaps": 5, "clip_face": 4}
L, K = 24, 3
NAMES = [name for name in model_names() if model_config(name).SEES_TIME]
DOMAINS = ("mpiigi", "noxi")


def make(name="da_mamba", prompts=K, dropout=0.0, domains=DOMAINS, seed=0):
    torch.manual_seed(seed)
    settings = {"preset": "demo", "features": list(FEATURES)}
    settings["model"] = {"name": name, "prompts": prompts, "prompt_dropout": dropout}
    settings["training"] = {"window": L, "core": 8}
    model = build(parse(settings), FEATURES, domains)
    statistics = {
        n: {"mean": torch.linspace(-3, 3, d), "std": torch.linspace(0.5, 4, d)}
        for n, d in FEATURES.items()
    }
    model.load_statistics(statistics, {"mean": 0.5, "std": 0.1})
    return model.eval()


def make_batch(R=4, seed=0, domain=(1, 1, 2, 2)):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        {n: torch.randn(R, L, d, generator=g) for n, d in FEATURES.items()},
        {n: torch.ones(R, L, dtype=torch.bool) for n in FEATURES},
        torch.ones(R, L, dtype=torch.bool),
        torch.arange(R),
        torch.tensor([[1], [0], [3], [2]]),
        torch.rand(R, L, generator=g),
        torch.ones(R, L, dtype=torch.bool),
        domain=torch.tensor(domain) if domain is not None else None,
    )


def score(model, batch):
    with torch.no_grad():
        return model(batch)["engagement"]


def test_the_window_follows_the_prompt_unchanged():
    model, batch = make(), make_batch()
    batch.frames[1, :5] = False
    batch.valid["egemaps"][1, :5] = batch.valid["clip_face"][1, :5] = False
    long = model.prompts(batch)
    assert long.prompts == K and long.label is None and long.target is batch.target
    assert long.frames.shape == (4, K + L)
    assert long.frames[:, :K].all() and torch.equal(long.frames[:, K:], batch.frames)
    assert not long.recorded[:, :K].any() and torch.equal(long.recorded[:, K:], batch.frames)
    assert torch.equal(batch.recorded, batch.frames)
    for name, stream in model.prompts.streams.items():
        assert torch.equal(long.streams[name][:, K:], batch.streams[name])
        assert long.valid[name][:, :K].all()
        assert torch.equal(long.valid[name][:, K:], batch.valid[name])
        # What a model reads after its own normalisation is the learned value.
        mean, std = stream.normalise.mean, stream.normalise.std
        assert torch.equal(mean, torch.linspace(-3, 3, FEATURES[name]))
        read = (long.streams[name][:, :K] - mean) / std
        assert torch.allclose(read, stream.prompt[batch.domain - 1], atol=1e-5)
    moved = long.to("cpu")
    assert moved.prompts == K and torch.equal(moved.domain, batch.domain)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_with_time_reads_prompts(name):
    model, batch = make(name), make_batch()
    out = model(batch)
    assert out["engagement"].shape == (4, L) and torch.isfinite(out["engagement"]).all()
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in out["losses"].values())
    other = score(model, replace(batch, domain=torch.tensor([2, 2, 1, 1])))
    assert not torch.allclose(other, out["engagement"], atol=1e-7)
    model.train()
    (model(batch)["engagement"].square().sum()).backward()
    for stream in model.prompts.streams.values():
        assert (stream.prompt.grad.abs().amax(-1) > 0).all()  # every frame of both domains
    counts = count_parameters(model)
    assert counts["domain prompts"] == 2 * K * sum(FEATURES.values())
    assert sum(n for part, n in counts.items() if part != "total") == counts["total"]


@pytest.mark.parametrize("name", NAMES)
def test_frames_outside_the_recording_stay_unseen_behind_a_prompt(name):
    model, clean, dirty = make(name), make_batch(), make_batch()
    for i, batch in enumerate((clean, dirty)):
        batch.frames[:, :6] = batch.frames[:, -4:] = False
        for stream in batch.streams:
            batch.streams[stream][:, :6] = batch.streams[stream][:, -4:] = 100.0 * i
            batch.valid[stream][:, :6] = batch.valid[stream][:, -4:] = False
    inside = slice(6, L - 4)
    assert torch.allclose(score(model, clean)[:, inside], score(model, dirty)[:, inside], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_model_count_no_prompt_frame(name):
    """Where the recording has no frame, nothing is left to count."""
    model, batch = make(name).train(), make_batch()
    batch.frames[:] = False
    for valid in batch.valid.values():
        valid[:] = False
    assert {k: v.item() for k, v in model(batch)["losses"].items() if v.item() != 0.0} == {}


@pytest.mark.parametrize("name", NAMES)
def test_without_prompts_nothing_changes(name):
    with_prompts, without = make(name), make(name, prompts=0)
    plain = {n: t for n, t in with_prompts.state_dict().items() if not n.startswith("prompts.")}
    assert plain.keys() == without.state_dict().keys()
    assert all(torch.equal(t, without.state_dict()[n]) for n, t in plain.items())  # same start
    batch = make_batch()
    ignored = score(without, replace(batch, domain=None))
    assert torch.equal(score(without, batch), ignored)


def test_unknown_domains_get_the_mean_or_the_learned_unknown_prompt():
    batch = make_batch(domain=(0, 0, 0, 0))
    model = make()
    for name, stream in model.prompts.streams.items():
        values = model.prompts(batch).streams[name][:, :K]
        z = (values - stream.normalise.mean) / stream.normalise.std
        assert torch.allclose(z, stream.prompt.mean(0).expand_as(z), atol=1e-5)
    learned = make(dropout=0.3)
    for name, stream in learned.prompts.streams.items():
        assert stream.prompt.shape == (3, K, FEATURES[name])
        values = learned.prompts(batch).streams[name][:, :K]
        z = (values - stream.normalise.mean) / stream.normalise.std
        assert torch.allclose(z, stream.prompt[0].expand_as(z), atol=1e-5)
    nobody = replace(batch, domain=None)
    assert torch.equal(score(learned, nobody), score(learned, batch))


def test_a_conversation_is_hidden_as_a_whole_at_the_set_rate():
    R = 4000
    batch = Batch(
        {n: torch.zeros(R, 2, d) for n, d in FEATURES.items()},
        {n: torch.ones(R, 2, dtype=torch.bool) for n in FEATURES},
        torch.ones(R, 2, dtype=torch.bool),
        torch.arange(0, R, 2),
        torch.arange(1, R, 2)[:, None],
        domain=torch.full((R,), 2),
    )
    prompts = make(dropout=0.25).prompts
    unknown = prompts(replace(batch, domain=torch.zeros(R, dtype=torch.long))).streams["egemaps"]
    torch.manual_seed(0)
    seen = prompts.train()(batch).streams["egemaps"]
    hidden = (seen[:, :K] == unknown[:, :K]).flatten(1).all(1)  # (R,)
    assert torch.equal(hidden[0::2], hidden[1::2])
    assert hidden.double().mean().item() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)
    assert not (prompts.eval()(batch).streams["egemaps"][:, :K] == unknown[:, :K]).any()


def test_conversations_are_the_connected_rows():
    """Oracle: union-find by hand over targets and partners."""
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows = torch.randint(-1, 12, (4, 4), generator=g)
        rows[:, 0] = rows[:, 0].clamp(min=0)
        group = list(range(12))
        for _ in range(12):
            for row in rows.tolist():
                members = [r for r in row if r >= 0]
                low = min(group[r] for r in members)
                for r in members:
                    group[r] = low
        frames = torch.ones(12, 1, dtype=torch.bool)
        assert conversations(Batch({}, {}, frames, rows[:, 0], rows[:, 1:])).tolist() == group


def test_models_without_time_and_useless_settings_are_refused():
    for name in ("mlp", "constant"):
        with pytest.raises(InputError, match="every frame for itself"):
            parse({"model": {"name": name, "prompts": 2}})
    with pytest.raises(InputError, match="prompt_dropout"):
        parse({"model": {"name": "da_mamba", "prompt_dropout": 0.2}})


# ---- a run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    results = tmp_path_factory.mktemp("prompts")
    train = [*write_corpus(results, 1, 8.0), *write_corpus(results, 1, 8.0, 5, dataset="mpiigi")]
    test = [write_session(results, "noxij", "201", DYAD, 6.0, 1) + "@test"]
    argv = ["--sessions", *train, "--features", *DIMS, "--results", str(results)]
    argv += ["--out", str(results / "s.h5"), "--log", str(results / "s.log")]
    assert statistics_module.main(argv) == 0
    return results, train, test


def run_training(corpus, folder, extra=(), **model):
    results, train, test = corpus
    small = {"d": 8, "heads": 2, "context_width": 8, "state": 4}
    config = {"preset": "demo", "features": list(DIMS), "model": small | model}
    config["training"] = {"epochs": 2, "batch": 8, "window": 48, "core": 16}
    argv = ["--settings", json.dumps(config), "--train", *train]
    argv += ["--validate", test[0].removesuffix("@test"), "--results", str(results)]
    argv += ["--statistics", str(results / "s.h5"), "--seed", "3", "--run", "a"]
    argv += ["--out", str(folder / "m.safetensors"), "--history", str(folder / "h.jsonl")]
    return train_module.main([*argv, "--log", str(folder / "log.txt"), *extra])


OPTIONS = {"prompts": K, "prompt_dropout": 0.3, "absent_rate": 0.4}


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert run_training(corpus, folder, **OPTIONS) == 0
    return folder


def test_the_file_knows_its_domains_and_prediction_says_what_is_unseen(corpus, trained, tmp_path):
    results, train, test = corpus
    _, metadata = load_tensors(trained / "m.safetensors")
    assert metadata["domains"] == ["mpiigi", "noxi"]
    model = load_model(trained / "m.safetensors")
    w = Windows(
        results, parse_specs([*train, *test]), model.settings, False, domains=metadata["domains"]
    )
    domain_of = {"mpiigi": 1, "noxi": 2, "noxij": 0}
    for session, spec in enumerate(w.specs):
        _, batch = next(w.in_order(session, 4))
        assert batch.domain.tolist() == [domain_of[spec.dataset]] * len(batch.frames)
    start = model.model.prompts.streams["flow"].prompt
    torch.manual_seed(3)
    fresh = build(model.settings, model.dims, metadata["domains"])
    moved = (start - fresh.prompts.streams["flow"].prompt).abs().amax((1, 2))
    assert (moved > 1e-4).all()  # the unknown one and both corpora were trained
    for specs, unseen in ((test, True), ([train[0] + "@val"], False)):
        out = tmp_path / f"{unseen}.h5"
        argv = ["--checkpoint", str(trained / "m.safetensors"), "--sessions", *specs]
        argv += ["--results", str(results), "--out", str(out), "--log", str(out) + ".log"]
        assert predict_module.main(argv) == 0
        assert ("unknown prompt" in (tmp_path / f"{unseen}.h5.log").read_text()) == unseen
        with h5py.File(out) as f:
            session = f[parse_specs(specs)[0].session]
            assert len(session["expert/engagement"]) == len(session["expert/time"])


def test_a_file_without_prompts_holds_nothing_of_them(corpus, tmp_path):
    assert run_training(corpus, tmp_path) == 0
    tensors, metadata = load_tensors(tmp_path / "m.safetensors")
    assert "domains" not in metadata and not any("prompt" in name for name in tensors)
    assert load_model(tmp_path / "m.safetensors").model.prompts is None


@pytest.mark.parametrize("after", [1, 4])
def test_resumed_training_with_drawn_options_equals_an_uninterrupted_one(
    corpus, trained, tmp_path, monkeypatch, after
):
    extra = ["--checkpoint-dir", str(tmp_path / "cache"), "--save-every-s", "0"]
    optimise, calls = train_module.optimise, []

    def interrupted(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return optimise(*args)

    monkeypatch.setattr(train_module, "optimise", interrupted)
    assert run_training(corpus, tmp_path, extra, **OPTIONS) == 130
    monkeypatch.setattr(train_module, "optimise", optimise)
    torch.manual_seed(999)  # the random state must come from the checkpoint
    assert run_training(corpus, tmp_path, extra, **OPTIONS) == 0
    for name in ("m.safetensors", "h.jsonl"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()
