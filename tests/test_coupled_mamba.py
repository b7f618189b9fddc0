"""Coupled Mamba: the coupled scan against its definition, limits, participants, refusals."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.batch import Batch
from model.layers import coupled_scan as scans
from model.layers.coupled import StateCoupling
from model.layers.coupled_scan import coupled_scan
from model.layers.mamba import MambaBlock
from model.registry import build
from model.scan import selective_scan
from runtime import InputError
from training.settings import parse

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}


def naive(x, dt, A, B, C, share, leak=1.0, state=None):
    """The definition stream by stream, frame by frame, under autograd. Also the last states."""
    batch, M, L, D = x.shape
    G = x.new_zeros(batch, D, A.shape[-1]) if state is None else state[:, 0]
    own = [torch.zeros_like(G) for _ in range(M)]
    if state is not None and state.shape[1] > 1:
        own = list(state[:, 1:].unbind(1))
    ys = []
    for t in range(L):
        new = []
        for m in range(M):
            S = torch.exp(dt[:, m, t, :, None] * A[m])
            b = (dt[:, m, t] * x[:, m, t])[..., None] * B[:, m, t, None, :]
            new.append(S * ((1 - leak) * own[m] + leak * G) + b)
        nobody = (share[:, :, t] == 0).all(1)[:, None, None]
        total = sum(share[:, m, t, None, None] * new[m] for m in range(M))
        own, G = new, torch.where(nobody, G, total)
        ys.append(torch.stack([(h * C[:, m, t, None]).sum(-1) for m, h in enumerate(own)], 1))
    return torch.stack(ys, 2), torch.stack([G, *own], 1)


def arguments(M, L=23, batch=2, D=3, N=4, seed=0, dtype=torch.float64, absent=True):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    present = torch.rand(batch, M, L, generator=g) > (0.3 if absent else -1)
    raw = torch.rand(batch, M, L, generator=g, dtype=dtype) + 0.1
    share = raw * present / (raw * present).sum(1, keepdim=True).clamp(min=1e-9)
    values = {
        "x": draw(batch, M, L, D),
        "dt": F.softplus(draw(batch, M, L, D)),
        "A": -torch.exp(draw(M, D, N)),
        "B": draw(batch, M, L, N),
        "C": draw(batch, M, L, N),
        "share": share,
    }
    return {name: v.requires_grad_() for name, v in values.items()}


@pytest.mark.parametrize("M", [1, 2, 5])
@pytest.mark.parametrize("leak", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("piece", [1, 10**9])
def test_scan_is_the_definition_with_all_gradients(M, leak, piece, monkeypatch):
    monkeypatch.setattr(scans, "PIECE_ELEMENTS", piece)  # many pieces, and one
    given = arguments(M)
    alpha = None if leak is None else torch.tensor(leak, dtype=torch.float64, requires_grad=True)
    g = torch.Generator().manual_seed(9)
    chains = 1 if leak is None else 1 + M
    start = torch.randn(2, chains, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    y, last = coupled_scan(**given, leak=alpha, state=start, return_state=True)
    wanted, states = naive(**given, leak=1.0 if leak is None else alpha, state=start)
    states = states[:, :chains]
    torch.testing.assert_close(y, wanted, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(last, states, atol=1e-12, rtol=1e-12)
    inputs = [*given.values(), start, *([] if alpha is None else [alpha])]
    weights = torch.randn(y.shape, generator=g, dtype=y.dtype)
    ends = torch.randn(last.shape, generator=g, dtype=y.dtype)
    got = torch.autograd.grad((y * weights).sum() + (last * ends).sum(), inputs)
    expected = torch.autograd.grad((wanted * weights).sum() + (states * ends).sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("leaky", [False, True])
def test_gradcheck(leaky):
    given = arguments(2, L=5, D=2, N=2, absent=False)  # shares jump where nobody is there
    alpha = torch.tensor(0.4, dtype=torch.float64, requires_grad=True) if leaky else None
    state = torch.randn(2, 3 if leaky else 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *a: coupled_scan(*a, leak=alpha, state=state, return_state=True),
        (*given.values(),),
    )
    if leaky:
        fixed = [v.detach() for v in given.values()]
        assert torch.autograd.gradcheck(lambda a: coupled_scan(*fixed, leak=a), (alpha,))


def test_without_leak_is_leak_one_and_half_precision_keeps_its_states_in_fp32():
    given = {k: v.detach() for k, v in arguments(3).items()}
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(coupled_scan(**given), coupled_scan(**given, leak=one))
    low = {k: v.to(torch.bfloat16) for k, v in given.items()}
    exact = {k: v.double() for k, v in low.items()}
    y, last = coupled_scan(**low, return_state=True)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    wanted = coupled_scan(**exact)
    torch.testing.assert_close(y.double(), wanted, atol=0.02, rtol=0.02)
    torch.testing.assert_close(last.double(), coupled_scan(**exact, return_state=True)[1])


def test_alpha_zero_is_one_plain_scan_per_stream():
    given = {k: v.detach() for k, v in arguments(3).items()}
    y = coupled_scan(**given, leak=torch.zeros((), dtype=torch.float64))
    for m in range(3):
        x, dt, B, C = (given[k][:, m] for k in ("x", "dt", "B", "C"))
        alone = selective_scan(x, dt, given["A"][m], B, C, backend="reference")
        torch.testing.assert_close(y[:, m], alone, atol=1e-12, rtol=1e-12)


def test_scan_in_two_halves_is_one_scan():
    given = {k: v.detach() for k, v in arguments(3).items()}
    for leak in (None, torch.tensor(0.3, dtype=torch.float64)):
        whole = coupled_scan(**given, leak=leak)
        cut = {k: v if k == "A" else v[:, :, :9] for k, v in given.items()}
        rest = {k: v if k == "A" else v[:, :, 9:] for k, v in given.items()}
        first, state = coupled_scan(**cut, leak=leak, return_state=True)
        second = coupled_scan(**rest, leak=leak, state=state)
        torch.testing.assert_close(torch.cat([first, second], 2), whole, atol=1e-12, rtol=1e-12)


def usual_gates(M, L=96, N=16, D=32):
    """Gates of Mamba's initialisation: steps log-uniform in 0.001..0.1, A = -(1..N)."""
    g = torch.Generator().manual_seed(0)
    dt = torch.exp(torch.rand(1, M, 1, D, generator=g) * 4.6052 - 6.9078).expand(-1, -1, L, -1)
    given = {
        "x": torch.randn(1, M, L, D, generator=g),
        "dt": dt,
        "A": -torch.arange(1.0, N + 1).expand(M, D, N),
        "B": torch.randn(1, M, L, N, generator=g),
        "C": torch.ones(1, M, L, N),
    }
    return {k: v.double() for k, v in given.items()}


