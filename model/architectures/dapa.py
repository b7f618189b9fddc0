"""DAPA: dialogue with parallel cross-attention of reactive and anticipatory states (2508.14448).

Glossary (code name: name in the paper, or in UniEE, its public successor)
    prompts: domain prompts, a setting of every model (model.prompts)
    StreamToken: per-feature Linear-LayerNorm-GELU   TokenFusion: fusion inside and across groups
    AttentionPool: learned query over the partners, frame by frame (UniEE)
    Exchange: parallel cross-attention layer   forward states: reactive   backward: anticipatory
Sizes in shape comments
    R persons of a batch, B target windows, P partners, L frames, N tokens of a group,
    s width of a token, d width of a person, H = d / 2 states per direction

Of the paper only the abstract is public, of UniEE the code; what is known and what is chosen here
stands in docs/dat.md.
"""

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.dapa import DapaConfig
from model.frame_model import FrameModel
from model.layers.inputs import Normalise
from model.layers.mamba import MambaBlock
from model.layers.recurrent import BiLstm
from model.layers.transformer import EncoderBlock, MultiHeadAttention


class StreamToken(nn.Module):
    """One stream as a token per frame: (R, L, D), (R, L) -> (R, L, s); missing ones are learned."""

    def __init__(self, feature: str, dim: int, config: DapaConfig):
        super().__init__()
        s = config.stream_width
        self.normalise = Normalise(feature, dim, config.input_clip, config.input_shift)
        self.project = nn.Sequential(nn.Linear(dim, s), nn.LayerNorm(s), nn.GELU())
        self.absent = nn.Parameter(torch.zeros(s))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        x = self.project(self.normalise(values, valid))  # (R, L, s)
        return torch.where(valid.unsqueeze(-1), x, self.absent)


class TokenFusion(nn.Module):
    """A Transformer block over the tokens of a frame, then their mean: (R, L, N, s) -> (R, L, s)."""

    def __init__(self, config: DapaConfig):
        super().__init__()
        s = config.stream_width
        self.block = EncoderBlock(
            s, config.heads, s // config.heads, config.fusion_hidden, config.dropout
        )

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten(0, 1)  # (R L, N, s)
        there = torch.ones(flat.shape[:2], dtype=torch.bool, device=flat.device)  # (R L, N)
        return self.block(flat, there).mean(1).view(*tokens.shape[:2], -1)  # (R, L, s)


class AttentionPool(nn.Module):
    """A learned query asks the partners, frame by frame: (B, P, L, d), (B, P, L) -> (B, L, d).

    The weights are a softmax over those who are there: nobody's order counts, an absent seat has no
    weight, and one partner alone has all of it. Where nobody is there stands a learned vector.
    """

    def __init__(self, config: DapaConfig):
        super().__init__()
        self.query = nn.Parameter(torch.randn(config.d))
        self.attention = MultiHeadAttention(config.d, config.heads)
        self.absent = nn.Parameter(torch.zeros(config.d))

    def forward(self, partners: Tensor, there: Tensor) -> Tensor:
        B, P, L, d = partners.shape
        each = partners.transpose(1, 2).reshape(B * L, P, d)  # (B L, P, d)
        mask = there.transpose(1, 2).reshape(B * L, P)  # (B L, P)
        query = self.query.expand(B * L, 1, d)  # (B L, 1, d)
        return self.fill(self.attention(query, each, mask).view(B, L, d), there.any(1))

    def fill(self, x: Tensor, there: Tensor) -> Tensor:
        """x (B, L, d) where somebody is there (B, L), the learned vector elsewhere."""
        return torch.where(there.unsqueeze(-1), x, self.absent)


class MambaDirections(nn.Module):
    """A Mamba block per direction of time: (R, L, d), (R, L) -> (R, L, 2 H), as `BiLstm`."""

    def __init__(self, width: int, hidden: int, config: DapaConfig):
        super().__init__()

        def direction() -> nn.ModuleList:
            mamba = MambaBlock(hidden, config.state, config.conv, config.expand)
            return nn.ModuleList([nn.Linear(width, hidden), mamba])

        self.ahead, self.back = direction(), direction()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        ahead = self.ahead[1](self.ahead[0](x), mask)  # (R, L, H)
        back = self.back[1](self.back[0](x).flip(1), mask.flip(1)).flip(1)  # (R, L, H)
        return torch.cat([ahead, back], dim=-1) * mask.unsqueeze(-1)  # (R, L, 2 H)


