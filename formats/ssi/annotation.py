"""SSI annotations: a header `X.annotation` (XML) and a body `X.annotation~`.

    <annotation ssi-v="3"><info ftype="ASCII" size="2"/><meta role="novice" annotator="gold"/>
    <scheme name="engagement" type="CONTINUOUS" sr="25.000" min="0.000" max="1.000"/></annotation>

Bodies, ASCII with `;` between fields or BINARY little-endian:
    CONTINUOUS  score;conf          f4 f4
    DISCRETE    from;to;id;conf     f8 f8 i4 f4            from, to in seconds
    FREE        from;to;text;conf   f8 f8 u4 bytes f4      text as ISO-8859-1 in BINARY
Numbers are written with as many digits as they need to read back as the same value.
"""

from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from formats.numbers import real, whole
from formats.ssi.stream import body_path
from formats.ssi.xml import check_bytes_of_text, child, number, read_xml, required
from runtime import InputError
from store.atomic import atomic_path, write_text
from store.plain import read_plain

FTYPES = ("ASCII", "BINARY")
MOST_BYTES = 1 << 30  # of a body; a sparse file claims any size
CONTINUOUS = np.dtype([("score", "<f4"), ("conf", "<f4")])
DISCRETE = np.dtype([("from_s", "<f8"), ("to_s", "<f8"), ("id", "<i4"), ("conf", "<f4")])


@dataclass(frozen=True)
class Item:
    """A class of a DISCRETE scheme."""

    id: int
    name: str
    color: str = "#FF000000"


@dataclass(frozen=True)
class Continuous:
    """A score per sample: score, conf (n,) float32; sample k is at k / rate_hz seconds."""

    name: str
    score: np.ndarray
    conf: np.ndarray
    rate_hz: float
    minimum: float = 0.0
    maximum: float = 1.0
    meta: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Discrete:
    """Labelled spans: from_s, to_s (n,) float64, id (n,) int32 (-1: garbage), conf (n,) float32."""

    name: str
    from_s: np.ndarray
    to_s: np.ndarray
    id: np.ndarray
    conf: np.ndarray
    items: tuple[Item, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Free:
    """Spans of text: from_s, to_s (n,) float64, text of n strings, conf (n,) float32."""

    name: str
    from_s: np.ndarray
    to_s: np.ndarray
    text: tuple[str, ...]
    conf: np.ndarray
    meta: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.text)


Annotation = Continuous | Discrete | Free


def read_annotation(path: str | Path) -> Annotation:
    """Read header and body. Raises InputError naming the file and the line or attribute."""
    path = Path(path)
    root = read_xml(path, "annotation")
    info, scheme = child(path, root, "info"), child(path, root, "scheme")
    ftype, kind = required(path, info, "ftype"), required(path, scheme, "type")
    if ftype not in FTYPES:
        raise InputError(f"{path} has ftype={ftype[:20]!r}", f"known: {', '.join(FTYPES)}")
    meta_element = root.find("meta")
    meta = {} if meta_element is None else dict(meta_element.attrib)
    name = scheme.get("name") or ""
    try:
        raw = read_plain(body_path(path), MOST_BYTES)
    except OSError as e:
        raise InputError(
            f"{body_path(path)} does not exist: {path.name} is only the header",
            "put the body beside the header",
        ) from e
    if kind == "CONTINUOUS":
        rows = _records(path, raw, CONTINUOUS) if ftype == "BINARY" else _continuous(path, raw)
        rate = number(path, scheme, "sr")
        if rate == 0:
            raise InputError(f"{path}: <scheme> has sr=0", "a CONTINUOUS scheme needs its rate")
        low, high = (number(path, scheme, key, least=-float("inf")) for key in ("min", "max"))
        found: Annotation = Continuous(
            name, rows["score"].copy(), rows["conf"].copy(), rate, low, high, meta
        )
    elif kind == "DISCRETE":
        rows = _records(path, raw, DISCRETE) if ftype == "BINARY" else _discrete(path, raw)
        items = tuple(
            Item(number(path, i, "id", int, -(2**31)), i.get("name") or "", i.get("color") or "")
            for i in scheme.iterfind("item")
        )
        found = Discrete(name, *(rows[k].copy() for k in DISCRETE.names), items, meta)
    elif kind == "FREE":
        spans = _free_binary(path, raw) if ftype == "BINARY" else _free_ascii(path, raw)
        columns = list(zip(*spans, strict=True)) or [(), (), (), ()]
        found = Free(
            name,
            np.array(columns[0], np.float64),
            np.array(columns[1], np.float64),
            tuple(columns[2]),
            np.array(columns[3], np.float32),
            meta,
        )
    else:
        raise InputError(
            f"{path} has a scheme of type {kind[:20]!r}", "known: CONTINUOUS, DISCRETE, FREE"
        )
    size = info.get("size")
    if size is not None and number(path, info, "size", int) != len(found):
        raise InputError(
            f"{path} declares {size} entries, its body has {len(found)}",
            "get the annotation again: header or body is of another file",
        )
    return found


