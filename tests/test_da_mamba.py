"""DA-Mamba: parameter count, partners, masks, options, settings."""

import dataclasses

import pytest
import torch

from model.batch import Batch
from model.describe import describe
from model.layers.hybrid import HybridBlock
from model.layers.inputs import Normalise
from model.layers.mamba import BiMambaBlock, MambaBlock
from model.layers.transformer import TransformerMixer
from model.registry import build, count_parameters
from runtime import InputError
from training.losses import ccc_loss
from training.settings import parse, resolve

torch.set_num_threads(1)  # small tensors: threads only wait for each other

PAPER = {"egemaps": 88, "wav2vec2": 1024, "clip_face": 512, "flow": 714, "flow_magnitude": 139}
SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}


def settings(preset="demo", features=tuple(SMALL), **model):
    return parse({"preset": preset, "features": list(features), "model": model})


def make(seed=0, **model):
    torch.manual_seed(seed)
    return build(settings(**model), SMALL).eval()


def make_batch(people=6, L=40, seed=0, targets=(0, 1), partners=((1, 2), (0, 3))):
    g = torch.Generator().manual_seed(seed)
    streams = {name: torch.randn(people, L, dim, generator=g) for name, dim in SMALL.items()}
    valid = {name: torch.ones(people, L, dtype=torch.bool) for name in SMALL}
    frames = torch.ones(people, L, dtype=torch.bool)
    label = torch.rand(len(targets), L, generator=g)
    width = max(len(p) for p in partners)
    rows = [[*p, *[-1] * (width - len(p))] for p in partners]
    return Batch(
        streams,
        valid,
        frames,
        torch.tensor(targets),
        torch.tensor(rows, dtype=torch.long).view(len(targets), width),
        label,
        torch.ones(len(targets), L, dtype=torch.bool),
    )


def score(model, batch):
    with torch.no_grad():
        return model(batch)["engagement"]


def test_paper_preset_has_the_papers_parameter_count():
    text = describe('{"preset": "paper"}', ",".join(f"{k}={v}" for k, v in PAPER.items()))
    counts = count_parameters(build(parse({}), PAPER))
    total = counts.pop("total")
    assert abs(total / 28.7e6 - 1) <= 0.02
    assert sum(counts.values()) == total
    for part, n in counts.items():
        assert f"{part} " in text and f"{n:,d}" in text
    config = parse({}).model
    assert (config.depth, config.state, config.conv, config.expand, config.local_chunk) == (
        4,
        16,
        4,
        2,
        32,
    )


@pytest.mark.parametrize("P", range(6))
@pytest.mark.parametrize(
    "options",
    [
        {"partner_context": "separate", "mixer": "mamba"},
        {"partner_context": "concat", "mixer": "bimamba"},
        {"partner_context": "interleave", "mixer": "bimamba"},
        {"partner_context": "interleave", "partner_encoder": "separate", "causal": True},
        {"partner_context": "concat", "mixer": "transformer"},
    ],
    ids=lambda o: "-".join(str(v) for v in o.values()),
)
def test_masked_partners_change_nothing(P, options):
    partners = (1, 2, 3, 4, 5)[:P]
    model = make(**options)
    batch = make_batch(L=17, targets=(0,), partners=(partners,))
    bare = score(model, batch)
    assert torch.isfinite(bare).all()
    mixed = [-1, *partners[:1], -1, *partners[1:], -1]
    padded = dataclasses.replace(batch, partners=torch.tensor([mixed]))
    torch.testing.assert_close(score(model, padded), bare, atol=1e-6, rtol=0)
    # A partner whose recording does not reach this window counts as absent too.
    gone = [*partners, 5] if 5 not in partners else [*partners]
    frames = batch.frames.clone()
    if 5 not in partners:
        frames[5] = False
    outside = dataclasses.replace(batch, partners=torch.tensor([gone]), frames=frames)
    torch.testing.assert_close(score(model, outside), bare, atol=1e-6, rtol=0)


def test_partner_order_matters_only_where_the_paper_joins_along_time():
    for mode, free in (("separate", True), ("concat", False), ("interleave", False)):
        model = make(partner_context=mode)
        one = score(model, make_batch(targets=(0,), partners=((1, 2, 3),)))
        two = score(model, make_batch(targets=(0,), partners=((3, 1, 2),)))
        difference = (one - two).abs().max().item()
        assert difference < 1e-6 if free else difference > 1e-5


