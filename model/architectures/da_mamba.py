"""DA-Mamba: dialogue-aware selective state-space model (arXiv 2509.17711).

Glossary (code name: symbol or name in the paper)
    streams: the cues Ege, W2v, CLIP, OF, OF2       groups: audio-group, visual-group
    PersonEncoder: all of a person's streams and groups, drawn once per person in the paper
    d: common dimensionality after the 1x1 projections   StreamEncoder: 1x1 conv + M_ege, M_w2v ...
    group stacks: Modality-Group Fusion (Mod-F)     project: embeddings of the target alignment
    context: partner-context assembly (context Mamba, Part-F)   cross: cross-attention encoder
    score: frame-score regression, y in R^{n x 1}
Sizes in shape comments
    R persons of a batch, B target windows, P partners, L frames (n), G width of a group,
    W = sum of the groups' widths (or `context_width`)

There is no public code; what the paper leaves open is chosen here and listed in docs/model.md.
inference runs the same network over whole sessions, piece by piece and frame by frame.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.da_mamba import DaMambaConfig
from model.frame_model import FrameModel
from model.layers.alignment_loss import alignment_loss
from model.layers.attention import ChunkAttention, CrossAttention
from model.layers.hybrid import HybridBlock
from model.layers.inputs import StreamInput
from model.layers.mamba import BiMambaBlock, MambaBlock, Memory, mix
from model.layers.transformer import TransformerMixer


def make_mixer(config: DaMambaConfig, width: int) -> nn.Module:
    """What mixes frames over time, (R, L, W), (R, L) -> (R, L, W): `config.mixer` at a width."""
    if config.mixer == "transformer":
        return TransformerMixer(width, config.heads)
    kind = {"mamba": MambaBlock, "bimamba": BiMambaBlock}[config.mixer]
    return kind(width, config.state, config.conv, config.expand)


class Residual(nn.Module):
    """x + mixer(LayerNorm(x)): (R, L, W) -> (R, L, W)."""

    def __init__(self, width: int, mixer: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = mixer

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        memory: Memory | None = None,
        count: Tensor | None = None,
    ) -> Tensor:
        return x + mix(self.mixer, self.norm(x), mask, memory, count)


class StreamEncoder(nn.Module):
    """One cue of one person: 1x1 projection, then a single Mamba layer. (R, L, D) -> (R, L, d)."""

    def __init__(self, feature: str, dim: int, config: DaMambaConfig):
        super().__init__()
        self.input = StreamInput(feature, dim, config.d, config.input_clip, config.input_shift)
        self.dropout = nn.Dropout(config.dropout)
        self.mamba = Residual(config.d, make_mixer(config, config.d))

    def forward(
        self, values: Tensor, valid: Tensor, frames: Tensor, memory: Memory | None = None
    ) -> Tensor:
        return self.mamba(self.dropout(self.input(values, valid)), frames, memory)


class GroupStack(nn.Module):
    """Hybrid blocks over the concatenated streams of one group: (R, L, G) -> (R, L, G)."""

    def __init__(self, width: int, config: DaMambaConfig):
        super().__init__()
        self.blocks = nn.ModuleList(self._block(width, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def _block(width: int, config: DaMambaConfig) -> HybridBlock:
        local = None
        if config.local_chunk:
            local = ChunkAttention(width, config.heads, config.local_chunk, config.causal)
        return HybridBlock(width, local, make_mixer(config, width), config.merge, config.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask, memory)
        return self.norm(x)


class PersonEncoder(nn.Module):
    """Every stream of a person, and its groups fused: all that is computed once per person.

    width: of the result (W). `stacks` is empty with modality_fusion off.
    """

    def __init__(self, config: DaMambaConfig, dims: dict[str, int]):
        super().__init__()
        self.groups = config.groups
        names = [name for members in config.groups.values() for name in members]
        self.streams = nn.ModuleDict({n: StreamEncoder(n, dims[n], config) for n in names})
        self.group_width = {g: config.d * len(members) for g, members in config.groups.items()}
        self.stacks = nn.ModuleDict()
        if config.modality_fusion:
            self.stacks.update({g: GroupStack(w, config) for g, w in self.group_width.items()})
        self.width = sum(self.group_width.values())
        self.fuse = nn.Identity()
        if config.context_width:
            self.fuse = nn.Linear(self.width, config.context_width)
            self.width = config.context_width

    def forward(
        self, batch: Batch, memory: Memory | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Every person of the batch: group -> (R, L, G), and all of it fused, (R, L, W)."""
        groups, frames = {}, batch.frames  # (R, L)
        for group, members in self.groups.items():
            x = torch.cat(
                [
                    self.streams[m](batch.streams[m], batch.valid[m], frames, memory)
                    for m in members
                ],
                dim=-1,
            )  # (R, L, G)
            groups[group] = self.stacks[group](x, frames, memory) if self.stacks else x
        return groups, self.fuse(torch.cat(list(groups.values()), dim=-1))  # (R, L, W)


