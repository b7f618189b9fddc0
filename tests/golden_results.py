"""Golden values of the stages from training to tables, and of the networks."""

import json
import zipfile

import numpy as np
import torch
from evaluation_data import write_labels, write_predictions, write_scores
from golden_stages import golden, outputs, run
from model_data import DIMS, DYAD, write_corpus, write_session

from model.batch import Batch
from model.configs import model_names
from model.registry import build
from training.settings import parse

SEATS = ("subjectPos1", "subjectPos2", "subjectPos3")
WINDOW = {"window": 24, "core": 8}
EMPTY = torch.empty(0)
SPECS = [f"noxi/{s}:expert,novice@test" for s in ("001", "002", "003")]


def settings(name, **training):
    model = {"name": name}
    return {"preset": "demo", "features": list(DIMS), "model": model, "training": WINDOW | training}


def network(name):
    torch.manual_seed(0)
    return build(parse(settings(name)), DIMS)


def checkpoint(path, name="da_mamba"):
    """A model file with the weights that a training starts from."""
    from training.model_file import save_model

    model = network(name)
    about = {"run": "a_run", "seed": 1, "fingerprint": "", "dims": DIMS, "domains": []}
    save_model(path, model.state_dict(), parse(settings(name)), about)
    return path


def forward(name):
    """Start weights, output, losses and gradients of a network."""

    def make(_folder):
        torch.set_num_threads(1)
        model = network(name)
        g = torch.Generator().manual_seed(1)
        frames = WINDOW["window"]
        batch = Batch(
            {n: torch.randn(4, frames, dim, generator=g) for n, dim in DIMS.items()},
            {n: torch.rand(4, frames, generator=g) < 0.8 for n in DIMS},
            torch.ones(4, frames, dtype=torch.bool),
            torch.tensor([0, 1]),
            torch.tensor([[1, 2], [0, 3]]),
            torch.rand(2, frames, generator=g),
            torch.ones(2, frames, dtype=torch.bool),
        )
        model.train()
        torch.manual_seed(2)  # dropout
        out = model(batch)
        loss = (out["engagement"] - batch.label).square().mean() + sum(out["losses"].values())
        if loss.requires_grad:  # `constant` has nothing to learn
            loss.backward()
        weights = dict(sorted(model.named_parameters()))
        gradients = [p.grad for p in weights.values() if p.grad is not None]
        return {
            "weights": torch.cat([p.detach().flatten() for p in weights.values()] or [EMPTY]),
            "engagement": out["engagement"].detach(),
            "losses": [v.item() for _, v in sorted(out["losses"].items())],
            "gradients": torch.cat([x.flatten() for x in gradients] or [EMPTY]),
        }

    return make


for _name in model_names():
    golden(f"model.{_name}")(forward(_name))


def statistics(folder, specs):
    out = folder / "statistics.h5"
    command = ["--sessions", *specs, "--features", *DIMS, "--results", folder, "--out", out]
    run("training.statistics", *command)
    return out


@golden("training.statistics")
def training_statistics(folder):
    return outputs(statistics(folder, write_corpus(folder, 2, 6.0)))


@golden("training.train")
def train(folder):
    specs = write_corpus(folder, 2, 9.0)
    normalisation = statistics(folder, specs)
    late = [write_session(folder, "noxi", s, DYAD, 5.0, 1) for s in ("101", "102")]
    found = {}
    for name, more in (
        ("plain", {}),
        (
            "other",
            {"epochs": 1, "optimiser": "adam", "partners": "shuffled", "selection": "best_val"},
        ),
    ):
        model = "mlp" if name == "plain" else "da_mamba"
        few = {"epochs": 2, "batch": 8, "warmup_steps": 2, "learning_rate": 1e-3, "ema": 0.8} | more
        command = ["--settings", json.dumps(settings(model, **few)), "--train", *specs]
        command += ["--validate", *late] if more else []
        command += ["--results", folder, "--statistics", normalisation]
        out = folder / f"{name}.safetensors"
        run("training.train", *command, "--out", out, "--history", folder / f"{name}.jsonl")
        found |= outputs(out, folder / f"{name}.jsonl")
    return found


