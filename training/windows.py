"""Windows over the frame grid, batches of them, and the order in which training sees them.

A window of `window` frames predicts its `core` frames in the centre. In prediction windows step by
`core`, so every frame of a session is predicted exactly once; in training they step by `stride`.
Window i starts at frame i stride - (window - core) / 2; frames before the first or after the last
of the recording are absent (`Batch.frames` false), not zeros. A window may be longer than the
session.

Memory: sessions are cut into slices of SLICE_FRAMES frames (a window belongs to the slice in which
its core begins), read in one piece each. Training shuffles slices, fills a pool of at most
`pool_gb` with them, shuffles the windows of the pool, and goes on to the next pool. Windows of one
instant of a session stay together, because its persons then are encoded once for all targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.batch import Batch
from runtime import InputError
from store import layout
from store.session_spec import SessionSpec
from training import distributed
from training.pool import Key, Pool
from training.sessions import SessionReader, check_classes
from training.settings import Settings

SLICE_FRAMES = 4096
PARTNER_STREAM = 7919  # keeps the draw of foreign partners apart from the draws of data order


@dataclass(frozen=True)
class Targets:
    """Target windows, column by column, all (K,): session, window and role as indices."""

    session: np.ndarray
    window: np.ndarray
    role: np.ndarray

    def __len__(self) -> int:
        return len(self.session)

    def __getitem__(self, rows) -> "Targets":
        return Targets(self.session[rows], self.window[rows], self.role[rows])


class Windows:
    """All windows of some sessions.

    specs : sessions (sorted by `parse_specs`); labelled : keep only targets with a label that
    counts (training, validation) instead of all (prediction); partners : "own", or "shuffled" for
    the negative control: everybody's partners come from another session of the same dataset among
    those given, drawn from `seed`; stride : frames from window to window, 0 = core;
    domains : datasets that have an index in `Batch.domain` (model.prompts); device : where the pool
    lies and batches are made.
    """

    def __init__(
        self,
        results: str | Path,
        specs: list[SessionSpec],
        settings: Settings,
        labelled: bool,
        partners: str = "own",
        seed: int = 0,
        stride: int = 0,
        domains: tuple[str, ...] | list[str] = (),
        device: torch.device | str = "cpu",
    ):
        self.results, self.specs, self.settings = Path(results), specs, settings
        self.window, self.core = settings.training.window, settings.training.core
        self.stride = stride or self.core
        self.slice_windows = max(1, SLICE_FRAMES // self.stride)
        self.context = (self.window - self.core) // 2
        self.dims: dict[str, int] = {}
        self.n_frames: list[int] = []
        self.labels: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []
        for spec in specs:
            with self._open(spec) as reader:
                for name, dim in reader.dims.items():
                    if self.dims.setdefault(name, dim) != dim:
                        raise InputError(
                            f"{spec.name}: {name} has {dim} dimensions, other sessions have {self.dims[name]}",
                            "extract this feature for all sessions with the same settings",
                        )
                self.n_frames.append(reader.n_frames)
                read = {role: reader.labels(role) for role in spec.roles} if labelled else {}
                self.labels.append({r: pair for r, pair in read.items() if pair is not None})
            if settings.task == "classification":
                for role, (value, known) in self.labels[-1].items():
                    path = layout.labels(self.results, *spec.key, role)
                    check_classes(path, value[known], settings.classes)
        index = {name: i for i, name in enumerate(domains, 1)}
        self.domain = [index.get(spec.dataset, 0) for spec in specs]
        self._foreign = foreign_sessions(specs, seed) if partners == "shuffled" else None
        self.targets = self._targets(labelled)
        self._pool = Pool(self.dims, device)

    def _open(self, spec: SessionSpec) -> SessionReader:
        return SessionReader(
            self.results, spec, self.settings.features, self.settings.frame_rate_hz
        )

    def n_windows(self, session: int) -> int:
        """Windows whose core holds at least one frame of the recording."""
        return -(-self.n_frames[session] // self.stride)

    def _targets(self, labelled: bool) -> Targets:
        rows = []
        for s, spec in enumerate(self.specs):
            for w in range(self.n_windows(s)):
                for r, role in enumerate(spec.roles):
                    if not labelled or self.label(s, w, role)[1].any():
                        rows.append((s, w, r))
        return Targets(*np.array(rows, np.int64).reshape(-1, 3).T)

    def label(self, session: int, window: int, role: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels of a window (L,) float32, and the frames that count (L,) bool."""
        value = np.zeros(self.window, np.float32)
        counts = np.zeros(self.window, bool)
        pair = self.labels[session].get(role)
        if pair is not None:
            first, lo, hi = self._span(session, window)
            value[lo - first : hi - first] = pair[0][lo:hi]
            counts[lo - first : hi - first] = pair[1][lo:hi]
            if self.settings.training.loss_frames == "core":
                counts[: self.context] = False
                counts[self.context + self.core :] = False
        return value, counts

    def _span(self, session: int, window: int) -> tuple[int, int, int]:
        """First frame of a window (may be negative), and its part inside the recording."""
        first = window * self.stride - self.context
        n = self.n_frames[session]
        return first, min(max(0, first), n), min(first + self.window, n)

    # ---- the order of training -------------------------------------------------------------

    def epoch_pools(self, epoch: int, seed: int) -> list[np.ndarray]:
        """Pools of one epoch: rows of `targets`, grouped by slices that fit into memory together."""
        rng = np.random.default_rng([seed, epoch])
        slices = self._slices()
        limit = self.settings.training.pool_gb * 1e9
        pools: list[list[np.ndarray]] = [[]]
        used = 0.0
        for i in rng.permutation(len(slices)):
            rows = slices[i]
            size = self._slice_bytes(int(self.targets.session[rows[0]]))
            if pools[-1] and used + size > limit:
                pools.append([])
                used = 0.0
            pools[-1].append(rows)
            used += size
        return [self._shuffle(np.concatenate(pool), rng) for pool in pools if pool]

    def _slices(self) -> list[np.ndarray]:
        key = self.targets.session * (1 << 32) + self.targets.window // self.slice_windows
        borders = np.flatnonzero(np.diff(key)) + 1
        return [rows for rows in np.split(np.arange(len(key)), borders) if len(rows)]

    def _slice_bytes(self, session: int) -> float:
        frames = min((self.slice_windows - 1) * self.stride + self.window, self.n_frames[session])
        persons = len(self.specs[session].roles) * (1 if self._foreign is None else 2)
        return float(frames * persons * sum(self.dims.values()) * 4)

    def _shuffle(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Shuffle session windows; the targets of one window stay side by side."""
        borders = np.flatnonzero(np.diff(self._instant(rows))) + 1
        groups = np.split(rows, borders)
        return np.concatenate([groups[i] for i in rng.permutation(len(groups))])

    def epoch_batches(self, epoch: int, seed: int) -> list[list[np.ndarray]]:
        """Per pool, batches of rows of `targets`: as many as needed, all about equally large."""
        batch = self.settings.training.batch
        return [
            np.array_split(rows, -(-len(rows) // batch)) for rows in self.epoch_pools(epoch, seed)
        ]

    def steps(self, epochs: int, seed: int, total: int = 0) -> list[int]:
        """Optimiser steps of each epoch; with `total`, as many epochs as hold that many steps."""
        steps: list[int] = []
        while sum(steps) < total if total else len(steps) < epochs:
            steps.append(sum(len(p) for p in self.epoch_batches(len(steps), seed)))
        if total:
            steps[-1] -= sum(steps) - total
        return steps

    def training_batches(self, epoch: int, seed: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of one epoch; the first `skip` are left out without reading them.

        Of several processes each gets its share of every batch (training.distributed).
        """
        for batches in self.epoch_batches(epoch, seed):
            if skip >= len(batches):
                skip -= len(batches)
                continue
            shares = [self._share(rows) for rows in batches[skip:]]
            self._load(self.targets[np.concatenate(shares)])
            for rows in shares:
                yield self.batch(self.targets[rows])
            skip = 0

    def _share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of a batch; the targets of one window stay side by side."""
        processes = distributed.size()
        if processes == 1:
            return rows
        if len(rows) < processes:
            raise InputError(
                f"a batch of {len(rows)} windows cannot be shared among {processes} processes",
                "start fewer processes (torchrun --nproc-per-node), or raise training.batch",
            )
        return rows[distributed.shares(self._instant(rows), processes)[distributed.rank()]]

    def _instant(self, rows: np.ndarray) -> np.ndarray:
        """A number (n,) for the session and window of each target."""
        return self.targets.session[rows] * (1 << 32) + self.targets.window[rows]

    # ---- reading ---------------------------------------------------------------------------

    def in_order(self, session: int, batch: int) -> Iterator[tuple[Targets, Batch]]:
        """All targets of one session in time order, a slice in memory at a time."""
        rows = np.flatnonzero(self.targets.session == session)
        part = self.targets.window[rows] // self.slice_windows
        for number in np.unique(part):
            of_slice = rows[part == number]
            self._load(self.targets[of_slice])
            for start in range(0, len(of_slice), batch):
                targets = self.targets[of_slice[start : start + batch]]
                yield targets, self.batch(targets)

    def persons(self, session: int, role: int) -> list[tuple[int, int]]:
        """Partners of a target as (session, role), in cyclic seat order after the target."""
        n = len(self.specs[session].roles)
        seats = [(role + k) % n for k in range(1, n)]
        if self._foreign is None:
            return [(session, seat) for seat in seats]
        other = self._foreign[session]
        there = len(self.specs[other].roles)
        return list(dict.fromkeys((other, seat % there) for seat in seats))

    def person_windows(self) -> set[tuple[int, int, int]]:
        """(session, role, window) of everybody who is a target or a target's partner."""
        units = set()
        t = self.targets
        for s, w, r in zip(t.session.tolist(), t.window.tolist(), t.role.tolist(), strict=True):
            units.add((s, r, w))
            units |= {(ps, pr, w) for ps, pr in self.persons(s, r) if self._inside(ps, w)}
        return units

    def _inside(self, session: int, window: int) -> bool:
        """Whether any frame of a window lies inside the recording."""
        _, lo, hi = self._span(session, window)
        return lo < hi

    def _load(self, targets: Targets) -> None:
        """Bring the slices of these targets and their partners into memory; others may be dropped."""
        spans: dict[Key, tuple[int, int]] = {}
        places = np.stack(
            [targets.session, targets.role, targets.window // self.slice_windows], axis=1
        )
        for session, role, number in np.unique(places, axis=0).tolist():
            for person_session, person_role in [(session, role), *self.persons(session, role)]:
                key = (person_session, person_role, number)
                spans[key] = self._slice_span(person_session, number)
        self._pool.load(spans, lambda session: self._open(self.specs[session]))

    def _slice_span(self, session: int, number: int) -> tuple[int, int]:
        n = self.n_frames[session]
        first = number * self.slice_windows * self.stride - self.context
        last = first + (self.slice_windows - 1) * self.stride + self.window
        return min(max(0, first), n), min(last, n)

    def batch(self, targets: Targets) -> Batch:
        """Assemble targets whose slices are loaded."""
        row_of: dict[tuple[int, int, int], int] = {}
        target_rows, partner_rows = [], []
        for s, w, r in zip(targets.session, targets.window, targets.role, strict=True):
            s, w, r = int(s), int(w), int(r)
            target_rows.append(row_of.setdefault((s, r, w), len(row_of)))
            partner_rows.append(
                [
                    row_of.setdefault((ps, pr, w), len(row_of))
                    for ps, pr in self.persons(s, r)
                    if self._inside(ps, w)
                ]
            )
        person = np.array(list(row_of), np.int64)  # (R, 3): session, role, window
        streams, valid, frames = self._pool.cut(*self._rows(person))
        P = max(len(p) for p in partner_rows)
        partners = np.full((len(targets), P), -1, np.int64)
        for i, rows in enumerate(partner_rows):
            partners[i, : len(rows)] = rows
        label = label_mask = None
        if any(self.labels):
            pairs = [
                self.label(int(s), int(w), self.specs[s].roles[r])
                for s, w, r in zip(targets.session, targets.window, targets.role, strict=True)
            ]
            label = torch.from_numpy(np.stack([value for value, _ in pairs]))
            label_mask = torch.from_numpy(np.stack([counts for _, counts in pairs]))
        return Batch(
            streams,
            valid,
            frames,
            torch.tensor(target_rows),
            torch.from_numpy(partners),
            label,
            label_mask,
            torch.from_numpy(person),
            torch.tensor([self.domain[s] for s in person[:, 0]]),
        ).to(self._pool.device)

    def _rows(self, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the pool of each frame of person-windows, and whether it is inside, (R, L) each.

        A frame before or after the slice's part of the recording names the nearest row in it.
        """
        session, role, window = person.T  # (R,) each
        number = window // self.slice_windows
        keys = list(zip(session.tolist(), role.tolist(), number.tolist(), strict=True))
        spans = np.array([self._slice_span(key[0], key[2]) for key in keys])[..., None]  # (R, 2, 1)
        start = np.array([self._pool.start[key] for key in keys])[:, None]  # (R, 1)
        first = window * self.stride - self.context  # (R,)
        frame = first[:, None] + np.arange(self.window)  # (R, L)
        inside = (frame >= 0) & (frame < np.array(self.n_frames)[session][:, None])
        low, high = spans[:, 0], spans[:, 1]  # (R, 1) each
        return start + frame.clip(low, high - 1) - low, inside


def foreign_sessions(specs: list[SessionSpec], seed: int) -> list[int]:
    """For every session another one of its dataset: one random cycle through the given sessions."""
    foreign = [-1] * len(specs)
    for place in sorted({spec.dataset for spec in specs}):
        members = [i for i, spec in enumerate(specs) if spec.dataset == place]
        if len(members) < 2:
            raise InputError(
                f"partners: shuffled needs two sessions, {specs[members[0]].name} is alone in its dataset",
                "add sessions of this dataset, or choose partners: own",
            )
        rng = np.random.default_rng([seed, PARTNER_STREAM])
        order = rng.permutation(len(members))
        for here, there in zip(order, np.roll(order, -1), strict=True):
            foreign[members[here]] = members[there]
    return foreign