def test_equation_6_as_written_overflows_and_is_refused():
    given = usual_gates(3)
    gates = torch.exp(given["dt"][:, :, 0, :, None] * given["A"]).sum(1)  # P = sum of S
    assert gates.max() > 2.9 and (gates > 1).double().mean() > 0.99
    ones = torch.ones(1, 3, 96, dtype=torch.float64)
    literal, mean = (coupled_scan(**given, share=ones * w).abs().max() for w in (1, 1 / 3))
    assert literal > torch.finfo(torch.float32).max > 1e30 * mean
    single = {k: v.float() for k, v in given.items()}
    assert not torch.isfinite(coupled_scan(**single, share=ones.float())).all()
    with pytest.raises(InputError, match="equation \\(6\\)"):
        parse({"model": {"name": "coupled_mamba", "coupling": "literal"}})


def block_inputs(slots, groups, batch=2, L=12, W=8):
    g = torch.Generator().manual_seed(1)
    streams = {k: torch.randn(batch, slots, L, W, generator=g) for k in groups}
    frames = torch.ones(batch, slots, L, dtype=torch.bool)
    frames[:, 0, :2] = frames[:, 0, -1:] = False
    return streams, frames, frames.unsqueeze(2).repeat(1, 1, len(groups), 1)


def test_one_stream_is_a_plain_mamba_block():
    torch.manual_seed(0)
    mixer = MambaBlock(8, 4, backend="reference")
    streams, frames, present = block_inputs(1, ["audio"])
    coupled = StateCoupling({"audio": mixer}, roles=1, leaky=False)
    got = coupled(streams, frames, present)["audio"][:, 0]
    wanted = mixer(streams["audio"][:, 0], frames[:, 0])
    inside = frames[:, 0].unsqueeze(-1)
    torch.testing.assert_close(got * inside, wanted * inside, atol=1e-6, rtol=1e-5)


def test_no_leak_between_streams_is_plain_mamba_blocks():
    torch.manual_seed(0)
    mixers = {g: MambaBlock(8, 4, backend="reference") for g in ("audio", "visual")}
    streams, frames, present = block_inputs(2, list(mixers))
    coupled = StateCoupling(mixers, roles=2, leaky=True)
    nn.init.constant_(coupled.leak, -torch.inf)  # sigmoid: 0
    got = coupled(streams, frames, present)
    for group, mixer in mixers.items():
        wanted = mixer(streams[group].flatten(0, 1), frames.flatten(0, 1)).unflatten(0, (2, 2))
        torch.testing.assert_close(got[group], wanted, atol=1e-6, rtol=1e-5)


def make(seed=0, **model):
    torch.manual_seed(seed)
    model = {"name": "coupled_mamba", "dropout": 0.0, **model}
    settings = {"preset": "demo", "features": list(SMALL), "model": model}
    net = build(parse(settings), SMALL).eval()
    with torch.no_grad():  # start values of zero would hide what these parameters do
        for name, p in net.named_parameters():
            if name.endswith(("share.weight", "fuse.weight", "partner.vector", "leak")):
                p.normal_()
    return net


