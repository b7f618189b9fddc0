"""DA-Mamba live: everybody's frames go in one by one, engagement comes out.

`Stream` needs a model without look-ahead (`causal: true`, or no local attention): a frame goes in,
its engagement comes out. `Delayed` serves the others: local attention looks ahead to the end of its
chunk, so frames wait until theirs is full, at most local_chunk - 1 frames.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from inference.carry import Carry
from inference.step import CrossStep, HybridStep, InputStep, MambaStep
from model.batch import Batch, take_rows
from model.layers.mamba import MambaBlock


def look_ahead(model: nn.Module) -> int:
    """Frames that a frame may have to wait for those that follow it."""
    config = model.config
    waits = config.modality_fusion and config.local_chunk and not config.causal
    return config.local_chunk - 1 if waits else 0


def open_stream(
    model: nn.Module, persons: int, target: Tensor, partners: Tensor, reach: int
) -> "Stream | Delayed":
    """What runs this model live; arguments as of `Carry`. The model must have passed check_live."""
    kind = Delayed if look_ahead(model) else Stream
    return kind(model, persons, target, partners, reach)


class EncoderStep:
    """PersonEncoder, frame by frame, for `rows` persons."""

    def __init__(self, encoder: nn.Module, rows: int):
        self.encoder = encoder
        self.inputs = {name: InputStep(s.input) for name, s in encoder.streams.items()}
        self.mambas = {name: MambaStep(s.mamba.mixer, rows) for name, s in encoder.streams.items()}
        self.stacks = {
            group: [HybridStep(block, rows) for block in stack.blocks]
            for group, stack in encoder.stacks.items()
        }

    def __call__(
        self, streams: dict[str, Tensor], valid: dict[str, Tensor], there: Tensor | None, frame: int
    ) -> Tensor:
        """streams (R, D), valid (R,), there (R,) or None for all -> (R, W)."""
        groups, here = [], None if there is None else there.unsqueeze(1)
        for group, members in self.encoder.groups.items():
            parts = []
            for name in members:
                x = self.inputs[name](streams[name], valid[name])  # (R, d)
                u = self.encoder.streams[name].mamba.norm(x).unsqueeze(1)  # (R, 1, d)
                parts.append(x + self.mambas[name](u, here).squeeze(1))
            x = torch.cat(parts, -1)  # (R, G)
            if self.stacks:
                for block in self.stacks[group]:
                    x = block(x, there, frame)
                x = self.encoder.stacks[group].norm(x)
            groups.append(x)
        return self.encoder.fuse(torch.cat(groups, -1))  # (R, W)

    def state(self) -> list[Tensor]:
        steps = list(self.mambas.values())
        local = []
        for block in (b for stack in self.stacks.values() for b in stack):
            steps.append(block.mamba)
            local += [] if block.local is None else [block.local]
        return [t for m in steps for t in (m.tail, m.h)] + [
            t for a in local for t in (a.keys, a.values, a.there)
        ]


class Stream:
    """Arguments as of `Carry`; equal to it, a frame at a time."""

    def __init__(
        self, model: nn.Module, persons: int, target: Tensor, partners: Tensor, reach: int
    ):
        self.model, self.config = model, model.config
        self.target, self.partners, self.frames = target, partners, 0
        self.own_rows = hasattr(model, "partner_encoder")
        self.encoder = EncoderStep(model.encoder, len(target) if self.own_rows else persons)
        self.heard = self.config.partner_fusion and bool((partners >= 0).any())
        if not self.heard:
            return
        heard = persons
        if self.own_rows:
            self.heard_rows, at = partners.clamp(min=0).unique(return_inverse=True)
            self.partners = torch.where(partners < 0, -1, at)
            heard = len(self.heard_rows)
            self.partner_encoder = EncoderStep(model.partner_encoder, heard)
        self.separate = self.config.partner_context == "separate"
        if self.separate:
            rows = torch.arange(heard, device=target.device)
            hears = (self.partners.unsqueeze(-1) == rows).any(1)  # (B, R)
        else:
            hears = torch.eye(len(target), dtype=torch.bool, device=target.device)
        per_instant = 1 if self.separate else partners.shape[1]
        block: MambaBlock = model.context.mixer
        self.context = MambaStep(block, hears.shape[1], freeze=not self.separate)
        self.cross = CrossStep(model.cross, hears, per_instant, reach)

    def state(self) -> list[Tensor]:
        """Every tensor that is carried."""
        tensors = self.encoder.state()
        if self.heard:
            tensors += self.partner_encoder.state() if self.own_rows else []
            tensors += [self.context.tail, self.context.h]
            tensors += [self.cross.keys, self.cross.values, self.cross.there]
        return tensors

    @torch.inference_mode()
    def push(self, batch: Batch) -> Tensor:
        """The next frames of everybody, (R, n, D) each -> engagement (B, n) of these frames."""
        prompts = None if self.frames else self.model.prompts
        if prompts is not None:
            batch = prompts(batch)
        everybody = bool(batch.frames.all())
        scores = []
        for t in range(batch.frames.shape[1]):
            streams = {name: x[:, t] for name, x in batch.streams.items()}
            valid = {name: ok[:, t] for name, ok in batch.valid.items()}
            there = None if everybody else batch.frames[:, t]
            scores.append(self._step(streams, valid, there))  # (B, outputs)
            self.frames += 1
        result = self.model.result(torch.stack(scores, 1))
        return (result if prompts is None else prompts.cut(result))["engagement"]

    def finish(self) -> Tensor:
        """Engagement of frames that still wait: none, (B, 0)."""
        return self.model.label_mean.new_zeros(len(self.target), 0)

    def _step(
        self, streams: dict[str, Tensor], valid: dict[str, Tensor], there: Tensor | None
    ) -> Tensor:
        """One frame of everybody -> score (B, outputs)."""
        if self.own_rows:
            of_targets = _rows(self.target, streams, valid, there)
            target = self.encoder(*of_targets, self.frames)  # (B, W)
            if self.heard:
                streams, valid, there = _rows(self.heard_rows, streams, valid, there)
                person = self.partner_encoder(streams, valid, there, self.frames)  # (R', W)
        else:
            person = self.encoder(streams, valid, there, self.frames)  # (R, W)
            target = person[self.target]  # (B, W)
        if self.heard:
            target = target + self._listen(target, person, there)
        return self.model.score(target)

    def _listen(self, target: Tensor, person: Tensor, there: Tensor | None) -> Tensor:
        """What the partners answer at this instant: (B, W)."""
        if self.separate:
            x, here = person.unsqueeze(1), None if there is None else there.unsqueeze(1)
        else:
            x = take_rows(person, self.partners)  # (B, P, W)
            if there is None:
                there = torch.ones_like(person[:, 0], dtype=torch.bool)
            here = take_rows(there, self.partners)  # (B, P)
            here = None if bool(here.all()) else here
        context = x + self.context(self.model.context.norm(x), here)  # (C, k, W)
        return self.cross(target, context, here, self.frames)


class Delayed:
    """A model with look-ahead, live: frames wait until their local chunk is full."""

    def __init__(
        self, model: nn.Module, persons: int, target: Tensor, partners: Tensor, reach: int
    ):
        self.carry = Carry(model, persons, target, partners, reach)
        self.waiting: list[Batch] = []

    def state(self) -> list[Tensor]:
        """Every tensor that is carried; beside it at most a chunk of frames waits."""
        return self.carry.state()

    def push(self, batch: Batch) -> Tensor:
        """The next frames of everybody -> engagement (B, m) of the frames whose chunk is full."""
        out = [self.carry.model.label_mean.new_zeros(len(self.carry.target), 0)]
        for t in range(batch.frames.shape[1]):
            self.waiting.append(_frames(batch, t, t + 1))
            ahead = 0 if self.carry.frames else self.carry.config.prompts
            if (ahead + len(self.waiting)) % self.carry.border == 0:
                out.append(self.finish())
        return torch.cat(out, 1)

    def finish(self) -> Tensor:
        """Engagement of the frames that wait, (B, m); behind an unfinished chunk nothing follows."""
        if not self.waiting:
            return self.carry.model.label_mean.new_zeros(len(self.carry.target), 0)
        first = self.waiting[0]
        together = replace(
            first,
            streams={n: torch.cat([b.streams[n] for b in self.waiting], 1) for n in first.streams},
            valid={n: torch.cat([b.valid[n] for b in self.waiting], 1) for n in first.valid},
            frames=torch.cat([b.frames for b in self.waiting], 1),
        )
        self.waiting.clear()
        return self.carry.advance(together)["engagement"]


def _rows(
    rows: Tensor, streams: dict[str, Tensor], valid: dict[str, Tensor], there: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    streams = {name: x[rows] for name, x in streams.items()}
    valid = {name: ok[rows] for name, ok in valid.items()}
    return streams, valid, None if there is None else there[rows]


def _frames(batch: Batch, lo: int, hi: int) -> Batch:
    return replace(
        batch,
        streams={name: x[:, lo:hi] for name, x in batch.streams.items()},
        valid={name: ok[:, lo:hi] for name, ok in batch.valid.items()},
        frames=batch.frames[:, lo:hi],
    )
