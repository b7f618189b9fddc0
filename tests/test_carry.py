"""Carried state: a session in pieces against one pass over the whole of it."""

import dataclasses
import gc
import warnings

import pytest
import torch

from inference.carry import Carry
from inference.config import check_live
from inference.stream import Delayed, Stream, look_ahead, open_stream
from model.batch import Batch
from model.registry import build
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

DIMS = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
REACH = 24


def make(seed=0, **model):
    torch.manual_seed(seed)
    small = {"local_chunk": 8, "partner_context": "separate", "depth": 2} | model
    settings = parse({"preset": "demo", "features": list(DIMS), "model": small})
    model = build(settings, DIMS).eval()
    with torch.no_grad():  # so that nothing hides behind a start value of zero
        for name, p in model.named_parameters():
            if name.endswith(("absent", "gate")):
                p.normal_()
    return model


def make_session(people=2, L=150, seed=0, dtype=torch.float32):
    """Everybody is a target, all others are partners in cyclic order."""
    g = torch.Generator().manual_seed(seed)
    streams = {n: torch.randn(people, L, d, generator=g, dtype=dtype) for n, d in DIMS.items()}
    valid = {n: torch.rand(people, L, generator=g) > 0.1 for n in DIMS}
    for name, ok in valid.items():
        streams[name][~ok] = float("nan")
    rows = torch.arange(people)
    partners = torch.tensor([[(r + k) % people for k in range(1, people)] for r in rows])
    return Batch(
        streams,
        valid,
        torch.ones(people, L, dtype=torch.bool),
        rows,
        partners.view(people, people - 1),
    )


def cut(batch, lo, hi):
    return dataclasses.replace(
        batch,
        streams={n: x[:, lo:hi] for n, x in batch.streams.items()},
        valid={n: x[:, lo:hi] for n, x in batch.valid.items()},
        frames=batch.frames[:, lo:hi],
    )


def carried(model, batch, piece, reach=REACH, first=0):
    carry = Carry(model, len(batch.frames), batch.target, batch.partners, reach)
    L, out = batch.frames.shape[1], []
    borders = sorted({0, L, *range(first or piece, L, piece)})
    for lo, hi in zip(borders, borders[1:], strict=False):
        out.append(carry.advance(cut(batch, lo, hi))["engagement"])
    return torch.cat(out, 1), carry


def whole(model, batch, reach=REACH):
    with torch.no_grad():
        return model.estimate(batch, reach=reach)["engagement"]


def live_tensors():
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(t.nbytes for t in gc.get_objects() if isinstance(t, torch.Tensor))


OPTIONS = [
    {},
    {"partner_context": "interleave"},
    {"partner_encoder": "separate"},
    {"partner_context": "interleave", "partner_encoder": "separate", "merge": "concat"},
    {"causal": True},
    {"local_chunk": 0, "context_width": 0, "conv": 1},
    {"modality_fusion": False},
    {"partner_fusion": False},
]


@pytest.mark.parametrize("people", [1, 2, 4])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "-")
def test_pieces_equal_one_pass(options, people):
    model, batch = make(**options), make_session(people)
    expected = whole(model, batch)
    for piece in (8, 16, 64, 152):
        got, _ = carried(model, batch, piece)
        assert (got - expected).abs().max() <= 1e-5, piece
    model, batch = model.double(), make_session(people, dtype=torch.float64)
    got, _ = carried(model, batch, 16)
    assert (got - whole(model, batch)).abs().max() <= 1e-12


