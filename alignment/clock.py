"""The session's clock: tick k is at k / rate_hz seconds of session time.

Session time = recording time + offset, where `offset` (seconds, from the sessions sheet, not
negative) says how much later this participant's recording started than the session's zero. The
clock covers the recording that ends last: N ticks with (N - 1) / rate_hz < end <= N / rate_hz.

clock.json: {"rate_hz", "n_ticks", "duration_s", "dataset", "session",
"participants": {role: {"offset_s", "end_s"}}}
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text

# A time within this share of a tick counts as on the tick (float noise of k * 0.04 is ~1e-12 s).
SNAP_TICKS = 1e-6
MOST_TICKS = 10**9  # months at 100 Hz: more is a damaged file


@dataclass(frozen=True)
class Clock:
    """rate_hz ticks per second, n_ticks of them; duration_s is the end of the longest recording."""

    rate_hz: float
    n_ticks: int
    duration_s: float


def make_clock(participants: list[dict], rate_hz: float) -> dict:
    """Clock of a session from its participants' probe records (keys role, offset, duration_s).

    Raises InputError for no participant, participants of different sessions, a role given twice,
    a negative offset or an empty recording.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(
            f"clock rate {rate_hz} Hz is not a positive number", "set clock.rate_hz in the config"
        )
    if not participants:
        raise InputError(
            "a session without participants has no clock", "give --probe at least once"
        )
    sessions = sorted({(str(p["dataset"]), str(p["session"])) for p in participants})
    if len(sessions) > 1:
        names = ", ".join("/".join(s) for s in sessions)
        raise InputError(
            f"one clock cannot serve several sessions: {names}",
            "give the probe files of one session only",
        )
    dataset, session = sessions[0]
    ends: dict[str, dict[str, float]] = {}
    for p in sorted(participants, key=lambda p: str(p["role"])):
        place = f"{dataset}/{session}/{p['role']}"
        offset, duration = float(p.get("offset") or 0.0), float(p["duration_s"] or 0.0)
        if p["role"] in ends:
            raise InputError(
                f"{dataset}/{session} has the role {p['role']} twice",
                "give each participant of the session a role of its own in the sessions sheet",
            )
        if not (math.isfinite(offset) and offset >= 0):
            raise InputError(
                f"{place}: offset {offset:g} s is not a number >= 0",
                "give the recording that started first offset 0 and the others what they started later",
            )
        if not (math.isfinite(duration) and duration > 0):
            raise InputError(
                f"{place}: the recording has no length ({duration:g} s)",
                "copy the recording again, or exclude the participant in the sheet",
            )
        ends[str(p["role"])] = {"offset_s": offset, "end_s": offset + duration}
    end = max(e["end_s"] for e in ends.values())
    if end * rate_hz > MOST_TICKS:
        raise InputError(
            f"{dataset}/{session} lasts {end:.0f} s",
            "check the recordings' time stamps and offsets",
        )
    return {
        "rate_hz": float(rate_hz),
        "n_ticks": max(1, math.ceil(end * rate_hz - SNAP_TICKS)),
        "duration_s": end,
        "dataset": dataset,
        "session": session,
        "participants": ends,
    }


def read_json(path: str | Path) -> dict:
    """A JSON object of ours; InputError if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as f:
            record = json.load(f)
    except FileNotFoundError as e:
        raise InputError(f"{path} does not exist", "run the workflow; it makes the file") from e
    except (ValueError, RecursionError) as e:
        raise InputError(
            f"{path} is not readable JSON ({' '.join(str(e).split())[:100]})",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e
    if not isinstance(record, dict):
        raise InputError(
            f"{path} does not hold a JSON object",
            f"delete it and run again, it will be remade: rm '{path}'",
        )
    return record


def read_probe(path: str | Path) -> dict:
    """A participant's record of media.probe, with the keys that alignment needs."""
    record = read_json(path)
    missing = [k for k in ("dataset", "session", "role", "duration_s") if k not in record]
    if missing:
        raise InputError(
            f"{path}: keys missing: {', '.join(missing)}",
            f"delete it and run again, it will be remade: rm '{path}'",
        )
    return record


def read_clock(path: str | Path) -> Clock:
    """Read clock.json."""
    record = read_json(path)
    try:
        clock = Clock(float(record["rate_hz"]), int(record["n_ticks"]), float(record["duration_s"]))
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise InputError(
            f"{path}: no sound {e} in the clock",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e
    if not (0 < clock.rate_hz < math.inf and 0 < clock.n_ticks <= MOST_TICKS):
        raise InputError(
            f"{path}: {clock.n_ticks} ticks at {clock.rate_hz:g} Hz is no clock",
            f"delete it and run again, it will be remade: rm '{path}'",
        )
    return clock


def write_clock(probes: list[str], rate_hz: float, out: str | Path, fingerprint: str = "") -> None:
    """Write clock.json of the session whose participants' probe files are `probes`."""
    record = make_clock([read_probe(p) for p in probes], rate_hz)
    record["fingerprint"] = fingerprint
    write_text(out, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.clock",
        description="Make the clock of a session: it covers the recording that ends last.",
    )
    parser.add_argument(
        "--probe", nargs="+", required=True, metavar="JSON", help="participants' probe files"
    )
    parser.add_argument("--rate-hz", type=float, default=100.0, help="ticks per second")
    parser.add_argument("--out", required=True, metavar="JSON", help="clock.json to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "alignment.clock",
        build_parser(),
        lambda a: write_clock(a.probe, a.rate_hz, a.out, a.fingerprint),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
