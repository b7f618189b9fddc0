"""DAT: dialogue-aware Transformer (arXiv 2410.08470), after its published code.

Glossary (code name: name in the paper or its code)
    streams: egemapsv2, w2vbert2, clip, openface2, openpose   groups: audio, visual
    WindowNorm: LayerNorm over (time, channel) without affine   Person.norm: LayerNorm(2477)
    stream encoders: modality-specific Transformer   group encoders: modality-group fusion (MGF)
    CrossEncoder: dialogue-aware encoder (DAE)   positions: learned positional embedding
Sizes in shape comments
    R persons of a batch, B target windows, P partners, L frames, D dimension of a stream,
    d width of a stream (512), G width of a group, W sum of the groups' widths

Published are one partner and windows of 96 frames without masks. What is added here (any number of
partners and frames, masks, options for the code's quirks) is listed in docs/dat.md; none of it has
parameters unless `learned_absent` is set.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.dat import DatConfig
from model.frame_model import FrameModel
from model.layers.inputs import Normalise
from model.layers.transformer import EncoderBlock, FeedForward, MultiHeadAttention

SMOOTHING = 0.9  # weight of the present row in the published smoothing over the batch axis


class WindowNorm(nn.Module):
    """LayerNorm over time and channel together: (R, L, D), mask (R, L) -> (R, L, D).

    Statistics come from the frames of the mask only; the others become 0, which is their mean.
    """

    def __init__(self, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        weight = mask.unsqueeze(-1).to(x.dtype)  # (R, L, 1)
        n = (weight.sum((1, 2), keepdim=True) * x.shape[-1]).clamp(min=1.0)  # (R, 1, 1)
        x = x - (x * weight).sum((1, 2), keepdim=True) / n  # (R, L, D)
        variance = (x.square() * weight).sum((1, 2), keepdim=True) / n  # (R, 1, 1)
        return x * (variance + self.eps).rsqrt() * weight  # (R, L, D)


class Positions(nn.Module):
    """A learned vector per frame of the window, added: (..., L, W) -> (..., L, W).

    A window of another length than the table has interpolates it linearly.
    """

    def __init__(self, frames: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(frames, width))

    def forward(self, x: Tensor) -> Tensor:
        table, L = self.table, x.shape[-2]
        if len(table) != L:
            table = F.interpolate(table.T[None], L, mode="linear", align_corners=True)[0].T
        return x + table


class Encoder(nn.Module):
    """Positions and one pre-norm Transformer block: (R, L, W), (R, L) -> (R, L, W)."""

    def __init__(self, width: int, config: DatConfig, level: str):
        super().__init__()
        heads, head_width, hidden = (
            getattr(config, f"{level}_{key}") for key in ("heads", "head_width", "hidden")
        )
        self.positions = Positions(config.positions, width)
        self.block = EncoderBlock(width, heads, head_width, hidden, config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.block(self.positions(x), mask)


class StreamProjection(nn.Module):
    """Linear, dropout and GELU of one stream: (R, L, D), (R, L) -> (R, L, d)."""

    def __init__(self, dim: int, config: DatConfig):
        super().__init__()
        self.project = nn.Linear(dim, config.width)
        self.dropout = nn.Dropout(config.input_dropout)
        self.activation = nn.Identity() if config.variant == "mpiigi" else nn.GELU()
        self.absent = nn.Parameter(torch.zeros(config.width)) if config.learned_absent else None

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.activation(self.dropout(self.project(x)))  # (R, L, d)
        return x if self.absent is None else torch.where(valid.unsqueeze(-1), x, self.absent)


class Person(nn.Module):
    """Streams of one person to one sequence per group, group -> (R, L, G)."""

    def __init__(self, config: DatConfig, dims: dict[str, int]):
        super().__init__()
        names = [name for members in config.groups.values() for name in members]
        self.window_norm = WindowNorm()
        self.norm = nn.LayerNorm(sum(dims[name] for name in names))
        self.projections = nn.ModuleDict({n: StreamProjection(dims[n], config) for n in names})
        self.streams = nn.ModuleDict({n: Encoder(config.width, config, "stream") for n in names})
        self.groups = nn.ModuleDict(
            {g: Encoder(config.width * len(m), config, "group") for g, m in config.groups.items()}
        )
        self.members = config.groups

    def forward(
        self, values: dict[str, Tensor], valid: dict[str, Tensor], present: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """values (R, L, D) per stream, valid (R, L) per stream, present (R, L) per group."""
        names = list(self.projections)
        joined = torch.cat(
            [self.window_norm(values[n], valid[n]) for n in names], -1
        )  # (R, L, 2477)
        pieces = self.norm(joined).split([values[n].shape[-1] for n in names], dim=-1)
        encoded = {
            n: self.streams[n](self.projections[n](x, valid[n]), valid[n])  # (R, L, d)
            for n, x in zip(names, pieces, strict=True)
        }
        return {
            g: self.groups[g](torch.cat([encoded[n] for n in members], dim=-1), present[g])
            for g, members in self.members.items()
        }


class CrossEncoder(nn.Module):
    """Dialogue-aware layer of one group: what the others tell is added to the target.

    Several partners (not in the paper): one softmax over all their frames, so that nobody's order
    counts; where the partners ask, the mean of their answers.
    """

    def __init__(self, width: int, config: DatConfig):
        super().__init__()
        self.partner_asks, self.raw_keys = config.query == "partner", config.keys == "raw"
        self.positions = Positions(config.positions, width)
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, config.group_heads, config.group_head_width)
        self.dropout = nn.Dropout(config.dropout)
        self.feed = FeedForward(width, config.group_hidden, config.dropout)

    def forward(self, target: Tensor, mask: Tensor, others: Tensor, others_mask: Tensor) -> Tensor:
        """target (B, L, G), mask (B, L), others (B, P, L, G), others_mask (B, P, L) -> (B, L, G)."""
        target = self.positions(target)  # (B, L, G)
        P = others.shape[1]
        heard = torch.zeros_like(target)  # (B, L, G)
        if P and self.partner_asks:
            asks = self.norm(self.positions(others)).flatten(0, 1)  # (B P, L, G)
            keys = self.keys(target).repeat_interleave(P, dim=0)  # (B P, L, G)
            answers = self.attention(asks, keys, mask.repeat_interleave(P, dim=0))  # (B P, L, G)
            weight = others_mask.unsqueeze(-1).to(answers.dtype)  # (B, P, L, 1)
            answers = (answers.unflatten(0, (-1, P)) * weight).sum(1)  # (B, L, G)
            heard = answers / weight.sum(1).clamp(min=1.0)  # (B, L, G)
        elif P:
            keys = self.keys(self.positions(others)).flatten(1, 2)  # (B, P L, G)
            heard = self.attention(self.norm(target), keys, others_mask.flatten(1, 2))  # (B, L, G)
        target = target + self.dropout(heard)  # (B, L, G)
        return target + self.feed(target)

    def keys(self, x: Tensor) -> Tensor:
        """Frames that answer; the norm has no affine part, so that the counts stay the paper's."""
        return x if self.raw_keys else F.layer_norm(x, x.shape[-1:])


