"""SSI streams: a header `X.stream` (XML) and a body `X.stream~` (rows of `dim` samples).

    <stream ssi-v="2"><info ftype="BINARY" sr="25.000" dim="88" byte="4" type="FLOAT" delim=" "/>
    <meta key="value"/><chunk from="0.000" to="600.000" byte="0" num="15000"/></stream>

The body of a BINARY stream is memory-mapped, little-endian, row-major. Headers are wrong now and
then; the body is what there is: the number of rows comes from its size, `declared_rows` says what
the header promised, and whoever reads decides what the difference means.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from formats.numbers import real, whole
from formats.ssi.oddities import SAMPLE_ROWS, holds_doubles, holds_floats
from formats.ssi.xml import check_bytes_of_text, child, number, read_xml, required
from runtime import InputError
from store.atomic import atomic_path, write_text
from store.plain import check_plain

# SSI type -> (kind of numpy, bytes that occur); LONG is 4 bytes where Windows wrote it.
TYPES = {
    "CHAR": ("i", (1,)),
    "UCHAR": ("u", (1,)),
    "SHORT": ("i", (2,)),
    "USHORT": ("u", (2,)),
    "INT": ("i", (4,)),
    "UINT": ("u", (4,)),
    "LONG": ("i", (8, 4)),
    "ULONG": ("u", (8, 4)),
    "FLOAT": ("f", (4,)),
    "DOUBLE": ("f", (8,)),
    "LDOUBLE": ("f", (8,)),
    "BOOL": ("b", (1,)),
}
SSI_TYPE = {
    "i1": "CHAR",
    "u1": "UCHAR",
    "i2": "SHORT",
    "u2": "USHORT",
    "i4": "INT",
    "u4": "UINT",
    "i8": "LONG",
    "u8": "ULONG",
    "f4": "FLOAT",
    "f8": "DOUBLE",
    "b1": "BOOL",
}
FTYPES = ("BINARY", "ASCII")
MAX_DIM = 1 << 20
MOST_ROWS = 1 << 28  # of a body: hours of sound; a sparse file claims any number and costs nothing
MOST_ASCII_BYTES = 1 << 31
ROUNDING = 1 + 1e-6  # rows: chunks that overlap by up to one row touch


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream: seconds from..to, byte offset in the body, rows."""

    from_s: float
    to_s: float
    byte: int
    num: int


@dataclass(frozen=True)
class StreamHeader:
    """What `X.stream` says. rate_hz: sr; dtype: of one sample, little-endian."""

    ftype: str
    rate_hz: float
    dim: int
    type: str
    dtype: np.dtype
    delim: str
    chunks: tuple[Chunk, ...]
    meta: dict[str, str] = field(default_factory=dict)

    @property
    def declared_rows(self) -> int:
        return sum(chunk.num for chunk in self.chunks)

    @property
    def pause_s(self) -> float:
        """Seconds without rows: before the first chunk and between chunks, at the header's rate.

        Steps of up to one row between chunks are rounding, not pauses.
        """
        pause, end = 0.0, 0.0
        for chunk in self.chunks:
            if chunk.num:
                gap = chunk.from_s - end
                pause += gap if gap > ROUNDING / self.rate_hz else 0.0
                end = max(end, chunk.from_s) + chunk.num / self.rate_hz
        return pause


@dataclass(frozen=True)
class Stream:
    """A header and its body.

    values : (rows, dim), memory-mapped and read-only for BINARY; surplus_bytes : bytes after the
    last whole row.
    """

    path: Path
    header: StreamHeader
    values: np.ndarray
    surplus_bytes: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the body has exactly the rows that the header declares."""
        return len(self.values) == self.header.declared_rows and not self.surplus_bytes

    @cached_property
    def times(self) -> np.ndarray:
        """(rows,) float64 seconds at the header's rate, see `chunk_times`."""
        return chunk_times(self.path, self.header, len(self.values), self.header.rate_hz)


