"""Blocks and losses of DA-Mamba against naive versions."""

import numpy as np
import pytest
import torch

from model.layers.alignment_loss import alignment_loss
from model.layers.attention import ChunkAttention, CrossAttention
from model.layers.hybrid import HybridBlock
from model.layers.mamba import MambaBlock
from training.losses import ccc, mse_loss

torch.set_num_threads(1)  # small tensors: threads only wait for each other


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 8, 19])
def test_chunk_attention_is_full_attention_with_a_block_mask(length, causal):
    torch.manual_seed(0)
    width, heads, chunk = 12, 3, 8
    layer = ChunkAttention(width, heads, chunk, causal).double()
    x = torch.randn(2, length, width, dtype=torch.float64)
    mask = torch.rand(2, length) > 0.2
    got = layer(x, mask)
    q, k, v = layer.qkv(x).chunk(3, -1)
    for b in range(2):
        for i in range(length):
            keys = [j for j in range(length) if j // chunk == i // chunk and mask[b, j]]
            keys = [j for j in keys if j <= i or not causal]
            heads_out = []
            for h in range(heads):
                part = slice(h * 4, h * 4 + 4)
                if not keys:
                    heads_out.append(torch.zeros(4, dtype=torch.float64))
                    continue
                s = torch.stack([q[b, i, part] @ k[b, j, part] / 2 for j in keys]).softmax(0)
                heads_out.append(sum(w * v[b, j, part] for w, j in zip(s, keys, strict=True)))
            expected = layer.out(torch.cat(heads_out))
            torch.testing.assert_close(got[b, i], expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("reach", [None, 6, 3, 1])
def test_cross_attention_against_torch_multihead_attention(reach):
    torch.manual_seed(0)
    W, H, L, S = 8, 2, 6, 12
    ours = CrossAttention(W, H).double()
    theirs = torch.nn.MultiheadAttention(W, H, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    target, context = torch.randn(2, L, W).double(), torch.randn(2, S, W).double()
    mask = torch.rand(2, S) > 0.3
    instant = torch.arange(S) % L
    slope = ours.log_slope.exp()
    distance = (torch.arange(L)[:, None] - instant[None]).abs()
    bias = (-slope[:, None, None] * distance).masked_fill(~mask[:, None, None], -torch.inf)
    if reach is not None:
        behind = torch.arange(L)[:, None] - instant[None]
        bias = bias.masked_fill((behind < 0) | (behind >= reach), -torch.inf)
    expected, _ = theirs(
        ours.norm_query(target),
        *[ours.norm_context(context)] * 2,
        attn_mask=bias.reshape(2 * H, L, S).double(),
    )
    # A row without any key: NaN there, zeros here.
    expected = torch.where((bias[:, 0] > -torch.inf).any(-1, keepdim=True), expected, 0.0)
    assert torch.isfinite(expected).all()
    got = ours(target, context, mask, instant.expand(2, S), reach)
    torch.testing.assert_close(got, expected)


def test_hybrid_block_is_residual_plus_its_branches():
    torch.manual_seed(0)
    block = HybridBlock(16, ChunkAttention(16, 2, 8), MambaBlock(16), "gate", 0.0)
    with torch.no_grad():
        block.gate.normal_()
    x, mask = torch.randn(2, 20, 16), torch.ones(2, 20, dtype=torch.bool)
    u = block.norm(x)
    g = block.gate.sigmoid()
    expected = x + g * block.local(u, mask) + (1 - g) * block.globally(u, mask)
    torch.testing.assert_close(block(x, mask), expected)


def test_alignment_loss_against_cross_entropy_window_by_window():
    torch.manual_seed(0)
    a, b = torch.randn(3, 7, 5).double(), torch.randn(3, 7, 5).double()
    mask = torch.rand(3, 7) > 0.3
    total, count = 0.0, 0
    for i in range(3):
        rows = mask[i].nonzero().flatten()
        u = torch.nn.functional.normalize(a[i, rows], dim=-1)
        v = torch.nn.functional.normalize(b[i, rows], dim=-1)
        logits, n = u @ v.T / 0.1, torch.arange(len(rows))
        for s in (logits, logits.T):
            total += torch.nn.functional.cross_entropy(s, n, reduction="sum").item() / 2
        count += len(rows)
    got = alignment_loss(a, b, mask, temperature=0.1)
    assert got.item() == pytest.approx(total / count, rel=1e-9)
    # Equal, mutually orthogonal frames align perfectly; shifted ones do not.
    eye = torch.eye(7).expand(1, 7, 7)
    full = torch.ones(1, 7, dtype=torch.bool)
    assert alignment_loss(eye, eye, full) < 1e-4 < 5 < alignment_loss(eye, eye.roll(1, 1), full)


def test_ccc_against_the_definition():
    rng = np.random.default_rng(0)
    p, t = rng.random((4, 9)), rng.random((4, 9))
    mask = rng.random((4, 9)) > 0.4
    x, y = p[mask], t[mask]
    expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    got = ccc(*map(torch.from_numpy, (p, t, mask)))
    assert got.item() == pytest.approx(expected, rel=1e-6)
    hidden = np.where(mask, p, np.nan)
    assert ccc(*map(torch.from_numpy, (hidden, t, mask))).item() == pytest.approx(expected, 1e-6)
    error = mse_loss(*map(torch.from_numpy, (hidden, t, mask))).item()
    assert error == pytest.approx(((x - y) ** 2).mean())
    assert ccc(torch.full((3,), 0.4), torch.rand(3), torch.ones(3) > 0).item() == 0.0
