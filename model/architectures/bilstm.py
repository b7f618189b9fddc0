"""Bidirectional LSTM: the control that any sequence model has to beat.

The best published engagement systems of MultiMediate '23 were of this kind. Sizes in shape comments:
R persons of a batch, B target windows, P partners, L frames, d width of a stream, W all streams
side by side, H states per direction.
"""

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.configs.bilstm import BilstmConfig
from model.frame_model import FrameModel
from model.layers.inputs import StreamInput
from model.layers.recurrent import BiLstm


class Bilstm(FrameModel):
    """Engagement of the target from its streams and, by option, its partners' mean."""

    def __init__(self, config: BilstmConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        self.dialogue = config.partner_fusion
        self.streams = nn.ModuleDict(
            {
                name: StreamInput(name, dim, config.d, config.input_clip, config.input_shift)
                for name, dim in dims.items()
            }
        )
        W = config.d * len(dims)
        self.dropout = nn.Dropout(config.dropout)
        people = 2 if config.partner_fusion else 1
        self.lstm = BiLstm(people * W, config.hidden, config.layers, config.dropout)
        self.score = nn.Sequential(
            nn.LayerNorm(2 * config.hidden),
            nn.Linear(2 * config.hidden, config.d),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d, outputs),
        )

    def estimate(self, batch: Batch) -> dict:
        person = torch.cat(
            [stream(batch.streams[n], batch.valid[n]) for n, stream in self.streams.items()], dim=-1
        )  # (R, L, W)
        x = person[batch.target]  # (B, L, W)
        if self.dialogue:
            x = torch.cat([x, self.summary(person, batch)], dim=-1)  # (B, L, 2 W)
        states = self.lstm(self.dropout(x), batch.frames[batch.target])  # (B, L, 2 H)
        return self.result(self.score(self.dropout(states)))

    def summary(self, person: Tensor, batch: Batch) -> Tensor:
        """Mean over the partners that are there at a frame, zeros where nobody is: (B, L, W)."""
        there = take_rows(batch.frames, batch.partners).unsqueeze(-1)  # (B, P, L, 1)
        partners = take_rows(person, batch.partners) * there  # (B, P, L, W)
        return partners.sum(1) / there.sum(1).clamp(min=1)  # (B, L, W)

    def parts(self) -> dict[str, list[nn.Module]]:
        return {"projections": [self.streams], "LSTM": [self.lstm], "score": [self.score]}


Model = Bilstm