class Dat(FrameModel):
    """Engagement of the target of each window; target and partners have separate encoders."""

    def __init__(self, config: DatConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        widths = {group: config.width * len(members) for group, members in config.groups.items()}
        if config.inputs == "zscore":
            self.normalise = nn.ModuleDict(
                {
                    name: Normalise(name, dims[name], config.input_clip, config.input_shift)
                    for members in config.groups.values()
                    for name in members
                }
            )
        self.target = Person(config, dims)
        self.dialogue = config.variant != "mpiigi"
        if self.dialogue:
            self.partner = Person(config, dims)
            self.cross = nn.ModuleDict({g: CrossEncoder(w, config) for g, w in widths.items()})
            W = sum(widths.values())
        else:
            W = config.fused_width
            self.reduce = nn.ModuleDict({g: nn.Linear(w, W) for g, w in widths.items()})
            self.cross = nn.ModuleDict({"groups": CrossEncoder(W, config)})
        self.score = nn.Sequential(nn.LayerNorm(W), nn.Linear(W, outputs))
        self.apply(initialise)

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        values, valid, present = self.inputs(batch)
        rows = batch.target
        person = self.target(
            *({k: v[rows] for k, v in x.items()} for x in (values, valid, present))
        )
        if not self.dialogue:
            x = self.fuse(person, {g: mask[rows] for g, mask in present.items()})  # (B, L, W)
            return self.result(self.head(x))
        P = batch.partners.shape[1]
        others = self.partner(values, valid, present) if P else {}  # group -> (R, L, G)
        joined = []
        for group, x in person.items():  # (B, L, G)
            partners = take_rows(others[group], batch.partners) if P else x[:, None][:, :0]
            there = take_rows(present[group], batch.partners)  # (B, P, L)
            joined.append(self.cross[group](x, present[group][rows], partners, there))
        return self.result(self.head(torch.cat(joined, dim=-1)))

    def inputs(self, batch: Batch) -> tuple[dict, dict, dict]:
        """Values (R, L, D) and masks (R, L) per stream, masks (R, L) per group."""
        values, valid, present = {}, {}, {}
        for group, members in self.config.groups.items():
            for n in members:
                valid[n] = batch.valid[n] & batch.frames  # (R, L)
                values[n] = torch.where(valid[n].unsqueeze(-1), batch.streams[n], 0.0)
                if self.config.inputs == "zscore":
                    values[n] = self.normalise[n](batch.streams[n], valid[n])
                if not self.config.mask:
                    valid[n] = torch.ones_like(valid[n])
            present[group] = torch.stack([valid[n] for n in members]).any(0)  # (R, L)
        return values, valid, present

    def fuse(self, person: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Variant mpiigi: the first group asks the second, group -> (B, L, G) to (B, L, W)."""
        (asks, mask), (answers, there) = (
            (self.reduce[group](x), present[group]) for group, x in person.items()
        )
        return self.cross["groups"](asks, mask, answers[:, None], there[:, None])

    def head(self, x: Tensor) -> Tensor:
        """(B, L, W) -> (B, L, outputs)."""
        score = self.score(x)  # (B, L, outputs)
        if self.config.head == "selu":
            score = F.selu(score)
            if self.outputs == 1:  # published labels are not standardised: SELU gives engagement
                score = (score - self.label_mean) / self.label_std
        if self.training and self.config.smooth == "batch":
            rows = list(score.unbind(0))  # (L, outputs) each
            for b in range(1, len(rows)):
                rows[b] = SMOOTHING * rows[b] + (1 - SMOOTHING) * rows[b - 1]
            score = torch.stack(rows)
        return score

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part of the paper's figure, for the parameter table."""
        parts: dict[str, list[nn.Module]] = {}
        for role in ("target", "partner") if self.dialogue else ("target",):
            person = getattr(self, role)
            parts[f"{role} projections"] = [person.norm, person.projections]
            parts[f"{role} stream encoders"] = [person.streams]
            parts[f"{role} group encoders"] = [person.groups]
        if not self.dialogue:
            parts["group projections"] = [self.reduce]
        return parts | {"dialogue-aware encoders": [self.cross], "score": [self.score]}


def initialise(module: nn.Module) -> None:
    """The published start: Linear weights N(0, 1 / fan_in), biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


Model = Dat
