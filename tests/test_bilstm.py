"""The LSTM control: masks against sequences cut by hand, the partners' mean, options."""

import dataclasses

import pytest
import torch

from model.batch import Batch
from model.layers.recurrent import BiLstm
from model.registry import build
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}


def make(seed=0, **model):
    torch.manual_seed(seed)
    settings = {"preset": "demo", "model": {"name": "bilstm"} | model}
    return build(parse(settings), SMALL).double().eval()


def make_batch(people=5, L=30, seed=0, targets=(0, 1), partners=((1, 2), (0, 3))):
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


@pytest.mark.parametrize("layers", [1, 2])
def test_the_recurrence_sees_the_existing_frames_only(layers):
    torch.manual_seed(0)
    layer = BiLstm(4, 3, layers).double()
    x = torch.randn(6, 20, 4).double()
    mask = torch.ones(6, 20, dtype=torch.bool)
    mask[0, :5] = False  # front
    mask[1, 13:] = False  # end
    mask[2, :2] = mask[2, 17:] = mask[2, 8:11] = False  # both, and inside
    mask[3] = False  # nothing
    mask[4, 1:] = False  # one frame
    got = layer(x, mask)
    for i in range(6):
        kept = mask[i].nonzero().flatten()
        assert (got[i][~mask[i]] == 0).all()
        if len(kept):
            expected = layer.lstm(x[i : i + 1, kept])[0][0]
            torch.testing.assert_close(got[i, kept], expected, atol=1e-12, rtol=0)
    everything = torch.ones_like(mask)
    torch.testing.assert_close(layer(x, everything), layer.lstm(x)[0])
    torch.testing.assert_close(layer(x, everything)[5], got[5])


def test_gradients_do_not_touch_missing_frames():
    layer = BiLstm(4, 3).double()
    x = torch.randn(2, 9, 4).double().requires_grad_()
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :4] = mask[1] = False
    layer(x, mask).square().sum().backward()
    assert (x.grad[~mask] == 0).all() and (x.grad[0, 4:] != 0).all()


def test_padding_at_either_end_of_a_window_changes_nothing():
    model, short = make(), make_batch()

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
        score(model, long)[:, 11:41], score(model, short), atol=1e-12, rtol=0
    )


def test_partners_are_averaged_over_those_present():
    model, batch = make(), make_batch(partners=((1, 2, -1), (0, 3, 4)))
    frames = batch.frames.clone()
    frames[2, :10] = False
    batch = dataclasses.replace(batch, frames=frames)
    person = torch.randn(5, 30, 4).double()
    got = model.summary(person, batch)
    torch.testing.assert_close(got[0, :10], person[1, :10])
    torch.testing.assert_close(got[0, 10:], (person[1, 10:] + person[2, 10:]) / 2)
    torch.testing.assert_close(got[1], (person[0] + person[3] + person[4]) / 3)
    alone = make_batch(partners=((), ()))
    assert (model.summary(person, alone) == 0).all()


def test_partners_are_heard_and_the_option_silences_them():
    batch, other = make_batch(), make_batch(partners=((4, 2), (2, 4)))
    assert (score(make(), batch) - score(make(), other)).abs().max() > 1e-4
    silent = make(partner_fusion=False)
    assert not silent.dialogue
    assert torch.equal(score(silent, batch), score(silent, other))


def test_the_recurrence_stays_in_full_precision_under_autocast():
    layer, x = BiLstm(4, 3), torch.randn(2, 9, 4)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :3] = False
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x, mask)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, layer(x, mask))
