"""A session in pieces, with all state carried over: equal to one pass over the whole session.

What is carried, all of constant size: the convolution tails and states of every Mamba block, and
keys and values of the partners' last `reach` - 1 frames. Local attention needs nothing: pieces end
at borders of its chunks, which are counted from the first frame of the session.

Sizes in shape comments
    R persons, B targets, P partners, n frames of a piece, W width of a person, H heads, E = W / H
    C contexts (rows of the ring): persons (`separate`), or targets (all partners in one sequence)
    k frames of context per instant: 1 (`separate`), or P
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.layers.mamba import MambaBlock, Memory

QUERIES = 128  # instants that attend to their partners at a time: memory stays small in long pieces


class Ring:
    """Keys and values of the partner context of the last `reach` - 1 instants."""

    def __init__(self, contexts: int, heads: int, slots: int, per_head: int, like: Tensor):
        self.keys = like.new_zeros(contexts, heads, slots, per_head)  # (C, H, (reach - 1) k, E)
        self.values = torch.zeros_like(self.keys)
        self.there = torch.zeros(contexts, slots, dtype=torch.bool, device=like.device)

    def extend(self, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The ring followed by a piece: (C, H, S, E) twice and (C, S); keeps the end of it."""
        k, v = torch.cat([self.keys, k], 2), torch.cat([self.values, v], 2)
        mask = torch.cat([self.there, mask], 1)
        first = mask.shape[1] - self.there.shape[1]
        self.keys.copy_(k[:, :, first:])
        self.values.copy_(v[:, :, first:])
        self.there.copy_(mask[:, first:])
        return k, v, mask


class Carry:
    """DA-Mamba with its memory: `advance` takes everybody's next frames.

    persons : number of rows R; target (B,) rows; partners (B, P) rows, -1 nobody; reach : frames of
    partner context, the present one included. The model must have passed `check_live`.
    """

    def __init__(
        self, model: nn.Module, persons: int, target: Tensor, partners: Tensor, reach: int
    ):
        self.model, self.config, self.reach = model, model.config, reach
        self.persons, self.target, self.partners = persons, target, partners
        self.frames = 0  # frames done, prompts included
        self.border = self.config.local_chunk if self.config.modality_fusion else 0
        self.own_rows = hasattr(model, "partner_encoder")
        self.heard = self.config.partner_fusion and bool((partners >= 0).any())
        self.memory: Memory = {}
        self._remember(model.encoder, len(target) if self.own_rows else persons)
        if self.heard:
            self.separate = self.config.partner_context == "separate"
            heard = persons
            if self.own_rows:
                self.heard_rows, at = partners.clamp(min=0).unique(return_inverse=True)
                self.partners = torch.where(partners < 0, -1, at)
                heard = len(self.heard_rows)
                self._remember(model.partner_encoder, heard)
            contexts = heard if self.separate else len(target)
            self._remember(model.context, contexts)
            self.per_instant = 1 if self.separate else partners.shape[1]
            heads, weight = model.cross.heads, model.cross.out.weight
            slots = (reach - 1) * self.per_instant
            self.ring = Ring(contexts, heads, slots, len(weight) // heads, weight.detach())

    def _remember(self, part: nn.Module, sequences: int) -> None:
        for module in part.modules():
            if isinstance(module, MambaBlock):
                self.memory[module] = module.start(sequences)

    def state(self) -> list[Tensor]:
        """Every tensor that is carried."""
        tensors = [t for s in self.memory.values() for t in (s.tail, s.h)]
        return tensors + ([self.ring.keys, self.ring.values, self.ring.there] if self.heard else [])

    @torch.inference_mode()
    def advance(self, batch: Batch) -> dict:
        """The next frames, all rows as in the constructor -> result with (B, n) engagement.

        Raises ValueError for a piece behind one that did not end at a border of the local chunks
        (the first piece's prompts count).
        """
        if self.border and self.frames % self.border:
            raise ValueError(f"the last piece ended at frame {self.frames} inside a local chunk")
        prompts = None if self.frames else self.model.prompts
        if prompts is not None:
            batch = prompts(batch)
        self.frames += batch.frames.shape[1]
        if self.own_rows:
            target = self.model.encoder(rows_of(batch, self.target), self.memory)[1]  # (B, n, W)
            if self.heard:
                batch = rows_of(batch, self.heard_rows)
                person = self.model.partner_encoder(batch, self.memory)[1]  # (R', n, W)
        else:
            person = self.model.encoder(batch, self.memory)[1]  # (R, n, W)
            target = person[self.target]  # (B, n, W)
        if self.heard:
            target = target + self._listen(target, person, batch.frames)
        result = self.model.result(self.model.score(target))
        return result if prompts is None else prompts.cut(result)

    def _listen(self, target: Tensor, person: Tensor, frames: Tensor) -> Tensor:
        """What the partners' last `reach` frames answer to each frame: (B, n, W)."""
        if self.separate:
            context, mask = self.model.context(person, frames, self.memory), frames  # (R, n, W)
        else:
            context, mask = self._interleaved(person, frames)  # (B, n P, W), (B, n P)
        k, v = self.model.cross.keys_values(context)  # (C, H, n k, E) each
        k, v, mask = self.ring.extend(k, v, mask)  # S = (reach - 1 + n) k
        answers = []
        for start in range(0, target.shape[1], QUERIES):
            some = target[:, start : start + QUERIES]  # (B, q, W)
            q, a = some.shape[1], self.per_instant
            part = slice(start * a, (start + q + self.reach - 1) * a)
            now = torch.arange(q, device=some.device) + self.reach - 1
            instant = torch.arange(q + self.reach - 1, device=some.device).repeat_interleave(a)
            keys = k[:, :, part], v[:, :, part], mask[:, part]
            if self.separate:
                keys = self._of_partners(*keys)
                instant = instant.repeat(self.partners.shape[1])
            instant = instant.expand(len(some), -1)  # (B, S)
            answers.append(self.model.cross.answer(some, now, *keys, instant, self.reach))
        return torch.cat(answers, 1)

    def _of_partners(self, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of persons -> rows of targets, partners one after another: (B, H, P S, E) ..."""
        k, v = (take_rows(t, self.partners).transpose(1, 2).flatten(2, 3) for t in (k, v))
        return k, v, take_rows(mask, self.partners).flatten(1)

    def _interleaved(self, person: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Context of all partners in one sequence, instant after instant: (B, n P, W), (B, n P)."""
        joined = take_rows(person, self.partners).transpose(1, 2).flatten(1, 2)  # (B, n P, W)
        mask = take_rows(frames, self.partners).transpose(1, 2).flatten(1)  # (B, n P)
        # Absent ones behind the others, where the state stops before them; then back again.
        order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # (B, n P)
        place = order.unsqueeze(-1).expand_as(joined)
        there = mask.gather(1, order)  # (B, n P)
        context = self.model.context(joined.gather(1, place), there, self.memory, mask.sum(1))
        return torch.empty_like(context).scatter_(1, place, context), mask


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Streams and masks of these rows; targets and partners as they were."""
    return replace(
        batch,
        streams={name: x[rows] for name, x in batch.streams.items()},
        valid={name: x[rows] for name, x in batch.valid.items()},
        frames=batch.frames[rows],
    )
