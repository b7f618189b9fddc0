"""AlignMamba (arXiv 2412.00833) and AlignMamba-2 (arXiv 2603.18462), one value per frame.

Glossary (code name: symbol or name in the papers)
    encoders: modality-specific encoders, X_a, X_v   anchor: the modality X_l others are aligned to
    align: local alignment, relaxed optimal transport (eqs. 3-6)   aligned tokens: X~_v, X~_a
    losses mmd: L_align (eq. 10)   transport: optimal-transport distance of version 2
    fuse: Mamba backbone over the interleaved sequence (eq. 11)   ModalityMamba: modality-aware Mamba
Sizes in shape comments
    R persons of a batch, B target windows, P partners, L frames, G groups, d width of a token,
    S sources: the target's groups but the anchor, and every partner's groups   M = S + 1 modalities

Neither paper has public code or frame-wise output; what they leave open is in docs/align_mamba.md.
"""

import torch
from torch import Tensor, nn

from model.batch import Batch
from model.configs.align_mamba import AlignMambaConfig
from model.frame_model import FrameModel
from model.layers.global_batch import mean
from model.layers.groups import GroupEncoder, frame_readout, kinds, modalities
from model.layers.kernel_distance import mmd
from model.layers.modality_mamba import ModalityMamba
from model.layers.token_fusion import MIXERS, JoinedFusion, MultiStreamFusion
from model.layers.transport import LocalAlignment, allowed_pairs, cosine_cost, relaxed_distance


class AlignMamba(FrameModel):
    """Engagement of the target from tokens per frame of its groups and of its partners' groups.

    dims maps each feature of `config.groups` to its dimension. One encoder per group serves every
    person; the target's tokens and the partners' differ by a learned vector.
    """

    def __init__(self, config: AlignMambaConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        d, G = config.d, len(config.groups)
        self.dialogue = config.participants
        # The anchor comes last: a causal scan then reads a frame's other tokens first.
        self.names = [g for g in config.groups if g != config.anchor] + [config.anchor]
        self.encoders = nn.ModuleDict(
            {
                group: GroupEncoder(
                    {name: dims[name] for name in config.groups[group]},
                    config.stream_width,
                    d,
                    config.input_clip,
                    config.input_shift,
                    config.dropout,
                )
                for group in self.names
            }
        )
        # Kinds of tokens: the target's groups (0 .. G-1), then the partners' groups.
        self.kind = nn.Parameter(0.02 * torch.randn(2 * G if self.dialogue else G, d))
        if config.version == 1 and config.local_alignment:
            self.align = LocalAlignment(config.normalise, config.fill, config.band, config.causal)
        self.fuse = self.fusion(config)
        self.score = nn.Sequential(
            nn.Linear(len(self.kind) * d, d),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(d, outputs),
        )

    def fusion(self, config: AlignMambaConfig) -> nn.Module:
        """The backbone of `config.version` and `config.streams`."""
        c, G = config, len(config.groups)

        def mixer() -> nn.Module:
            if c.version == 2:
                directions = 2 if c.mixer == "bimamba" else 1
                return ModalityMamba(c.d, c.state, c.conv, c.expand, G, directions)
            return MIXERS[c.mixer](c.d, c.state, c.conv, c.expand)

        if c.streams == "multi":
            return MultiStreamFusion(c.d, c.layers, mixer, c.dropout, G)
        return JoinedFusion(c.d, c.layers, mixer, c.dropout, c.streams, by_kind=c.version == 2)

    def estimate(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {"mmd": scalar, ...}}, losses in training."""
        c, G = self.config, len(self.names)
        tokens, valid, exists = self.modalities(batch)  # (B, M, L, d), (B, M, L), (B, M, L)
        sources, anchor = tokens[:, :-1], tokens[:, -1:].expand_as(tokens[:, :-1])  # (B, S, L, d)
        s_valid, a_valid = valid[:, :-1], valid[:, -1:].expand_as(valid[:, :-1])  # (B, S, L)
        if c.version == 1 and c.local_alignment:
            moved, done = self.align(sources, anchor, s_valid, a_valid)  # (B, S, L, d), (B, S, L)
            # Where there is nothing to align with, a token stays as it is.
            sources = torch.where(done.unsqueeze(-1), moved, sources)
            s_valid = done | (s_valid & ~a_valid)
            exists = torch.cat([exists[:, :-1] | done, exists[:, -1:]], dim=1)  # (B, M, L)
            tokens = torch.cat([sources, tokens[:, -1:]], dim=1)  # (B, M, L, d)
        losses = self.losses(sources, anchor, s_valid, a_valid) if self.training else {}
        kind = kinds(batch, G, c.participants)  # (M,)
        tokens = tokens + self.kind[kind].unsqueeze(1)  # (B, M, L, d)
        fused = self.fuse(tokens, exists, kind % G)  # (B, M, L, d): weights by group, not person
        read = frame_readout(fused, exists, G, c.participants)  # (B, L, G d) or (B, L, 2 G d)
        return self.result(self.score(read), losses)

    def modalities(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of every modality, (B, M, L, d): the partners' groups, then the target's, anchor last.

        Also (B, M, L) twice: where a stream of the group is there (what alignment may use), and
        where the person is there at all (what is scanned: a lost face is a token of its own).
        """
        encoded = [self.encoders[g](batch) for g in self.names]  # (R, L, d), (R, L) each
        tokens, valid = zip(*encoded, strict=True)
        return tuple(
            modalities(list(x), batch, self.config.participants)
            for x in (tokens, valid, [batch.frames] * len(tokens))
        )

    def losses(
        self, sources: Tensor, anchor: Tensor, s_valid: Tensor, a_valid: Tensor
    ) -> dict[str, Tensor]:
        """Distances of every source to the anchor, (B, S, L, d) and (B, S, L) each.

        Means over the pairs, not sums: their weight does not grow with the number of partners.
        """
        losses = {}
        if self.config.version == 2 and self.config.local_alignment:
            allowed = allowed_pairs(s_valid, a_valid, self.config.band, self.config.causal)
            losses["transport"] = _mean(*relaxed_distance(cosine_cost(sources, anchor), allowed))
        if self.config.global_alignment:
            losses["mmd"] = _mean(*mmd(sources, anchor, s_valid, a_valid, self.config.sigma))
        return losses

    def embeddings(self, batch: Batch) -> dict[str, Tensor]:
        """The target's tokens before alignment, where cosines are taken: group -> (B, L, d)."""
        return {group: self.encoders[group](batch)[0][batch.target] for group in self.names}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        parts = {f"{group} encoder": [encoder] for group, encoder in self.encoders.items()}
        parts["kinds of tokens"] = [nn.ParameterList([self.kind])]
        if hasattr(self, "align"):
            parts["local alignment"] = [self.align]
        return parts | {"fusion": [self.fuse], "score": [self.score]}


def _mean(values: Tensor, defined: Tensor) -> Tensor:
    """Mean of the defined values, 0 without any; of all processes in data-parallel training."""
    return mean(torch.where(defined, values, 0.0).sum(), defined.sum())


Model = AlignMamba
