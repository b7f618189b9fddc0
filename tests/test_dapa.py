"""DAPA: an exchange and the pooling against naive versions, masks, directions of time, settings."""

import dataclasses
import math

import pytest
import torch

from model.architectures.dapa import AttentionPool, Exchange, MambaDirections
from model.batch import Batch
from model.registry import build
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}


def settings(features=tuple(SMALL), **model):
    return parse({"preset": "demo", "features": list(features), "model": {"name": "dapa"} | model})


def make(seed=0, **model):
    torch.manual_seed(seed)
    net = build(settings(**model), SMALL).double().eval()
    with torch.no_grad():  # what stands for absent things starts at zero, and would not show
        for name, parameter in net.named_parameters():
            if "absent" in name:
                parameter.normal_()
    return net


def make_batch(people=6, L=30, seed=0, targets=(0, 1), partners=((1, 2), (0, 3))):
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


# ---- layers ---------------------------------------------------------------------------------


def naive_hearing(layer, asks, answers, asking_frames, there, allowed):
    """Attention of (T, H) to (T, H), frame by frame, head by head, turned by complex numbers."""
    E = asks.shape[1] // layer.heads
    turn = torch.arange(len(asks))[:, None] * 10_000.0 ** (
        -torch.arange(E // 2).double() / (E // 2)
    )
    turn = torch.polar(torch.ones_like(turn), turn)
    q = asks @ layer.query.weight.T
    k, v = (answers @ layer.key_value.weight.T).chunk(2, -1)
    out = torch.zeros_like(asks)
    for t in asking_frames:
        keys = [s for s in range(len(asks)) if there[s] and allowed(t, s)]
        if not keys:
            continue
        heads = []
        for h in range(layer.heads):
            part = slice(h * E, (h + 1) * E)
            a, b = (torch.complex(x[:, part][:, : E // 2], x[:, part][:, E // 2 :]) for x in (q, k))
            s = ((a[t] * turn[t]).conj() * (b[keys] * turn[keys])).real.sum(-1) / math.sqrt(E)
            heads.append(s.softmax(0) @ v[keys][:, part])
        out[t] = layer.out(torch.cat(heads))
    return out


def one_direction(lstm, x, suffix):
    """A plain LSTM with the weights of one direction: (T, W) -> (T, H)."""
    plain = torch.nn.LSTM(x.shape[1], lstm.hidden_size, batch_first=True).double()
    plain.load_state_dict({n: lstm.state_dict()[n + suffix] for n in plain.state_dict()})
    return plain(x[None])[0][0]


@pytest.mark.parametrize("horizon", ["window", "directed"])
def test_an_exchange_against_lstms_and_attention_by_hand(horizon):
    torch.manual_seed(0)
    config = settings(d=16, heads=2, horizon=horizon).model
    layer = Exchange(config).double().eval()
    x, mask = torch.randn(2, 12, 16).double(), torch.ones(2, 12, dtype=torch.bool)
    mask[0, :3] = mask[1, 9:] = False
    got = layer(x, mask)
    lstm = layer.states.lstm
    ahead, back = torch.zeros(2, 12, 8).double(), torch.zeros(2, 12, 8).double()
    for i in range(2):
        kept = mask[i].nonzero().flatten()
        ahead[i, kept] = one_direction(lstm, x[i, kept], "")
        back[i, kept] = one_direction(lstm, x[i, kept].flip(0), "_reverse").flip(0)
    free = horizon == "window"
    for i in range(2):
        kept = mask[i].nonzero().flatten().tolist()
        other = 1 - i
        reaction = naive_hearing(
            layer.reactive, ahead[i], ahead[other], kept, mask[other], lambda t, s: free or s <= t
        )
        anticipation = naive_hearing(
            layer.anticipatory, back[i], back[other], kept, mask[other], lambda t, s: free or s >= t
        )
        own = torch.cat([ahead[i], back[i]], -1)
        expected = layer.norm(x[i] + own + torch.cat([reaction, anticipation], -1))
        torch.testing.assert_close(got[i, kept], expected[kept], atol=1e-10, rtol=0)


def test_both_people_of_an_exchange_are_treated_alike():
    torch.manual_seed(0)
    layer = Exchange(settings().model).double().eval()
    a, b = torch.randn(2, 3, 10, 48).double().unbind(0)
    mask = torch.rand(6, 10) > 0.2
    one = layer(torch.cat([a, b]), mask)
    two = layer(torch.cat([b, a]), torch.cat([mask[3:], mask[:3]]))
    torch.testing.assert_close(one, torch.cat([two[3:], two[:3]]), atol=1e-12, rtol=0)


def test_the_pool_against_torchs_attention():
    torch.manual_seed(0)
    config = settings().model
    pool = AttentionPool(config).double()
    torch.nn.init.normal_(pool.absent)
    theirs = torch.nn.MultiheadAttention(48, 4, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([pool.attention.query.weight, pool.attention.key_value.weight])
        )
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(pool.attention.out.state_dict())
    partners, there = torch.randn(2, 3, 7, 48).double(), torch.rand(2, 3, 7) > 0.3
    there[1, :, 4] = False
    there[0, 0] = True
    got = pool(partners, there)
    for b in range(2):
        for t in range(7):
            seats = there[b, :, t].nonzero().flatten()
            if not len(seats):
                assert torch.equal(got[b, t], pool.absent)
                continue
            keys = partners[b, seats, t][None]
            expected, _ = theirs(pool.query[None, None], keys, keys)
            torch.testing.assert_close(got[b, t], expected[0, 0])
    alone = pool(partners[:, :1], there[:, :1] | True)
    weights = pool.attention.key_value.weight[48:]
    torch.testing.assert_close(alone, pool.attention.out(partners[:, 0] @ weights.T))


def test_mamba_directions_see_one_side_of_time_each():
    torch.manual_seed(0)
    layer = MambaDirections(12, 6, settings(mixer="mamba").model).double()
    x, mask = torch.randn(1, 14, 12).double(), torch.ones(1, 14, dtype=torch.bool)
    y = layer(x, mask)
    moved = x.clone()
    moved[:, 7] += 1.0
    change = (layer(moved, mask) - y).abs()[0]  # (14, 12)
    assert change[:7, :6].max() == 0 and (change[7:, :6].amax(1) > 0).all()
    assert change[8:, 6:].max() == 0 and (change[:8, 6:].amax(1) > 0).all()


# ---- the whole model ------------------------------------------------------------------------


@pytest.mark.parametrize("mixer", ["bilstm", "mamba"])
def test_padding_at_either_end_of_a_window_changes_nothing(mixer):
    # Without prompts: they stay at the very beginning, apart from the frames by the padding.
    model, short = make(mixer=mixer, prompts=0, prompt_dropout=0.0), make_batch()

    def padded(t, fill):
        front, back = (torch.full((len(t), n, *t.shape[2:]), fill, dtype=t.dtype) for n in (11, 4))
        return torch.cat([front, t, back], dim=1)

    long = dataclasses.replace(
        short,
        streams={k: padded(v, float("nan")) for k, v in short.streams.items()},
        valid={k: padded(v, False) for k, v in short.valid.items()},
        frames=padded(short.frames, False),
    )
    torch.testing.assert_close(
        score(model, long)[:, 11:41], score(model, short), atol=1e-10, rtol=0
    )


def test_neither_order_nor_absent_seats_count():
    model = make()
    one = score(model, make_batch(partners=((2, 3, 4), (3, 5, 0))))
    two = score(model, make_batch(partners=((4, -1, 2, 3, -1), (-1, 0, 3, 5, -1))))
    torch.testing.assert_close(one, two, atol=1e-10, rtol=0)
    fewer = score(model, make_batch(partners=((2, 3), (3, 5))))
    assert (one - fewer).abs().max() > 1e-4
    batch = make_batch(partners=((2, 3, 4), (3, 5, 0)))
    frames = batch.frames.clone()
    frames[4] = frames[0] = False
    # Target 0 is gone itself here: only the other window can be compared.
    gone = score(model, dataclasses.replace(batch, frames=frames))
    torch.testing.assert_close(gone[1], fewer[1], atol=1e-10, rtol=0)


def test_a_target_without_partners_still_has_its_own_states():
    model, batch = make(), make_batch(partners=((), ()))
    y = score(model, batch)
    later = {n: v.clone() for n, v in batch.streams.items()}
    for v in later.values():
        v[:, 20] += 2.0
    moved = (score(model, dataclasses.replace(batch, streams=later)) - y).abs()
    assert moved[:, 19].min() > 0 and moved[:, 21].min() > 0  # both directions of time
    model.pool.absent.data.add_(1.0)
    assert (score(model, batch) - y).abs().max() > 1e-6  # and it knows that it is alone


def test_missing_streams_have_a_learned_token():
    model, batch = make(), make_batch()
    valid = {n: v.clone() for n, v in batch.valid.items()}
    valid["flow"][0, 5:15] = False
    gap = dataclasses.replace(batch, valid=valid)
    y = score(model, gap)
    model.streams["flow"].absent.data.add_(1.0)
    assert (score(model, gap) - y).abs().max() > 1e-6


@pytest.mark.parametrize(
    "groups",
    [
        {"all": list(SMALL)},
        {"a": ["egemaps"], "b": ["wav2vec2", "flow"], "groups": ["clip_face", "flow_magnitude"]},
    ],
)
def test_any_groups_of_streams(groups):
    model = make(groups=groups)
    assert set(model.fusion) == {g for g, members in groups.items() if len(members) > 1}
    assert (model.across is None) == (len(groups) == 1)
    assert torch.isfinite(score(model, make_batch())).all()


def test_prompts_are_heard_and_cut_off_again():
    torch.manual_seed(0)
    model = build(settings(prompts=3, prompt_dropout=0.5), SMALL, ("noxi", "mpiigi")).eval()
    batch = make_batch()
    batch = dataclasses.replace(batch, streams={n: v.float() for n, v in batch.streams.items()})
    by_domain = [
        score(model, dataclasses.replace(batch, domain=torch.full((6,), d))) for d in (0, 1, 2)
    ]
    assert by_domain[0].shape == (2, 30)
    assert (by_domain[0] - by_domain[1]).abs().max() > 1e-6
    assert (by_domain[1] - by_domain[2]).abs().max() > 1e-6


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"d": 15}, ["model.d", "even"]),
        ({"d": 44, "heads": 4}, ["model.heads", "direction of time"]),
        ({"stream_width": 22}, ["model.heads", "token"]),
        ({"d": 8, "heads": 4}, ["model.heads", "tell time"]),
        ({"mixer": "gru"}, ["model.mixer", "bilstm"]),
        ({"horizon": "causal"}, ["model.horizon", "directed"]),
    ],
)
def test_settings_that_do_not_fit_are_named_with_a_cure(bad, words):
    with pytest.raises(InputError) as e:
        settings(**bad)
    for word in words:
        assert word in str(e.value)


def test_the_paper_preset_has_long_windows():
    run = parse({"model": {"name": "dapa"}})
    t = run.training
    assert (t.window, t.stride, t.batch, t.learning_rate) == (512, 64, 32, 1e-4)
    assert (run.model.input_clip, run.model.layers, run.model.prompts) == (5.0, 3, 8)
