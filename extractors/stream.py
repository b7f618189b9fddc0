"""`from: stream`: a precomputed SSI stream (challenge download, or another tool) as a feature.

Row k describes the instant where its chunk starts + k / rate. The rate is the header's, unless the
person's other streams (`references`) show it wrong (formats.ssi.rate.infer_rate). Rows that are not
finite or absurdly large are not valid. Nothing is interpolated: alignment does that for every
feature alike. A stream that lasts another time than the person's sound belongs to another
recording (NoXi-J 147 to 150) and is refused; with `shifted: missing` it becomes as many rows as the
sound is long, none of them valid.

Single undetected values (`invalid_value`, OpenPose's -1) keep the last detected value of their
column (the first ones the first detected); a row without any detected value is not valid. How many
there were stands in the sidecar.
"""

import argparse
import sys
import time

import numpy as np

from formats.ssi import oddities
from formats.ssi.rate import ABSURD, LENGTH_TOLERANCE_S, sound_length, true_rates
from formats.ssi.stream import Stream, chunk_times, open_stream
from formats.stream_files import extent, split_name
from runtime import InputError, get_logger, progress
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

log = get_logger("stream")

PIECE = 4096
DOUBLED = ("refuse", *oddities.SIDE_BY_SIDE, *oddities.ONE_AFTER_THE_OTHER)
SHIFTED = ("refuse", "missing")


def stream_rate(
    stream: Stream,
    name: str,
    references: dict[str, Stream],
    max_difference_s: float = LENGTH_TOLERANCE_S,
) -> tuple[float, float | None]:
    """Rows per second, the header's unless the other streams of the person contradict it.

    The second is None, or the seconds of the person's sound where the stream differs from it by
    more than `max_difference_s`: it belongs to another recording.

    name : of the stream; references : name -> other streams of the person; those named `audio.` are
    the person's sound.
    """
    everything = {**references, name: stream}
    stated = {n: extent(s) for n, s in everything.items()}
    rates = true_rates(stated)
    rate = rates[name]
    if rate != stream.header.rate_hz:
        log.warning(
            "%s says %g Hz, the other streams say %g Hz: %g Hz is used",
            stream.path, stream.header.rate_hz, rate, rate,
        )  # fmt: skip
    lengths = {n: s.seconds(rates[n]) for n, s in stated.items() if s.rows}
    sound = sound_length(lengths, name)
    if sound is not None and name in lengths and abs(lengths[name] - sound) > max_difference_s:
        return rate, sound
    return rate, None


def rows_of(stream: Stream, doubled: str) -> np.ndarray:
    """The rows to use (n, D).

    Raises InputError for a doubled body unless told which half, and for a half that the values
    contradict: taking it would mix the two microphones.
    """
    rows, declared = len(stream.values), stream.header.declared_rows
    if declared and rows == 2 * declared:
        halves = oddities.arrangement(stream.values)
        if doubled not in halves:
            told = "" if doubled == "refuse" else f", and not as `doubled: {doubled}` says"
            cure = f"set the feature's `doubled` to {' or '.join(halves)}, or " if halves else ""
            unknown = "" if halves else "; its values do not show two microphones"
            raise InputError(
                f"{stream.path} holds twice the {declared} rows that its header says{told}{unknown}",
                f"{cure}get the stream again, or exclude the participant",
            )
        log.warning(
            "%s: %d rows, its header says %d: %s is used", stream.path, rows, declared, doubled
        )
        return oddities.half(stream.values, doubled)
    if rows != declared:
        log.warning("%s: %d rows, its header says %d", stream.path, rows, declared)
    return stream.values