def chunk_times(path: str | Path, header: StreamHeader, rows: int, rate_hz: float) -> np.ndarray:
    """(rows,) float64 seconds: each chunk from its own start; rows beyond go on at the rate.

    A chunk that begins up to one row before the end of the one above it continues it (rounding).
    Where rate_hz is not the header's, chunks without a pause between them count as one: the header
    computed their starts from its wrong rate. Raises InputError, naming both, for chunks that overlap
    by more.
    """
    times = np.empty(rows)
    row, end = 0, 0.0
    above: Chunk | None = None
    for chunk in header.chunks:
        count = min(chunk.num, rows - row)
        if count <= 0:
            continue
        start = chunk.from_s
        if above is not None:
            stated_end = above.from_s + above.num / header.rate_hz
            touches = abs(start - stated_end) <= ROUNDING / header.rate_hz
            if rate_hz != header.rate_hz and touches:
                start = end
            elif start < end - ROUNDING / rate_hz:
                raise InputError(
                    f"{path}: chunk from={chunk.from_s:.3f} begins before the {above.num} rows of chunk"
                    f" from={above.from_s:.3f} end at {end:.3f} s ({rate_hz:g} Hz)",
                    "correct from=, to= and num= of these chunks in the header, or get the stream again",
                )
            start = max(start, end)
        times[row : row + count] = start + np.arange(count) / rate_hz
        row, end, above = row + count, start + count / rate_hz, chunk
    times[row:] = end + np.arange(rows - row) / rate_hz
    return times


def sample_dtype(type: str, byte: int, path: str | Path = "stream") -> np.dtype:
    """numpy's little-endian dtype of an SSI sample type; InputError where there is none."""
    kind, sizes = TYPES.get(type, ("", ()))
    if byte not in sizes:
        raise InputError(
            f"{path}: type={type[:20]!r} with byte={byte} is no sample type that can be read",
            f"readable: {', '.join(TYPES)} in their usual sizes",
        )
    return np.dtype(bool) if kind == "b" else np.dtype(f"<{kind}{byte}")


def body_path(path: str | Path) -> Path:
    """`X.stream` -> `X.stream~`."""
    path = Path(path)
    return path.with_name(path.name + "~")


def read_header(path: str | Path) -> StreamHeader:
    """Parse and check `X.stream`. Raises InputError naming the file and the attribute."""
    root = read_xml(path, "stream")
    info = child(path, root, "info")
    ftype = required(path, info, "ftype")
    if ftype not in FTYPES:
        raise InputError(
            f"{path} has ftype={ftype[:20]!r}", f"convert it to {' or '.join(FTYPES)} (with SSI)"
        )
    rate = number(path, info, "sr")
    dim = number(path, info, "dim", int, 1)
    if rate == 0 or dim > MAX_DIM:
        raise InputError(f"{path} has sr={rate:g}, dim={dim}", "get the header again")
    kind = required(path, info, "type")
    chunks = tuple(
        Chunk(
            number(path, c, "from", least=-1e9),
            number(path, c, "to", least=-1e9),
            number(path, c, "byte", int),
            number(path, c, "num", int),
        )
        for c in root.iterfind("chunk")
    )
    meta = root.find("meta")
    return StreamHeader(
        ftype,
        rate,
        dim,
        kind,
        sample_dtype(kind, number(path, info, "byte", int, 1), path),
        info.get("delim") or " ",
        chunks,
        {} if meta is None else dict(meta.attrib),
    )


def open_stream(path: str | Path) -> Stream:
    """Open `X.stream` with its body; no more memory is taken than the body has on disk."""
    path, header = Path(path), read_header(path)
    body = body_path(path)
    try:
        size = body.stat().st_size
    except OSError as e:
        raise InputError(
            f"{body} does not exist: {path.name} is only the header",
            "put the body beside the header",
        ) from e
    check_plain(body, 1 << 62)
    if header.ftype == "ASCII":
        check_plain(body, MOST_ASCII_BYTES)
        return Stream(path, header, _read_ascii(body, header))
    row_bytes = header.dim * header.dtype.itemsize
    rows, surplus = divmod(size, row_bytes)
    if rows > MOST_ROWS:
        raise InputError(f"{body} has {rows} rows, more than any recording", "get the body again")
    if not rows:
        values = np.zeros((0, header.dim), header.dtype)
    else:
        values = np.memmap(body, header.dtype, "r", shape=(rows, header.dim))
        _check_sample_type(path, header, values)
    return Stream(path, header, values, surplus)