def test_partners_are_heard_and_the_option_silences_them():
    batch = make_batch()
    other = dataclasses.replace(batch, partners=torch.tensor([[4, 5], [4, 5]]))
    loud, silent = make(), make(partner_fusion=False)
    assert (score(loud, batch) - score(loud, other)).abs().max() > 1e-4
    assert (score(silent, batch) - score(silent, other)).abs().max() == 0
    assert not any(n.startswith(("context", "cross")) for n, _ in silent.named_parameters())


@pytest.mark.parametrize(
    "mode, mixer",
    [
        ("separate", "bimamba"),
        ("concat", "bimamba"),
        ("interleave", "bimamba"),
        ("interleave", "transformer"),
    ],
)
def test_frames_outside_the_recording_are_absent_not_zero(mixer, mode):
    # A whole chunk of padding in front keeps the chunk borders of the local attention.
    model = make(mixer=mixer, partner_context=mode)
    short = make_batch(L=40)
    pad = model.config.local_chunk

    def padded(t, fill):
        front = torch.full((t.shape[0], pad, *t.shape[2:]), fill, dtype=t.dtype)
        back = torch.full((t.shape[0], 9, *t.shape[2:]), fill, dtype=t.dtype)
        return torch.cat([front, t, back], dim=1)

    long = dataclasses.replace(
        short,
        streams={k: padded(v, float("nan")) for k, v in short.streams.items()},
        valid={k: padded(v, False) for k, v in short.valid.items()},
        frames=padded(short.frames, False),
    )
    got = score(model, long)[:, pad : pad + 40]
    torch.testing.assert_close(got, score(model, short), atol=2e-6, rtol=0)


def test_values_of_invalid_frames_are_never_used_and_absence_is_seen():
    model = make()
    with torch.no_grad():
        model.encoder.streams["clip_face"].input.absent.normal_()
    batch = make_batch()
    valid = {k: v.clone() for k, v in batch.valid.items()}
    valid["clip_face"][:, 10:20] = False
    results = []
    for fill in (0.0, 1e6, float("nan")):
        streams = {k: v.clone() for k, v in batch.streams.items()}
        streams["clip_face"][:, 10:20] = fill
        results.append(score(model, dataclasses.replace(batch, streams=streams, valid=valid)))
    assert torch.isfinite(results[2]).all()
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    streams["clip_face"][:, 10:20] = 0.0
    assert (score(model, dataclasses.replace(batch, streams=streams)) - results[0]).abs().max() > 0


def test_the_shift_moves_whole_windows_in_training_only():
    norm = Normalise("x", 3, clip=10.0, shift=0.5)
    x, valid = torch.randn(400, 5, 3), torch.ones(400, 5, dtype=torch.bool)
    valid[:, 2] = False
    torch.manual_seed(0)
    moved = norm(x, valid) - norm.eval()(x, valid)
    assert (moved[:, 2] == 0).all()
    torch.testing.assert_close(moved[:, 0], moved[:, 4], atol=1e-6, rtol=0)
    assert 0.45 < moved[:, 0].std() < 0.55 and abs(moved[:, 0].mean()) < 0.05


def all_gradients_finite(model, loss):
    loss.backward()
    return all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["da_mamba", "mlp"])
@pytest.mark.parametrize("case", ["constant label", "one frame", "nothing", "no label", "constant"])
def test_loss_and_gradients_stay_finite(name, case):
    torch.manual_seed(0)
    model = build(settings(name=name), SMALL)
    batch = make_batch(L=1 if case == "one frame" else 40)
    if case == "constant label":
        batch = dataclasses.replace(batch, label=torch.full_like(batch.label, 0.5))
    if case == "no label":
        batch = dataclasses.replace(batch, label_mask=torch.zeros_like(batch.label_mask))
    if case == "nothing":
        batch = dataclasses.replace(
            batch,
            streams={k: torch.full_like(v, float("nan")) for k, v in batch.streams.items()},
            valid={k: torch.zeros_like(v) for k, v in batch.valid.items()},
            frames=torch.zeros_like(batch.frames),
            label_mask=torch.zeros_like(batch.label_mask),
        )
    if case == "constant":
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        with torch.no_grad():
            list(p.zero_() for p in last.parameters())
        if name == "da_mamba":
            model.score[-1].weight.data.zero_()
    out = model(batch)
    loss = ccc_loss(out["engagement"], batch.label, batch.label_mask)
    loss = loss + sum(out["losses"].values())
    assert torch.isfinite(loss)
    assert all_gradients_finite(model, loss)


