"""Plain ways of fusing modality groups: the rows beside Coupled Mamba in its fusion ablation.

Glossary (code name: name in arXiv 2405.18014, table of fusion methods)
    average, concat: average, concat fusion   mamba: plain Mamba over the tokens of all modalities
    cross_attention: cross-attention fusion
Sizes in shape comments
    R persons of a batch, B target windows, L frames, G groups, d width of a token, M modalities:
    the partners' groups, then the target's

Everything but the fusion is the same in all four: encoders of a group, its Mamba layers, the head.
"""

import torch
from torch import Tensor, nn

from model.batch import Batch
from model.configs.fusion import FusionConfig
from model.frame_model import FrameModel
from model.layers.attention import CrossAttention
from model.layers.groups import GroupEncoder, frame_readout, kinds, modalities
from model.layers.mamba import MambaBlock
from model.layers.token_fusion import JoinedFusion, MixerLayer


class GroupLayers(nn.Module):
    """A group of one person over time: tokens, then Mamba layers. Batch -> (R, L, d)."""

    def __init__(self, config: FusionConfig, dims: dict[str, int]):
        super().__init__()
        c = config
        self.tokens = GroupEncoder(
            dims, c.stream_width, c.d, c.input_clip, c.input_shift, c.dropout
        )
        self.layers = nn.ModuleList(
            MixerLayer(c.d, MambaBlock(c.d, c.state, c.conv, c.expand), c.dropout)
            for _ in range(c.encoder_layers)
        )
        self.norm = nn.LayerNorm(c.d)

    def forward(self, batch: Batch) -> Tensor:
        x, _ = self.tokens(batch)  # (R, L, d)
        for layer in self.layers:
            x = layer(x, batch.frames)  # (R, L, d)
        return self.norm(x)


class CrossFusion(nn.Module):
    """Each of the target's groups asks all other tokens of the window: (B, M, L, d) -> (B, G, L, d)."""

    def __init__(self, d: int, heads: int, layers: int, groups: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(CrossAttention(d, heads) for _ in range(groups)) for _ in range(layers)
        )

    def forward(self, tokens: Tensor, exists: Tensor) -> Tensor:
        M, L = exists.shape[1:]
        G = len(self.layers[0])
        instant = torch.arange(L, device=tokens.device).repeat(M - 1).expand(len(tokens), -1)
        for layer in self.layers:
            asked = []
            for g in range(G):
                others = [m for m in range(M) if m != M - G + g]
                context, mask = tokens[:, others].flatten(1, 2), exists[:, others].flatten(1, 2)
                own = tokens[:, M - G + g]  # (B, L, d)
                asked.append(own + layer[g](own, context, mask, instant))  # (B, L, d)
            tokens = torch.cat([tokens[:, : M - G], torch.stack(asked, dim=1)], dim=1)
        return tokens[:, M - G :]


class Fusion(FrameModel):
    """Engagement of the target from its groups, with `participants` from its partners' too.

    dims maps each feature of `config.groups` to its dimension. One encoder per group serves every
    person; the target's tokens and the partners' differ by a learned vector.
    """

    def __init__(self, config: FusionConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        c, G = config, len(config.groups)
        self.dialogue = c.participants
        self.encoders = nn.ModuleDict(
            {g: GroupLayers(c, {n: dims[n] for n in members}) for g, members in c.groups.items()}
        )
        self.kind = nn.Parameter(0.02 * torch.randn(2 * G if c.participants else G, c.d))
        if c.method == "mamba":
            self.fuse = JoinedFusion(
                c.d, c.fusion_layers, lambda: MambaBlock(c.d, c.state, c.conv, c.expand), c.dropout
            )
        elif c.method == "cross_attention":
            self.fuse = CrossFusion(c.d, c.heads, c.fusion_layers, G)
        persons = 2 if c.participants else 1
        read = c.d * {"average": persons, "concat": persons * G}.get(c.method, 1)
        self.score = nn.Sequential(
            nn.LayerNorm(read),
            nn.Linear(read, c.d),
            nn.GELU(),
            nn.Dropout(c.dropout),
            nn.Linear(c.d, outputs),
        )

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        c, G = self.config, len(self.encoders)
        encoded = [encoder(batch) for encoder in self.encoders.values()]  # (R, L, d) each
        tokens = modalities(encoded, batch, c.participants)  # (B, M, L, d)
        exists = modalities([batch.frames] * G, batch, c.participants)  # (B, M, L)
        kind = kinds(batch, G, c.participants)  # (M,)
        tokens = tokens + self.kind[kind].unsqueeze(1)  # (B, M, L, d)
        return self.result(self.score(self.join(tokens, exists, kind)))

    def join(self, tokens: Tensor, exists: Tensor, kind: Tensor) -> Tensor:
        """One vector per frame: (B, M, L, d) -> (B, L, d), several d wide for average and concat.

        Target and partners are never averaged: two people who hear each other would get one score.
        """
        c, G = self.config, len(self.encoders)
        if c.method == "average":
            tokens = tokens.unflatten(1, (-1, G)).mean(2)  # (B, P + 1, L, d): of a person's groups
            return frame_readout(tokens, exists[:, ::G], 1, c.participants)  # (B, L, d | 2 d)
        if c.method == "concat":
            return frame_readout(tokens, exists, G, c.participants)  # (B, L, G d | 2 G d)
        if c.method == "mamba":
            tokens = self.fuse(tokens, exists, kind)[:, -G:]  # (B, G, L, d)
        else:
            tokens = self.fuse(tokens, exists)  # (B, G, L, d)
        return tokens.mean(1)  # (B, L, d)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        parts = {f"{group} encoder": [encoder] for group, encoder in self.encoders.items()}
        parts["kinds of tokens"] = [nn.ParameterList([self.kind])]
        if hasattr(self, "fuse"):
            parts["fusion"] = [self.fuse]
        return parts | {"score": [self.score]}


Model = Fusion
