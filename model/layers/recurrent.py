"""Bidirectional LSTM over the frames that exist."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiLstm(nn.Module):
    """(R, L, W), mask (R, L) -> (R, L, 2 H): forward states, then backward states.

    Frames that do not exist are taken out before the recurrence, wherever they stand, so neither
    direction ever starts in padding; their own outputs are zeros.
    """

    def __init__(self, width: int, hidden: int, layers: int = 1, dropout: float = 0.0):
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(
            width, hidden, layers, batch_first=True, bidirectional=True, dropout=between
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # a recurrence stays in fp32
            return self._forward(x.to(self.lstm.weight_ih_l0.dtype), mask)

    def _forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if bool(mask.all()):
            return self.lstm(x)[0]  # (R, L, 2 H)
        L = x.shape[1]
        lengths = mask.sum(1)  # (R,)
        order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # (R, L), existing frames first
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))  # (R, L, W)
        # A sequence of no frames is not allowed: it gets one, which the mask takes out below.
        packed = pack_padded_sequence(
            x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=L)[0]
        back = order.argsort(dim=1).unsqueeze(-1).expand_as(y)  # (R, L, 2 H)
        return torch.where(mask.unsqueeze(-1), y.gather(1, back), 0.0)  # (R, L, 2 H)
