"""Compute a feature of one recording: one command for all extractors.

    python -m extractors egemaps   --audio a.wav --out egemaps.h5
    python -m extractors clip_face --faces F.h5 --crops F.crops.mkv --weights DIR --out clip_face.h5

extractors/declared.py says what each reads and which settings it has; the module of its name holds
the computing (`rows`). This one reads the command line, opens what is read, and writes the feature
file (store/features.py) and its sidecar.
"""

import argparse
import importlib
import sys
import time
from contextlib import closing
from pathlib import Path

from extractors.declared import EXTRACTORS, Extractor
from extractors.face_track import FaceCrops
from extractors.sound import Sound, warn_of_silence
from extractors.weights import resolve
from runtime import get_logger
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

log = get_logger("extract")

PACKAGES = ("av", "h5py", "numpy")


def extract(
    name: str,
    out: str | Path,
    source: Sound | FaceCrops,
    *,
    weights: str | Path | None = None,
    dtype: str | None = None,
    threads: int = 1,
    fingerprint: str = "",
    command: str = "",
    **settings,
) -> dict[str, int]:
    """Write the feature file `out` and its sidecar; returns the sidecar's counts.

    name : one of EXTRACTORS. source : what it reads. weights : manifest or folder of a checkpoint,
    for extractors that have one. settings : those of the declaration, which gives the defaults.

    Of a silent recording no row is valid. Raises InputError for a source that cannot be read, settings out of range, missing or foreign
    weights, and values that do not fit into `dtype`.
    """
    begin = time.perf_counter()
    declared = EXTRACTORS[name]
    settings = complete(declared, settings)
    dtype = dtype or declared.dtype
    module = importlib.import_module(declared.module)
    given = dict(settings)
    checkpoint = None
    if declared.checkpoint:
        checkpoint = resolve(weights, name)
        given["weights"] = checkpoint.directory
    if declared.gpu:
        pick_device()  # leases the GPU, and loads torch before its threads are limited
    limit_threads(threads)
    rows = module.rows(source, **given)
    own = {s.name: settings[s.name] for s in declared.settings if s.changes_values}
    own["dtype"] = dtype
    of_weights = {"weights": checkpoint.digest} if checkpoint else {}
    attributes = FeatureAttributes(
        feature=name,
        native_rate_hz=rows.rate_hz,
        window_s=rows.window_s,
        hop_s=rows.hop_s,
        dim_names=rows.dim_names,
        extractor=declared.module,
        model_id=checkpoint.model_id if checkpoint else rows.model_id,
        model_revision=checkpoint.model_revision if checkpoint else rows.model_revision,
        precision=rows.precision,
        fingerprint=fingerprint,
        settings=own | of_weights | source.below,
        extra=rows.attributes,
    )
    counts = {"rows": 0, "valid": 0}
    with closing(rows.blocks) as blocks, FeatureWriter(out, attributes, dtype) as writer:
        for values, instant, valid in blocks:
            writer.append(values, instant, valid)
            counts["rows"] += len(instant)
            counts["valid"] += int(valid.sum())
        if rows.heard is not None and rows.heard.silent:
            warn_of_silence(source.audio)
            writer.invalidate()
            counts["valid"] = 0
    counts |= rows.counts
    seconds = time.perf_counter() - begin
    log.info("%s: %d rows, %d valid, %.1f s", name, counts["rows"], counts["valid"], seconds)
    write_sidecar(
        out,
        inputs=source.inputs,
        settings=own | source.settings | ({"weights": checkpoint.settings} if checkpoint else {}),
        fingerprint=fingerprint,
        packages=[*PACKAGES, *declared.packages],
        command=command,
        counts=counts,
        seconds=seconds,
        **({"device": describe_device()} if declared.gpu else {}),
    )
    return counts


def complete(declared: Extractor, settings: dict) -> dict:
    """The settings with the declared defaults; TypeError for one that the extractor has not."""
    unknown = sorted(settings.keys() - declared.defaults)
    if unknown:
        raise TypeError(f"{declared.name} has no setting {unknown[0]}")
    return declared.defaults | settings


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors", description="Compute a feature of one recording."
    )
    commands = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    for declared in EXTRACTORS.values():
        text = declared.description
        p = commands.add_parser(declared.name, help=text, description=text)
        if declared.reads == "sound":
            p.add_argument("--audio", required=True, help="sound file, or video with sound")
            p.add_argument(
                "--audio-channel", type=int, help="channel, from 0 (default: mean of all channels)"
            )
        else:
            p.add_argument("--faces", required=True, help="faces file (.h5)")
            p.add_argument("--crops", required=True, help="crop store (.crops.mkv)")
        if declared.checkpoint:
            p.add_argument(
                "--weights",
                required=True,
                help="folder of the checkpoint, or its manifest (python -m extractors.weights)",
            )
        p.add_argument("--out", required=True, help="feature file to write (.h5)")
        for s in declared.settings:
            p.add_argument(
                "--" + s.name.replace("_", "-"),
                type=s.type,
                default=s.default,
                choices=s.choices,
                help=f"{s.help} (default: {s.default})",
            )
        note = f"; {declared.dtype_note}" if declared.dtype_note else ""
        p.add_argument(
            "--dtype",
            choices=("float32", "float16"),
            default=declared.dtype,
            help=f"of the stored values (default: {declared.dtype}{note})",
        )
        add_job_arguments(p)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)

    def work(args: argparse.Namespace) -> None:
        declared = EXTRACTORS[args.name]
        if declared.reads == "sound":
            source = Sound(args.audio, args.audio_channel)
        else:
            source = FaceCrops(args.faces, args.crops)
        extract(
            args.name,
            args.out,
            source,
            weights=getattr(args, "weights", None),
            dtype=args.dtype,
            threads=args.threads,
            fingerprint=args.fingerprint,
            command=command_line("extractors", argv),
            **{s.name: getattr(args, s.name) for s in declared.settings},
        )

    return run_job("extractors", build_parser(), work, argv)
