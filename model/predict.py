"""Predict engagement for the sessions of one dataset with one trained model.

python -m model.predict --checkpoint model.safetensors --sessions noxi/005:expert,novice@test \\
    --results results --out predictions.h5

Output (HDF5, schema version 1): root attributes schema_version, run, seed, dataset, fingerprint;
per session a group with attribute split; per role a group with
    time (n,) float64 s, session time on the model's frame grid
    engagement (n,) float32, every frame of the grid
    valid (n,) bool, false where no feature of this participant was there
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import Trained, load_model
from model.windows import Windows
from runtime import InputError, get_logger, progress
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.hdf5 import create_hdf5
from store.session_spec import SessionSpec, parse_specs
from store.sidecar import write_sidecar

log = get_logger("predict")

SCHEMA_VERSION = 1
BATCH = 64  # target windows at a time; results do not depend on it beyond rounding


@torch.no_grad()
def predict_session(
    trained: Trained, windows: Windows, session: int, device: torch.device
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """role -> engagement (n,) float32, valid (n,) bool: the centre frames of all windows, in order."""
    n, core = windows.n_frames[session], windows.core
    centre = slice(windows.context, windows.context + core)
    roles = windows.specs[session].roles
    score = np.zeros((len(roles), windows.n_windows(session) * core), np.float32)
    valid = np.zeros(score.shape, bool)
    for targets, batch in windows.in_order(session, BATCH):
        engagement = trained.model(batch.to(device))["engagement"][:, centre].cpu().numpy()
        any_valid = torch.stack(list(batch.valid.values())).any(0)[batch.target][:, centre].numpy()
        for i, (w, r) in enumerate(zip(targets.window, targets.role, strict=True)):
            score[r, w * core : (w + 1) * core] = engagement[i]  # (core,)
            valid[r, w * core : (w + 1) * core] = any_valid[i]  # (core,)
    return {role: (score[r, :n], valid[r, :n]) for r, role in enumerate(roles)}


def predict(
    checkpoint: Path,
    specs: list[SessionSpec],
    results: Path,
    out: Path,
    partners: str | None = None,
    shuffle_seed: int = 0,
    fingerprint: str = "",
    run: str | None = None,
) -> dict[str, int]:
    """Predict and write; returns counts.

    partners, run: None = as the run was trained, and its name.
    """
    trained = load_model(checkpoint)
    datasets = sorted({spec.dataset for spec in specs})
    if len(datasets) != 1:
        raise InputError(
            f"the sessions belong to {len(datasets)} datasets ({', '.join(datasets)})",
            "predict one dataset at a time",
        )
    source = partners or trained.settings.training.partners
    domains = trained.metadata.get("domains", ())
    if trained.settings.model.prompts and datasets[0] not in domains:
        log.info("%s is no training dataset: its windows get the unknown prompt", datasets[0])
    windows = Windows(
        results, specs, trained.settings, False, source, shuffle_seed, domains=domains
    )
    if windows.dims != trained.dims:
        odd = next(n for n in trained.dims if windows.dims[n] != trained.dims[n])
        raise InputError(
            f"{specs[0].name}: {odd} has {windows.dims[odd]} dimensions, {checkpoint} was trained with {trained.dims[odd]}",
            "extract the features with the settings of the training sessions, or train again",
        )
    device = pick_device()
    trained.model.to(device)
    frames = 0
    with create_hdf5(out) as new:
        f = new.file
        f.attrs["schema_version"] = SCHEMA_VERSION
        f.attrs["run"], f.attrs["seed"] = run or trained.metadata["run"], trained.metadata["seed"]
        f.attrs["dataset"], f.attrs["fingerprint"] = datasets[0], fingerprint
        for session in progress(range(len(specs)), "predict", unit="sessions"):
            group = f.create_group(specs[session].session)
            group.attrs["split"] = specs[session].split
            instants = np.arange(windows.n_frames[session]) / trained.settings.frame_rate_hz
            for role, (score, valid) in predict_session(trained, windows, session, device).items():
                person = group.create_group(role)
                person["time"], person["engagement"], person["valid"] = instants, score, valid
                frames += len(score)
    return {"sessions": len(specs), "frames": frames}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model.predict", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model file of python -m model.train")
    add(
        "--sessions",
        nargs="+",
        required=True,
        metavar="SPEC",
        help="dataset/session:role1,role2@split, all of one dataset",
    )
    add("--results", type=Path, default=Path("results"), help="results folder")
    add(
        "--partners",
        choices=("own", "shuffled"),
        help="shuffled: partners from another session (default: as the run was trained)",
    )
    add("--shuffle-seed", type=int, default=0, help="which other session, with shuffled partners")
    add("--run", help="name stored in the file (default: of the run that trained the model)")
    add("--out", type=Path, required=True, help="HDF5 file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        start = time.monotonic()
        counts = predict(
            args.checkpoint,
            parse_specs(args.sessions),
            args.results,
            args.out,
            args.partners,
            args.shuffle_seed,
            args.fingerprint,
            args.run,
        )
        write_sidecar(
            args.out,
            inputs={"checkpoint": args.checkpoint},
            settings={"partners": args.partners, "shuffle_seed": args.shuffle_seed},
            fingerprint=args.fingerprint,
            packages=["h5py", "numpy", "safetensors", "torch"],
            command=command_line("model.predict", argv if argv is not None else sys.argv[1:]),
            counts=counts,
            seconds=time.monotonic() - start,
            device=describe_device(),
        )

    return run_job("model.predict", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