def warn_of_columns(
    stream: Stream, name: str, values: np.ndarray, drop: int, invalid: float | None
) -> None:
    """A warning where columns are kept that no model should read."""
    rows = oddities.sample(values)
    if drop < oddities.LEAKING and oddities.leaks_time(name, rows):
        log.warning(
            "%s begins with frame counter, constant and time stamp, which tell where in the"
            " session a frame is: set the feature's `drop: 3`", stream.path,
        )  # fmt: skip
    if invalid is None and (share := oddities.undetected(name, rows)):
        log.warning(
            "%s: %.1f %% of the values are -1, points that were not found: set the feature's"
            " `invalid_value: -1`", stream.path, 100 * share,
        )  # fmt: skip


def first_detected(values: np.ndarray, invalid_value: float) -> np.ndarray:
    """(D,) the first value of each column that is finite and not `invalid_value`; 0 if none is."""
    first = np.full(values.shape[1], np.nan)
    for at in range(0, len(values), PIECE):
        piece = np.asarray(values[at : at + PIECE], np.float64)  # (n, D)
        good = np.isfinite(piece) & (piece != invalid_value)
        new = np.isnan(first) & good.any(axis=0)
        first[new] = piece[good.argmax(axis=0)[new], np.flatnonzero(new)]
        if not np.isnan(first).any():
            break
    return np.where(np.isnan(first), 0.0, first)


def hold(piece: np.ndarray, missing: np.ndarray, last: np.ndarray) -> np.ndarray:
    """piece (n, D) with missing values replaced by the value above them; `last` (D,) before row 0."""
    rows = np.where(missing, 0, np.arange(1, len(piece) + 1)[:, None])  # 0: nothing yet
    np.maximum.accumulate(rows, axis=0, out=rows)
    return np.take_along_axis(np.vstack([last, piece]), rows, axis=0)


