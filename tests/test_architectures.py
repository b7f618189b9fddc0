"""What every model must hold, whatever it computes: one test per property, run over all of them."""

import importlib

import pytest
import torch

from model.batch import Batch
from model.configs import architecture, model_config, model_names
from model.registry import build, count_parameters
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
NAMES = model_names()
L = 24
WINDOW = {"training": {"window": L, "core": 8}}


def make(name, seed=0, features=tuple(SMALL), **extra):
    torch.manual_seed(seed)
    settings = {"preset": "demo", "features": list(features), "model": {"name": name}, **WINDOW}
    return build(parse(settings | extra), {f: SMALL[f] for f in features}).eval()


def make_batch(people=6, seed=0, targets=(0, 1), partners=((1, 2), (0, 3))):
    g = torch.Generator().manual_seed(seed)
    width = max((len(p) for p in partners), default=0)
    rows = [[*p, *[-1] * (width - len(p))] for p in partners]
    return Batch(
        {name: torch.randn(people, L, dim, generator=g) for name, dim in SMALL.items()},
        {name: torch.ones(people, L, dtype=torch.bool) for name in SMALL},
        torch.ones(people, L, dtype=torch.bool),
        torch.tensor(targets),
        torch.tensor(rows, dtype=torch.long).view(len(targets), width),
        torch.rand(len(targets), L, generator=g),
        torch.ones(len(targets), L, dtype=torch.bool),
    )


def score(model, batch):
    with torch.no_grad():
        return model(batch)["engagement"]


def test_a_model_is_a_module_of_settings_and_one_of_the_network():
    for name in NAMES:
        assert importlib.import_module(architecture(name)).Model
        assert set(model_config(name).PRESETS) == {"paper", "demo"}
        assert set(model_config(name).TRAINING) == {"paper", "demo"}


@pytest.mark.parametrize("preset", ["paper", "demo"])
@pytest.mark.parametrize("name", NAMES)
def test_presets_resolve_and_resolving_again_changes_nothing(name, preset):
    settings = parse({"preset": preset, "model": {"name": name}})
    assert parse(settings.canonical()) == settings


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name):
    model, batch = make(name), make_batch()
    out = model.train()(batch)
    assert out["engagement"].shape == (2, L)
    assert torch.isfinite(out["engagement"]).all()
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in out["losses"].values())
    counts = count_parameters(model)
    assert sum(n for part, n in counts.items() if part != "total") == counts["total"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model, batch = make(name), make_batch()
    batch.valid["flow"][:, 3:6] = False  # so that what stands for absent frames is used
    for valid in batch.valid.values():
        valid[3, 7:9] = False
    model.train()
    torch.manual_seed(1)
    out = model(batch)
    if not list(model.parameters()):
        return
    (out["engagement"].square().mean() + sum(out["losses"].values())).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    unused = {n for n in without if "absent" not in n}
    assert not unused, unused


@pytest.mark.parametrize("name", NAMES)
def test_classification_gives_logits_per_class(name):
    out = make(name, task="classification", classes=4)(make_batch())
    assert out["logits"].shape == (2, L, 4)
    assert torch.equal(out["engagement"], out["logits"].argmax(-1).float())


@pytest.mark.parametrize("name", NAMES)
def test_padding_partners_change_nothing(name):
    model = make(name)
    alone = make_batch(partners=((), ()))
    padded = make_batch(partners=((-1, -1), (-1, -1)))
    assert torch.allclose(score(model, alone), score(model, padded), atol=1e-6)
    two, more = make_batch(), make_batch(partners=((1, 2, -1, -1), (0, 3, -1, -1)))
    assert torch.allclose(score(model, two), score(model, more), atol=1e-5)
    mixed = make_batch(partners=((1, -1), (0, 3)))
    single = make_batch(partners=((1,), (0,)))
    assert torch.allclose(score(model, mixed)[0], score(model, single)[0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_does_not_depend_on_the_others_in_its_batch(name):
    model = make(name)
    both = make_batch()
    one = make_batch(targets=(0,), partners=((1, 2),))
    assert torch.allclose(score(model, both)[:1], score(model, one), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_valid_are_never_seen(name):
    model, clean, dirty = make(name), make_batch(), make_batch()
    for batch in (clean, dirty):
        batch.valid["flow"][:, 5:9] = False
        batch.valid["egemaps"][2] = False
    for stream, valid in dirty.valid.items():
        dirty.streams[stream][~valid] = float("nan")
    assert torch.allclose(score(model, clean), score(model, dirty), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_frames_outside_the_recording_are_never_seen(name):
    model, clean, dirty = make(name), make_batch(), make_batch()
    for i, batch in enumerate((clean, dirty)):
        batch.frames[:, :6] = False
        batch.frames[:, -4:] = False
        for stream in batch.streams:
            batch.streams[stream][:, :6] = 100.0 * i
            batch.streams[stream][:, -4:] = -7.0 * i
            batch.valid[stream][:, :6] = False
            batch.valid[stream][:, -4:] = False
    inside = slice(6, L - 4)
    assert torch.allclose(score(model, clean)[:, inside], score(model, dirty)[:, inside], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_partners_matter_where_the_model_says_so(name):
    model = make(name)
    here, there = make_batch(), make_batch()
    for stream in there.streams.values():
        # Both targets have one of these as partner. A ramp: a constant is taken out where a model
        # normalises whole windows (dat).
        stream[2:4] += torch.linspace(0.0, 1.0, L)[:, None]
    same = torch.allclose(score(model, here), score(model, there), atol=1e-7)
    assert same != model.dialogue


@pytest.mark.parametrize("features", [("egemaps",), ("clip_face",), ("egemaps", "wav2vec2")])
@pytest.mark.parametrize("name", NAMES)
def test_few_streams_are_enough(name, features):
    assert score(make(name, features=features), make_batch()).shape == (2, L)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model_and_names(name):
    a, b = make(name), make(name)
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
