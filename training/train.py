"""Train one run with one seed.

python -m training.train --settings '{"preset": "demo"}' --train noxi/001:expert,novice ... \\
    --results results --statistics S.h5 --run da_mamba --seed 0 --out model.safetensors \\
    --history history.jsonl
torchrun --nproc-per-node 2 -m training.train ...   the same, each batch shared by two processes

The model file holds the averaged weights (EMA), the normalisation and the settings; the history
one JSON line per epoch. A resume checkpoint lies in --checkpoint-dir while training goes on: after
an interruption the same command continues, and on a CPU ends with the same bytes as without it.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from model.batch import Batch
from model.layers.global_batch import alone
from model.precision import autocast
from model.registry import build, count_parameters
from runtime import InputError, get_logger, progress
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.atomic import write_text
from store.session_spec import SessionSpec, parse_specs
from store.sidecar import sha256, write_sidecar
from training import distributed
from training.identities import agreed, check_statistics_of
from training.losses import VALIDATION, score_losses
from training.model_file import load_initial, resume_key, save_model
from training.optim import MovingAverage, learning_rate, make_optimiser
from training.resume import State, load_resume, save_resume
from training.settings import Settings, parse
from training.statistics import check_described, read_statistics
from training.windows import Windows

log = get_logger("train")
PROCESS_SEED = 1_000_003  # keeps the noise of processes apart
UNREAD_STEPS = 100  # losses wait on the device for at most this many steps


def train(
    settings: Settings,
    training_specs: list[SessionSpec],
    validation_specs: list[SessionSpec],
    results: Path,
    statistics: Path,
    seed: int,
    resume: Path | None = None,
    key: str = "",
    save_every_s: float = 60.0,
    description: str = "train",
    initial: Path | None = None,
) -> tuple[dict[str, Tensor], list[dict], nn.Module, dict[str, int]]:
    """Train; returns the weights to keep (state dict), the history, the model and its input dims.

    resume: file of the resume checkpoint; key: what it must match to be taken up; initial: model
    file whose weights training starts from.
    """
    t = settings.training
    measure = f"val_{VALIDATION[settings.task][0]}"
    features, label = read_statistics(statistics)
    domains = training_domains(settings, training_specs)
    device = pick_device()
    windows = Windows(
        results, training_specs, settings, True, t.partners, seed, t.stride, domains, device
    )
    check_described(statistics, features, windows.dims)
    validation = None
    if validation_specs:
        validation = Windows(
            results, validation_specs, settings, True, t.partners, seed, domains=domains
        )
    elif t.selection == "best_val":
        raise InputError(
            "training.selection is best_val, but the run has no validation sessions",
            "name validation sets for this run, or choose selection: last",
        )
    if not len(windows.targets):
        raise InputError(
            "no window of the training sessions holds a label",
            "check the column `labels` of the sessions sheet",
        )
    torch.manual_seed(seed)
    model = build(settings, windows.dims, domains)
    if initial is not None:  # before the statistics, which are those of these training sessions
        load_initial(initial, model, settings, domains, results, training_specs)
    model.load_statistics(features, label)
    model.to(device)
    state = State(model, MovingAverage(model, t.ema), make_optimiser(model, t))
    # A model without parameters has nothing to learn.
    steps = [] if state.optimiser is None else windows.steps(t.epochs, seed, t.steps)
    epochs, total = len(steps), sum(steps)
    if distributed.rank():  # the start weights are the same in all processes, dropout is not
        torch.manual_seed(seed + PROCESS_SEED * distributed.rank())
    if total and t.warmup_steps >= total:
        log.warning("%d warm-up steps, but only %d steps in all", t.warmup_steps, total)
    if resume is not None:
        load_resume(resume, key, state, device)
    log.info(
        "%d target windows, %d steps, %s, device %s, process %d of %d",
        *(len(windows.targets), total, t.precision, device),
        *(distributed.rank() + 1, distributed.size()),
    )
    saved = time.monotonic()
    remaining = batches(windows, steps, seed, state.step)
    for epoch, ends, batch in progress(remaining, description, total - state.step, "steps"):
        lr = learning_rate(t, state.step, total, epoch)
        optimise(state, batch.to(device), settings, lr)
        due = time.monotonic() - saved >= save_every_s
        due = resume is not None and distributed.first_says(due)
        if ends or due or len(state.unread) >= UNREAD_STEPS:
            read_losses(state)
        if ends:
            record = {"epoch": epoch + 1, "steps": state.step, "learning_rate": lr}
            record |= {name: value / steps[epoch] for name, value in state.sums.items()}
            state.sums = {}
            last = epoch + 1 == epochs
            if validation is not None and (last or (epoch + 1) % t.validate_every == 0):
                record[measure] = validate(state, validation, t.batch, device)
                if record[measure] > state.best_score:
                    state.best_score = record[measure]
                    state.best = {n: w.clone() for n, w in state.average.state(model).items()}
            state.history.append(record)
            log.info("%s", "  ".join(f"{k} {v:.4g}" for k, v in record.items()))
        if due:
            save_resume(resume, key, state)
            saved = time.monotonic()
    if not epochs and validation is not None:
        state.history.append(
            {"epoch": 0, "steps": 0, measure: validate(state, validation, t.batch, device)}
        )
    chosen = state.best if t.selection == "best_val" and state.best else state.average.state(model)
    return chosen, state.history, model, windows.dims


def training_domains(settings: Settings, specs: list[SessionSpec]) -> tuple[str, ...]:
    """Datasets that get an own prompt, sorted; none for a model without prompts."""
    return tuple(sorted({spec.dataset for spec in specs})) if settings.model.prompts else ()


def batches(
    windows: Windows, steps: list[int], seed: int, done: int
) -> Iterator[tuple[int, bool, Batch]]:
    """(epoch, whether it ends the epoch, batch) for every step after the first `done`."""
    for epoch, n in enumerate(steps):
        if done >= n:
            done -= n
            continue
        for step, batch in enumerate(windows.training_batches(epoch, seed, done), done + 1):
            yield epoch, step == n, batch
            if step == n:
                break  # the last epoch may be cut short by training.steps
        done = 0


def optimise(state: State, batch: Batch, settings: Settings, lr: float) -> None:
    """One optimiser step. Its losses stay on the device, in `state.unread`, until `read_losses`."""
    t = settings.training
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    state.model.train()
    with autocast(t.precision, batch.frames.device):
        out = state.model(batch)
        losses = score_losses(out, batch, t) | out["losses"]
    weights = settings.loss_weights()
    loss = sum(weights[name] * value for name, value in losses.items())
    share = distributed.weight_of_share(len(batch.target))
    state.optimiser.zero_grad()
    (loss * share).backward()
    distributed.average_gradients(state.model.parameters())
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), t.grad_clip)
    state.optimiser.step()
    state.average.update(state.model)
    state.step += 1
    values = torch.stack([norm, *(value.detach() * share for value in (loss, *losses.values()))])
    state.unread.append((("loss", *losses), values))


def read_losses(state: State) -> None:
    """Add the losses of the steps since the last call to `state.sums`, in the order of the steps.

    Reading a number makes the CPU wait for the device, so steps are read together.

    Raises InputError where a step's gradient was not finite.
    """
    steps, state.unread = state.unread, []
    if not steps:
        return
    table = torch.stack([values for _, values in steps])  # (steps, 1 + losses)
    norms = table[:, 0].tolist()  # the same in every process
    for back, norm in zip(range(len(norms), 0, -1), norms, strict=True):
        if not math.isfinite(norm):
            raise InputError(
                f"training diverged at step {state.step - back + 1} (gradient norm {norm})",
                "lower training.learning_rate, or raise training.warmup_steps",
            )
    for (names, _), row in zip(steps, distributed.average(table[:, 1:]).tolist(), strict=True):
        for name, value in zip(names, row, strict=True):
            state.sums[name] = state.sums.get(name, 0.0) + value


@torch.no_grad()
def validate(state: State, windows: Windows, batch_size: int, device: torch.device) -> float:
    """The averaged weights on all labelled frames of the validation sessions, pooled.

    CCC, or Cohen's kappa for classes.
    """
    state.model.eval()
    weights = state.average.state(state.model)
    context, core = windows.context, windows.core
    rank, processes = distributed.rank(), distributed.size()
    parts = []  # (prediction, label, mask) of each batch
    with alone():  # sessions are dealt out
        for session in range(len(windows.specs))[rank::processes]:
            for _, batch in windows.in_order(session, batch_size):
                out = functional_call(state.model, weights, (batch.to(device),))
                centre = slice(context, context + core)
                prediction = out["engagement"][:, centre].double().cpu()
                label, mask = batch.label[:, centre].double(), batch.label_mask[:, centre]
                parts.append((prediction.flatten(), label.flatten(), mask.flatten()))
    parts = [part for of_process in distributed.gather(parts) for part in of_process]
    _, measure = VALIDATION[windows.settings.task]
    return float(measure(*(torch.cat(column) for column in zip(*parts, strict=True))))


def read_settings(text: str) -> Settings:
    """Settings from JSON text, or from a file that holds it."""
    try:
        raw = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        return parse(json.loads(raw))
    except ValueError as e:
        raise InputError(
            f"the run's settings are not readable JSON ({e})", "see docs/model.md for an example"
        ) from e


def run(args: argparse.Namespace) -> dict[str, object]:
    """The work behind the command line; writes model and history, returns counts."""
    settings = read_settings(args.settings)
    training, validation = parse_specs(args.train), parse_specs(args.validate or [])
    identity = {
        "fingerprint": args.fingerprint,
        "settings": settings.canonical(),
        "seed": args.seed,
        "train": [spec.text() for spec in training],
        "validate": [spec.text() for spec in validation],
        "statistics": sha256(args.statistics),
    }
    if args.initial:
        identity["initial"] = sha256(args.initial)
    if distributed.size() > 1:
        identity["processes"] = distributed.size()
    made = agreed(args.results, training + validation, settings.features)
    stated = {
        n: s["identity"] for n, s in read_statistics(args.statistics)[0].items() if "identity" in s
    }
    check_statistics_of(made, stated, args.statistics)
    resume = None
    if args.checkpoint_dir:
        resume = Path(args.checkpoint_dir) / f"{args.run}.seed-{args.seed}.safetensors"
    torch.use_deterministic_algorithms(True, warn_only=True)
    weights, history, model, dims = train(
        settings,
        training,
        validation,
        args.results,
        args.statistics,
        args.seed,
        resume,
        resume_key(**identity),
        args.save_every_s,
        f"train {args.run} seed {args.seed}",
        args.initial,
    )
    counts = {"parameters": count_parameters(model)}
    counts["steps"] = history[-1]["steps"] if history else 0
    if distributed.rank():
        return counts
    metadata = {"run": args.run, "seed": args.seed, "fingerprint": args.fingerprint, "dims": dims}
    metadata["features"] = made
    if settings.model.prompts:
        metadata["domains"] = training_domains(settings, training)
    save_model(args.out, weights, settings, metadata)
    write_text(args.history, "".join(json.dumps(r, sort_keys=True) + "\n" for r in history))
    if resume is not None:
        resume.unlink(missing_ok=True)
    return counts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    add = parser.add_argument
    add("--settings", default="{}", metavar="JSON", help="the run's settings: JSON text or a file")
    add("--train", nargs="+", required=True, metavar="SPEC", help="dataset/session:role1,role2")
    add("--validate", nargs="*", metavar="SPEC", help="sessions for the history and best_val")
    add("--results", type=Path, default=Path("results"), help="results folder")
    add("--statistics", type=Path, required=True, help="file of python -m training.statistics")
    add(
        "--initial",
        type=Path,
        metavar="MODEL",
        help="model file whose weights training starts from",
    )
    add("--seed", type=int, default=0, help="start weights, data order, dropout")
    add("--run", default="run", help="name of the run, stored in the model file")
    add("--checkpoint-dir", metavar="DIR", help="keep a resume checkpoint here while training")
    add("--save-every-s", type=float, default=60.0, help="seconds between resume checkpoints")
    add("--out", type=Path, required=True, help="model file to write (.safetensors)")
    add("--history", type=Path, required=True, help="history to write (.jsonl)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv

    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        start = time.monotonic()
        with distributed.processes():
            counts = run(args) | {"processes": distributed.size()}
            if distributed.rank():
                return
        write_sidecar(
            args.out,
            inputs={"statistics": args.statistics}
            | ({"initial": args.initial} if args.initial else {}),
            settings=read_settings(args.settings).canonical() | {"seed": args.seed},
            fingerprint=args.fingerprint,
            packages=["h5py", "numpy", "safetensors", "torch"],
            command=command_line("training.train", argv),
            counts=counts | {"training_sessions": args.train, "validation": args.validate or []},
            seconds=time.monotonic() - start,
            device=describe_device(),
        )

    parser, own = build_parser(), []
    if distributed.launched_rank() and (log_file := parser.parse_args(argv).log):
        own = ["--log", f"{log_file}.process-{distributed.launched_rank() + 1}"]
    return run_job("training.train", parser, work, [*argv, *own])


if __name__ == "__main__":
    sys.exit(main())
