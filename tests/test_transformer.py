"""Transformer layers against torch's own, and against a complex product for the rotation."""

import pytest
import torch
import torch.nn.functional as F

from model.layers.transformer import EncoderBlock, MultiHeadAttention, TransformerMixer, rotate
from runtime import InputError

torch.set_num_threads(1)  # small tensors: threads only wait for each other


@pytest.mark.parametrize("bias", [False, True])
def test_attention_against_torch(bias):
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3, bias=bias).double()
    theirs = torch.nn.MultiheadAttention(12, 3, bias=True, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.zero_()
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = torch.randn(4, 9, 12).double(), torch.randn(4, 20, 12).double()
    mask = torch.rand(4, 20) > 0.4
    expected, _ = theirs(x, context, context, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, context, mask), expected)
    mask[2] = False
    got = ours(x, context.requires_grad_(), mask)
    got.sum().backward()
    assert (got[2] == 0).all() and (context.grad[2] == 0).all()
    assert torch.isfinite(context.grad).all()


def test_the_block_against_torchs_encoder_layer():
    torch.manual_seed(0)
    ours = EncoderBlock(12, 3, 4, 20).double()
    theirs = torch.nn.TransformerEncoderLayer(
        12, 3, 20, 0.0, lambda x: F.gelu(x, approximate="tanh"), batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        attention = theirs.self_attn
        attention.in_proj_weight.copy_(
            torch.cat([ours.attention.query.weight, ours.attention.key_value.weight])
        )
        attention.in_proj_bias.zero_()
        attention.out_proj.load_state_dict(ours.attention.out.state_dict())
    pairs = [
        (theirs.norm1, ours.norm),
        (theirs.norm2, ours.feed.norm),
        (theirs.linear1, ours.feed.up),
        (theirs.linear2, ours.feed.down),
    ]
    for a, b in pairs:
        a.load_state_dict(b.state_dict())
    x, mask = torch.randn(2, 15, 12).double(), torch.rand(2, 15) > 0.3
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask])


def test_rotation_is_a_complex_product_and_knows_differences_only():
    x = torch.randn(2, 40, 10).double()
    half = torch.complex(x[..., :5], x[..., 5:])
    turn = torch.arange(40)[:, None] * 10_000.0 ** (-torch.arange(5).double() / 5)
    expected = half * torch.polar(torch.ones_like(turn), turn)
    torch.testing.assert_close(
        rotate(x), torch.cat([expected.real, expected.imag], -1), atol=1e-12, rtol=0
    )
    q, k = torch.randn(10).double().expand(40, 10), torch.randn(10).double().expand(40, 10)
    scores = rotate(q) @ rotate(k).T
    for shift in (-3, 0, 5):
        diagonal = scores.diagonal(shift)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert (scores.diagonal(3)[0] - scores.diagonal(-3)[0]).abs() > 1e-3  # past is not future


def test_the_mixer_ignores_masked_frames_wherever_they_stand():
    torch.manual_seed(0)
    mixer = TransformerMixer(16, 4).double()
    x = torch.randn(2, 20, 16).double()
    bare = mixer(x)
    long = torch.cat([torch.randn(2, 33, 16), x, torch.randn(2, 7, 16)], dim=1).double()
    mask = torch.zeros(2, 60, dtype=torch.bool)
    mask[:, 33:53] = True
    torch.testing.assert_close(mixer(long, mask)[:, 33:53], bare, atol=1e-9, rtol=0)
    assert (mixer(x.flip(1)).flip(1) - bare).abs().max() > 1e-3  # order counts
    with pytest.raises(InputError, match="do not divide"):
        TransformerMixer(16, 3)
    with pytest.raises(InputError, match="tell time"):
        TransformerMixer(8, 8)
