"""Coupled Mamba: streams whose hidden states are coupled (arXiv 2405.18014).

Glossary (code name: symbol or name in the paper or its published code)
    group: modality   stream: a modality group of one participant   M: number of streams
    embed: "FusionNet" per modality   blocks: Coupled Mamba blocks (Algorithm 1)
    coupling: equation (6), its weights normalised   norm_f, between: the published code's shared
    LayerNorm and its maps between modalities   weight: softmax(w), the fusion of the outputs
Sizes in shape comments
    R persons of a batch, B target windows, P partners, S = 1 + P slots (target first), K groups,
    L frames, W width

The paper pools over time and gives one number per clip; here every frame has its own. Participants
share all weights; a learned vector tells a partner's streams from the target's.
"""

import math

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.coupled_mamba import CoupledMambaConfig
from model.frame_model import FrameModel
from model.layers.coupled import FeatureCoupling, Independent, StateCoupling, TwoDirections
from model.layers.inputs import StreamInput
from model.layers.mamba import MambaBlock


class GroupEmbedding(nn.Module):
    """Linear-LayerNorm-ReLU-Linear-LayerNorm over a group's features: (R, L, D_f) -> (R, L, W).

    The first Linear is written as a sum of one per feature, so that a missing feature is its own
    learned vector.
    """

    def __init__(self, dims: dict[str, int], config: CoupledMambaConfig):
        super().__init__()
        self.inputs = nn.ModuleDict(
            {
                name: StreamInput(name, dim, config.hidden, config.input_clip, config.input_shift)
                for name, dim in dims.items()
            }
        )
        self.project = nn.Sequential(
            nn.LayerNorm(config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.width),
            nn.LayerNorm(config.width),
            nn.Dropout(config.dropout),
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Every person's stream (R, L, W), and where any feature of it exists (R, L)."""
        parts = [m(batch.streams[name], batch.valid[name]) for name, m in self.inputs.items()]
        valid = torch.stack([batch.valid[name] for name in self.inputs]).any(0)  # (R, L)
        return self.project(sum(parts)), valid & batch.frames


class CoupledBlock(nn.Module):
    """LayerNorm, coupled mixers and residual of every stream: group -> (B, S, L, W).

    With feature coupling the mixer's output passes the LayerNorm that all layers share, as in the
    published code.
    """

    def __init__(self, config: CoupledMambaConfig, roles: int):
        super().__init__()
        self.norms = nn.ModuleDict({g: nn.LayerNorm(config.width) for g in config.groups})
        self.dropout = nn.Dropout(config.dropout)

        def direction() -> nn.Module:
            rank = config.dt_rank or math.ceil(config.state / 8)
            mixers = {
                g: MambaBlock(config.width, config.state, config.conv, config.expand, dt_rank=rank)
                for g in config.groups
            }
            if config.coupling in ("feature", "none"):
                return Independent(mixers)
            return StateCoupling(mixers, roles, leaky=config.coupling == "state_leaky")

        self.coupling = direction()
        if config.bidirectional:
            self.coupling = TwoDirections(self.coupling, direction())

    def forward(
        self, streams: dict[str, Tensor], frames: Tensor, present: Tensor, after: nn.Module
    ) -> dict[str, Tensor]:
        """group -> (B, S, L, W), frames (B, S, L), present (B, S, K, L); after: the shared norm."""
        mixed = self.coupling({g: self.norms[g](x) for g, x in streams.items()}, frames, present)
        return {g: x + self.dropout(after(mixed[g])) for g, x in streams.items()}


class Fusion(nn.Module):
    """softmax(w) over the streams' outputs: `roles` 1 reads the target's, 2 the partners' too."""

    def __init__(self, groups: int, roles: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(roles, groups))

    def forward(self, streams: dict[str, Tensor], present: Tensor) -> Tensor:
        """Weighted mean of the streams that are present: (B, L, W).

        Partners count as their mean, whatever their number.
        """
        x = torch.stack(list(streams.values()), dim=2)  # (B, S, K, L, W)
        outputs, there = x[:, 0], present[:, 0]  # (B, K, L, W), (B, K, L)
        if len(self.weight) > 1:
            others = torch.where(present[:, 1:].unsqueeze(-1), x[:, 1:], 0.0)  # (B, P, K, L, W)
            count = present[:, 1:].sum(1)  # (B, K, L)
            mean = others.sum(1) / count.clamp(min=1).unsqueeze(-1)  # (B, K, L, W)
            outputs = torch.cat([outputs, mean], dim=1)  # (B, 2 K, L, W)
            there = torch.cat([there, count > 0], dim=1)  # (B, 2 K, L)
        logits = self.weight.flatten()[:, None].expand_as(there)  # (B, K | 2 K, L)
        # Where nothing is present the streams still carry the sum state: all of them are read.
        there = there | ~there.any(1, keepdim=True)
        weight = logits.masked_fill(~there, -torch.inf).softmax(1)  # (B, K | 2 K, L)
        return (weight.unsqueeze(-1) * outputs).sum(1)  # (B, L, W)


class PartnerMark(nn.Module):
    """Adds a learned vector to a partner's streams: (B, S, L, W) -> (B, S, L, W)."""

    def __init__(self, width: int):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        slot = torch.arange(x.shape[1], device=x.device).clamp(max=1)  # (S,): the target is 0
        return x + slot[:, None, None] * self.vector


class CoupledMamba(FrameModel):
    """Engagement of the target of each window, from coupled streams of groups and participants."""

    def __init__(self, config: CoupledMambaConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        self.dialogue = config.participants
        W, roles = config.width, 1 + config.participants
        self.embed = nn.ModuleDict(
            {g: GroupEmbedding({m: dims[m] for m in ms}, config) for g, ms in config.groups.items()}
        )
        self.partner = PartnerMark(W) if config.participants else nn.Identity()
        self.blocks = nn.ModuleList(CoupledBlock(config, roles) for _ in range(config.depth))
        feature = config.coupling == "feature"
        self.norm_f = nn.LayerNorm(W) if feature else nn.Identity()
        self.between: FeatureCoupling | None = None
        if feature and config.depth > 1 and (roles > 1 or len(config.groups) > 1):
            self.between = FeatureCoupling(list(config.groups), W, roles)
        self.fuse = Fusion(len(config.groups), roles if config.readout == "all" else 1)
        self.head = nn.Sequential(
            nn.Identity() if feature else nn.LayerNorm(W),
            nn.Linear(W, W // 2),
            nn.ReLU(),
            nn.Linear(W // 2, outputs),
        )

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        rows = batch.target.unsqueeze(1)  # (B, 1)
        if self.config.participants:
            rows = torch.cat([rows, batch.partners], dim=1)  # (B, S)
        frames = take_rows(batch.frames, rows)  # (B, S, L), false for nobody
        streams, present = {}, []
        for group, embed in self.embed.items():
            x, there = embed(batch)  # (R, L, W), (R, L)
            streams[group] = self.partner(take_rows(x, rows))  # (B, S, L, W)
            present.append(take_rows(there, rows))  # (B, S, L)
        there = torch.stack(present, dim=2)  # (B, S, K, L)
        for i, block in enumerate(self.blocks):
            streams = block(streams, frames, there, self.norm_f)
            if self.between is not None and i < len(self.blocks) - 1:
                streams = self.between(streams, there)
        return self.result(self.head(self.fuse(streams, there)))

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        return {
            **{f"{group} embedding": [embed] for group, embed in self.embed.items()},
            "partner mark": [self.partner],
            "coupled blocks": [self.blocks, self.norm_f],
            "maps between streams": [self.between] if self.between is not None else [],
            "fusion and head": [self.fuse, self.head],
        }


Model = CoupledMamba
