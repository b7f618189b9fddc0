"""Sessions made of numbers, none of them twice, and what windows of them must hold: plain loops."""

from types import SimpleNamespace

import numpy as np
import torch

from store.session_spec import parse_specs
from training.windows import Windows

DIMS = {"egemaps": 2, "flow": 1}
FRAMES = {"008": 23, "001": 20, "002": 9, "003": 14}
SPECS = parse_specs(
    ["noxi/001:expert,novice", "noxi/002:expert,novice", "noxi/003:expert,novice", "mpiigi/008:a,b,c"]
)  # fmt: skip
SLICE = 12  # frames


def number(spec, role, name, frame):
    """(D,) what a stream holds there: no two places have one number."""
    place = 1e5 * int(spec.session) + 1e4 * spec.roles.index(role) + 1e3 * list(DIMS).index(name)
    return np.float32(place + frame) + np.arange(DIMS[name], dtype=np.float32) / 4


def is_valid(name, frame):
    return name == "egemaps" or frame % 4 != 1


def label_of(spec, role, frame):
    """The label and whether it is known: novice of 003 has none, c of 008 no known one."""
    if (spec.session, role) == ("003", "novice"):
        return 0.0, False
    known = frame % 5 != 0 and role != "c" and not (spec.session == "001" and frame < 12)
    return (float(np.float32(frame / 100)) if known else 0.0), known


class Reader:
    dims = DIMS
    read_frames: list[tuple] = []

    def __init__(self, results, spec, features, frame_rate_hz):
        assert (str(results), features, frame_rate_hz) == ("results", list(DIMS), 25.0)
        self.spec, self.n_frames = spec, FRAMES[spec.session]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(self, role, name, lo, hi):
        assert 0 <= lo < hi <= self.n_frames
        self.read_frames.append((self.spec.session, role, name, lo, hi))
        rows = [number(self.spec, role, name, f) for f in range(lo, hi)]
        return np.stack(rows), np.array([is_valid(name, f) for f in range(lo, hi)])

    def labels(self, role):
        if (self.spec.session, role) == ("003", "novice"):
            return None
        pairs = [label_of(self.spec, role, f) for f in range(self.n_frames)]
        return np.array([v for v, _ in pairs], np.float32), np.array([k for _, k in pairs])


def make(labelled=False, specs=SPECS, window=8, core=4, task="regression", classes=0, **more):
    training = {"window": window, "core": core, "batch": 5, "pool_gb": 1.0, "loss_frames": "core"}
    training |= {key: more.pop(key) for key in list(more) if key in training}
    settings = SimpleNamespace(
        training=SimpleNamespace(**training),
        features=list(DIMS),
        frame_rate_hz=25.0,
        task=task,
        classes=classes,
    )
    return Windows("results", list(specs), settings, labelled, **more)


def rows(targets):
    return list(zip(*(x.tolist() for x in (targets.session, targets.window, targets.role)), strict=True))  # fmt: skip


def frames_of(w, session, window):
    """Frame numbers of a window, and whether each lies in the recording."""
    first = window * w.stride - (w.window - w.core) // 2
    n = FRAMES[w.specs[session].session]
    return [(f, 0 <= f < n) for f in range(first, first + w.window)]


def label_rows(w, session, window, role):
    """Labels of a window and which of them count, frame by frame."""
    spec, margin, found = w.specs[session], (w.window - w.core) // 2, []
    for k, (f, inside) in enumerate(frames_of(w, session, window)):
        value, known = label_of(spec, spec.roles[role], f) if inside else (0.0, False)
        in_core = margin <= k < margin + w.core
        found.append((value, known and (in_core or w.settings.training.loss_frames == "window")))
    return found


def all_targets(w, labelled):
    found = []
    for s, spec in enumerate(w.specs):
        for window in range(len(range(0, FRAMES[spec.session], w.stride))):
            for role in range(len(spec.roles)):
                if not labelled or any(k for _, k in label_rows(w, s, window, role)):
                    found.append((s, window, role))
    return found


def partners_of(w, session, window, role, foreign=None):
    """The others in seat order after the target, those of another session who are there then."""
    n = len(w.specs[session].roles)
    seats = [(role + k) % n for k in range(1, n)]
    if foreign is None:
        return [(session, seat, window) for seat in seats]
    other, found = foreign[session], []
    for seat in seats:
        person = (other, seat % len(w.specs[other].roles), window)
        there = any(inside for _, inside in frames_of(w, other, window))
        if there and person not in found:
            found.append(person)
    return found


def check_batch(w, targets, batch, labelled, foreign=None, domain=(0, 0, 0, 0)):
    persons = [tuple(p) for p in batch.person.tolist()]
    wanted = set()
    for i, (s, window, r) in enumerate(rows(targets)):
        assert persons[batch.target[i]] == (s, r, window)
        partners = [persons[p] for p in batch.partners[i].tolist() if p >= 0]
        assert partners == partners_of(w, s, window, r, foreign)
        assert (batch.partners[i, len(partners) :] == -1).all()
        wanted |= {(s, r, window), *partners}
        if labelled:
            pairs = list(zip(batch.label[i].tolist(), batch.label_mask[i].tolist(), strict=True))
            assert pairs == label_rows(w, s, window, r)
    assert sorted(persons) == sorted(wanted)  # everybody once
    longest = max(len(partners_of(w, s, x, r, foreign)) for s, x, r in rows(targets))
    assert batch.partners.shape == (len(targets), longest)
    assert (batch.label is None) == (batch.label_mask is None) == (not labelled)
    if labelled:
        assert batch.label.dtype == torch.float32 and batch.label_mask.dtype == torch.bool
    assert batch.domain.tolist() == [domain[s] for s, _, _ in persons]
    for row, (s, r, window) in enumerate(persons):
        spec = w.specs[s]
        for k, (f, inside) in enumerate(frames_of(w, s, window)):
            assert bool(batch.frames[row, k]) == inside
            for name in DIMS:
                assert bool(batch.valid[name][row, k]) == (inside and is_valid(name, f))
                if inside:
                    held = batch.streams[name][row, k].numpy()
                    assert held.tolist() == number(spec, spec.roles[r], name, f).tolist()