@golden("inference.predict")
def predict(folder):
    # Enough sessions that a shuffled partner depends on how it is drawn.
    specs = [
        write_session(folder, "mpiigi", f"{i:03d}", SEATS, 3.0, i, labels=False) + "@test"
        for i in range(9, 13)
    ]
    common = ["--checkpoint", checkpoint(folder / "m.safetensors"), "--sessions", *specs]
    common += ["--results", folder]
    found = {}
    for name, more in (
        ("plain", []),
        ("shuffled", ["--partners", "shuffled"]),
        ("mean", ["--merge", "mean", "--smooth-s", 0.5, "--clip", "--absent-rate", 0.3]),
    ):
        run("inference.predict", *common, *more, "--out", folder / f"{name}.h5")
        found |= outputs(folder / f"{name}.h5")
    return found


def predictions(folder, seeds=(1,), rate=25.0):
    """Labels and predictions of three dyads, one file per seed."""
    rng = np.random.default_rng(3)
    time, paths = np.arange(200) / rate, []
    truth = {}
    for session in ("001", "002", "003"):
        for role in DYAD:
            wave = np.sin(time * rng.uniform(0.5, 2)) * rng.uniform(0.1, 0.3)
            truth[session, role] = 0.5 + wave + 0.02 * rng.standard_normal(200)
            values = truth[session, role].copy()
            values[20:30] = np.nan
            write_labels(folder, "noxi", session, role, values)
    for seed in seeds:
        own = {
            key: (time, np.clip(0.45 + 0.8 * (v - 0.5) + 0.05 * rng.standard_normal(200), 0, 1))
            for key, v in truth.items()
        }
        paths.append(write_predictions(folder / f"seed-{seed}" / "noxi.h5", own, seed=seed))
    return paths


@golden("evaluation.ensemble")
def ensemble(folder):
    command = ["--members", *predictions(folder, (1, 2)), "--sessions", *SPECS, "--name", "mean"]
    run("evaluation.ensemble", *command, "--seed", 1, "--out", folder / "mean.h5")
    return outputs(folder / "mean.h5")


@golden("evaluation.score")
def score(folder):
    (path,) = predictions(folder)
    command = ["--predictions", path, "--results", folder, "--sessions", *SPECS]
    run("evaluation.score", *command, "--excluded", "test=1", "--out", folder / "score.json")
    return outputs(folder / "score.json")


@golden("evaluation.tables")
def tables(folder):
    rng, paths = np.random.default_rng(8), []
    for quality, name in ((0.9, "good"), (0.4, "weak")):
        for seed in (1, 2):
            sets = {}
            for s in range(6):
                truth = rng.standard_normal((2, 80))
                noise = rng.standard_normal((2, 80))
                pairs = zip(truth, quality * truth + (1 - quality) * noise, strict=True)
                sets[f"{s:03d}"] = dict(zip(DYAD, pairs, strict=True))
            path = folder / name / f"seed-{seed}" / "noxi.json"
            paths.append(write_scores(path, name, seed, "noxi", {"test": sets}))
    run("evaluation.tables", "--scores", *paths, "--out-dir", folder / "out")
    return outputs(*(folder / "out" / f"{n}.csv" for n in ("ccc", "sessions", "metrics")))


@golden("evaluation.fairness")
def fairness(folder):
    rows = ["dataset\tsplit\tsession\trole\tvideo\tgender\tlanguage"]
    for i, session in enumerate(("001", "002", "003")):
        for role, gender in zip(DYAD, ("male", "female"), strict=True):
            language = ("German", "French")[i % 2]
            rows.append(f"noxi\ttest\t{session}\t{role}\tx.mp4\t{gender}\t{language}")
    (folder / "sheet.tsv").write_text("\n".join(rows) + "\n")
    command = ["--predictions", *predictions(folder, (1, 2)), "--results", folder]
    run("evaluation.fairness", *command, "--sheet", folder / "sheet.tsv", "--out", folder / "f.csv")
    return outputs(folder / "f.csv")


