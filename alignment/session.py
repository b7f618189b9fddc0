"""Index of a session (HDF5): everything of one session under one name, for people and notebooks.

    /time                (N,) float64, session time of the ticks, s
    /{role}/{feature}    external link to the aligned file (store/aligned.py)
    /{role}/engagement   external link to the label file (feature contract, own time stamps)
Root attributes: schema_version, dataset, session, split, rate_hz, n_ticks, roles (JSON list),
features (JSON list). Links are relative, so the results folder can be moved; a changed feature
rewrites only its own file.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np

from alignment.clock import read_clock
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store.hdf5 import create_hdf5
from store.session_spec import SessionSpec, parse_spec

SCHEMA_VERSION = 1


def write_index(
    spec: SessionSpec,
    results: str | Path,
    clock: str | Path,
    features: list[str],
    label_roles: list[str],
    split: str,
    out: str | Path,
    fingerprint: str = "",
) -> None:
    """Write the index; InputError names the first file that is not there."""
    axis = read_clock(clock)
    strange = sorted(set(label_roles) - set(spec.roles))
    if strange:
        raise InputError(
            f"labels of {', '.join(strange)}, which {spec.dataset}/{spec.session} does not have",
            f"its roles are {', '.join(spec.roles)}",
        )
    targets = {
        f"{role}/{name}": spec.aligned(results, role, name)
        for role in spec.roles
        for name in features
    }
    targets |= {f"{role}/engagement": spec.labels(results, role) for role in label_roles}
    for path in targets.values():
        if not path.is_file():
            raise InputError(f"{path} does not exist", "run the workflow; it makes the file")
    folder = os.path.abspath(Path(out).parent)
    with create_hdf5(out) as new:
        f = new.file
        time = np.arange(axis.n_ticks) / axis.rate_hz
        f.create_dataset(
            "time",
            data=time,
            chunks=(min(1 << 14, axis.n_ticks),),
            compression="gzip",
            shuffle=True,
        )
        for name, path in sorted(targets.items()):
            relative = os.path.relpath(os.path.abspath(path), folder).replace(os.sep, "/")
            f[name] = h5py.ExternalLink(relative, "/")
        for role in spec.roles:
            f.require_group(role)
        attributes = {
            "dataset": spec.dataset,
            "features": json.dumps(features),
            "fingerprint": fingerprint,
            "n_ticks": axis.n_ticks,
            "rate_hz": axis.rate_hz,
            "roles": json.dumps(list(spec.roles)),
            "schema_version": SCHEMA_VERSION,
            "session": spec.session,
            "split": split,
        }
        for name, value in attributes.items():
            f.attrs[name] = value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.session",
        description="Write the index of a session: /time and links to aligned features and labels.",
    )
    parser.add_argument(
        "--session", required=True, metavar="SPEC", help="dataset/session:role,role"
    )
    parser.add_argument("--clock", required=True, metavar="JSON", help="clock.json of the session")
    parser.add_argument("--features", nargs="*", default=[], help="features to link")
    parser.add_argument("--labels-roles", nargs="*", default=[], help="roles that have labels")
    parser.add_argument("--split", default="", help="train, val or test (kept as an attribute)")
    parser.add_argument("--results", default="results", metavar="DIR", help="results folder")
    parser.add_argument("--out", required=True, metavar="H5", help="index to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "alignment.session",
        build_parser(),
        lambda a: write_index(
            parse_spec(a.session),
            a.results,
            a.clock,
            a.features,
            a.labels_roles,
            a.split,
            a.out,
            a.fingerprint,
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
