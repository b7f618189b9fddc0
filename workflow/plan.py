"""What a run would cost before anything runs: hours of media, jobs, gigabytes per stage.

python -m workflow.plan [TABLE ...] [--configfile presets/noxi.yaml] [--media-root DIR]

Lengths come from the media headers, so planning 90 hours takes seconds; sizes are rates times
dimensions times bytes, and the crop store's measured megabytes per hour.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.sheet import Participant
from extractors.declared import Extractor
from formats.stream_files import longest
from media.probe import stated_length
from runtime import InputError
from runtime.job import run_job
from store import layout
from workflow.recordings import extractor_of

GB = 1e9
# Columns of the challenge's streams; others are guessed as 512.
STREAM_DIMS = {
    "audio.egemapsv2": 88,
    "audio.w2vbert2_embeddings": 1024,
    "audio.xlm_roberta_embeddings": 768,
    "openface2": 714,
    "openface3": 21,
    "openpose": 139,
    "videomae": 1408,
    "dino": 768,
    "swin": 768,
}
CLOCK_HZ = 100.0
# Bytes of a native row beside its values: time (float64) and valid (bool).
ROW_BYTES = 9
# Bytes of a clock tick in an aligned file: row (int32) and weight (float32), before compression.
TICK_BYTES = 8
# Frame of a faces file as measured (landmarks, boxes, confidence, time, validity, HDF5 chunks).
FACES_ROW_BYTES = 4320
# Crop store, 224 x 224 at 25 fps, H.264 at crf 16: 49 to 76 MB/h measured on soft 640x480 pictures;
# sharp 1080p recordings hold more detail, so plan with a reserve.
CROPS_MB_PER_HOUR = 200.0
LABEL_BYTES = 4 + ROW_BYTES
VIDEO_HZ = 25.0
PREDICTION_BYTES = 8 + 4 + 1  # time, engagement, valid per frame


@dataclass(frozen=True)
class FeatureSize:
    """Columns, native rows per second and bytes per value of a stored feature.

    reads : ``sound``, ``crops`` or ``stream``.
    """

    dim: int
    rate_hz: float
    value_bytes: int
    reads: str = "stream"


@dataclass(frozen=True)
class RunSize:
    """Seeds of a run, and how many data sets it predicts and how many of them have labels.

    predicted_hours : hours of media it predicts; trained : False for a run with another's weights;
    figures : curves of this run.
    """

    seeds: int
    predicted: int
    scored: int
    predicted_hours: float = 0.0
    trained: bool = True
    figures: int = 0


@dataclass(frozen=True)
class PlanRow:
    """A stage: what it does, number of jobs, hours of media it reads, gigabytes it leaves."""

    stage: str
    jobs: int
    hours: float
    gigabytes: float


def media_durations(
    participants: Iterable[Participant], default_s: float | None = None
) -> dict[tuple[str, str, str], float]:
    """Seconds per (dataset, session, role) by the headers of the videos, or of the streams.

    default_s stands for videos that do not exist yet (the demo corpus); without it a missing
    video is an InputError.
    """
    durations = {}
    for p in participants:
        known = default_s is not None and not os.path.isfile(p.video)
        if not p.video:
            seconds = longest(p.streams)
        else:
            seconds = default_s if known else stated_length(p.video)
        durations[p.id] = seconds
    return durations


def plan(
    participants: Sequence[Participant],
    durations: Mapping[tuple[str, str, str], float],
    features: Mapping[str, FeatureSize],
    runs: Mapping[str, RunSize] | None = None,
    tables: int = 0,
    clock_hz: float = CLOCK_HZ,
    frame_rate_hz: float = 25.0,
    quality: bool = True,
    lacks: Callable[[Participant, str], str] = lambda person, feature: "",
) -> list[PlanRow]:
    """Rows of the plan, in the order of the stages; excluded participants cost nothing.

    quality : with the sessions' quality reports, which only `all` makes.
    lacks : what a participant misses for a feature, who then does not get it; "" for nothing.

    durations : seconds per (dataset, session, role). Gigabytes are 1e9 bytes, uncompressed where
    a file is compressed without loss (an upper bound).
    """
    people = [p for p in participants if not p.exclude]
    seconds = {p: durations[p.id] for p in people}
    total = sum(seconds.values())
    labelled = [p for p in people if p.labels]
    label_s = sum(seconds[p] for p in labelled)
    sessions = {(p.dataset, p.session) for p in people}
    hours = total / 3600

    def size(s: float, rate_hz: float, row_bytes: float) -> float:
        return s * rate_hz * row_bytes / GB

    rows = [PlanRow("media", len(people), hours, 0.0)]
    having = {name: [p for p in people if not lacks(p, name)] for name in features}
    long = {name: sum(seconds[p] for p in having[name]) for name in features}
    seen = max((having[n] for n, f in features.items() if f.reads == "crops"), key=len, default=[])
    if seen:
        seen_s = sum(seconds[p] for p in seen)
        crops = seen_s / 3600 * CROPS_MB_PER_HOUR / 1000
        faces = crops + size(seen_s, VIDEO_HZ, FACES_ROW_BYTES)
        rows.append(PlanRow("faces and crops", len(seen), seen_s / 3600, faces))
    native = {
        name: size(long[name], f.rate_hz, f.dim * f.value_bytes + ROW_BYTES)
        for name, f in features.items()
    }
    rows += [
        PlanRow(f"features: {n}", len(having[n]), long[n] / 3600, native[n])
        for n in features
        if having[n]
    ]
    rows.append(PlanRow("labels", len(labelled), label_s / 3600, size(label_s, 25.0, LABEL_BYTES)))
    ticks = size(sum(long.values()), clock_hz, TICK_BYTES)
    aligned_jobs = sum(map(len, having.values())) + len(sessions)
    rows.append(PlanRow("aligned", aligned_jobs, hours, sum(native.values()) + ticks))
    if quality:
        rows.append(PlanRow("qc", len(sessions) + 1, hours, 0.0))
    for name, run in (runs or {}).items():
        # Statistics once, training per seed; prediction and score per seed and data set; figures.
        training = 1 + run.seeds if run.trained else 0
        jobs = training + run.seeds * (run.predicted + run.scored) + run.figures
        left = run.seeds * run.predicted_hours * 3600 * frame_rate_hz * PREDICTION_BYTES / GB
        rows.append(PlanRow(f"run: {name}", jobs, run.predicted_hours, left))
    if tables:
        rows.append(PlanRow("tables", tables, 0.0, 0.0))
    return rows


def dense_gigabytes(seconds: float, features: Mapping[str, FeatureSize], clock_hz: float) -> float:
    """What the same features would take as a float32 table at the clock's rate."""
    return seconds * clock_hz * sum(f.dim for f in features.values()) * 4 / GB


