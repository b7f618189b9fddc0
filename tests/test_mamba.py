"""The Mamba block against transformers' MambaMixer, and exact removal of masked ends."""

import pytest
import torch

from model.layers.mamba import BiMambaBlock, MambaBlock
from runtime.torchvision_cpu import allow_torchvision_without_cuda
from training.optim import parameter_groups

torch.set_num_threads(1)  # small tensors: threads only wait for each other


@pytest.fixture(scope="module")
def mixer():
    allow_torchvision_without_cuda()
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    config = MambaConfig(
        hidden_size=24, state_size=16, conv_kernel=4, expand=2, num_hidden_layers=1
    )
    # Evaluation mode: the training path asks for compiled kernels first.
    return MambaMixer(config, layer_idx=0).eval()


def test_names_and_shapes_are_those_of_mamba_ssm(mixer):
    shapes = {name: tuple(p.shape) for name, p in MambaBlock(24).state_dict().items()}
    assert shapes == {
        "A_log": (48, 16),
        "D": (48,),
        "in_proj.weight": (96, 24),
        "conv1d.weight": (48, 1, 4),
        "conv1d.bias": (48,),
        "x_proj.weight": (2 + 32, 48),
        "dt_proj.weight": (48, 2),
        "dt_proj.bias": (48,),
        "out_proj.weight": (24, 48),
    }
    assert shapes == {name: tuple(p.shape) for name, p in mixer.state_dict().items()}


# transformers ignores the mask of a single step, so that case is compared without one.
@pytest.mark.parametrize(
    "length, masked", [(1, False), (3, False), (37, False), (3, True), (37, True)]
)
def test_equals_transformers_in_outputs_and_gradients(mixer, length, masked):
    ours = MambaBlock(24)
    ours.load_state_dict(mixer.state_dict())
    g = torch.Generator().manual_seed(length)
    x = torch.randn(2, length, 24, generator=g)
    mask = torch.rand(2, length, generator=g) > 0.3 if masked else None
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = mixer(a, attention_mask=None if mask is None else mask.to(x.dtype))
    got = ours(b, mask)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    weight = torch.randn(expected.shape, generator=g)
    mixer.zero_grad()
    (expected * weight).sum().backward()
    (got * weight).sum().backward()
    torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-4)
    reference = dict(mixer.named_parameters())
    for name, p in ours.named_parameters():
        scale = reference[name].grad.abs().max().item()
        torch.testing.assert_close(
            p.grad, reference[name].grad, atol=1e-5 * (1 + scale), rtol=1e-4, msg=name
        )


@pytest.mark.parametrize("kind", [MambaBlock, BiMambaBlock])
def test_masked_ends_are_removed_exactly(kind):
    torch.manual_seed(1)
    block = kind(16)
    x = torch.randn(2, 20, 16)
    padded = torch.cat([torch.randn(2, 7, 16), x, torch.randn(2, 5, 16)], dim=1)
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[:, 7:27] = True
    torch.testing.assert_close(block(padded, mask)[:, 7:27], block(x), atol=1e-6, rtol=1e-6)


def test_causal_and_bidirectional():
    torch.manual_seed(2)
    x = torch.randn(1, 12, 16)
    y = x.clone()
    y[:, 8] += 1
    one, two = MambaBlock(16), BiMambaBlock(16)
    assert (one(x) - one(y))[:, :8].abs().max() == 0
    assert (two(x) - two(y))[:, :8].abs().max() > 1e-4


def test_initial_time_steps_and_weight_decay():
    block = MambaBlock(64)
    step = torch.nn.functional.softplus(block.dt_proj.bias)
    assert step.min() >= 0.001 * 0.99 and step.max() <= 0.1 * 1.01
    assert torch.allclose(block.A_log.exp()[5], torch.arange(1.0, 17.0))
    decayed, free = parameter_groups(block, 0.1)
    names = {id(p): n for n, p in block.named_parameters()}
    assert {names[id(p)] for p in free["params"]} == {"A_log", "D", "conv1d.bias", "dt_proj.bias"}
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0.0