class Exchange(nn.Module):
    """One layer: states of both people, then each hears the other, in both directions of time.

    Forward states (what has happened) ask forward states: how one reacts. Backward states (what is
    to come) ask backward states: how one anticipates. What a person hears is added to its own
    states, so that a person alone still has them; then residual and LayerNorm.
    """

    def __init__(self, config: DapaConfig):
        super().__init__()
        H = config.d // 2
        if config.mixer == "mamba":
            self.states: nn.Module = MambaDirections(config.d, H, config)
        else:
            self.states = BiLstm(config.d, H)
        self.reactive = MultiHeadAttention(H, config.heads, rotary=True)
        self.anticipatory = MultiHeadAttention(H, config.heads, rotary=True)
        self.directed = config.horizon == "directed"
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.d)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (2 B, L, d): targets, then their partners; mask (2 B, L) -> (2 B, L, d)."""
        states = self.states(x, mask)  # (2 B, L, 2 H)
        ahead, back = states.chunk(2, dim=-1)  # (2 B, L, H) each
        L, there = x.shape[1], swap(mask)
        past = future = None
        if self.directed:
            past = torch.ones(L, L, dtype=torch.bool, device=x.device).tril()  # (L, L)
            future = past.T  # (L, L)
        reaction = self.reactive(ahead, swap(ahead), there, past)  # (2 B, L, H)
        anticipation = self.anticipatory(back, swap(back), there, future)  # (2 B, L, H)
        heard = torch.cat([reaction, anticipation], dim=-1)  # (2 B, L, d)
        return self.norm(x + self.dropout(states + heard))


def swap(pairs: Tensor) -> Tensor:
    """Targets and partners exchanged: (2 B, ...) -> same."""
    return torch.cat(pairs.chunk(2)[::-1])


class Dapa(FrameModel):
    """Engagement of the target from its own and its pooled partners' states, frame by frame."""

    def __init__(self, config: DapaConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        s, d = config.stream_width, config.d
        names = [name for members in config.groups.values() for name in members]
        self.streams = nn.ModuleDict({n: StreamToken(n, dims[n], config) for n in names})
        # A single token needs no fusion.
        self.fusion = nn.ModuleDict(
            {g: TokenFusion(config) for g, members in config.groups.items() if len(members) > 1}
        )
        self.across = TokenFusion(config) if len(config.groups) > 1 else None
        self.person = nn.Sequential(nn.Linear(s, d), nn.Dropout(config.dropout))
        self.pool = AttentionPool(config)
        self.exchanges = nn.ModuleList(Exchange(config) for _ in range(config.layers))
        self.score = nn.Sequential(
            nn.LayerNorm(2 * d),
            nn.Linear(2 * d, d),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, outputs),
        )

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        person = self.encode(batch)  # (R, L, d)
        target, mask = person[batch.target], batch.frames[batch.target]  # (B, L, d), (B, L)
        present = take_rows(batch.frames, batch.partners)  # (B, P, L)
        there = present.any(1)  # (B, L)
        partner = self.pool(take_rows(person, batch.partners), present)  # (B, L, d)
        x, masks = torch.cat([target, partner]), torch.cat([mask, there])  # (2 B, L, d), (2 B, L)
        for exchange in self.exchanges:
            x = exchange(x, masks)
        target, partner = x.chunk(2)  # (B, L, d) each
        pair = torch.cat([target, self.pool.fill(partner, there)], dim=-1)  # (B, L, 2 d)
        return self.result(self.score(pair))

    def encode(self, batch: Batch) -> Tensor:
        """Every person of the batch once, frame by frame: (R, L, d)."""
        groups = []
        for group, members in self.config.groups.items():
            tokens = [self.streams[n](batch.streams[n], batch.valid[n]) for n in members]
            single = len(tokens) == 1
            groups.append(tokens[0] if single else self.fusion[group](torch.stack(tokens, dim=2)))
        x = groups[0] if self.across is None else self.across(torch.stack(groups, dim=2))
        return self.person(x)  # (R, L, d)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        across = [] if self.across is None else [self.across]
        return {
            "stream tokens": [self.streams],
            "fusion": [self.fusion, *across, self.person],
            "partner pooling": [self.pool],
            "exchanges": [self.exchanges],
            "score": [self.score],
        }


Model = Dapa
