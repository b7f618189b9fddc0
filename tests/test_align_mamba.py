"""AlignMamba: masks, losses, options and sizes (its layers: test_transport.py)."""

import dataclasses

import numpy as np
import pytest
import torch

from model.batch import Batch
from model.layers.mamba import BiMambaBlock
from model.layers.modality_mamba import ModalityLinear, ModalityMamba
from model.registry import build, count_parameters
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
DEMO = {"egemaps": 88, "wav2vec2": 64, "clip_face": 64, "flow": 160, "flow_magnitude": 33}
PAPER = {"egemaps": 88, "wav2vec2": 1024, "clip_face": 512, "flow": 714, "flow_magnitude": 139}
L = 20


def make(seed=0, preset="demo", features=tuple(SMALL), dims=SMALL, **model):
    torch.manual_seed(seed)
    settings = {"preset": preset, "features": list(features)}
    settings["model"] = {"name": "align_mamba", **model}
    return build(parse(settings), {f: dims[f] for f in features}).eval()


def make_batch(people=6, seed=0, targets=(0, 1), partners=((1, 2), (0, 3)), length=L):
    g = torch.Generator().manual_seed(seed)
    width = max((len(p) for p in partners), default=0)
    rows = [[*p, *[-1] * (width - len(p))] for p in partners]
    return Batch(
        {name: torch.randn(people, length, dim, generator=g) for name, dim in SMALL.items()},
        {name: torch.ones(people, length, dtype=torch.bool) for name in SMALL},
        torch.ones(people, length, dtype=torch.bool),
        torch.tensor(targets),
        torch.tensor(rows, dtype=torch.long).view(len(targets), width),
    )


def cosine(a, b):
    return 1 - float(a @ b) / (float(a @ a) * float(b @ b)) ** 0.5


