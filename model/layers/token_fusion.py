"""Ways of sending the tokens of several modalities through Mamba layers.

Every class maps tokens (B, M, L, d) and a mask (B, M, L) to tokens (B, M, L, d): M modalities of L
frames. `kinds` names the kind of each modality (a number below `n_kinds`), the same for all windows;
modalities of one kind share what belongs to a modality.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.layers.mamba import BiMambaBlock, MambaBlock
from model.layers.transport import Packing, deinterleave, interleave

MIXERS: dict[str, type[nn.Module]] = {"mamba": MambaBlock, "bimamba": BiMambaBlock}


class MixerLayer(nn.Module):
    """x + dropout(mixer(LayerNorm(x))): (B, T, d) -> (B, T, d)."""

    def __init__(self, d: int, mixer: nn.Module, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        """x (B, T, d); whatever follows goes to the mixer: mask (B, T), kind (B, T)."""
        return x + self.dropout(self.mixer(self.norm(x), *args))


class JoinedFusion(nn.Module):
    """All tokens in one sequence through the same layers.

    order: `interleaved`, frame by frame (eq. 11 of AlignMamba), or `single`, one modality after the
    other along time ("single-stream" in its ablation, as in Cobra and VL-Mamba)
    by_kind: the mixers take the kind of every token as a third argument
    """

    def __init__(
        self,
        d: int,
        layers: int,
        mixer: Callable[[], nn.Module],
        dropout: float,
        order: str = "interleaved",
        by_kind: bool = False,
    ):
        super().__init__()
        self.order, self.by_kind = order, by_kind
        self.layers = nn.ModuleList(MixerLayer(d, mixer(), dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(d)

    def forward(self, tokens: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        M, L = mask.shape[1:]
        kind = kinds.view(1, M, 1).expand_as(mask)  # (B, M, L)
        flat = [interleave(t) if self.order == "interleaved" else t.flatten(1, 2)
                for t in (tokens, mask, kind)]  # (B, T, d), (B, T), (B, T), T = L M  # fmt: skip
        packing = Packing(flat[1])
        x = packing.pack(flat[0])  # (B, T, d)
        extra = (packing.pack(flat[2]),) if self.by_kind else ()
        for layer in self.layers:
            x = layer(x, packing.mask, *extra)
        x = packing.unpack(self.norm(x))  # (B, T, d)
        return deinterleave(x, M) if self.order == "interleaved" else x.unflatten(1, (M, L))


class MultiStreamFusion(nn.Module):
    """Every modality through its own layers, each fed with the mean of the others' tokens.

    "Multi-stream" in the ablation of AlignMamba: unimodal Mambas that take the features of the
    other modalities as inputs (as in Fusion-Mamba). Modalities of one kind share their layers.
    """

    def __init__(
        self, d: int, layers: int, mixer: Callable[[], nn.Module], dropout: float, n_kinds: int
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(MixerLayer(d, mixer(), dropout) for _ in range(n_kinds))
            for _ in range(layers)
        )
        self.exchange = nn.ModuleList(
            nn.ModuleList(nn.Linear(d, d) for _ in range(n_kinds)) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d)

    def forward(self, tokens: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        x, weight = tokens, mask.unsqueeze(-1).to(tokens.dtype)  # (B, M, L, d), (B, M, L, 1)
        others = weight.sum(1, keepdim=True) - weight  # (B, M, L, 1): how many others are there
        for layers, exchange in zip(self.layers, self.exchange, strict=True):
            present = x * weight  # (B, M, L, d)
            heard = (present.sum(1, keepdim=True) - present) / others.clamp(min=1)  # (B, M, L, d)
            new = []
            for m, kind in enumerate(kinds.tolist()):
                new.append(layers[kind](x[:, m] + exchange[kind](heard[:, m]), mask[:, m]))
            x = torch.stack(new, dim=1)  # (B, M, L, d)
        return self.norm(x)