def _records(path: Path, raw: bytes, dtype: np.dtype) -> np.ndarray:
    if len(raw) % dtype.itemsize:
        raise InputError(
            f"{body_path(path)} has {len(raw)} bytes, no multiple of {dtype.itemsize}",
            "get the body again: it is cut off",
        )
    return np.frombuffer(raw, dtype)


def _lines(path: Path, raw: bytes, fields: int) -> list[tuple[int, list[str]]]:
    """(line number, fields) of an ASCII body; the text of FREE may itself hold `;`."""
    check_bytes_of_text(body_path(path), raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # NOVA before UTF-8; every byte is a character there
    rows = []
    for at, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line:
            continue
        words = line.split(";")
        if fields == 4 and len(words) > 4:
            words = [*words[:2], ";".join(words[2:-1]), words[-1]]
        if len(words) != fields:
            raise InputError(
                f"{body_path(path)}, line {at} has {len(words)} fields instead of {fields}",
                "correct the line",
            )
        rows.append((at, words))
    return rows


def _value(path: Path, at: int, word: str, kind: type = float):
    try:
        return real(word) if kind is float else whole(word)
    except ValueError as e:
        raise InputError(
            f"{body_path(path)}, line {at}: {word[:40]!r} is no number", "correct the line"
        ) from e


def _continuous(path: Path, raw: bytes) -> np.ndarray:
    rows = [tuple(_value(path, at, w) for w in words) for at, words in _lines(path, raw, 2)]
    with np.errstate(over="ignore"):
        return np.array(rows, CONTINUOUS)


def _discrete(path: Path, raw: bytes) -> np.ndarray:
    rows = []
    for at, (start, end, id_, conf) in _lines(path, raw, 4):
        identity = _value(path, at, id_, int)
        if not -(2**31) <= identity < 2**31:
            raise InputError(f"{body_path(path)}, line {at}: id {id_[:40]}", "ids are 32-bit")
        rows.append(
            (*(_value(path, at, w) for w in (start, end)), identity, _value(path, at, conf))
        )
    with np.errstate(over="ignore"):
        return np.array(rows, DISCRETE)


def _free_ascii(path: Path, raw: bytes) -> list[tuple[float, float, str, float]]:
    return [
        (_value(path, at, start), _value(path, at, end), text, _value(path, at, conf))
        for at, (start, end, text, conf) in _lines(path, raw, 4)
    ]


def _free_binary(path: Path, raw: bytes) -> list[tuple[float, float, str, float]]:
    spans, at = [], 0
    while at < len(raw):
        head = np.frombuffer(raw[at : at + 16], "<f8") if at + 20 <= len(raw) else None
        length = int.from_bytes(raw[at + 16 : at + 20], "little")
        end = at + 20 + length + 4
        if head is None or end > len(raw):
            raise InputError(
                f"{body_path(path)} ends inside entry {len(spans) + 1}",
                "get the body again: it is cut off",
            )
        text = raw[at + 20 : at + 20 + length].decode("latin-1")
        spans.append((head[0], head[1], text, np.frombuffer(raw[end - 4 : end], "<f4")[0]))
        at = end
    return spans


def write_annotation(path: str | Path, annotation: Annotation, ftype: str = "ASCII") -> None:
    """Write header and body atomically, body first.

    Raises InputError for text that the form cannot hold (line ends in ASCII, characters beyond
    ISO-8859-1 in BINARY), naming the entry and the other form.
    """
    if ftype not in FTYPES:
        raise ValueError(f"ftype {ftype!r} is none of {', '.join(FTYPES)}")
    scheme = {"name": annotation.name}
    inside = ""
    if isinstance(annotation, Continuous):
        scheme |= {
            "type": "CONTINUOUS",
            "sr": _digits(np.float64(annotation.rate_hz)),
            "min": _digits(np.float64(annotation.minimum)),
            "max": _digits(np.float64(annotation.maximum)),
        }
        rows = _table(CONTINUOUS, annotation.score, annotation.conf)
    elif isinstance(annotation, Discrete):
        scheme["type"] = "DISCRETE"
        inside = "".join(
            f"\n    <item {_attributes({'name': i.name, 'id': i.id, 'color': i.color})} />"
            for i in annotation.items
        )
        a = annotation
        rows = _table(DISCRETE, a.from_s, a.to_s, a.id, a.conf)
    else:
        scheme["type"] = "FREE"
        rows = None
    if rows is None:
        body = _free_body(path, annotation, ftype)
    elif ftype == "BINARY":
        body = rows.tobytes()
    else:
        body = "".join(";".join(_digits(v) for v in row) + "\n" for row in _scalars(rows)).encode()
    with atomic_path(body_path(path)) as temporary:
        Path(temporary).write_bytes(body)
    lines = [
        '<?xml version="1.0" ?>',
        '<annotation ssi-v="3">',
        f"  <info {_attributes({'ftype': ftype, 'size': len(annotation)})} />",
        f"  <meta {_attributes(annotation.meta)} />",
        f"  <scheme {_attributes(scheme)}>{inside}",
        "  </scheme>",
        "</annotation>",
        "",
    ]
    write_text(path, "\n".join(lines))


def _table(dtype: np.dtype, *columns: np.ndarray) -> np.ndarray:
    rows = np.empty(len(columns[0]), dtype)
    for key, column in zip(dtype.names, columns, strict=True):
        rows[key] = column
    return rows


def _scalars(rows: np.ndarray):
    columns = [rows[name] for name in rows.dtype.names]
    return zip(*columns, strict=True)


def _free_body(path: str | Path, annotation: Free, ftype: str) -> bytes:
    entries = zip(annotation.from_s, annotation.to_s, annotation.text, annotation.conf, strict=True)
    pieces = []
    for i, (start, end, text, conf) in enumerate(entries, 1):
        if ftype == "BINARY":
            try:
                coded = text.encode("latin-1")
            except UnicodeEncodeError as e:
                raise InputError(
                    f"{path}: entry {i} holds {text[e.start]!r}, which a BINARY annotation cannot",
                    "write it as ASCII",
                ) from e
            head = np.array([start, end], "<f8").tobytes() + len(coded).to_bytes(4, "little")
            pieces.append(head + coded + np.array([conf], "<f4").tobytes())
        else:
            if "\n" in text or text.endswith("\r") or "\r" in text:
                raise InputError(
                    f"{path}: the text of entry {i} has a line end, which an ASCII annotation cannot hold",
                    "write it as BINARY, or take the line end out",
                )
            numbers = (_digits(np.float64(start)), _digits(np.float64(end)))
            pieces.append(";".join([*numbers, text, _digits(np.float32(conf))]).encode() + b"\n")
    return b"".join(pieces)


def _digits(value: np.generic) -> str:
    """Shortest decimal text that reads back as the same value."""
    if isinstance(value, np.floating):
        return (
            np.format_float_positional(value, unique=True, trim="0")
            if np.isfinite(value)
            else str(float(value))
        )
    return str(int(value))


def _attributes(values: dict) -> str:
    return " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items())
