"""Predict engagement for the sessions of one dataset with one trained model.

python -m inference.predict --checkpoint model.safetensors --sessions noxi/005:expert,novice@test \\
    --results results --out predictions.h5

Output (HDF5, schema version 1): root attributes schema_version, run, seed, dataset, fingerprint,
classes (0 in regression);
per session a group with attribute split; per role a group with
    time (n,) float64 s, session time on the model's frame grid
    engagement (n,) float32, every frame of the grid; the likeliest class in classification
    probability (n, classes) float32, of classes in modes window and carry
    valid (n,) bool, false where no feature of this participant was there
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch

from inference.config import (
    PredictionConfig,
    check_finish,
    check_live,
    frames_each_side,
    parse_prediction,
)
from inference.session import live_session
from model.missing import AbsentStreams
from runtime import InputError, get_logger, progress
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.hdf5 import create_hdf5
from store.session_spec import SessionSpec, parse_specs
from store.sidecar import write_sidecar
from training.identities import check_trained
from training.model_file import Trained, load_model
from training.windows import Windows

log = get_logger("predict")

SCHEMA_VERSION = 1
BATCH = 64  # target windows at a time; results do not depend on it beyond rounding


# role -> engagement (n,), valid (n,); of classes also probability (n, classes)
Scores = dict[str, tuple[np.ndarray, ...]]


@torch.no_grad()
def predict_windows(
    trained: Trained,
    windows: Windows,
    session: int,
    device: torch.device,
    merge: str = "centre",
    absent: AbsentStreams | None = None,
) -> Scores:
    """The scores of a session from all its windows in order.

    merge: `centre` takes the predicted centre of each window, `mean` averages every window that
    holds a frame (of classes: their probabilities). absent: streams to take away first.
    """
    n, core = windows.n_frames[session], windows.core
    part = slice(windows.context, windows.context + core)
    if merge == "mean":
        part = slice(0, windows.window)
    roles = windows.specs[session].roles
    total = np.zeros((len(roles), n, trained.settings.outputs))
    count = np.zeros((len(roles), n, 1))
    valid = np.zeros((len(roles), n), bool)
    for targets, batch in windows.in_order(session, BATCH):
        any_valid = torch.stack(list(batch.valid.values())).any(0)[batch.target]  # (B, L)
        out = trained.model((absent.drop(batch) if absent else batch).to(device))
        value = out["logits"].softmax(-1) if "logits" in out else out["engagement"].unsqueeze(-1)
        value = value.cpu().numpy()  # (B, L, outputs)
        for i, (w, r) in enumerate(zip(targets.window, targets.role, strict=True)):
            first = w * core - windows.context
            lo, hi = max(0, first + part.start), min(n, first + part.stop)
            total[r, lo:hi] += value[i, lo - first : hi - first]
            count[r, lo:hi] += 1
            valid[r, lo:hi] = any_valid[i, lo - first : hi - first]
    mean = total / count  # (roles, n, outputs)
    score = mean.argmax(-1) if mean.shape[-1] > 1 else mean[..., 0]
    found = [score.astype(np.float32), valid]
    if mean.shape[-1] > 1:
        found.append(mean.astype(np.float32))
    return {role: tuple(x[r] for x in found) for r, role in enumerate(roles)}


def seam_steps(scores: Scores, seams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|dy| of consecutive valid frames: those that lead to a seam (frame indices), all others."""
    at, inside = [], []
    for engagement, valid, *_ in scores.values():
        step = np.abs(np.diff(engagement))
        both = valid[1:] & valid[:-1]
        to_seam = np.isin(np.arange(1, len(engagement)), seams)
        at.append(step[both & to_seam])
        inside.append(step[both & ~to_seam])
    return np.concatenate(at), np.concatenate(inside)


def seam_frames(windows: Windows, session: int, merge: str) -> np.ndarray:
    """Frames from which on other windows decide than before."""
    starts = np.arange(windows.n_windows(session)) * windows.core
    if merge == "mean":
        starts = starts - windows.context
        return np.unique(np.concatenate([starts, starts + windows.window]))
    return starts


def finish(
    engagement: np.ndarray, valid: np.ndarray, config: PredictionConfig, rate_hz: float
) -> np.ndarray:
    """One person's scores (n,) smoothed and clipped as the settings ask.

    The mean is taken over the valid frames (n,) bool around a valid frame, fewer at the ends; frames
    without input stay as they are and enter no mean.
    """
    each = frames_each_side(config.smooth_s, rate_hz)
    if each:
        sums = np.concatenate(
            [[0.0], np.cumsum(np.where(valid, engagement, 0.0), dtype=np.float64)]
        )
        counts = np.concatenate([[0], np.cumsum(valid)])
        at = np.arange(len(engagement))
        low, high = (at - each).clip(0), (at + each + 1).clip(max=len(at))
        mean = (sums[high] - sums[low]) / (counts[high] - counts[low]).clip(1)
        engagement = np.where(valid, mean, engagement)
    if config.clip:
        engagement = engagement.clip(0.0, 1.0)
    return engagement.astype(np.float32)