def test_every_parameter_gets_a_gradient():
    model = make(merge="concat").train()
    batch = make_batch()
    valid = {k: v.clone() for k, v in batch.valid.items()}
    for v in valid.values():
        v[:, 3:6] = False
    batch = dataclasses.replace(batch, valid=valid)
    out = model(batch)
    loss = ccc_loss(out["engagement"], batch.label, batch.label_mask) + out["losses"]["alignment"]
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize(
    "options",
    [
        {"modality_fusion": False},
        {"merge": "sum"},
        {"merge": "gate"},
        {"context_width": 0},
        {"mixer": "bimamba", "depth": 2},
        {"mixer": "transformer", "partner_context": "interleave"},
        {"local_chunk": 0},
        {"alignment": False},
        {"partner_encoder": "separate"},
        {"partner_context": "interleave", "causal": True},
        {"groups": {"all": list(SMALL)}},
        {
            "groups": {
                "a": ["egemaps"],
                "b": ["wav2vec2", "flow"],
                "c": ["clip_face", "flow_magnitude"],
            }
        },
    ],
)
def test_options_run_and_every_part_of_them_learns(options):
    batch = make_batch()
    batch.valid["flow"][:, 3:6] = False
    model = make(**options).train()
    out = model(batch)
    assert out["engagement"].shape == (2, 40) and torch.isfinite(out["engagement"]).all()
    config = model.config
    aligned = config.alignment and config.modality_fusion and len(config.groups) > 1
    assert set(out["losses"]) == ({"alignment"} if aligned else set())
    (out["engagement"].square().mean() + sum(out["losses"].values())).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in idle if "absent" not in n] == []


# ---- options of the dialogue ----------------------------------------------------------------


def test_the_papers_ablation_rows_are_settings():
    rows = [
        {},
        {"modality_fusion": False},
        {"partner_fusion": False},
        {"modality_fusion": False, "partner_fusion": False},
        {"mixer": "transformer"},
    ]
    table = []
    for row in rows:
        model = build(parse({"model": {"d": 16, "heads": 4} | row}), PAPER)
        kinds = {type(m) for m in model.modules()}
        parts = count_parameters(model)
        table.append(
            (
                MambaBlock in kinds,
                TransformerMixer in kinds,
                "audio group stack" in parts,
                "cross-attention" in parts,
            )
        )
    assert table == [
        (True, False, True, True),
        (True, False, False, True),
        (True, False, True, False),
        (True, False, False, False),
        (False, True, True, True),
    ]


def test_interleaved_context_against_frames_put_in_order_one_by_one():
    model = make(partner_context="interleave").double()
    batch = make_batch(L=9, targets=(0, 4), partners=((1, 2, -1), (3, 5, 0)))
    batch = dataclasses.replace(batch, streams={k: x.double() for k, x in batch.streams.items()})
    batch.frames[2, :3] = False  # partner 2 comes late, partner 5 leaves early
    batch.frames[5, 6:] = False
    with torch.no_grad():
        _, person = model.encoder(batch)
        target = person[batch.target]
        got = model.listen(target, person, batch, None)
        for b, partners in enumerate(batch.partners.tolist()):
            order = [(t, p) for t in range(9) for p in partners if p >= 0 and batch.frames[p, t]]
            rows = torch.stack([person[p, t] for t, p in order])[None]
            context = model.context(rows, torch.ones(1, len(order), dtype=torch.bool))
            instants = torch.tensor([[t for t, _ in order]])
            seen = torch.ones(1, len(order), dtype=torch.bool)
            expected = model.cross(target[b : b + 1], context, seen, instants)
            torch.testing.assert_close(got[b : b + 1], expected)


def test_partner_contexts_agree_for_one_partner():
    batch = make_batch(partners=((1,), (0,)))
    scores = [score(make(partner_context=c), batch) for c in ("concat", "interleave", "separate")]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_a_partner_encoder_of_its_own():
    shared, own = make(), make(partner_encoder="separate")
    batch = make_batch()
    own.load_state_dict(shared.state_dict(), strict=False)
    own.partner_encoder.load_state_dict(shared.encoder.state_dict())
    torch.testing.assert_close(score(own, batch), score(shared, batch))
    loss = [m(batch)["losses"]["alignment"] for m in (own, shared)]
    torch.testing.assert_close(*loss)
    with torch.no_grad():
        for p in own.partner_encoder.parameters():
            p.add_(0.1)
    assert (score(own, batch) - score(shared, batch)).abs().max() > 1e-4
    alone = dataclasses.replace(batch, partners=torch.full((2, 1), -1))
    torch.testing.assert_close(score(own, alone), score(shared, alone))
    encoder = sum(p.numel() for p in shared.encoder.parameters())
    counts = [count_parameters(m)["total"] for m in (own, shared)]
    assert counts[0] - counts[1] == encoder


