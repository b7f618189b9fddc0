"""DA-Mamba: dialogue-aware selective state-space model (arXiv 2509.17711).

Glossary (code name: symbol or name in the paper)
    streams: the cues Ege, W2v, CLIP, OF, OF2       groups: audio-group, visual-group
    d: common dimensionality after the 1x1 projections   StreamEncoder: 1x1 conv + M_ege, M_w2v ...
    group stacks: Modality-Group Fusion (Mod-F)     project: embeddings of the target alignment
    context: partner-context assembly (context Mamba, Part-F)   cross: cross-attention encoder
    score: frame-score regression, y in R^{n x 1}
Sizes in shape comments
    R persons of a batch, B target windows, P partners, L frames (n), G width of a group,
    W = sum of the groups' widths (or `context_width`)

There is no public code; what the paper leaves open is chosen here and listed in docs/model.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.da_mamba import DaMambaConfig
from model.frame_model import FrameModel
from model.layers.attention import CrossAttention
from model.layers.hybrid import HybridBlock
from model.layers.inputs import StreamInput
from model.layers.mamba import MIXERS
from model.losses import alignment_loss


class Residual(nn.Module):
    """x + mixer(LayerNorm(x)): (R, L, W) -> (R, L, W)."""

    def __init__(self, width: int, mixer: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = mixer

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x), mask)


class StreamEncoder(nn.Module):
    """One cue of one person: 1x1 projection, then a single Mamba layer. (R, L, D) -> (R, L, d)."""

    def __init__(
        self, feature: str, dim: int, config: DaMambaConfig, mixer: Callable[[int], nn.Module]
    ):
        super().__init__()
        self.input = StreamInput(feature, dim, config.d, config.input_clip, config.input_shift)
        self.dropout = nn.Dropout(config.dropout)
        self.mamba = Residual(config.d, mixer(config.d))

    def forward(self, values: Tensor, valid: Tensor, frames: Tensor) -> Tensor:
        return self.mamba(self.dropout(self.input(values, valid)), frames)


class GroupStack(nn.Module):
    """Hybrid blocks over the concatenated streams of one group: (R, L, G) -> (R, L, G)."""

    def __init__(self, width: int, config: DaMambaConfig, mixer: Callable[[int], nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(
            HybridBlock(
                width, config.heads, config.chunk, mixer(width), config.merge, config.dropout
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class DaMamba(FrameModel):
    """Engagement of the target of each window, from its own streams and its partners'.

    dims maps each feature of `config.groups` to its dimension. One encoder serves every person.
    """

    def __init__(self, config: DaMambaConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        d = config.d

        def mixer(width: int) -> nn.Module:
            return MIXERS[config.mixer](width, config.state, config.conv, config.expand)

        names = [name for members in config.groups.values() for name in members]
        self.streams = nn.ModuleDict(
            {name: StreamEncoder(name, dims[name], config, mixer) for name in names}
        )
        widths = {group: d * len(members) for group, members in config.groups.items()}
        self.stacks, self.project = nn.ModuleDict(), nn.ModuleDict()
        if config.modality_fusion:
            self.stacks.update({g: GroupStack(w, config, mixer) for g, w in widths.items()})
            if len(widths) > 1:
                self.project.update({g: nn.Linear(w, d) for g, w in widths.items()})
        W = sum(widths.values())
        self.fuse = nn.Identity()
        if config.context_width:
            self.fuse = nn.Linear(W, config.context_width)
            W = config.context_width
        if config.partner_fusion:
            self.context = Residual(W, mixer(W))
            self.cross = CrossAttention(W, config.heads)
        self.score = nn.Sequential(
            nn.LayerNorm(W),
            nn.Linear(W, d),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, outputs),
        )

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {"alignment": scalar}}."""
        groups, person = self.encode(batch)  # group -> (R, L, G), (R, L, W)
        target = person[batch.target]  # (B, L, W)
        if self.config.partner_fusion and batch.partners.shape[1]:
            target = target + self.listen(target, person, batch)
        losses = {"alignment": self.align(groups, batch)} if self.project else {}
        return self.result(self.score(target), losses)

    def encode(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Every person of the batch once: group -> (R, L, G), and all of it fused, (R, L, W)."""
        groups = {}
        for group, members in self.config.groups.items():
            x = torch.cat(
                [self.streams[m](batch.streams[m], batch.valid[m], batch.frames) for m in members],
                dim=-1,
            )  # (R, L, G)
            groups[group] = self.stacks[group](x, batch.frames) if self.stacks else x
        return groups, self.fuse(torch.cat(list(groups.values()), dim=-1))  # (R, L, W)

    def listen(self, target: Tensor, person: Tensor, batch: Batch) -> Tensor:
        """What the partners' context answers to the target: (B, L, W)."""
        L, P = person.shape[1], batch.partners.shape[1]
        instant = (
            torch.arange(L, device=person.device).repeat(P).expand(len(target), -1)
        )  # (B, P L)
        mask = take_rows(batch.frames, batch.partners).flatten(1, 2)  # (B, P L)
        if self.config.partner_context == "concat":
            joined = take_rows(person, batch.partners).flatten(1, 2)  # (B, P L, W)
            # Frames that exist first, in their order; absent ones only trail behind, and a masked
            # end is removed exactly (MambaBlock).
            order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # (B, P L)
            joined = joined.gather(1, order.unsqueeze(-1).expand_as(joined))  # (B, P L, W)
            mask, instant = mask.gather(1, order), instant.gather(1, order)  # (B, P L) each
            context = self.context(joined, mask)  # (B, P L, W)
        else:
            # The context Mamba starts anew for each person: no order among partners, and a person
            # who is everybody's partner is computed once.
            each = self.context(person, batch.frames)  # (R, L, W)
            context = take_rows(each, batch.partners).flatten(1, 2)  # (B, P L, W)
        return self.cross(target, context, mask, instant)

    def align(self, groups: dict[str, Tensor], batch: Batch) -> Tensor:
        """Mean InfoNCE over the pairs of the target's groups (one pair: audio, visual)."""
        projected, present = {}, {}
        for group, members in self.config.groups.items():
            projected[group] = self.project[group](groups[group][batch.target])  # (B, L, d)
            any_valid = torch.stack([batch.valid[m] for m in members]).any(0)  # (R, L)
            present[group] = (any_valid & batch.frames)[batch.target]  # (B, L)
        names = list(projected)
        losses = [
            alignment_loss(
                projected[a], projected[b], present[a] & present[b], self.config.temperature
            )
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ]
        return torch.stack(losses).mean()

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part of the paper's figure, for the parameter table."""
        parts = {
            "stream projections": [s.input for s in self.streams.values()],
            "stream Mambas": [s.mamba for s in self.streams.values()],
        }
        parts |= {f"{group} group stack": [stack] for group, stack in self.stacks.items()}
        parts["alignment projections"] = [self.project]
        parts["fusion"] = [self.fuse]
        if self.config.partner_fusion:
            parts |= {"context Mamba": [self.context], "cross-attention": [self.cross]}
        parts["score"] = [self.score]
        return parts


Model = DaMamba