def test_concat_of_one_partner_is_carried_too():
    model, batch = make(partner_context="concat"), make_session(2)
    got, _ = carried(model, batch, 32)
    torch.testing.assert_close(got, whole(model, batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["interleave", "separate"])
def test_people_who_come_late_or_leave_early_are_removed_exactly(mode):
    """As with partners of another, shorter session; the piece borders fall on both sides."""
    model, batch = make(partner_context=mode), make_session(4)
    batch.frames[1, 60:] = False
    batch.frames[2, :21] = False
    batch.frames[3] = False
    expected = whole(model, batch)
    for piece in (8, 40):
        got, _ = carried(model, batch, piece)
        assert (got - expected)[batch.frames].abs().max() <= 1e-5
    # Nobody is the same as absence all the time.
    gone = dataclasses.replace(batch, partners=torch.where(batch.partners == 3, -1, batch.partners))
    got, _ = carried(model, gone, 8)
    assert (got - expected)[:3][batch.frames[:3]].abs().max() <= 1e-5


def test_what_is_remembered_matters():
    """The same pieces without a memory differ: state, convolution tail and partner ring each."""
    model, batch = make(), make_session(2)
    expected, _ = carried(model, batch, 16)
    for forget in ("h", "tail", "ring"):
        carry = Carry(model, 2, batch.target, batch.partners, REACH)
        got = []
        for lo in range(0, 144, 16):
            got.append(carry.advance(cut(batch, lo, lo + 16))["engagement"])
            if forget == "ring":
                carry.ring.there.zero_()
            else:
                [getattr(s, forget).zero_() for s in carry.memory.values()]
        assert (torch.cat(got, 1) - expected[:, :144]).abs().max() > 1e-4, forget


@pytest.mark.parametrize("reach", [1, 10, 1000])
def test_the_band_of_partner_frames_is_what_was_asked_for(reach):
    model, batch = make(local_chunk=0, modality_fusion=False), make_session(2, L=100)
    got, _ = carried(model, batch, 16, reach)
    torch.testing.assert_close(got, whole(model, batch, reach), atol=1e-5, rtol=0)
    assert (got - carried(model, batch, 16, 30)[0]).abs().max() > 1e-4


def test_look_ahead_ends_with_the_local_chunk():
    model, batch = make(), make_session(2)
    later = dataclasses.replace(
        batch,
        streams={
            n: x.clone().index_fill_(1, torch.arange(64, 150), 9.0)
            for n, x in batch.streams.items()
        },
    )
    change = (carried(model, later, 16)[0] - carried(model, batch, 16)[0]).abs()
    assert change[:, :64].max() < 1e-6 < 1e-3 < change[:, 64:].max()


def test_state_does_not_grow_with_the_session():
    model, piece, held = make(partner_context="interleave"), make_session(3, L=24), []
    carry = Carry(model, 3, piece.target, piece.partners, REACH)
    for pieces in (3, 33):  # together 1 : 12, as 5 minutes to an hour
        for _ in range(pieces):
            carry.advance(piece)
        held.append((live_tensors(), [(t.data_ptr(), t.shape) for t in carry.state()]))
    assert held[0] == held[1]


def test_a_piece_that_ends_inside_a_chunk_is_the_last():
    model, batch = make(), make_session(2)
    carry = Carry(model, 2, batch.target, batch.partners, REACH)
    carry.advance(cut(batch, 0, 12))
    with pytest.raises(ValueError, match="frame 12"):
        carry.advance(cut(batch, 12, 20))


@pytest.mark.parametrize(
    "options, partners, words",
    [
        ({"mixer": "bimamba"}, 1, ["mixer", "bimamba", "window"]),
        ({"mixer": "transformer"}, 1, ["mixer", "transformer", "window"]),
        ({"partner_context": "concat"}, 2, ["concat", "not causal", "interleave"]),
    ],
)
def test_what_cannot_be_carried_is_refused_with_the_reason(options, partners, words):
    with pytest.raises(InputError) as e:
        check_live("da_mamba", make(**options).config, partners)
    assert all(word in str(e.value) for word in words)
    check_live("da_mamba", make().config, partners)
    with pytest.raises(InputError, match="bilstm"):
        check_live("bilstm", make().config)


# ---- stream ---------------------------------------------------------------------------------


def streamed(model, batch, reach=REACH):
    stream = open_stream(model, len(batch.frames), batch.target, batch.partners, reach)
    out = [stream.push(cut(batch, t, t + 1)) for t in range(batch.frames.shape[1])]
    return out, stream


CAUSAL = [
    {"causal": True},
    {"causal": True, "partner_context": "interleave"},
    {"causal": True, "partner_encoder": "separate", "merge": "concat"},
    {"causal": True, "partner_encoder": "separate", "partner_context": "interleave"},
    {"local_chunk": 0, "context_width": 0, "conv": 1},
    {"modality_fusion": False},
    {"partner_fusion": False, "causal": True, "merge": "sum"},
]


@pytest.mark.parametrize("people", [1, 2, 3, 4])
@pytest.mark.parametrize("options", CAUSAL, ids=lambda o: "-".join(map(str, o.values())))
def test_frame_by_frame_equals_carry(options, people):
    kinds = [(torch.float32, 1e-5), (torch.float64, 1e-10)]
    for dtype, tolerance in kinds if people == 2 else kinds[:1]:
        model, batch = make(**options).to(dtype), make_session(people, L=43, dtype=dtype)
        out, stream = streamed(model, batch)
        assert isinstance(stream, Stream) and all(y.shape == (people, 1) for y in out)
        expected, _ = carried(model, batch, 24)
        assert (torch.cat(out, 1) - expected).abs().max() <= tolerance
        assert stream.finish().shape == (people, 0)


@pytest.mark.parametrize("mode", ["interleave", "separate"])
def test_late_and_early_people_in_a_stream(mode):
    model, batch = make(partner_context=mode, causal=True), make_session(4, L=70)
    batch.frames[1, 40:] = False
    batch.frames[2, :21] = False
    batch.frames[3] = False
    out, _ = streamed(model, batch)
    expected, _ = carried(model, batch, 24)
    assert (torch.cat(out, 1) - expected)[batch.frames].abs().max() <= 1e-5


def test_with_look_ahead_frames_wait_for_the_end_of_their_chunk():
    model, batch = make(), make_session(2, L=70)
    out, stream = streamed(model, batch)
    assert isinstance(stream, Delayed) and look_ahead(model) == 7
    assert [y.shape[1] for y in out[:20]] == [*[0] * 7, 8, *[0] * 7, 8, *[0] * 4]
    last = stream.finish()
    assert last.shape == (2, 70 % 8)
    expected, _ = carried(model, batch, 8)
    torch.testing.assert_close(torch.cat([*out, last], 1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["interleave", "separate"])
def test_a_stream_holds_the_same_after_any_time(mode):
    model = make(partner_context=mode, causal=True)
    frame = cut(make_session(3, L=1), 0, 1)
    stream = open_stream(model, 3, frame.target, frame.partners, REACH)
    held, places = [], []
    for frames in (25, 275):  # together 1 : 12, as 5 minutes to an hour
        for _ in range(frames):
            stream.push(frame)
        held.append(live_tensors())
        places.append([t.data_ptr() for t in stream.state()])
    assert held[0] == held[1] and places[0] == places[1]


@pytest.mark.parametrize("options", [{}, {"causal": True}])
def test_prompts_come_before_the_session(options):
    model = make(prompts=5, **options)
    model.add_prompts(("noxi", "mpiigi"))
    batch = dataclasses.replace(make_session(2), domain=torch.tensor([1, 1]))
    K = 5
    with torch.no_grad():
        expected = model.prompts.cut(model.estimate(model.prompts(batch), reach=REACH))
    got, _ = carried(model, batch, 16, first=16 - K)
    torch.testing.assert_close(got, expected["engagement"], atol=1e-5, rtol=0)
    out, stream = streamed(model, batch)
    got = torch.cat([*out, stream.finish()], 1)
    torch.testing.assert_close(got, expected["engagement"], atol=1e-5, rtol=0)