@pytest.mark.parametrize("P", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", ["interleave", "separate"])
def test_a_causal_model_sees_no_later_frame(P, mode):
    batch = make_batch(targets=(0, 1), partners=((1, 2, 3)[:P], (0, 4, 5)[:P]))
    later = dataclasses.replace(
        batch,
        streams={
            k: x.clone().index_fill_(1, torch.arange(21, 40), 3.0) for k, x in batch.streams.items()
        },
    )
    for causal in (True, False):
        model = make(partner_context=mode, causal=causal, depth=2)
        change = (score(model, later) - score(model, batch)).abs()
        assert (change[:, :21].max() < 1e-6) == causal
        assert change[:, 21:].max() > 1e-3


def test_without_a_local_branch_the_mixer_stands_alone():
    torch.manual_seed(0)
    block = HybridBlock(16, None, MambaBlock(16), "gate", 0.0)
    x, mask = torch.randn(2, 20, 16), torch.ones(2, 20, dtype=torch.bool)
    torch.testing.assert_close(block(x, mask), x + block.globally(block.norm(x), mask))
    names = {n.split(".")[0] for n, _ in block.named_parameters()}
    assert names == {"norm", "globally"}
    assert not any(
        ".local." in n or n.endswith("gate") for n, _ in make(local_chunk=0).named_parameters()
    )


def test_the_mixer_option_reaches_every_place():
    for mixer, kind in (("bimamba", BiMambaBlock), ("transformer", TransformerMixer)):
        model = make(mixer=mixer, depth=2)
        # five streams, two groups of two blocks, the context
        assert sum(isinstance(m, kind) for m in model.modules()) == 5 + 4 + 1


# ---- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"presett": "demo"}, ["presett", "preset"]),
        ({"preset": "papr"}, ["preset", "paper"]),
        ({"model": {"name": "da_mambo"}}, ["model.name", "da_mamba"]),
        ({"model": {"depht": 2}}, ["model.depht", "depth"]),
        ({"model": {"mixer": "bimamb"}}, ["model.mixer", "bimamba"]),
        ({"model": {"d": "wide"}}, ["model.d", "number"]),
        ({"model": {"d": 0}}, ["model.d", "at least 1"]),
        ({"model": {"heads": 7}}, ["model.heads", "divide"]),
        (
            {
                "model": {
                    "mixer": "transformer",
                    "d": 12,
                    "modality_fusion": False,
                    "partner_fusion": False,
                }
            },
            ["model.heads", "a stream"],
        ),
        ({"model": {"causal": True, "mixer": "bimamba"}}, ["model.causal", "mamba"]),
        ({"model": {"causal": True}}, ["model.causal", "concat", "interleave"]),
        ({"model": {"chunk": 16}}, ["model.chunk", "local_chunk"]),
        ({"model": {"partner_fusion": 1}}, ["model.partner_fusion", "true or false"]),
        ({"model": {"groups": {"audio": ["egemaps"]}}}, ["model.groups", "wav2vec2"]),
        ({"features": ["egemaps", "gaze"]}, ["model.groups", "gaze"]),
        ({"features": []}, ["features"]),
        ({"training": {"learningrate": 1}}, ["training.learningrate", "learning_rate"]),
        ({"training": {"epochs": 1.5}}, ["training.epochs", "whole"]),
        ({"training": {"window": 33}}, ["training.window"]),
        ({"training": {"ema": 1.0}}, ["training.ema"]),
        ({"frame_rate_hz": 0}, ["frame_rate_hz"]),
    ],
)
def test_settings_that_do_not_fit_are_named_with_a_cure(bad, words):
    with pytest.raises(InputError) as e:
        resolve(bad)
    for word in words:
        assert word in str(e.value)


def test_resolve_is_canonical():
    one = resolve({"preset": "demo", "features": ["egemaps", "flow"], "model": {"d": 24}})
    assert resolve(one) == one and "preset" not in one
    assert one["model"]["groups"] == {"audio": ["egemaps"], "visual": ["flow"]}
    two = resolve({"model": {"d": 24}, "features": ["egemaps", "flow"], "preset": "demo"})
    assert one == two
    paper = resolve({})["training"]
    assert (paper["learning_rate"], paper["batch"], paper["window"], paper["core"]) == (
        5e-5,
        128,
        96,
        32,
    )
    assert (paper["warmup_steps"], paper["grad_clip"], paper["ema"], paper["epochs"]) == (
        500,
        5.0,
        0.999,
        40,
    )
    assert (paper["score_weight"], paper["alignment_weight"]) == (1.0, 0.4)
