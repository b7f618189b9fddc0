"""A session from its aligned files through a model with carried state."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from inference.carry import Carry
from inference.stream import open_stream
from model.batch import Batch
from training.sessions import SessionReader
from training.windows import Windows

PIECE = 512  # frames at a time, at least; results do not depend on it beyond rounding


@dataclass(frozen=True)
class People:
    """Everybody whom a session needs, once: rows of persons as (session, role)."""

    rows: list[tuple[int, int]]
    target: Tensor  # (B,) rows
    partners: Tensor  # (B, P) rows, -1 nobody


def people_of(windows: Windows, session: int) -> People:
    """All participants as targets, with their partners (of another session if shuffled)."""
    row_of: dict[tuple[int, int], int] = {}
    roles = range(len(windows.specs[session].roles))
    target = [row_of.setdefault((session, r), len(row_of)) for r in roles]
    heard = [
        [row_of.setdefault(person, len(row_of)) for person in windows.persons(session, r)]
        for r in roles
    ]
    most = max(map(len, heard))
    padded = [[*rows, *[-1] * (most - len(rows))] for rows in heard]
    partners = torch.tensor(padded, dtype=torch.long).view(len(heard), most)
    return People(list(row_of), torch.tensor(target), partners)


def pieces(windows: Windows, session: int, people: People, borders: list[int]) -> Iterator[Batch]:
    """Frames borders[0]..borders[1], borders[1]..borders[2] and so on of everybody.

    Frames behind the end of a partner's recording are absent.
    """
    sessions = sorted({s for s, _ in people.rows})
    features, rate = windows.settings.features, windows.settings.frame_rate_hz
    domain = torch.tensor([windows.domain[s] for s, _ in people.rows])
    with ExitStack() as stack:
        readers = {
            s: stack.enter_context(SessionReader(windows.results, windows.specs[s], features, rate))
            for s in sessions
        }
        for lo, hi in zip(borders, borders[1:], strict=False):
            shape = len(people.rows), hi - lo
            streams = {
                name: np.zeros((*shape, dim), np.float32) for name, dim in windows.dims.items()
            }
            valid = {name: np.zeros(shape, bool) for name in windows.dims}
            frames = np.zeros(shape, bool)
            for row, (s, r) in enumerate(people.rows):
                stop = min(hi, windows.n_frames[s])
                if stop <= lo:
                    continue
                frames[row, : stop - lo] = True
                role = windows.specs[s].roles[r]
                for name in windows.dims:
                    values, ok = readers[s].read(role, name, lo, stop)
                    streams[name][row, : stop - lo], valid[name][row, : stop - lo] = values, ok
            yield Batch(
                {name: torch.from_numpy(x) for name, x in streams.items()},
                {name: torch.from_numpy(ok) for name, ok in valid.items()},
                torch.from_numpy(frames),
                people.target,
                people.partners,
                domain=domain,
            )


def borders_of(n_frames: int, piece: int, chunk: int, prompts: int) -> list[int]:
    """Where pieces of about `piece` frames end, so that with the prompts chunks stay whole."""
    piece = -(-max(piece, prompts + 1) // max(1, chunk)) * max(1, chunk)
    return [0, *range(piece - prompts, n_frames, piece), n_frames]


def live_session(
    model: nn.Module,
    windows: Windows,
    session: int,
    device: torch.device,
    mode: str,
    partner_context: int,
) -> dict[str, tuple[np.ndarray, ...]]:
    """role -> engagement (n,) float32, valid (n,) bool; mode `carry` or `stream`.

    In mode carry classes add their probability (n, classes) float32.
    partner_context: frames of partner context, 0 = the training window. Everybody is encoded once.
    """
    people, n = people_of(windows, session), windows.n_frames[session]
    reach = partner_context or windows.window
    target, partners = people.target.to(device), people.partners.to(device)
    rows = len(people.rows), target, partners, reach
    scores, valid, chances = [], [], []
    if mode == "stream":
        stream, borders = open_stream(model, *rows), [0, *range(PIECE, n, PIECE), n]
    else:
        carry = Carry(model, *rows)
        borders = borders_of(n, PIECE, carry.border, model.config.prompts)
    for batch in pieces(windows, session, people, borders):
        there = torch.stack(list(batch.valid.values())).any(0)[people.target]  # (B, n)
        valid.append(there)
        batch = batch.to(device)
        if mode == "stream":
            scores.append(stream.push(batch).cpu())  # (B, n or fewer)
        else:
            out = carry.advance(batch)
            scores.append(out["engagement"].cpu())  # (B, n)
            if "logits" in out:
                chances.append(out["logits"].softmax(-1).cpu())  # (B, n, classes)
    if mode == "stream":
        scores.append(stream.finish().cpu())
    found = [torch.cat(scores, 1).float(), torch.cat(valid, 1)]
    if chances:
        found.append(torch.cat(chances, 1).float())
    roles = windows.specs[session].roles
    return {role: tuple(x[r].numpy() for x in found) for r, role in enumerate(roles)}