class DaMamba(FrameModel):
    """Engagement of the target of each window, from its own streams and its partners'.

    dims maps each feature of `config.groups` to its dimension. One encoder serves every person
    unless partner_encoder is `separate`.
    """

    def __init__(self, config: DaMambaConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        self.encoder = PersonEncoder(config, dims)
        W = self.encoder.width
        self.project = nn.ModuleDict()
        if config.alignment and config.modality_fusion and len(config.groups) > 1:
            widths = self.encoder.group_width
            self.project.update({g: nn.Linear(w, config.d) for g, w in widths.items()})
        if config.partner_fusion:
            if config.partner_encoder == "separate":
                self.partner_encoder = PersonEncoder(config, dims)
            self.context = Residual(W, make_mixer(config, W))
            self.cross = CrossAttention(W, config.heads)
        self.score = nn.Sequential(
            nn.LayerNorm(W),
            nn.Linear(W, config.d),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d, outputs),
        )

    def estimate(self, batch: Batch, reach: int | None = None) -> dict:
        """batch -> {"engagement": (B, L), "losses": {"alignment": scalar}}.

        reach: the partners' last `reach` frames are heard (default: the whole window; with
        `causal` no later frame in any case).
        """
        if self.config.causal and reach is None:
            reach = batch.frames.shape[1]
        heard = self.config.partner_fusion and batch.partners.shape[1] > 0
        if hasattr(self, "partner_encoder"):
            own = select_rows(batch, batch.target)
            groups, target = self.encoder(own)  # group -> (B, L, G), (B, L, W)
            losses = self.align(groups, own)
            if heard:
                rows, at = batch.partners.clamp(min=0).unique(return_inverse=True)
                batch = replace(
                    select_rows(batch, rows), partners=torch.where(batch.partners < 0, -1, at)
                )
                person = self.partner_encoder(batch)[1]  # (R', L, W)
        else:
            groups, person = self.encoder(batch)  # group -> (R, L, G), (R, L, W)
            target = person[batch.target]  # (B, L, W)
            losses = self.align({g: x[batch.target] for g, x in groups.items()}, batch)
        if heard:
            target = target + self.listen(target, person, batch, reach)
        return self.result(self.score(target), losses)

    def embeddings(self, batch: Batch) -> dict[str, Tensor]:
        """What the alignment loss compares: group -> (B, L, d) of the targets; {} without it."""
        if not self.project:
            return {}
        groups, _ = self.encoder(select_rows(batch, batch.target))  # group -> (B, L, G)
        return {g: project(groups[g]) for g, project in self.project.items()}

    def listen(self, target: Tensor, person: Tensor, batch: Batch, reach: int | None) -> Tensor:
        """What the partners' context answers to the target: (B, L, W)."""
        instant = torch.arange(person.shape[1], device=person.device)
        instant = instant.expand(*batch.partners.shape, -1)  # (B, P, L)
        mask = take_rows(batch.frames, batch.partners)  # (B, P, L)
        if self.config.partner_context == "separate":
            # The context Mamba starts anew for each person: no order among partners, and a person
            # who is everybody's partner is computed once.
            each = self.context(person, batch.frames)  # (R, L, W)
            context = take_rows(each, batch.partners).flatten(1, 2)  # (B, P L, W)
            mask, instant = mask.flatten(1), instant.flatten(1)  # (B, P L) each
        else:
            joined = take_rows(person, batch.partners)  # (B, P, L, W)
            if self.config.partner_context == "interleave":
                # All partners of an instant side by side, instant after instant: causal in time.
                joined = joined.transpose(1, 2)  # (B, L, P, W)
                mask, instant = mask.transpose(1, 2), instant.transpose(1, 2)  # (B, L, P) each
            joined = joined.flatten(1, 2)  # (B, P L, W)
            mask, instant = mask.flatten(1), instant.flatten(1)  # (B, P L) each
            # Frames that exist first, in their order; absent ones only trail behind, and a masked
            # end is removed exactly (MambaBlock).
            order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # (B, P L)
            joined = joined.gather(1, order.unsqueeze(-1).expand_as(joined))  # (B, P L, W)
            mask, instant = mask.gather(1, order), instant.gather(1, order)  # (B, P L) each
            context = self.context(joined, mask)  # (B, P L, W)
        return self.cross(target, context, mask, instant, reach)

    def align(self, groups: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """{"alignment": mean InfoNCE over the pairs of the targets' groups}; {} where it is off.

        groups: group -> (B, L, G). One pair for audio and visual.
        """
        if not self.project:
            return {}
        projected, present = {}, {}
        for group, members in self.config.groups.items():
            projected[group] = self.project[group](groups[group])  # (B, L, d)
            any_valid = torch.stack([batch.valid[m] for m in members]).any(0)  # (R, L)
            present[group] = (any_valid & batch.recorded)[batch.target]  # (B, L)
        names = list(projected)
        losses = [
            alignment_loss(
                projected[a], projected[b], present[a] & present[b], self.config.temperature
            )
            for i, a in enumerate(names)
            for b in names[i + 1 :]
        ]
        return {"alignment": torch.stack(losses).mean()}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part of the paper's figure, for the parameter table."""
        encoder = self.encoder
        parts = {
            "stream projections": [s.input for s in encoder.streams.values()],
            "stream Mambas": [s.mamba for s in encoder.streams.values()],
        }
        parts |= {f"{group} group stack": [stack] for group, stack in encoder.stacks.items()}
        parts["alignment projections"] = [self.project]
        parts["fusion"] = [encoder.fuse]
        if hasattr(self, "partner_encoder"):
            parts["partner encoder"] = [self.partner_encoder]
        if self.config.partner_fusion:
            parts |= {"context Mamba": [self.context], "cross-attention": [self.cross]}
        parts["score"] = [self.score]
        return parts


def select_rows(batch: Batch, rows: Tensor) -> Batch:
    """The batch with only these person-windows, in this order; all of them are its targets."""
    return replace(
        batch,
        streams={name: x[rows] for name, x in batch.streams.items()},
        valid={name: x[rows] for name, x in batch.valid.items()},
        frames=batch.frames[rows],
        target=torch.arange(len(rows), device=rows.device),
        person=None if batch.person is None else batch.person[rows],
        domain=None if batch.domain is None else batch.domain[rows],
    )


Model = DaMamba