def extract(
    stream_path: str,
    out: str,
    feature: str,
    references: dict[str, str],
    drop: int = 0,
    invalid_value: float | None = None,
    max_abs: float = ABSURD,
    doubled: str = "refuse",
    max_length_difference: float = LENGTH_TOLERANCE_S,
    shifted: str = "refuse",
    dtype: str = "float32",
    fingerprint: str = "",
    role: str | None = None,
) -> dict[str, object]:
    """Write the feature file; returns counts (rows, valid, held, rate_hz, declared_rows).

    role : of the person, with which the file's name begins; None: told from the name.

    A stream that lasts more than `max_length_difference` s longer or shorter than the person's
    sound is refused, or (`shifted` = missing) none of its rows is valid. Raises InputError for that,
    an unreadable stream, one without rows, a doubled body, or values that do not fit into `dtype`.
    """
    stream = open_stream(stream_path)
    _, name = split_name(stream.path.name, () if role is None else (role,))
    values = rows_of(stream, doubled)
    if not len(values) or drop >= stream.header.dim:
        raise InputError(
            f"{stream_path} leaves nothing: {len(values)} rows, {stream.header.dim - drop} columns",
            "get the stream again, or exclude the participant",
        )
    warn_of_columns(stream, name, values, drop, invalid_value)
    others = {other: open_stream(path) for other, path in references.items()}
    rate, sound_s = stream_rate(stream, name, others, max_length_difference)
    if sound_s is not None:
        problem = (
            f"{stream_path} lasts {extent(stream).seconds(rate):.2f} s, the sound of the same person"
            f" {sound_s:.2f} s: it belongs to another recording"
        )
        if shifted == "refuse":
            raise InputError(
                problem,
                "exclude the participant in the sheet (exclude: yes), go on without this stream (the"
                " feature's `shifted: missing`), or, if you know better, raise its max_length_difference",
            )
        log.warning("%s; it is taken as missing", problem)
        values = np.broadcast_to(np.float32("nan"), (round(sound_s * rate), stream.header.dim))
    attributes = FeatureAttributes(
        feature=feature,
        native_rate_hz=rate,
        window_s=1 / rate,
        hop_s=1 / rate,
        dim_names=[f"{feature}{i}" for i in range(drop, stream.header.dim)],
        extractor="extractors.stream",
        model_id=f"precomputed stream {name}",
        precision=stream.header.type.lower(),
        fingerprint=fingerprint,
        # Which streams are taken or mended (doubled, shifted) changes no value of the others.
        settings={
            "name": name,
            "drop": drop,
            "invalid_value": invalid_value,
            "max_abs": max_abs,
            "dtype": dtype,
        },
    )
    times = chunk_times(stream.path, stream.header, len(values), rate)
    last = None if invalid_value is None else first_detected(values, invalid_value)
    n_valid = held = 0
    with FeatureWriter(out, attributes, dtype) as writer:
        for at in progress(range(0, len(values), PIECE), feature, unit="pieces"):
            piece = np.asarray(values[at : at + PIECE], np.float64)  # (n, D)
            valid = (np.isfinite(piece) & (np.abs(piece) <= max_abs)).all(axis=1)  # (n,)
            if invalid_value is not None:
                missing = (piece == invalid_value) | ~np.isfinite(piece)
                valid &= ~missing[:, drop:].all(axis=1)
                held += int(missing[valid][:, drop:].sum())
                piece = hold(piece, missing, last)
                last = piece[-1]
            piece = piece[:, drop:]
            piece[~valid] = np.nan
            writer.append(piece, times[at : at + PIECE], valid)
            n_valid += int(valid.sum())
    return {
        "rows": len(values),
        "valid": n_valid,
        "held": held,
        "rate_hz": rate,
        "declared_rows": stream.header.declared_rows,
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.stream",
        description="A precomputed SSI stream (X.stream with X.stream~) as a feature file.",
    )
    parser.add_argument("--stream", required=True, help="header file, X.stream")
    parser.add_argument("--out", required=True, help="feature file to write (.h5)")
    parser.add_argument("--feature", required=True, help="name of the feature")
    parser.add_argument(
        "--role",
        help="of the person: what the file's name begins with (default: told from the name)",
    )
    parser.add_argument(
        "--references",
        nargs="*",
        default=[],
        metavar="NAME=PATH",
        help="other streams of the person, to tell a wrong rate in the header",
    )
    parser.add_argument(
        "--drop", type=int, default=0, help="leading columns to leave out (openface2: 3)"
    )
    parser.add_argument(
        "--invalid-value", type=float, help="value that means undetected (openpose: -1)"
    )
    parser.add_argument(
        "--max-abs", type=float, default=ABSURD, help="rows with larger values are not valid"
    )
    parser.add_argument(
        "--doubled",
        choices=DOUBLED,
        default="refuse",
        help="half of a body of twice the rows: of every row (left, right) or of the rows (first, second)",
    )
    parser.add_argument(
        "--max-length-difference",
        type=float,
        default=LENGTH_TOLERANCE_S,
        metavar="SECONDS",
        help="a stream and the person's sound may differ by this much (default 2.5)",
    )
    parser.add_argument(
        "--shifted",
        choices=SHIFTED,
        default="refuse",
        help="a stream that differs by more: refuse it, or take it as missing",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the stored values"
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        begin = time.perf_counter()
        references = dict(item.split("=", 1) for item in args.references)
        settings = {
            "drop": args.drop,
            "invalid_value": args.invalid_value,
            "max_abs": args.max_abs,
            "doubled": args.doubled,
            "max_length_difference": args.max_length_difference,
            "shifted": args.shifted,
            "dtype": args.dtype,
        }
        counts = extract(
            args.stream,
            args.out,
            args.feature,
            references,
            fingerprint=args.fingerprint,
            role=args.role,
            **settings,
        )
        seconds = time.perf_counter() - begin
        log.info("%d rows, %d valid, %.1f s", counts["rows"], counts["valid"], seconds)
        write_sidecar(
            args.out,
            inputs={"stream": args.stream, "body": args.stream + "~"},
            settings=settings,
            fingerprint=args.fingerprint,
            packages=["numpy", "h5py"],
            command=command_line("extractors.stream", sys.argv[1:] if argv is None else argv),
            counts=counts,
            seconds=seconds,
        )

    return run_job("extractors.stream", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
