"""Quality of a session's recordings and features, as numbers and a timeline. No picture of anyone.

python -m alignment.qc session --session noxi/020:expert,novice --features egemaps clip_face ...
    --out Q.json --plot Q.png
python -m alignment.qc summary --inputs Q1.json Q2.json ... --out qc.tsv

Terms: `coverage` is the share of valid ticks among the ticks within the participant's recording;
`face_rate` the share of video frames with a face; `clipped` the share of samples of the 16 kHz
mono signal at or above 0.99 of full scale; `silent` the share of 50 ms pieces below -60 dB;
`length_spread_s` the largest difference between the ends of video, audio, precomputed streams and
labels; `unusable` names what holds nothing (sound, face), so that its features are not valid.
Who comes without video or audio has no `face_rate`, `clipped`, `silent`: empty cells.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from alignment.aligned import AlignedFeature
from alignment.clock import read_clock, read_json, read_probe
from media.audio import audio_blocks, is_silent
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store import layout
from store.atomic import write_text
from store.hdf5 import open_hdf5, reading, remake
from store.session_spec import SessionSpec, parse_spec

AUDIO_RATE_HZ = 16000
CLIPPED_AT = 0.99
PIECE = AUDIO_RATE_HZ // 20
SILENT_RMS = 1e-3
TIMELINE_BINS = 1000


def audio_quality(blocks: Iterable[np.ndarray]) -> dict[str, float]:
    """Clipped share, silent share and peak of 16 kHz mono blocks (float32, any lengths)."""
    samples = clipped = pieces = silent = 0
    peak = 0.0
    rest = np.zeros(0, np.float32)
    for block in blocks:
        size = np.abs(block)
        samples += len(block)
        clipped += int((size >= CLIPPED_AT).sum())
        peak = max(peak, float(size.max(initial=0.0)))
        rest = np.concatenate([rest, block])
        whole = rest[: len(rest) // PIECE * PIECE].reshape(-1, PIECE).astype(np.float64)
        rest = rest[whole.size :]
        pieces += len(whole)
        silent += int((np.sqrt((whole**2).mean(axis=1)) < SILENT_RMS).sum())
    return {
        "clipped": clipped / max(1, samples),
        "silent": silent / max(1, pieces),
        "peak": peak,
    }


def ends(probe: dict, labels: tuple[int, float] | None) -> dict[str, float]:
    """End of each stream in seconds of the recording. labels: (rows, rate in Hz)."""
    found = {}
    video, audio = probe.get("video"), probe.get("audio")
    if video:
        found["video"] = video["first_s"] + video["duration_s"]
    if audio:
        found["audio"] = audio["start_s"] + audio["duration_s"]
    if probe.get("streams"):
        found["streams"] = max(s["duration_s"] for s in probe["streams"].values())
    if labels:
        found["labels"] = labels[0] / labels[1]
    return {name: round(float(end), 3) for name, end in found.items()}


def longest_gap(valid: np.ndarray) -> int:
    """Most consecutive False in (n,) bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], valid, [True]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def feature_quality(path: Path, first: int, last: int) -> tuple[dict[str, object], np.ndarray]:
    """Coverage of ticks first..last - 1 of an aligned file, and its validity over all ticks."""
    with AlignedFeature(path) as feature:
        valid = feature.valid(0, feature.n_ticks)
        inside = valid[first:last]
        record = {
            "coverage": round(float(inside.mean()), 6) if len(inside) else 0.0,
            "longest_gap_s": round(longest_gap(inside) / feature.rate_hz, 3),
            "native_rate_hz": round(feature.native_rate_hz, 6),
            "dim": feature.dim,
        }
    return record, valid


def face_rate(path: Path) -> dict[str, object]:
    """Frames, and the share of them with a face, of a faces file."""
    with open_hdf5(path) as f, reading(path):
        valid = f["valid"][()]
    return {"frames": len(valid), "face_rate": round(float(valid.mean()), 6) if len(valid) else 0.0}


