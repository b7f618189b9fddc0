"""Domain prompts: learned frames per corpus, put before every window (DAPA, UniEE).

Recording rooms, microphones and cultures differ from corpus to corpus. A prompt tells a model which
corpus it listens to, in the one form that every model with time reads: frames of its input streams.
The values are learned in normalised units and become raw values with the same mean and std that
normalise the streams, so any architecture reads them like a recording.

A domain is a training dataset, by its name. Domain 0 is unknown: corpora that training did not see,
and in training the windows whose domain is hidden (prompt_dropout). Without prompt_dropout nothing
teaches an unknown prompt, so the mean of the known ones stands in.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from model.batch import Batch
from model.configs.base import ModelConfig
from model.layers.inputs import Normalise

START = 0.1  # std of the start values, in standard deviations of the stream


class StreamPrompt(nn.Module):
    """Prompt frames of one stream. prompt: (domains, K, D), the first one unknown if `hidden`."""

    def __init__(self, feature: str, dim: int, frames: int, domains: int, hidden: bool):
        super().__init__()
        self.hidden = hidden
        self.normalise = Normalise(feature, dim, clip=0.0)  # its mean and std, to undo it
        self.prompt = nn.Parameter(START * torch.randn(domains + hidden, frames, dim))

    def forward(self, domain: Tensor) -> Tensor:
        """domain (R,), 0 unknown -> raw values (R, K, D).

        Raises ValueError where nothing taught a prompt: no domain, and none was hidden.
        """
        table = self.prompt
        if not len(table):
            raise ValueError(
                "the model has prompts of no domain: an unknown one has no mean to take"
            )
        if not self.hidden:
            table = torch.cat([table.mean(0, keepdim=True), table])  # (1 + domains, K, D)
        return table[domain] * self.normalise.std + self.normalise.mean


class Prompts(nn.Module):
    """K frames before every person-window of a batch, by the domain of the person."""

    def __init__(self, config: ModelConfig, dims: dict[str, int], domains: tuple[str, ...]):
        super().__init__()
        self.frames, self.dropout = config.prompts, config.prompt_dropout
        self.streams = nn.ModuleDict(
            {
                name: StreamPrompt(name, dim, self.frames, len(domains), config.prompt_dropout > 0)
                for name, dim in dims.items()
            }
        )

    def forward(self, batch: Batch) -> Batch:
        """The batch with windows of K + L frames, all K of them present; no labels."""
        R, K = len(batch.frames), self.frames
        domain = batch.domain
        if domain is None:
            domain = batch.frames.new_zeros(R, dtype=torch.long)  # (R,) all unknown
        if self.training and self.dropout:
            domain = torch.where(self._hidden(batch), 0, domain)
        here = batch.frames.new_ones(R, K)  # (R, K) bool
        streams, valid = {}, {}
        for name, prompt in self.streams.items():
            values = batch.streams[name]
            streams[name] = torch.cat([prompt(domain).to(values.dtype), values], 1)  # (R, K + L, D)
            valid[name] = torch.cat([here, batch.valid[name]], 1)  # (R, K + L)
        frames = torch.cat([here, batch.frames], 1)  # (R, K + L)
        return replace(
            batch,
            streams=streams,
            valid=valid,
            frames=frames,
            label=None,
            label_mask=None,
            prompts=K,
        )

    def _hidden(self, batch: Batch) -> Tensor:
        """(R,) whose domain is hidden: everybody's of a conversation, or nobody's.

        At prediction an unseen corpus is unknown for targets and partners alike.
        """
        drawn = torch.rand(len(batch.frames)) < self.dropout  # (R,), on the CPU as all draws
        return drawn.to(batch.frames.device)[conversations(batch)]

    def cut(self, result: dict) -> dict:
        """The result of `FrameModel.result` without the prompt frames."""
        frames = ("engagement", "logits")
        return {k: v[:, self.frames :] if k in frames else v for k, v in result.items()}


def conversations(batch: Batch) -> Tensor:
    """(R,) the lowest row among those connected with a row as targets and partners."""
    rows = torch.cat([batch.target.unsqueeze(1), batch.partners], 1)  # (B, 1 + P), -1 nobody
    B, R = len(rows), len(batch.frames)
    # One column more for the rows that are nobody. Sums of ones stay exact in fp32.
    member = torch.zeros(B, R + 1, device=rows.device)
    member = member.scatter(1, torch.where(rows >= 0, rows, R), 1.0)[:, :R]  # (B, R)
    # Paths of 1, 2, 4, ... links. A loop until nothing changes would have to look at the result,
    # and wait for the device.
    with torch.autocast(rows.device.type, enabled=False):
        linked = member.T @ member + torch.eye(R, device=rows.device)  # (R, R), > 0: connected
        for _ in range(max(R - 1, 1).bit_length()):
            linked = (linked @ linked).clamp(max=1.0)
    return (linked > 0).to(torch.uint8).argmax(1)  # (R,) the first of those connected
