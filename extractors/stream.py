"""`from: stream`: a precomputed SSI stream (challenge download, or another tool) as a feature.

Row k describes the instant where its chunk starts + k / rate. The rate is the header's, unless the
person's other streams (`references`) show it wrong (ssi.rate.infer_rate). Rows that are not
finite or absurdly large are not valid. Nothing is interpolated: alignment does that for every
feature alike. A stream that lasts another time than the person's sound belongs to another
recording (NoXi-J 148 to 150) and is refused.

Single undetected values (`invalid_value`, OpenPose's -1) keep the last detected value of their
column (the first ones the first detected); a row without any detected value is not valid. How many
there were stands in the sidecar.
"""

import argparse
import sys
import time

import numpy as np

from corpora.stream_files import SUFFIX, feature_name, rows_stated
from runtime import InputError, get_logger, progress
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from ssi.rate import ABSURD, LENGTH_TOLERANCE_S, sound_length, true_rates
from ssi.stream import Stream, open_stream
from store.features import FeatureAttributes, FeatureWriter
from store.sidecar import write_sidecar

log = get_logger("stream")

PIECE = 4096
DOUBLED = ("refuse", "first", "second")


def name_of(stream: Stream) -> str:
    """What the stream's file is called between role and .stream, under the names of 2025."""
    return feature_name(stream.path.name.partition(".")[2].removesuffix(SUFFIX))


def stream_rate(
    stream: Stream, references: dict[str, Stream], max_difference_s: float = LENGTH_TOLERANCE_S
) -> float:
    """Rows per second, the header's unless the other streams of the person contradict it.

    references : name -> other streams of the person; those named `audio.` are the person's sound.
    Raises InputError when the stream and the sound differ by more than `max_difference_s`.
    """
    name = name_of(stream)
    everything = {**references, name: stream}
    stated = {n: (rows_stated(s), s.header.rate_hz) for n, s in everything.items()}
    rates = true_rates(stated)
    rate = rates[name]
    if rate != stream.header.rate_hz:
        log.warning(
            "%s says %g Hz, the other streams say %g Hz: %g Hz is used",
            stream.path, stream.header.rate_hz, rate, rate,
        )  # fmt: skip
    lengths = {n: rows / rates[n] for n, (rows, _) in stated.items() if rows}
    sound = sound_length(lengths, name)
    if sound is not None and name in lengths and abs(lengths[name] - sound) > max_difference_s:
        raise InputError(
            f"{stream.path} lasts {lengths[name]:.2f} s, the sound of the same person {sound:.2f} s:"
            " it belongs to another recording",
            "exclude the participant in the sheet (exclude: yes), or, if you know better, raise the"
            " feature's max_length_difference (seconds)",
        )
    return rate


def rows_of(stream: Stream, doubled: str) -> np.ndarray:
    """The rows to use (n, D); raises InputError for a doubled body unless told which half."""
    rows, declared = len(stream.values), stream.header.declared_rows
    if declared and rows == 2 * declared:
        if doubled == "refuse":
            raise InputError(
                f"{stream.path} holds twice the {declared} rows that its header says (two microphones?)",
                "set the feature's `doubled` to first or second, or exclude the participant",
            )
        return stream.values[:declared] if doubled == "first" else stream.values[declared:]
    if rows != declared:
        log.warning("%s: %d rows, its header says %d", stream.path, rows, declared)
    return stream.values


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
    dtype: str = "float32",
    fingerprint: str = "",
) -> dict[str, object]:
    """Write the feature file; returns counts (rows, valid, held, rate_hz, declared_rows).

    Raises InputError for an unreadable stream, one without rows, a doubled body, one that lasts
    more than `max_length_difference` s longer or shorter than the person's sound, or values that
    do not fit into `dtype`.
    """
    stream = open_stream(stream_path)
    values = rows_of(stream, doubled)
    if not len(values) or drop >= stream.header.dim:
        raise InputError(
            f"{stream_path} leaves nothing: {len(values)} rows, {stream.header.dim - drop} columns",
            "get the stream again, or exclude the participant",
        )
    others = {name: open_stream(path) for name, path in references.items()}
    rate = stream_rate(stream, others, max_length_difference)
    attributes = FeatureAttributes(
        feature=feature,
        native_rate_hz=rate,
        window_s=1 / rate,
        hop_s=1 / rate,
        dim_names=[f"{feature}{i}" for i in range(drop, stream.header.dim)],
        extractor="extractors.stream",
        model_id=f"precomputed stream {name_of(stream)}",
        precision=stream.header.type.lower(),
        fingerprint=fingerprint,
    )
    times = instants(stream, len(values), rate)
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


def instants(stream: Stream, rows: int, rate: float) -> np.ndarray:
    """(rows,) seconds: every chunk from its own start, at the rate that is used."""
    times = np.empty(rows)
    row, start = 0, 0.0
    for chunk in stream.header.chunks:
        count = min(chunk.num, rows - row)
        times[row : row + count] = chunk.from_s + np.arange(count) / rate
        row, start = row + count, chunk.from_s + count / rate
    times[row:] = start + np.arange(rows - row) / rate
    return times


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.stream",
        description="A precomputed SSI stream (X.stream with X.stream~) as a feature file.",
    )
    parser.add_argument("--stream", required=True, help="header file, X.stream")
    parser.add_argument("--out", required=True, help="feature file to write (.h5)")
    parser.add_argument("--feature", required=True, help="name of the feature")
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
        "--doubled", choices=DOUBLED, default="refuse", help="half of a body of twice the rows"
    )
    parser.add_argument(
        "--max-length-difference",
        type=float,
        default=LENGTH_TOLERANCE_S,
        metavar="SECONDS",
        help="a stream and the person's sound may differ by this much (default 2.5)",
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
            "dtype": args.dtype,
        }
        counts = extract(
            args.stream,
            args.out,
            args.feature,
            references,
            fingerprint=args.fingerprint,
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