def label_quality(path: Path) -> tuple[dict[str, object], tuple[int, float]]:
    """Rows and missing share of a label file; and (rows, rate in Hz)."""
    with open_hdf5(path) as f, reading(path):
        valid = f["valid"][()]
        rate = float(f.attrs["native_rate_hz"])
    missing = 1 - float(valid.mean()) if len(valid) else 1.0
    return {"rows": len(valid), "missing": round(missing, 6)}, (len(valid), rate)


def session_quality(
    spec: SessionSpec,
    results: str | Path,
    features: list[str],
    label_roles: Iterable[str] = (),
    audio: dict[str, tuple[str, int | None]] | None = None,
    faces: bool = False,
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The record of a session, and the validity (N,) of each ``role feature`` for the timeline.

    audio maps a role to (file, channel or None); without it the sound is not looked into. faces:
    whether people with a video have a face track.
    """
    clock = read_clock(layout.clock(results, *spec.key))
    participants, timeline = [], {}
    for role in spec.roles:
        probe = read_probe(layout.probe(results, *spec.key, role))
        offset = float(probe.get("offset") or 0.0)
        first = int(np.ceil(offset * clock.rate_hz - 1e-6))
        last = int(np.ceil((offset + float(probe["duration_s"])) * clock.rate_hz - 1e-6))
        record: dict[str, object] = {
            "role": role,
            "offset_s": offset,
            "features": {},
            "unusable": [],
        }
        for name in features:
            quality, valid = feature_quality(
                layout.aligned(results, *spec.key, role, name), first, last
            )
            if len(valid) != clock.n_ticks:
                path = layout.aligned(results, *spec.key, role, name)
                raise InputError(f"{path} does not fit its session's clock", remake(path))
            record["features"][name] = quality
            timeline[f"{role} {name}"] = valid
        if faces and probe.get("video"):
            record["faces"] = face_rate(layout.faces(results, *spec.key, role))
            if record["faces"]["face_rate"] == 0:
                record["unusable"].append("face")
        labels = None
        if role in label_roles:
            record["labels"], labels = label_quality(layout.labels(results, *spec.key, role))
        if audio and role in audio:
            path, channel = audio[role]
            heard = audio_quality(audio_blocks(path, channel=channel))
            record["audio"] = {k: round(v, 6) for k, v in heard.items()}
            if is_silent(heard["peak"]):
                record["unusable"].append("sound")
        record["ends_s"] = ends(probe, labels)
        stops = list(record["ends_s"].values())
        record["length_spread_s"] = round(max(stops) - min(stops), 3) if stops else 0.0
        participants.append(record)
    whole = {
        "dataset": spec.dataset,
        "session": spec.session,
        "rate_hz": clock.rate_hz,
        "duration_s": round(clock.duration_s, 3),
        "participants": participants,
    }
    return whole, timeline


def draw_timeline(
    timeline: dict[str, np.ndarray], rate_hz: float, title: str, path: str | Path
) -> None:
    """Picture of validity over session time, a row per role and feature; darker is more valid."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n = len(next(iter(timeline.values()), np.zeros(1)))
    bins = min(n, TIMELINE_BINS)
    starts = np.linspace(0, n, bins, endpoint=False).astype(int)
    widths = np.diff(starts, append=n)
    shares = [np.add.reduceat(v.astype(float), starts) / widths for v in timeline.values()]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.26 * max(1, len(timeline))))
    image = axes.imshow(
        np.array(shares).reshape(-1, bins),
        aspect="auto",
        interpolation="nearest",
        cmap="Blues",
        vmin=0,
        vmax=1,
        extent=(0, n / rate_hz, len(timeline), 0),
    )
    axes.set_yticks(np.arange(len(timeline)) + 0.5, list(timeline))
    for y in range(1, len(timeline)):
        axes.axhline(y, color="white", linewidth=1.5)
    axes.set_xlabel("session time (s)")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of valid ticks")
    figure.tight_layout()
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    plt.close(figure)


