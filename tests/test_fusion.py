"""Plain fusion: each method against a loop, masks, equal encoders, sizes."""

import dataclasses

import pytest
import torch

from model.batch import Batch
from model.registry import build, count_parameters
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
DEMO = {"egemaps": 88, "wav2vec2": 64, "clip_face": 64, "flow": 160, "flow_magnitude": 33}
PAPER = {"egemaps": 88, "wav2vec2": 1024, "clip_face": 512, "flow": 714, "flow_magnitude": 139}
METHODS = ["average", "concat", "mamba", "cross_attention"]
L = 16


def make(method, features=tuple(SMALL), dims=SMALL, **model):
    torch.manual_seed(0)
    settings = {"preset": "demo", "features": list(features)}
    settings["model"] = {"name": "fusion", "method": method, **model}
    return build(parse(settings), {f: dims[f] for f in features}).eval()


def make_batch(partners=((1, 2), (0, 3)), people=6):
    g = torch.Generator().manual_seed(0)
    return Batch(
        {name: torch.randn(people, L, dim, generator=g) for name, dim in SMALL.items()},
        {name: torch.ones(people, L, dtype=torch.bool) for name in SMALL},
        torch.ones(people, L, dtype=torch.bool),
        torch.tensor([0, 1]),
        torch.tensor(partners, dtype=torch.long).view(2, -1),
    )


def tokens(model, M, B=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(B, M, L, model.config.d, generator=g)
    exists = torch.ones(B, M, L, dtype=torch.bool)
    exists[1, 0] = False  # a partner who is not there
    kind = torch.tensor([2, 3] * (M // 2 - 1) + [0, 1])
    return x, exists, kind


def test_average_and_concat_against_loops():
    model = make("average")
    x, exists, kind = tokens(model, 6)
    exists[1, 1] = False  # a person is there or not, with all groups
    got = model.join(x, exists, kind)
    for b in range(2):
        for t in range(L):
            persons = [(x[b, m, t] + x[b, m + 1, t]) / 2 for m in (0, 2) if exists[b, m, t]]
            own = (x[b, 4, t] + x[b, 5, t]) / 2
            expected = torch.cat([sum(persons) / len(persons), own])
            torch.testing.assert_close(got[b, t], expected)
    got = make("concat").join(x, exists, kind)
    for b in range(2):
        for t in range(L):
            slots = []
            for g in (0, 1):
                here = [x[b, m, t] for m in (g, g + 2) if exists[b, m, t]]
                slots.append(sum(here) / len(here))
            torch.testing.assert_close(got[b, t], torch.cat([*slots, x[b, 4, t], x[b, 5, t]]))


def test_mamba_scans_the_present_tokens_frame_by_frame():
    model = make("mamba")
    x, exists, kind = tokens(model, 4)
    exists[1, :, :3] = False
    got = model.join(x, exists, kind)
    for b in range(2):
        here = [(t, m) for t in range(L) for m in range(4) if exists[b, m, t]]
        h = torch.stack([x[b, m, t] for t, m in here]).unsqueeze(0)  # (1, present, d)
        for layer in model.fuse.layers:
            h = h + layer.mixer(layer.norm(h))
        h = model.fuse.norm(h)[0]
        for t in range(L):
            rows = [i for i, (frame, m) in enumerate(here) if frame == t and m >= 2]
            if rows:
                torch.testing.assert_close(got[b, t], h[rows].mean(0), atol=1e-5, rtol=0)


def test_cross_attention_asks_everybody_else():
    model = make("cross_attention")
    x, exists, _ = tokens(model, 4)
    before = model.fuse(x, exists)  # (B, G, L, d)
    own = x.clone()
    own[:, 2, 5] = torch.randn(2, model.config.d)  # the target's first group, at one frame
    after = model.fuse(own, exists)
    other_frames = torch.arange(L) != 5
    assert torch.equal(after[:, 0, other_frames], before[:, 0, other_frames])
    assert not torch.allclose(after[:, 1, other_frames], before[:, 1, other_frames], atol=1e-6)
    partner = x.clone()
    partner[:, 0] = torch.randn(2, L, model.config.d)
    changed = (model.fuse(partner, exists) - before).abs().amax((1, 2, 3))
    assert changed[0] > 1e-4 and changed[1] == 0  # the second window has no such partner


@pytest.mark.parametrize("participants", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_masks_and_gradients(method, participants):
    model, batch = make(method, participants=participants), make_batch()
    with torch.no_grad():
        bare = model(batch)["engagement"]
        padded = dataclasses.replace(
            batch, partners=torch.tensor([[-1, 1, -1, 2, 4], [0, 3, -1, -1, 4]])
        )
        padded.frames[4] = False
        padded.streams["flow"][4], padded.valid["flow"][4] = float("nan"), False
        got = model(padded)["engagement"]
        torch.testing.assert_close(got, bare, atol=1e-5, rtol=0)
        nobody = [model(make_batch(p))["engagement"] for p in (((), ()), ((-1,), (-1,)))]
        torch.testing.assert_close(*nobody, atol=1e-6, rtol=0)
        assert torch.allclose(nobody[0], bare, atol=1e-6) != participants
        assert model.dialogue == participants

        def pad(t, fill):
            ends = [torch.full((len(t), n, *t.shape[2:]), fill, dtype=t.dtype) for n in (3, 5)]
            return torch.cat([ends[0], t, ends[1]], dim=1)

        batch = make_batch()
        longer = dataclasses.replace(
            batch,
            streams={n: pad(t, float("nan")) for n, t in batch.streams.items()},
            valid={n: pad(t, False) for n, t in batch.valid.items()},
            frames=pad(batch.frames, False),
        )
        inside = model(longer)["engagement"][:, 3 : 3 + L]
        torch.testing.assert_close(inside, bare, atol=1e-5, rtol=0)
    batch = make_batch()
    batch.valid["flow"][:, 3:6] = False
    for valid in batch.valid.values():
        valid[1:4, 7:9] = False
    out = model.train()(batch)
    assert out["losses"] == {}
    out["engagement"].square().mean().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("method", METHODS)
def test_one_group_and_many_groups(method):
    alone = make(method, features=("egemaps",), participants=False)
    assert torch.isfinite(alone(make_batch())["engagement"]).all()
    three = {"a": ["egemaps"], "b": ["wav2vec2", "flow"], "c": ["clip_face", "flow_magnitude"]}
    assert torch.isfinite(make(method, groups=three)(make_batch())["engagement"]).all()


def test_encoders_are_equal_and_sizes_comparable():
    encoders = []
    for method in METHODS:
        model = make(method, dims=DEMO)
        encoders.append({n: p.shape for n, p in model.encoders.named_parameters()})
        assert 0.85 < count_parameters(model)["total"] / 92_789 < 1.15
        assert 0.85 < count_parameters(make(method, dims=PAPER))["total"] / 125_877 < 1.15
    assert all(e == encoders[0] for e in encoders)


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"method": "mean"}, ["model.method", "average"]),
        ({"method": "cross_attention", "heads": 7}, ["model.heads", "token"]),
        ({"fusion_layers": 0}, ["model.fusion_layers", "at least 1"]),
    ],
)
def test_settings_that_do_not_fit_are_named(bad, words):
    with pytest.raises(InputError) as e:
        parse({"model": {"name": "fusion", **bad}})
    assert all(word in str(e.value) for word in words)