def _check_sample_type(path: Path, header: StreamHeader, values: np.ndarray) -> None:
    """InputError where a body of twice or half the declared bytes holds doubles or floats instead."""
    rows, declared = len(values), header.declared_rows
    if header.dtype == np.dtype("<f4") and declared and rows == 2 * declared:
        there, byte, test = "DOUBLE", 8, holds_doubles
    elif header.dtype == np.dtype("<f8") and declared and 2 * rows == declared:
        there, byte, test = "FLOAT", 4, holds_floats
    else:
        return
    words = values.view("<u4").reshape(-1, 2 * header.dim)  # a row of doubles, or two of floats
    if test(words[:: max(1, len(words) // SAMPLE_ROWS)].reshape(-1)):
        raise InputError(
            f"{path} says type={header.type} byte={header.dtype.itemsize}, but its body of"
            f" {values.nbytes} bytes holds {declared} rows of {there} byte={byte}",
            f'write type="{there}" byte="{byte}" into the header, or get the stream again',
        )


def _read_ascii(body: Path, header: StreamHeader) -> np.ndarray:
    delim = None if header.delim.isspace() else header.delim
    rows = []
    with open(body, "rb") as start:
        check_bytes_of_text(body, start.read(64))
    with open(body, encoding="utf-8-sig", errors="replace") as lines:
        for at, line in enumerate(lines, 1):
            if not line.strip():
                continue
            words = line.strip().split(delim)
            words = [w for w in words if w.strip()]  # SSI ends its lines with a delimiter
            if len(words) != header.dim:
                raise InputError(
                    f"{body}, line {at} has {len(words)} values instead of {header.dim}",
                    "get the body again",
                )
            try:
                rows.append(_parse(words, header.dtype))
            except (ValueError, OverflowError) as e:
                raise InputError(
                    f"{body}, line {at} holds something that is no {header.type}: {e}",
                    "correct the line, or get the body again",
                ) from e
    return np.array(rows, header.dtype).reshape(-1, header.dim)


def _parse(words: list[str], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return np.array([real(w) for w in words], dtype)
    numbers = [whole(w) for w in words]
    if dtype.kind == "b":
        return np.array([n != 0 for n in numbers])
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if any(not least <= n <= most for n in numbers):
        raise ValueError(f"a number outside {least}..{most}")
    return np.array(numbers, dtype)


def write_stream(
    path: str | Path,
    values: np.ndarray,
    rate_hz: float,
    ftype: str = "BINARY",
    chunks: list[tuple[float, int]] | None = None,
    meta: dict[str, str] | None = None,
    delim: str = " ",
) -> None:
    """Write `X.stream` and `X.stream~` atomically, body first.

    values (rows, dim) of any SSI sample type; chunks: (start in s, rows) of each piece, one piece
    from 0 s on by default. ASCII keeps every bit: shortest digits that read back as the same value.
    """
    values = np.asarray(values)
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # SSI has no half precision; every half is a float
    key = f"{values.dtype.kind}{values.dtype.itemsize}"
    if values.ndim != 2 or key not in SSI_TYPE or ftype not in FTYPES:
        raise ValueError(f"no SSI stream of shape {values.shape}, {values.dtype}, {ftype}")
    pieces = [(0.0, len(values))] if chunks is None else chunks
    if sum(num for _, num in pieces) != len(values):
        raise ValueError("the chunks do not add up to the rows")
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    with atomic_path(body_path(path)) as temporary:
        if ftype == "BINARY":
            Path(temporary).write_bytes(little.tobytes())
        else:
            lines = (delim.join(_digits(v) for v in row) for row in values)
            Path(temporary).write_text("".join(line + "\n" for line in lines), encoding="ascii")
    info = {
        "ftype": ftype,
        "sr": _decimal(rate_hz),
        "dim": values.shape[1],
        "byte": values.dtype.itemsize,
        "type": SSI_TYPE[key],
        "delim": delim,
    }
    lines = ['<?xml version="1.0" ?>', '<stream ssi-v="2">', f"  <info {_attributes(info)} />"]
    if meta:
        lines.append(f"  <meta {_attributes(meta)} />")
    row = 0
    for start, num in pieces:
        place = {
            "from": _decimal(start),
            "to": _decimal(start + num / rate_hz),
            "byte": row * values.shape[1] * values.dtype.itemsize,
            "num": num,
        }
        lines.append(f"  <chunk {_attributes(place)} />")
        row += num
    write_text(path, "\n".join([*lines, "</stream>", ""]))


def _decimal(value: float) -> str:
    """As SSI writes headers, 25.000: some readers know no exponents. Every digit that is needed."""
    return np.format_float_positional(np.float64(value), unique=True, min_digits=3)


def _digits(value: np.generic) -> str:
    if isinstance(value, np.floating):
        return (
            np.format_float_scientific(value, unique=True, trim="-")
            if np.isfinite(value)
            else str(float(value))
        )
    return str(int(value))


def _attributes(values: dict) -> str:
    return " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items())