def format_plan(
    rows: Sequence[PlanRow],
    participants: Sequence[Participant] = (),
    dense_gb: float | None = None,
) -> str:
    """The plan as text: one line per stage, the sum, and who is in it."""
    width = max([len(r.stage) for r in rows] + [5])
    lines = [f"{'stage':<{width}} {'jobs':>7} {'media h':>9} {'GB':>9}"]
    for r in rows:
        lines.append(f"{r.stage:<{width}} {r.jobs:>7} {r.hours:>9.2f} {_gigabytes(r):>9}")
    total = PlanRow("sum", sum(r.jobs for r in rows), 0.0, sum(r.gigabytes for r in rows))
    lines.append(f"{'sum':<{width}} {total.jobs:>7} {'':>9} {_gigabytes(total):>9}")
    if dense_gb is not None:
        lines.append(f"(the aligned features as a dense float32 table would be {dense_gb:.2f} GB)")
    people = [p for p in participants if not p.exclude]
    if people:
        sessions = len({(p.dataset, p.session) for p in people})
        left_out = len(participants) - len(people)
        lines.append(
            f"{len(people)} participants in {sessions} sessions"
            f" ({sum(bool(p.labels) for p in people)} with labels), {left_out} excluded"
        )
    return "\n".join(lines)


def _gigabytes(row: PlanRow) -> str:
    if row.gigabytes == 0:
        return "-"
    return f"{row.gigabytes:.2f}" if row.gigabytes >= 0.01 else "< 0.01"


def feature_sizes(settings: Mapping[str, Mapping]) -> dict[str, FeatureSize]:
    """Sizes of the enabled features of the config's `features` section.

    Columns that follow from a checkpoint: by its config where it is a local folder, else what is usual.
    """
    sizes = {}
    for name, s in settings.items():
        if not s.get("enabled", True):
            continue
        value_bytes = 2 if s["dtype"] == "float16" else 4
        extractor = extractor_of(name, s)
        if extractor is None:
            dim = STREAM_DIMS.get(s["name"].removeprefix("video."), 512) - s["drop"]
            sizes[name] = FeatureSize(dim, VIDEO_HZ, value_bytes)
            continue
        dim = extractor.dim(s) if extractor.dim else _checkpoint_dim(extractor, s)
        rate = extractor.rate_hz or extractor.usual_rate_hz
        sizes[name] = FeatureSize(dim, rate, value_bytes, extractor.reads)
    return sizes


def _checkpoint_dim(extractor: Extractor, settings: Mapping) -> int:
    """Columns as a local checkpoint states them, else the usual ones."""
    file, keys = extractor.checkpoint.dim_at
    folder = (settings.get("weights") or {}).get("directory")
    path = Path(folder or "") / file
    if not folder or not path.is_file():
        return extractor.checkpoint.usual_dim
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
        return int(value)
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{path} does not state {'.'.join(keys)}", "copy the checkpoint again"
        ) from e