def predict(
    checkpoint: Path,
    specs: list[SessionSpec],
    results: Path,
    out: Path,
    partners: str | None = None,
    shuffle_seed: int = 0,
    fingerprint: str = "",
    run: str | None = None,
    config: PredictionConfig | None = None,
) -> dict[str, int | float]:
    """Predict and write; returns counts.

    partners, run: None = as the run was trained, and its name; config: None = the defaults.
    The counts `step_at_seams` and `step_inside` are mean |dy| from frame to frame where windows
    meet, and elsewhere (in carry and stream at the same frames, where nothing meets).
    """
    config = config or PredictionConfig()
    trained = load_model(checkpoint)
    datasets = sorted({spec.dataset for spec in specs})
    if len(datasets) != 1:
        raise InputError(
            f"the sessions belong to {len(datasets)} datasets ({', '.join(datasets)})",
            "predict one dataset at a time",
        )
    if config.mode != "window":
        most = max(len(spec.roles) for spec in specs) - 1
        check_live(trained.settings.name, trained.settings.model, most)
    check_finish(config, trained.settings.frame_rate_hz, trained.settings.classes)
    check_trained(results, specs, trained.features, str(checkpoint))
    source = partners or trained.settings.training.partners
    domains = trained.metadata.get("domains", ())
    if trained.settings.model.prompts and datasets[0] not in domains:
        log.warning(
            "%s is no training dataset of %s (%s): its windows get the unknown prompt",
            datasets[0], checkpoint, ", ".join(domains),
        )  # fmt: skip
    windows = Windows(
        results, specs, trained.settings, False, source, shuffle_seed, domains=domains
    )
    absent = None
    if config.absent_rate:
        absent = AbsentStreams(
            windows.person_windows(), windows.dims, config.absent_rate, config.absent_seed
        )
    device = pick_device()
    trained.model.to(device)
    frames, at, inside = 0, [], []
    with create_hdf5(out) as new:
        f = new.file
        f.attrs["schema_version"] = SCHEMA_VERSION
        f.attrs["run"], f.attrs["seed"] = run or trained.metadata["run"], trained.metadata["seed"]
        f.attrs["dataset"], f.attrs["fingerprint"] = datasets[0], fingerprint
        f.attrs["classes"] = trained.settings.classes
        for key, value in dataclasses.asdict(config).items():
            f.attrs[key] = value
        for session in progress(range(len(specs)), "predict", unit="sessions"):
            group = f.create_group(specs[session].session)
            group.attrs["split"] = specs[session].split
            instants = np.arange(windows.n_frames[session]) / trained.settings.frame_rate_hz
            if config.mode == "window":
                scores = predict_windows(trained, windows, session, device, config.merge, absent)
            else:
                scores = live_session(
                    trained.model, windows, session, device, config.mode, config.partner_context
                )
            if config.smooth_s or config.clip:
                rate = trained.settings.frame_rate_hz
                scores = {
                    role: (finish(score, valid, config, rate), valid)
                    for role, (score, valid) in scores.items()
                }
            for role, (score, valid, *probability) in scores.items():
                person = group.create_group(role)
                person["time"], person["engagement"], person["valid"] = instants, score, valid
                if probability:
                    person["probability"] = probability[0]
                frames += len(score)
            steps = seam_steps(scores, seam_frames(windows, session, config.merge))
            at.append(steps[0])
            inside.append(steps[1])
    counts: dict[str, int | float] = {"sessions": len(specs), "frames": frames}
    if absent:
        counts["absent_realised"] = absent.realised
    for key, parts in (("step_at_seams", at), ("step_inside", inside)):
        steps = np.concatenate(parts)
        if len(steps):
            counts[key] = float(steps.mean(dtype=np.float64))
    if "step_at_seams" in counts and "step_inside" in counts:
        log.info(
            "mean |dy| from frame to frame: %.5f where windows meet, %.5f elsewhere",
            counts["step_at_seams"],
            counts["step_inside"],
        )
    return counts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference.predict", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="model file of python -m training.train")
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
    choices = PredictionConfig.CHOICES
    add("--mode", choices=choices["mode"], default="window", help="how sessions are run through")
    add("--merge", choices=choices["merge"], default="centre", help="of windows")
    add(
        "--partner-context",
        type=int,
        default=0,
        help="frames of partner context in carry and stream (default: the training window)",
    )
    add("--absent-rate", type=float, default=0.0, help="share of streams that are taken away")
    add("--absent-seed", type=int, default=0, help="which streams")
    add("--smooth-s", type=float, default=0.0, help="moving average over so many seconds")
    add("--clip", action="store_true", help="clip engagement to [0, 1]")
    add("--run", help="name stored in the file (default: of the run that trained the model)")
    add("--out", type=Path, required=True, help="HDF5 file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        start = time.monotonic()
        fields = dataclasses.fields(PredictionConfig)
        config = parse_prediction({f.name: getattr(args, f.name) for f in fields})
        counts = predict(
            args.checkpoint,
            parse_specs(args.sessions),
            args.results,
            args.out,
            args.partners,
            args.shuffle_seed,
            args.fingerprint,
            args.run,
            config,
        )
        write_sidecar(
            args.out,
            inputs={"checkpoint": args.checkpoint},
            settings={
                "partners": args.partners,
                "shuffle_seed": args.shuffle_seed,
                **dataclasses.asdict(config),
            },
            fingerprint=args.fingerprint,
            packages=["h5py", "numpy", "safetensors", "torch"],
            command=command_line("inference.predict", argv if argv is not None else sys.argv[1:]),
            counts=counts,
            seconds=time.monotonic() - start,
            device=describe_device(),
        )

    return run_job("inference.predict", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