def make_batch(partners, people=7, L=14):
    g = torch.Generator().manual_seed(3)
    return Batch(
        {name: torch.randn(people, L, dim, generator=g) for name, dim in SMALL.items()},
        {name: torch.rand(people, L, generator=g) > 0.2 for name in SMALL},
        torch.ones(people, L, dtype=torch.bool),
        torch.zeros(1, dtype=torch.long),
        torch.tensor([partners], dtype=torch.long).view(1, -1),
    )


def score(model, batch):
    with torch.no_grad():
        return model(batch)["engagement"]


KINDS = [
    {"coupling": "state", "readout": "target"},
    {"coupling": "state_leaky", "readout": "all"},
    {"coupling": "feature", "readout": "all"},
    {"coupling": "none", "readout": "all"},
    {"coupling": "state", "readout": "target", "bidirectional": True},
]


def in_double(partners):
    batch = make_batch(partners)
    return dataclasses.replace(batch, streams={k: v.double() for k, v in batch.streams.items()})


@pytest.mark.parametrize("model", KINDS, ids=lambda m: "-".join(map(str, m.values())))
def test_partners_are_a_set_and_padding_is_nobody(model):
    net = make(**model).double()  # at the start partners are heard little: 1e-5 of the score
    seen = []
    for P in range(6):
        people = [3, 1, 4, 2, 6][:P]
        bare = score(net, in_double(people))
        assert torch.isfinite(bare).all()
        torch.testing.assert_close(score(net, in_double(people[::-1])), bare, atol=1e-10, rtol=0)
        mixed = in_double([-1, *people[:2], -1, *people[2:], -1])
        torch.testing.assert_close(score(net, mixed), bare, atol=1e-10, rtol=0)
        gone = in_double([*people, 5])  # a partner whose recording does not reach this window
        gone.frames[5] = False
        torch.testing.assert_close(score(net, gone), bare, atol=1e-10, rtol=0)
        assert all((bare - other).abs().max() > 1e-6 for other in seen)
        seen.append(bare)


def test_an_absent_group_is_excluded_but_its_stream_still_reads_the_sum():
    net = make(readout="target").double()
    batch = in_double([1, 2])
    for name in ("egemaps", "wav2vec2"):
        batch.valid[name][:] = False
    without = score(net, batch)
    for name in ("egemaps", "wav2vec2"):
        batch.streams[name][:] = torch.nan
    assert torch.equal(score(net, batch), without)
    for valid in batch.valid.values():
        valid[0] = False  # nothing of the target is left
    alone = score(net, batch)
    assert torch.isfinite(alone).all()
    batch.streams["flow"][1] += 1
    assert (score(net, batch) - alone).abs().max() > 1e-6


@pytest.mark.parametrize("model", [*KINDS, {"coupling": "state", "participants": False}])
def test_every_parameter_learns(model):
    net = make(**model).train()
    batch = make_batch([1, 2])
    net(batch)["engagement"].square().mean().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [n for n in idle if "absent" not in n], idle


def test_couplings_differ_and_feature_maps_are_absent_without_need():
    scores = [score(make(**k), make_batch([1])) for k in KINDS]
    for i, a in enumerate(scores):
        assert all((a - b).abs().max() > 1e-4 for b in scores[:i])
    assert make(coupling="feature", depth=1).between is None


def test_feature_coupling_is_the_published_map_of_concatenated_outputs():
    net = make(coupling="feature", participants=False)
    maps = net.between.maps["audio"]
    assert list(maps) == ["own_visual"]
    x = {g: torch.randn(1, 1, 5, 52) for g in ("audio", "visual")}
    out = net.between(x, torch.ones(1, 1, 2, 5, dtype=torch.bool))
    wanted = x["audio"] + x["visual"] @ maps["own_visual"].weight.T + maps["own_visual"].bias
    torch.testing.assert_close(out["audio"], wanted)


@pytest.mark.parametrize("state", [32, 64, 128])
def test_the_papers_preset(state):
    settings = parse({"model": {"name": "coupled_mamba", "state": state}})
    net = build(settings, SMALL)
    mixer = net.blocks[0].coupling.mixers["audio"]
    assert (len(net.blocks), mixer.d_conv, mixer.D.numel()) == (3, 4, 2 * 128)
    assert mixer.A_log.shape == (256, state)
    assert mixer.dt_rank == state // 8
    t = settings.training
    assert (t.optimiser, t.learning_rate, t.weight_decay) == ("adam", 5e-4, 5e-4)


def test_settings_under_which_partners_could_not_matter_are_refused():
    with pytest.raises(InputError, match="no partner could change"):
        parse({"model": {"name": "coupled_mamba", "coupling": "none", "participants": True}})
    none = {"name": "coupled_mamba", "coupling": "none", "participants": False}
    assert not build(parse({"preset": "demo", "model": none}), dict.fromkeys(PAPER, 3)).dialogue


PAPER = ("egemaps", "wav2vec2", "clip_face", "flow", "flow_magnitude")