@golden("evaluation.curves")
def curves(folder):
    command = ["--predictions", *predictions(folder, (1, 2)), "--results", folder]
    run(
        "evaluation.curves",
        "predictions",
        *command,
        "--sessions",
        *SPECS,
        "--out",
        folder / "p.png",
    )
    history = folder / "a_run" / "seed-1" / "history.jsonl"
    history.parent.mkdir(parents=True)
    lines = [{"epoch": e, "loss": 1 / e, "learning_rate": 1e-4, "val_ccc": 0.1 * e} for e in range(1, 6)]  # fmt: skip
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("evaluation.curves", "training", "--history", history, "--out", folder / "t.png")
    return outputs(folder / "p.png", folder / "t.png")


@golden("evaluation.similarity")
def similarity(folder):
    specs = [write_session(folder, "noxi", n, DYAD, 5.0, 1, labels=False) for n in ("001", "002")]
    command = ["--checkpoint", checkpoint(folder / "m.safetensors", "align_mamba")]
    command += ["--sessions", *specs, "--results", folder, "--out", folder / "similarity.png"]
    run("evaluation.similarity", *command)
    return outputs(folder / "similarity.csv")


@golden("evaluation.efficiency")
def efficiency(folder):
    """Sizes, parameters and operations: times and memory are measured, not computed."""
    import csv

    command = ["--out-dir", folder, "--models", "mlp", "--dims", "egemaps=5,clip_face=6"]
    command += ["--lengths", 8, 16, "--persons", 2, 3, "--at-length", 8, "--batch", 2]
    run("evaluation.efficiency", *command)
    with open(folder / "efficiency.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    kept = ("frames", "persons", "windows", "parameters", "gflop")
    return {name: [float(row[name]) for row in rows] for name in kept}


@golden("evaluation.export")
def export(folder):
    (path,) = predictions(folder, rate=30.0)
    found = {}
    for form in ("csv", "challenge", "elan"):
        out = folder / form
        run("evaluation.export", "--predictions", path, "--format", form, "--out-dir", out)
        found |= {f"{form}/{k}": v for k, v in outputs(*sorted(out.rglob("*.csv"))).items()}
    return found


@golden("evaluation.submission")
def submission(folder):
    from evaluation.layouts import LAYOUTS

    people = LAYOUTS[2023].folders["noxi"].required()
    rng, time = np.random.default_rng(6), np.arange(100) / 25
    series = {key: (time, rng.random(100)) for key in people}
    path = write_predictions(folder / "noxi.h5", series)
    for session, role in people:
        probe = folder / f"media/noxi/{session}/{role}.json"
        clock = folder / f"aligned/noxi/{session}/clock.json"
        for file in (probe, clock):
            file.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(json.dumps({"offset": 0.0, "duration_s": 4.0}))
        clock.write_text(json.dumps({"rate_hz": 100, "n_ticks": 400, "duration_s": 4.0}))
    command = ["--predictions", path, "--results", folder, "--year", 2023]
    run("evaluation.submission", *command, "--out", folder / "s.zip")
    with zipfile.ZipFile(folder / "s.zip") as z:
        return {n: [float(v) for v in z.read(n).split()] for n in sorted(z.namelist())[:4]}


@golden("evaluation.oracle")
def oracle(folder):
    from corpora.demo import session_files

    truth = session_files("noxi", "002")
    for i, role in enumerate(DYAD):
        path = folder / truth[role]["oracle"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{0.5 + 0.01 * i + k / 1000:.4f}\n" for k in range(100)))
    command = ["--corpus", folder, "--sessions", "noxi/002:expert,novice@test"]
    run("evaluation.oracle", *command, "--out", folder / "oracle.h5")
    return outputs(folder / "oracle.h5")