VARIANTS = [
    {},
    {"participants": False},
    {"local_alignment": False},
    {"global_alignment": False},
    {"normalise": "column", "band": 0},
    {"normalise": "paper", "fill": "zero", "band": 0},
    {"mixer": "bimamba"},
    {"band": 3, "causal": True},
    {"band": 3, "causal": True, "normalise": "column"},
    {"version": 2, "d": 30},
    {"version": 2, "mixer": "bimamba", "participants": False},
    {"streams": "single", "local_alignment": False, "global_alignment": False},
    {"streams": "multi", "local_alignment": False, "global_alignment": False},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_masks_hold_in_every_variant(options):
    model = make(**options)
    batch = make_batch(partners=((1, 2), (0, 3)))
    with torch.no_grad():
        bare = model(batch)["engagement"]
        padded = dataclasses.replace(
            batch, partners=torch.tensor([[-1, 1, -1, 2, 4], [0, 3, -1, -1, 4]])
        )
        gone = batch.frames.clone()
        gone[4] = False
        got = model(dataclasses.replace(padded, frames=gone))["engagement"]
        torch.testing.assert_close(got, bare, atol=1e-5, rtol=0)

        # Frames outside the recording, in front and behind: as if the window were shorter.
        def pad(t, fill):
            ends = [torch.full((len(t), n, *t.shape[2:]), fill, dtype=t.dtype) for n in (3, 5)]
            return torch.cat([ends[0], t, ends[1]], dim=1)

        longer = dataclasses.replace(
            batch,
            streams={n: pad(t, float("nan")) for n, t in batch.streams.items()},
            valid={n: pad(t, False) for n, t in batch.valid.items()},
            frames=pad(batch.frames, False),
        )
        got = model(longer)["engagement"][:, 3 : 3 + L]
        torch.testing.assert_close(got, bare, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_losses_and_gradients(options):
    model = make(**options).train()
    batch = make_batch()
    batch.valid["flow"][:, 3:6] = False
    for valid in batch.valid.values():
        valid[1:4, 7:9] = False
    out = model(batch)
    expected = {"mmd"} if model.config.global_alignment else set()
    expected |= {"transport"} if model.config.version == 2 else set()
    assert set(out["losses"]) == expected
    (out["engagement"].square().mean() + sum(out["losses"].values())).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    # Nobody there at all: finite too.
    empty = dataclasses.replace(
        batch,
        streams={n: torch.full_like(t, float("nan")) for n, t in batch.streams.items()},
        valid={n: torch.zeros_like(t) for n, t in batch.valid.items()},
        frames=torch.zeros_like(batch.frames),
    )
    model.zero_grad()
    out = model(empty)
    (out["engagement"].square().mean() + sum(out["losses"].values())).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_group_that_is_missing_leaves_the_loss_and_keeps_its_token():
    model = make(participants=False, input_shift=0.0, dropout=0.0).train()
    batch = make_batch(partners=((), ()))
    both = model(batch)["losses"]["mmd"]
    for name in ("egemaps", "wav2vec2"):
        batch.valid[name][0] = False
    one = model(batch)["losses"]["mmd"]
    alone = dataclasses.replace(batch, target=batch.target[1:], partners=batch.partners[1:])
    torch.testing.assert_close(one, model(alone)["losses"]["mmd"])
    assert one != both
    with torch.no_grad():
        tokens, valid, exists = model.modalities(batch)
    assert not valid[0, 0].any() and exists[0, 0].all()


def test_prompts_are_scanned_and_not_aligned():
    model = make(prompts=3)
    model.add_prompts(("noxi",))
    _, valid, exists = model.modalities(model.prompts(make_batch()))
    assert valid.shape[2] == L + 3
    assert exists.all() and valid[..., 3:].all() and not valid[..., :3].any()
    assert model(make_batch())["engagement"].shape == (2, L)


def test_anchor_and_groups():
    assert make().config.anchor == "visual" and make().names == ["audio", "visual"]
    assert make(anchor="audio").names == ["visual", "audio"]
    assert make(features=("egemaps", "wav2vec2")).config.anchor == "audio"
    three = {"a": ["egemaps"], "b": ["wav2vec2", "flow"], "c": ["clip_face", "flow_magnitude"]}
    model = make(groups=three, anchor="b").train()
    assert model.names == ["a", "c", "b"]
    out = model(make_batch())
    assert out["engagement"].shape == (2, L) and torch.isfinite(out["losses"]["mmd"])
    assert set(model.embeddings(make_batch())) == {"a", "b", "c"}


def test_version_2_aligns_by_losses_only(monkeypatch):
    model, batch = make(version=2).train(), make_batch()
    weights = model.state_dict()
    assert not any(name.startswith("align") for name in weights)
    losses = model(batch)["losses"]
    assert losses["transport"] > 0 and losses["mmd"] > 0
    assert set(make(version=2, local_alignment=False).train()(batch)["losses"]) == {"mmd"}
    with torch.no_grad():
        before = model.eval()(batch)["engagement"]

        def broken(*args):
            raise AssertionError("alignment code ran at inference")

        for name in ("mmd", "cosine_cost", "allowed_pairs", "relaxed_distance", "LocalAlignment"):
            monkeypatch.setattr(f"model.architectures.align_mamba.{name}", broken)
        assert torch.equal(model(batch)["engagement"], before)
        with pytest.raises(AssertionError, match="alignment code"):
            model.train()(batch)


def test_the_transport_loss_of_version_2_against_loops():
    model, batch = make(version=2, band=0, dropout=0.0, input_shift=0.0).train(), make_batch()
    batch.valid["egemaps"][0, 4:9] = batch.valid["wav2vec2"][0, 4:9] = False
    batch.frames[1, 15:] = False
    with torch.no_grad():
        got = float(model(batch)["losses"]["transport"])
        tokens, valid, _ = model.modalities(batch)
    pairs = []
    for b in range(2):
        anchors = [tokens[b, -1, j] for j in range(L) if valid[b, -1, j]]
        for m in range(tokens.shape[1] - 1):
            sources = [tokens[b, m, i] for i in range(L) if valid[b, m, i]]
            there = np.mean([min(cosine(s, a) for a in anchors) for s in sources])
            back = np.mean([min(cosine(s, a) for s in sources) for a in anchors])
            pairs.append((there + back) / 2)
    assert got == pytest.approx(np.mean(pairs), abs=1e-5)


def test_modality_projections_against_one_linear_per_token():
    layer = ModalityLinear(4, 6, 3)
    assert torch.equal(
        layer(torch.ones(1, 2, 4), torch.tensor([[0, 2]])), layer.shared(torch.ones(1, 2, 4))
    )
    with torch.no_grad():
        layer.own.normal_()
    x, kind = torch.randn(2, 5, 4), torch.randint(0, 3, (2, 5))
    got = layer(x, kind)
    for b in range(2):
        for t in range(5):
            expected = (layer.shared.weight + layer.own[kind[b, t]]) @ x[b, t]
            torch.testing.assert_close(got[b, t], expected, atol=1e-5, rtol=0)


def test_modality_mamba_is_mamba_while_its_own_weights_are_zero():
    layer, plain = ModalityMamba(8, 4, 4, 2, 2, 2), BiMambaBlock(8, 4, 4, 2)
    for i, block in enumerate((plain.ahead, plain.back)):
        block.load_state_dict(
            layer.core[i].state_dict()
            | {
                "in_proj.weight": layer.in_proj[i].shared.weight,
                "out_proj.weight": layer.out_proj[i].shared.weight,
            }
        )
    x, mask = torch.randn(2, 9, 8), torch.arange(9) < torch.tensor([[9], [6]])
    kind = torch.randint(0, 2, (2, 9))
    torch.testing.assert_close(layer(x, mask, kind), plain(x, mask))


def test_a_causal_model_does_not_look_ahead():
    model = make(causal=True, band=5)
    batch = make_batch()
    later = dataclasses.replace(batch, streams={n: t.clone() for n, t in batch.streams.items()})
    for stream in later.streams.values():
        stream[:, 12:] += 1
    with torch.no_grad():
        one, two = model(batch)["engagement"], model(later)["engagement"]
        torch.testing.assert_close(one[:, :12], two[:, :12], atol=1e-6, rtol=0)
        assert not torch.allclose(one[:, 12:], two[:, 12:], atol=1e-4)
        model.align.causal = False
        one, two = model(batch)["engagement"], model(later)["engagement"]
        assert not torch.allclose(one[:, :12], two[:, :12], atol=1e-4)


@pytest.mark.parametrize("dims, reference", [(PAPER, 125_877), (DEMO, 92_789)])
def test_the_demo_is_as_large_as_that_of_da_mamba(dims, reference):
    single, multi = {"streams": "single"}, {"streams": "multi", "layers": 2}
    for options in ({}, {"normalise": "column"}, single, multi, {"version": 2, "d": 30}):
        total = count_parameters(make(dims=dims, **options))["total"]
        assert 0.85 < total / reference < 1.15, (options, total)


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"anchor": "language"}, ["model.anchor", "visual"]),
        ({"anchor": 3}, ["model.anchor", "word"]),
        ({"version": 3}, ["model.version"]),
        ({"version": 2, "streams": "single"}, ["model.streams", "version"]),
        ({"normalise": "row"}, ["model.normalise", "column"]),
        ({"sigma": -1}, ["model.sigma"]),
    ],
)
def test_settings_that_do_not_fit_are_named(bad, words):
    with pytest.raises(InputError) as e:
        parse({"model": {"name": "align_mamba", **bad}})
    assert all(word in str(e.value) for word in words)
