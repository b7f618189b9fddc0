"""Long windows in blocks: the same numbers and gradients as all at once, with less kept."""

import pytest
import torch

from model.cost import peak_bytes
from model.layers import blockwise
from model.layers.alignment_loss import alignment_loss
from model.layers.attention import CrossAttention

torch.set_num_threads(1)


def attention(reach, L=40, P=2, B=2, W=8):
    torch.manual_seed(0)
    layer = CrossAttention(W, 2).double()
    target = torch.randn(B, L, W, dtype=torch.float64, requires_grad=True)
    context = torch.randn(B, P * L, W, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(B, P * L) > 0.2
    mask[-1, L:] = False
    instant = torch.arange(L).repeat(P).expand(B, -1)
    y = layer(target, context, mask, instant, reach)
    y.square().sum().backward()
    return [y.detach(), target.grad, context.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("reach", [None, 7])
@pytest.mark.parametrize("pairs", [1, 80 * 13, 80 * 40 - 1])
def test_cross_attention(monkeypatch, reach, pairs):
    whole = attention(reach)
    monkeypatch.setattr(blockwise, "PAIRS", pairs)
    for got, want in zip(attention(reach), whole, strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def alignment(L=50, B=2, E=6):
    g = torch.Generator().manual_seed(1)
    a, b = (
        torch.randn(B, L, E, generator=g, dtype=torch.float64, requires_grad=True) for _ in "ab"
    )
    mask = torch.rand(B, L, generator=g) > 0.3
    loss = alignment_loss(a, b, mask)
    loss.backward()
    return [loss.detach(), a.grad, b.grad]


@pytest.mark.parametrize("pairs", [1, 50 * 7])
def test_alignment_loss(monkeypatch, pairs):
    whole = alignment()
    monkeypatch.setattr(blockwise, "PAIRS", pairs)
    for got, want in zip(alignment(), whole, strict=True):
        torch.testing.assert_close(got, want, atol=1e-12, rtol=1e-12)


def test_memory_no_longer_grows_with_the_square_of_the_length(monkeypatch):
    def peak(L, pairs):
        monkeypatch.setattr(blockwise, "PAIRS", pairs)
        return peak_bytes(lambda: attention(None, L=L, P=1, B=1), torch.device("cpu"))

    whole, long_whole = peak(128, 1 << 30), peak(512, 1 << 30)
    pieces, long_pieces = peak(128, 64 * 64), peak(512, 64 * 64)
    assert long_whole > 10 * whole  # four times the frames, sixteen times the pairs
    assert long_pieces < 6 * pieces
