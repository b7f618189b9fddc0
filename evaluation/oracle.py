"""Predictions of one who knows the demo corpus's latent engagement: the ceiling of its tables.

The demo generator keeps, beside the truth of each participant, the label's conditional expectation
when all latents are known (``oracle``: only label noise is missing) and when only what the target
shows is known (``oracle_own``: the ceiling for a model that does not see partners). This writes them
as a predictions file, so that they are scored like any run. Real corpora have no such files.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from corpora.demo.composition import session_files
from evaluation.predictions import SCHEMA_VERSION
from formats.label_csv import read_labels
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.hdf5 import create_hdf5
from store.session_spec import SessionSpec, parse_spec

log = get_logger("oracle")
KINDS = ("oracle", "oracle_own")
RATE_HZ = 25.0


def write_oracle(
    corpus: Path,
    sessions: list[SessionSpec],
    out: Path,
    kind: str = "oracle",
    seed: int = 0,
    fingerprint: str = "",
) -> None:
    """Write the oracle of all given sessions (of one dataset) as a predictions file.

    Line k of an oracle csv describes k/25 s. Raises InputError for a session that is not of the
    demo corpus, a missing csv, or sessions of several datasets.
    """
    datasets = sorted({s.dataset for s in sessions})
    if len(datasets) != 1:
        raise InputError(
            f"sessions of {len(datasets)} datasets were given", "write one file per dataset"
        )
    with create_hdf5(out) as new:
        f = new.file
        f.attrs["run"] = kind
        f.attrs["seed"] = seed
        f.attrs["dataset"] = datasets[0]
        f.attrs["fingerprint"] = fingerprint
        f.attrs["schema_version"] = SCHEMA_VERSION
        for spec in sorted(sessions, key=lambda s: s.session):
            files = session_files(spec.dataset, spec.session)
            f.create_group(spec.session).attrs["split"] = spec.split
            for role in sorted(spec.roles):
                if kind not in files.get(role, {}):
                    raise InputError(
                        f"the demo corpus keeps no {kind} of {spec.dataset}/{spec.session} {role}",
                        "name participants of the demo corpus; empty seats have none",
                    )
                values = read_labels(corpus / files[role][kind])
                group = f.create_group(f"{spec.session}/{role}")
                group["time"] = np.arange(len(values)) / RATE_HZ
                group["engagement"] = values.astype(np.float32)
                group["valid"] = np.ones(len(values), bool)
    log.info("wrote %s of %d sessions to %s", kind, len(sessions), out)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.oracle",
        description="Write the demo corpus's oracle as predictions, the ceiling row of its tables.",
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="folder of the generated demo corpus")
    add(
        "--sessions",
        nargs="+",
        required=True,
        metavar="SPEC",
        help="dataset/session:role1,role2@split, all of one dataset",
    )
    add("--kind", choices=KINDS, default="oracle", help="oracle_own: partners unknown")
    add("--seed", type=int, default=0, help="seed to name in the file (the oracle has none)")
    add("--out", type=Path, required=True, help="predictions file to write (.h5)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.oracle",
        build_parser(),
        lambda a: write_oracle(
            a.corpus,
            [parse_spec(s, with_split=True) for s in a.sessions],
            a.out,
            a.kind,
            a.seed,
            a.fingerprint,
        ),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