def write_session(
    spec: SessionSpec,
    results: str | Path,
    features: list[str],
    label_roles: list[str],
    audio: dict[str, tuple[str, int | None]],
    out: str | Path,
    plot: str | Path | None,
    fingerprint: str = "",
    faces: bool = False,
) -> None:
    """Write the session's JSON and, if asked for, the picture."""
    from store.atomic import atomic_path

    record, timeline = session_quality(spec, results, features, label_roles, audio, faces)
    record["fingerprint"] = fingerprint
    if plot:
        with atomic_path(plot) as temporary:
            title = f"{spec.dataset} {spec.session}: where features are valid"
            draw_timeline(timeline, record["rate_hz"], title, temporary)
    write_text(out, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def parse_audio(items: list[str]) -> dict[str, tuple[str, int | None]]:
    """``role=path`` or ``role=path#channel`` -> {role: (path, channel or None)}."""
    found: dict[str, tuple[str, int | None]] = {}
    for item in items:
        role, equals, path = item.partition("=")
        name, mark, channel = path.rpartition("#")
        if not (role and equals and path):
            raise InputError(
                f"--audio {item!r} is not role=path", "write for example expert=expert.wav#1"
            )
        # A '#' not followed by digits alone belongs to the file's name.
        found[role] = (name, int(channel)) if mark and channel.isdigit() else (path, None)
    return found


def summary_rows(records: list[dict]) -> list[dict[str, object]]:
    """One flat row per participant; a column per feature's coverage."""
    rows = []
    for r in sorted(records, key=lambda r: (r["dataset"], r["session"])):
        for p in r["participants"]:
            row = {"dataset": r["dataset"], "session": r["session"], "role": p["role"]}
            row["duration_s"] = r["duration_s"]
            row["length_spread_s"] = p["length_spread_s"]
            row["face_rate"] = p.get("faces", {}).get("face_rate", "")
            row["clipped"] = p.get("audio", {}).get("clipped", "")
            row["silent"] = p.get("audio", {}).get("silent", "")
            row["unusable"] = " ".join(p.get("unusable", []))
            row["labels_missing"] = p.get("labels", {}).get("missing", "")
            for name, quality in p["features"].items():
                row[f"coverage_{name}"] = quality["coverage"]
            rows.append(row)
    return rows


def write_summary(inputs: list[str], out: str | Path) -> None:
    """Write the table of all sessions (tab-separated, one row per participant)."""
    records = []
    for path in inputs:
        record = read_json(path)
        if "participants" not in record:
            raise InputError(f"{path} is not a quality record", remake(path))
        records.append(record)
    rows = summary_rows(records)
    columns = list(dict.fromkeys(c for row in rows for c in row))
    lines = ["\t".join(columns)]
    lines += ["\t".join(str(row.get(c, "")) for c in columns) for row in rows]
    write_text(out, "\n".join(lines) + "\n")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.qc", description="Quality of recordings and features."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("session", help="numbers and timeline of one session")
    add = one.add_argument
    add("--session", required=True, metavar="SPEC", help="dataset/session:role,role")
    add("--results", default="results", metavar="DIR", help="results folder")
    add("--features", nargs="*", default=[], help="features to look at")
    add("--faces", action="store_true", help="look at the face tracks of people with a video")
    add("--labels-roles", nargs="*", default=[], help="roles that have labels")
    add(
        "--audio",
        nargs="*",
        default=[],
        metavar="ROLE=FILE[#CHANNEL]",
        help="recordings whose sound is checked for clipping and silence",
    )
    add("--out", required=True, metavar="JSON", help="record to write")
    add("--plot", metavar="PNG", help="timeline to write")
    add_job_arguments(one)
    all_sessions = commands.add_parser("summary", help="one table of many sessions")
    add = all_sessions.add_argument
    add("--inputs", nargs="+", required=True, metavar="JSON", help="records of sessions")
    add("--out", required=True, metavar="TSV", help="table to write, one row per participant")
    add_job_arguments(all_sessions)
    return parser


def run(args: argparse.Namespace) -> None:
    """The job of either command."""
    if args.command == "summary":
        write_summary(args.inputs, args.out)
        return
    write_session(
        parse_spec(args.session),
        args.results,
        args.features,
        args.labels_roles,
        parse_audio(args.audio),
        args.out,
        args.plot,
        args.fingerprint,
        args.faces,
    )


def main(argv: list[str] | None = None) -> int:
    return run_job("alignment.qc", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
