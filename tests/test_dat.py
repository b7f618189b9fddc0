"""DAT: parameter counts, a naive version of the published forward, masks, options."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from model.batch import Batch
from model.registry import build, count_parameters
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

PAPER = {"egemaps": 88, "wav2vec2": 1024, "clip_face": 512, "flow": 714, "flow_magnitude": 139}
SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
PUBLISHED = {
    "keys": "raw",
    "head": "selu",
    "inputs": "raw",
    "mask": False,
    "learned_absent": False,
}


def settings(preset="demo", features=tuple(SMALL), **model):
    return parse({"preset": preset, "features": list(features), "model": {"name": "dat"} | model})


def make(dims=None, seed=0, **model):
    torch.manual_seed(seed)
    return build(settings(**model), dims or SMALL).double().eval()


def make_batch(people=6, L=96, seed=0, targets=(0, 1), partners=((1, 2), (0, 3))):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        {n: torch.randn(people, L, d, generator=g).double() for n, d in SMALL.items()},
        {n: torch.ones(people, L, dtype=torch.bool) for n in SMALL},
        torch.ones(people, L, dtype=torch.bool),
        torch.tensor(targets),
        torch.tensor(partners, dtype=torch.long).view(len(targets), -1),
    )


def score(model, batch):
    with torch.no_grad():
        return model(batch)["engagement"]


# ---- sizes ----------------------------------------------------------------------------------


def encoder_count(width, heads, head_width, hidden, frames=96):
    attention = 4 * width * heads * head_width + width
    return frames * width + 4 * width + attention + 2 * width * hidden + hidden + width


@pytest.mark.parametrize(
    "variant, count", [("M", 66_790_581), ("L", 113_981_621), ("mpiigi", 32_163_419)]
)
def test_variants_have_exactly_the_published_parameter_counts(variant, count):
    config = parse({"model": {"name": "dat", "variant": variant}})
    with torch.device("meta"):
        model = build(config, PAPER)
    counts = count_parameters(model)
    assert counts.pop("total") == count == sum(counts.values())


def test_the_counts_follow_the_sizes():
    stream, group = (3, 4, 10), (2, 8, 20)
    model = make(
        width=6,
        positions=50,
        learned_absent=False,
        **dict(zip(("stream_heads", "stream_head_width", "stream_hidden"), stream, strict=True)),
        **dict(zip(("group_heads", "group_head_width", "group_hidden"), group, strict=True)),
    )
    S = sum(SMALL.values())
    groups = encoder_count(12, *group, frames=50) + encoder_count(18, *group, frames=50)
    person = 2 * S + 6 * S + 6 * 5 + 5 * encoder_count(6, *stream, frames=50) + groups
    assert count_parameters(model)["total"] == 2 * person + groups + 2 * 30 + 31


def test_a_learned_vector_for_absent_frames_is_the_only_addition_with_parameters():
    plain = dict(
        make(learned_absent=False, query="partner", keys="raw", head="selu").named_parameters()
    )
    sound = dict(make(learned_absent=False).named_parameters())
    assert plain.keys() == sound.keys()
    more = dict(make(learned_absent=True).named_parameters())
    extra = more.keys() - sound.keys()
    assert len(extra) == 10 and all(n.endswith("absent") for n in extra)


def test_the_paper_preset_trains_as_published():
    run = parse({"model": {"name": "dat"}})
    m, t = run.model, run.training
    assert (m.variant, m.width, m.dropout, m.input_dropout, m.query) == (
        "M",
        512,
        0.1,
        0.1,
        "target",
    )
    assert (t.learning_rate, t.warmup_steps, t.ema, t.score_weight) == (5e-5, 400, 0.99, 0.5)
    assert (t.weight_decay, t.batch, t.epochs, t.loss_frames) == (0.0, 128, 40, "window")
    assert (t.optimiser, t.schedule, t.grad_clip) == ("adam", "constant", 1e9)
    large = parse({"model": {"name": "dat", "variant": "L"}}).model
    assert (large.dropout, large.input_dropout, large.stream_head_width) == (0.3, 0.2, 128)
    assert parse({"model": {"name": "dat", "variant": "L", "dropout": 0.0}}).model.dropout == 0.0


# ---- the published forward, written naively -------------------------------------------------


def naive_attention(weights, prefix, asks, keys, heads):
    """(L, W), (S, W) -> (L, W), head by head and frame by frame."""
    q = asks @ weights[f"{prefix}.query.weight"].T
    k, v = (keys @ weights[f"{prefix}.key_value.weight"].T).chunk(2, -1)
    E = q.shape[-1] // heads
    out = torch.zeros_like(q)
    for h in range(heads):
        part = slice(h * E, (h + 1) * E)
        for i in range(len(q)):
            s = (k[:, part] @ q[i, part] / math.sqrt(E)).softmax(0)
            out[i, part] = s @ v[:, part]
    return out @ weights[f"{prefix}.out.weight"].T + weights[f"{prefix}.out.bias"]


def norm(weights, prefix, x):
    return F.layer_norm(x, x.shape[-1:], weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])


def linear(weights, prefix, x):
    return x @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"]


def naive_feed(weights, prefix, x):
    inner = F.gelu(
        linear(weights, f"{prefix}.up", norm(weights, f"{prefix}.norm", x)), approximate="tanh"
    )
    return x + linear(weights, f"{prefix}.down", inner)


def naive_encoder(weights, prefix, x, heads):
    x = x + weights[f"{prefix}.positions.table"]
    u = norm(weights, f"{prefix}.block.norm", x)
    x = x + naive_attention(weights, f"{prefix}.block.attention", u, u, heads)
    return naive_feed(weights, f"{prefix}.block.feed", x)


def naive_person(weights, side, streams, config):
    scaled = []
    for x in streams.values():
        scaled.append((x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-5))
    joined = norm(weights, f"{side}.norm", torch.cat(scaled, -1))
    encoded, at = {}, 0
    for name, x in streams.items():
        part = joined[:, at : at + x.shape[1]]
        at += x.shape[1]
        part = linear(weights, f"{side}.projections.{name}.project", part)
        part = 0.5 * part * (1 + torch.erf(part / math.sqrt(2)))
        encoded[name] = naive_encoder(weights, f"{side}.streams.{name}", part, config.stream_heads)
    return {
        g: naive_encoder(
            weights,
            f"{side}.groups.{g}",
            torch.cat([encoded[m] for m in members], -1),
            config.group_heads,
        )
        for g, members in config.groups.items()
    }


def naive_dat(model, target, partner):
    """Published code (`query: target`) or figure (`partner`), one partner, 96 frames, no masks."""
    weights, config = dict(model.state_dict()), model.config
    x, p = (
        naive_person(weights, s, v, config) for s, v in (("target", target), ("partner", partner))
    )
    joined = []
    for g in config.groups:
        table = weights[f"cross.{g}.positions.table"]
        mine, other = x[g] + table, p[g] + table
        asks, keys = (mine, other) if config.query == "target" else (other, mine)
        asks = norm(weights, f"cross.{g}.norm", asks)
        if config.keys == "normalised":
            spread = keys.var(-1, correction=0, keepdim=True) + 1e-5
            keys = (keys - keys.mean(-1, keepdim=True)) / spread.sqrt()
        y = mine + naive_attention(weights, f"cross.{g}.attention", asks, keys, config.group_heads)
        joined.append(naive_feed(weights, f"cross.{g}.feed", y))
    y = linear(weights, "score.1", norm(weights, "score.0", torch.cat(joined, -1)))
    return F.selu(y)[:, 0]


@pytest.mark.parametrize("keys", ["raw", "normalised"])
@pytest.mark.parametrize("query", ["target", "partner"])
def test_the_published_options_are_the_published_forward(query, keys):
    model = make(query=query, **PUBLISHED | {"keys": keys})
    with torch.no_grad():  # affine parts away from their start, so that mixing them up shows
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.load_statistics(
        {
            n: {"mean": torch.full((d,), 3.0), "std": torch.full((d,), 2.0)}
            for n, d in SMALL.items()
        },
        {"mean": 0.4, "std": 0.2},
    )
    batch = make_batch(partners=((2,), (0,)))
    got = score(model, batch)
    for row, (t, p) in enumerate([(0, 2), (1, 0)]):
        person = [{n: v[i] for n, v in batch.streams.items()} for i in (t, p)]
        torch.testing.assert_close(got[row], naive_dat(model, *person), atol=1e-9, rtol=1e-9)


def test_the_mpiigi_variant_hears_no_partner_and_lets_audio_ask_visual():
    model = make(variant="mpiigi", fused_width=16, **PUBLISHED)
    batch = make_batch()
    assert not model.dialogue
    got = score(model, batch)
    assert torch.equal(got, score(model, dataclasses.replace(batch, partners=batch.partners + 2)))
    weights, config = dict(model.state_dict()), model.config
    streams = {n: v[0] for n, v in batch.streams.items()}
    scaled = [(x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-5) for x in streams.values()]
    joined = norm(weights, "target.norm", torch.cat(scaled, -1)).split(list(SMALL.values()), -1)
    encoded = {
        n: naive_encoder(
            weights,
            f"target.streams.{n}",
            linear(weights, f"target.projections.{n}.project", x),  # no GELU in this variant
            config.stream_heads,
        )
        for n, x in zip(SMALL, joined, strict=True)
    }
    table = weights["cross.groups.positions.table"]
    asks, answers = (
        linear(
            weights,
            f"reduce.{g}",
            naive_encoder(
                weights,
                f"target.groups.{g}",
                torch.cat([encoded[m] for m in ms], -1),
                config.group_heads,
            ),
        )
        + table
        for g, ms in config.groups.items()
    )
    asked = norm(weights, "cross.groups.norm", asks)
    y = asks + naive_attention(
        weights, "cross.groups.attention", asked, answers, config.group_heads
    )
    y = naive_feed(weights, "cross.groups.feed", y)
    y = F.selu(linear(weights, "score.1", norm(weights, "score.0", y)))[:, 0]
    torch.testing.assert_close(got[0], y, atol=1e-9, rtol=1e-9)


# ---- partners, masks, lengths ---------------------------------------------------------------


@pytest.mark.parametrize("query", ["target", "partner"])
def test_neither_order_nor_padding_of_partners_counts(query):
    model = make(query=query)
    one = score(model, make_batch(partners=((2, 3, 4), (3, 5, 0))))
    two = score(model, make_batch(partners=((4, 2, 3), (0, 3, 5))))
    padded = score(model, make_batch(partners=((-1, 4, 2, -1, 3), (0, 3, -1, 5, -1))))
    torch.testing.assert_close(one, two, atol=1e-10, rtol=0)
    torch.testing.assert_close(one, padded, atol=1e-10, rtol=0)
    fewer = score(model, make_batch(partners=((2, 3, -1), (3, 5, -1))))
    assert (one - fewer).abs().max() > 1e-4


@pytest.mark.parametrize("query", ["target", "partner"])
def test_a_partner_outside_the_recording_is_nobody(query):
    model = make(query=query)
    batch = make_batch(partners=((2, 3), (3, 4)))
    frames = batch.frames.clone()
    frames[3] = False
    gone = score(model, dataclasses.replace(batch, frames=frames))
    torch.testing.assert_close(
        gone, score(model, make_batch(partners=((2, -1), (-1, 4)))), atol=1e-10, rtol=0
    )


def test_window_norm_is_layer_norm_of_the_frames_that_are_there():
    model = make(learned_absent=False)
    layer = model.target.window_norm
    x, mask = torch.randn(2, 30, 7).double(), torch.ones(2, 30, dtype=torch.bool)
    mask[0, 20:] = False
    mask[1] = False
    got = layer(x, mask)
    torch.testing.assert_close(got[0, :20], F.layer_norm(x[0, :20], (20, 7)))
    assert (got[0, 20:] == 0).all() and (got[1] == 0).all()
    full = torch.ones_like(mask)
    torch.testing.assert_close(layer(x, full), torch.nn.LayerNorm((30, 7)).double()(x))


def test_without_masks_absent_frames_count_as_zeros():
    # At the start of training the z-score is the identity, so that missing rows are raw zeros.
    batch = make_batch()
    valid = {n: v.clone() for n, v in batch.valid.items()}
    valid["flow"][:, 10:30] = False
    gaps = dataclasses.replace(batch, valid=valid)
    zeros = {n: v.clone() for n, v in batch.streams.items()}
    zeros["flow"][:, 10:30] = 0
    filled = dataclasses.replace(batch, streams=zeros)
    blind, sound = make(mask=False), make(mask=True)
    torch.testing.assert_close(score(blind, gaps), score(blind, filled), atol=1e-12, rtol=0)
    assert (score(sound, gaps) - score(sound, filled)).abs().max() > 1e-4


@pytest.mark.parametrize("L", [1, 50, 96, 192])
def test_other_lengths_interpolate_the_positions(L):
    model = make()
    out = score(model, make_batch(L=L))
    assert out.shape == (2, L) and torch.isfinite(out).all()
    layer = model.cross["audio"].positions
    table = layer(torch.zeros(1, L, layer.table.shape[1]).double())[0]
    at = torch.linspace(0, 95, L, dtype=torch.float64) if L > 1 else torch.zeros(1).double()
    low = at.floor().long().clamp(max=94)
    share = (at - low)[:, None]
    expected = layer.table[low] * (1 - share) + layer.table[low + 1] * share
    torch.testing.assert_close(table, expected, atol=1e-10, rtol=0)
    if L == 96:
        assert torch.equal(table, layer.table)


def test_inputs_are_standardised_unless_raw_ones_are_asked_for():
    statistics = {n: {"mean": torch.randn(d), "std": 1 + torch.rand(d)} for n, d in SMALL.items()}
    batch = make_batch()
    for inputs, changes in (("zscore", True), ("raw", False)):
        model = make(inputs=inputs)
        before = score(model, batch)
        model.load_statistics(statistics, {"mean": 0.0, "std": 1.0})
        assert ((score(model, batch) - before).abs().max() > 1e-4) == changes


def test_the_published_smoothing_runs_over_windows_and_in_training_only():
    off = {"dropout": 0.0, "input_dropout": 0.0, "input_shift": 0.0}
    model, plain = make(smooth="batch", **off), make(**off)
    batch = make_batch(targets=(0, 1, 2), partners=((1,), (0,), (0,)))
    assert torch.equal(score(model, batch), score(plain, batch))
    y = score(plain, batch)
    expected = [y[0], 0.9 * y[1] + 0.1 * y[0]]
    expected.append(0.9 * y[2] + 0.1 * expected[1])
    torch.testing.assert_close(score(model.train(), batch), torch.stack(expected))


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"variant": "S"}, ["model.variant", "mpiigi"]),
        ({"query": "partners"}, ["model.query", "partner"]),
        ({"variant": "mpiigi", "query": "partner"}, ["model.query", "target"]),
        ({"variant": "mpiigi", "groups": {"all": list(SMALL)}}, ["mpiigi", "two groups"]),
        ({"fused_width": 8}, ["model.fused_width", "leave it 0"]),
        ({"dropout": -0.5}, ["model.dropout", "-1"]),
        ({"dropout": 1.0}, ["model.dropout", "below 1"]),
        ({"input_dropout": 1.0}, ["model.input_dropout", "below 1"]),
        ({"positions": 0}, ["model.positions", "at least 1"]),
    ],
)
def test_settings_that_do_not_fit_are_named_with_a_cure(bad, words):
    with pytest.raises(InputError) as e:
        settings(**bad)
    for word in words:
        assert word in str(e.value)