def run_sizes(study, durations: Mapping, tables: Sequence[str] = ()) -> dict[str, RunSize]:
    """Sizes of the runs of some tables on request, or of `all`."""
    if tables:
        runs = study.table_runs(*tables)
        figures = {f for t in tables for f in study.table_files(t) if "/curves/" in f}
    else:
        runs = study.runs_of_all()
        figures = set(study.figures_of_all())
    sizes = {}
    needed = dict.fromkeys(n for r in runs for n in study.declared.needed(r.name))
    predicting = {r.name for r in runs} | {m for n in needed for m in study.runs[n].members}
    for run in (study.runs[n] for n in needed):
        datasets = study.datasets(run) if run.name in predicting else []
        scored = [d for d in datasets if study.labelled(study.evaluated(run, d))]
        if tables:  # sets without labels are predicted by `all` only
            datasets = scored
        if run not in runs:  # members are predicted and not scored
            scored = []
        evaluated = set(study.sessions(s for d in datasets for s in study.evaluated(run, d)))
        seconds = sum(
            durations[p.id] for p in study.participants if (p.dataset, p.session) in evaluated
        )
        drawn = sum(
            Path(path).parent == Path(layout.curves(study.results, run.name, "")).parent
            for path in figures
        )
        sizes[run.name] = RunSize(
            len(run.seeds),
            len(datasets),
            len(scored),
            seconds / 3600,
            not run.weights_of and not run.members,
            drawn,
        )
    return sizes


def study_plan(study, tables: Sequence[str] = ()) -> str:
    """Plan of a study (workflow/study.py) as text: of `all`, or of the named tables on request."""
    config = study.config
    for name in tables:
        if name not in study.on_request:
            known = ", ".join(study.on_request) or "none"
            raise InputError(f"{name} is no table on request", f"tables on request: {known}")
    demo = config["demo"]
    everyone = [*study.participants, *study.excluded]
    durations = media_durations(study.participants, demo["seconds"] if demo else None)
    features = feature_sizes(study.features)
    runs = run_sizes(study, durations, tables)
    clock_hz = float(config["clock"]["rate_hz"])
    count = len(tables or study.tables_of_all)
    rows = plan(
        everyone, durations, features, runs, count, clock_hz, quality=not tables, lacks=study.lacks
    )
    dense = dense_gigabytes(sum(durations.values()), features, clock_hz)
    text = format_plan(rows, everyone, dense)
    text += member_lines(study, study.table_runs(*tables) if tables else study.runs_of_all())
    others = [name for name in study.on_request if name not in tables]
    return text + on_request_lines(study, others)


def member_lines(study, runs: Sequence) -> str:
    """What folds and ensembles are made of: their members, with the sessions each holds out."""
    lines = []
    for run in runs:
        if not run.members:
            continue
        lines.append("")
        lines.append(study.combined(run.name))
        for member in run.members if run.combines == "folds" else ():
            fold = study.runs[member]
            seen, held = study.sessions(fold.train), study.declared.held_out(fold)
            lines.append(
                f"  {member}: trains on {len(seen)} sessions, holds out {', '.join('/'.join(k) for k in held)}"
            )
    return "".join(f"\n{line}" for line in lines)


def on_request_lines(study, tables: Sequence[str]) -> str:
    """What else could be asked for: runs of each table, and which of them are trained for it."""
    if not tables:
        return ""
    width = max(map(len, tables))
    lines = ["", "on request (python -m workflow.plan TABLE, snakemake TABLE):"]
    of_all = set(study.trained(study.runs_of_all()))
    for name in tables:
        if name in study.refused:
            lines.append(f"  {name:<{width}}  not with this config: {study.refused[name].problem}")
            continue
        runs = study.table_runs(name)
        trained = set(study.trained(runs)) - of_all
        models = sum(len(study.runs[r].seeds) for r in trained)
        lines.append(f"  {name:<{width}}  {len(runs)} runs, {models} models trained for it")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.plan",
        description="Print hours of media, jobs and expected gigabytes per stage; runs nothing.",
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="tables on request, not `all`")
    parser.add_argument("--configfile", nargs="*", default=[], help="presets on top of config.yaml")
    parser.add_argument("--media-root", metavar="DIR", help="overrides the config's media_root")
    parser.set_defaults(log=None)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        from workflow.config import load_config
        from workflow.study import Study

        config = load_config(args.configfile)
        if args.media_root:
            config["media_root"] = args.media_root
        print(study_plan(Study(config), args.tables))

    return run_job("workflow.plan", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
