"""Small predictions, labels and scores files for the tests of evaluation."""

import json

import h5py
import numpy as np

from evaluation.metrics import Moments
from store.features import FeatureAttributes, write_features


def write_labels(results, dataset, session, role, values, start=0.0, rate=25.0, classes=()):
    """A labels file; NaN in values is a missing label. Returns (path, time)."""
    path = results / "labels" / dataset / session / f"{role}.h5"
    values = np.asarray(values, np.float64)
    time = start + np.arange(len(values)) * (1 / rate)
    attributes = FeatureAttributes(
        "engagement", rate, 1 / rate, 1 / rate, ["engagement"], "alignment.labels"
    )
    attributes.extra = {"classes": list(classes)} if classes else {}
    write_features(path, values[:, None], time, np.isfinite(values), attributes)
    return path, time


def write_predictions(
    path, participants, run="da_mamba", seed=1, dataset="noxi", split="test", schema=1
):
    """participants: {(session, role): (time, engagement[, valid])}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        f.attrs.update(
            run=run, seed=seed, dataset=dataset, fingerprint="code=0", schema_version=schema
        )
        for (session, role), (time, values, *valid) in participants.items():
            group = f.require_group(session)
            group.attrs["split"] = split
            group = group.create_group(role)
            group["time"] = np.asarray(time, np.float64)
            group["engagement"] = np.asarray(values, np.float32)
            group["valid"] = valid[0] if valid else np.ones(len(time), bool)
    return path


def write_scores(path, run, seed, dataset, splits, excluded=0):
    """splits: {split: {session: {role: (truth, prediction)}}}; a scores file without predictions."""
    record = {"schema_version": 1, "run": run, "seed": seed, "dataset": dataset, "splits": {}}
    for split, sessions in splits.items():
        participants = [
            {"session": s, "role": r, "moments": Moments.of(*pair).to_dict()}
            for s, roles in sessions.items()
            for r, pair in roles.items()
        ]
        record["splits"][split] = {"participants": participants, "n_excluded": excluded}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    return path
