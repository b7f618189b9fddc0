"""One predictions file from several: the mean of an ensemble, or the folds of a run put together.

    python -m evaluation.ensemble --members A.h5 B.h5 --sessions noxi/005:expert,novice@test \\
        --name both --seed 1 --out predictions.h5

Without --folds every member must hold every session, and the result is the mean of their values
(of classes: of their probabilities, and the likeliest class of that mean). With --folds a session is
held by exactly one member, the one that did not train on it, and taken as it is, or by all members,
and averaged. A frame is valid where it is valid in any member.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from evaluation.predictions import SCHEMA_VERSION, PredictionFile, Series
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.hdf5 import create_hdf5
from store.session_spec import SessionSpec, parse_specs
from store.sidecar import write_sidecar


def mean_of(series: list[Series], place: str) -> Series:
    """The mean of members' predictions of one participant; InputError where their times differ."""
    first = series[0]
    for other in series[1:]:
        if not np.array_equal(other.time, first.time):
            raise InputError(
                f"the members predict {place} at different times ({len(first.time)} and {len(other.time)} frames)",
                "members of an ensemble need the same frame_rate_hz; make older predictions again",
            )
    values = np.mean([s.values for s in series], axis=0)
    return Series(first.time, values, np.any([s.valid for s in series], axis=0), first.classes)


def holders(members: list[PredictionFile], spec: SessionSpec, folds: bool) -> list[PredictionFile]:
    """The members that a session's predictions are made from; InputError where one is missing."""
    held = [m for m in members if spec.session in m.sessions()]
    allowed = (1, len(members)) if folds else (len(members),)
    if len(held) not in allowed:
        lacking = next((m.path for m in members if m not in held), members[0].path)
        what = "by one fold or by all" if folds else "by every member"
        raise InputError(
            f"{spec.name} is predicted by {len(held)} of {len(members)} members, not by {lacking}",
            f"it must be predicted {what}: correct --sessions, or predict it",
        )
    return held


def ensemble(
    paths: list[Path],
    specs: list[SessionSpec],
    out: Path,
    name: str,
    seed: int,
    folds: bool = False,
    fingerprint: str = "",
) -> dict[str, int]:
    """Write the predictions of all given sessions (of one dataset); returns counts.

    Raises InputError where members are of several datasets or kinds, or lack a session.
    """
    frames = 0
    with ExitStack() as stack:
        members = [stack.enter_context(PredictionFile(path)) for path in paths]
        first = members[0]
        for m in members:
            if (m.dataset, m.classes) != (first.dataset, first.classes):
                raise InputError(
                    f"{m.path} predicts {m.dataset} ({m.classes} classes), {first.path} {first.dataset} ({first.classes})",
                    "combine predictions of one dataset and one task",
                )
        with create_hdf5(out) as new:
            f = new.file
            f.attrs["schema_version"], f.attrs["run"], f.attrs["seed"] = SCHEMA_VERSION, name, seed
            f.attrs["dataset"], f.attrs["fingerprint"] = first.dataset, fingerprint
            f.attrs["classes"] = first.classes
            for spec in specs:
                if spec.dataset != first.dataset:
                    raise InputError(
                        f"{spec.name} is not of {first.dataset}, which {first.path} predicts",
                        "combine each dataset with its own predictions",
                    )
                held = holders(members, spec, folds)
                group = f.create_group(spec.session)
                group.attrs["split"] = spec.split
                for role in spec.roles:
                    found = mean_of(
                        [m.read(spec.session, role) for m in held], f"{spec.name}/{role}"
                    )
                    person = group.create_group(role)
                    person["time"] = found.time
                    if first.classes:
                        mean = np.mean([m.probability(spec.session, role) for m in held], axis=0)
                        person["probability"] = mean.astype(np.float32)
                        person["engagement"] = mean.argmax(-1).astype(np.float32)
                    else:
                        person["engagement"] = found.values.astype(np.float32)
                    person["valid"] = found.valid
                    frames += len(found.time)
    return {"members": len(paths), "sessions": len(specs), "frames": frames}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.ensemble",
        description="Make one predictions file of several: their mean, or folds put together.",
    )
    add = parser.add_argument
    add("--members", nargs="+", type=Path, required=True, help="predictions files of one dataset")
    add("--sessions", nargs="+", required=True, metavar="SPEC", help="dataset/session:roles@split")
    add("--folds", action="store_true", help="a session is held by one member, or by all")
    add("--name", required=True, help="name of the run, stored in the file")
    add("--seed", type=int, required=True, help="seed, stored in the file")
    add("--out", type=Path, required=True, help="HDF5 file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        counts = ensemble(
            args.members,
            parse_specs(args.sessions),
            args.out,
            args.name,
            args.seed,
            args.folds,
            args.fingerprint,
        )
        write_sidecar(
            args.out,
            inputs={f"{p.parent.parent.name}/{p.parent.name}": p for p in args.members},
            settings={"folds": args.folds, "name": args.name, "seed": args.seed},
            fingerprint=args.fingerprint,
            packages=["h5py", "numpy"],
            command=command_line("evaluation.ensemble", argv if argv is not None else sys.argv[1:]),
            counts=counts,
        )

    return run_job("evaluation.ensemble", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
