"""Mutations that keep a file's form and change what it says: HDF5, checkpoints, archives, text.

Flipped bytes seldom come past the first check of a format; these do.
"""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable

import h5py
import numpy as np

from tests.fuzz.mutate import TOKENS, mutate_settings

Mutation = Callable[[random.Random, bytes], bytes]
WORD = re.compile(rb"[\w.+-]+|[\"'<>/=;,:]+")
NEAR = (
    b"0", b"1", b"-1", b"2", b"0.5", b"25", b"1e3", b"1e-9", b"99999", b"1.0000001", b"..", b"a", b"train", b"noxi",
    b"true", b"BINARY", b"ASCII", b"FLOAT", b"CHAR", b"DISCRETE", b"FREE", b"CONTINUOUS", b"x" * 300,
)  # fmt: skip
SHAPES = (
    (),
    (0,),
    (1,),
    (3,),
    (40,),
    (41,),
    (40, 0),
    (40, 2),
    (1, 40),
    (2, 3, 4),
    (10**6,),
    (10**12,),
)
TYPES = ("f2", "f4", "f8", ">f4", "i1", "i8", "u8", "bool", "S5", "V3", "c8", h5py.string_dtype(), h5py.vlen_dtype("f4"))  # fmt: skip
VALUES = (
    -1, 0, 1, 2**31, 2**63 - 1, 1e308, float("nan"), float("inf"), -0.5, "", "x", "[]", "{}", "[1]", '["a", "a"]', "null",
    "é", "NaN", '[["a"]]', np.zeros(3), np.zeros((2, 2)), np.array(["a", "b"], object), b"\xff", True, h5py.Empty("f4"),
)  # fmt: skip


def mutate_text(rng: random.Random, data: bytes) -> bytes:
    """Words and lines exchanged for others; line ends, byte order mark and encoding of other editors."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        words = list(WORD.finditer(data))
        lines = data.split(b"\n")
        action = rng.random()
        if action < 0.6 and words:
            word = rng.choice(words)
            new = rng.choice((rng.choice(NEAR), rng.choice(TOKENS), rng.choice(words).group()))
            data = data[: word.start()] + new + data[word.end() :]
        elif action < 0.85:
            a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
            change = rng.randrange(4)
            if change == 0:
                lines[a], lines[b] = lines[b], lines[a]
            elif change == 1:
                lines.insert(a, lines[b])
            elif change == 2:
                del lines[a]
            else:
                lines[a] = lines[a] + rng.choice((b" ", b"\t", b"\r", b";", b"#")) + lines[b]
            data = b"\n".join(lines)
        elif action < 0.9:
            data = data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\n \n")))
        elif action < 0.94:
            data = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\n", b"\0")) + data
        else:
            text = data.decode("utf-8", "replace")
            data = text.encode(rng.choice(("utf-16", "latin-1", "utf-8-sig", "utf-32", "cp037")), "replace")  # fmt: skip
    return data


def mutate_hdf5(rng: random.Random, data: bytes) -> bytes:
    """Attributes, types, shapes, filters, links and names of a file that stays readable HDF5."""
    held = io.BytesIO(data)
    with h5py.File(held, "r+") as f:
        for _ in range(rng.choice((1, 1, 2, 3))):
            names: list[str] = []
            f.visit(names.append)
            groups = [f, *(f[n] for n in names if isinstance(f.get(n), h5py.Group))]
            if rng.random() < 0.4:
                _change_attribute(rng, rng.choice([*groups, *(f[n] for n in names if n in f)]))
            elif names:
                _change_item(rng, f, rng.choice(names), names)
    return held.getvalue()


def _change_attribute(rng: random.Random, item) -> None:
    keys = list(item.attrs)
    key = rng.choice([*keys, "classes", "x"])
    if rng.random() < 0.2 and key in keys:
        del item.attrs[key]
    else:
        item.attrs[key] = rng.choice(VALUES)


def _change_item(rng: random.Random, f: h5py.File, name: str, names: list[str]) -> None:
    item, action = f.get(name), rng.randrange(8)
    if action == 0:
        del f[name]
    elif action == 1:
        f.move(name, name + rng.choice(("x", "é", " ", "/y")))
    elif action == 2:
        del f[name]
        targets = (h5py.SoftLink("/" + rng.choice(names)), h5py.SoftLink("/" + name), h5py.ExternalLink("f.h5", "/"),
                   h5py.ExternalLink("/dev/zero", "/x"))  # fmt: skip
        f[name] = rng.choice(targets)
    elif isinstance(item, h5py.Dataset) and item.size and action < 6:
        values = item[()]
        del f[name]
        if action == 3 and values.ndim:
            f[name] = values[: rng.randrange(len(values))]
        elif action == 4 and values.dtype.kind in "fiub":
            values = np.array(
                values, dtype=rng.choice(("f2", "f4", "f8", ">f8", "i2", "u8", "bool"))
            )
            f[name] = values
        else:
            flat = np.array(values).reshape(-1)
            if flat.dtype.kind in "fiu":
                odd = (
                    (-1, 0, 1, 127) if flat.dtype.kind != "f" else (np.nan, np.inf, -1.0, 1e30, 0.0)
                )
                flat[rng.randrange(len(flat))] = rng.choice(odd)
            f[name] = flat.reshape(values.shape)
    else:
        del f[name]
        shape = rng.choice(SHAPES)
        keys = {"chunks": True, "compression": "gzip"} if shape and 0 not in shape and rng.random() < 0.5 else {}  # fmt: skip
        f.create_dataset(name, shape, rng.choice(TYPES), **keys)


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Names, types, shapes and metadata of a checkpoint; the tensors' bytes stay."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    about = json.loads(header["__metadata__"]["json"])
    if rng.random() < 0.7:
        header["__metadata__"]["json"] = json.dumps(mutate_settings(rng, about))
    else:
        names = [n for n in header if n != "__metadata__"]
        a, b = rng.choice(names), rng.choice(names)
        action = rng.randrange(4)
        if action == 0:
            header[a]["dtype"] = rng.choice(("F16", "F64", "I64", "BOOL", "U8", "BF16", "X"))
        elif action == 1:
            header[a]["shape"] = rng.choice(
                ([], [0], [1, *header[a]["shape"]], [2**62], header[b]["shape"])
            )
        elif action == 2:
            header[a], header[b] = header[b], header[a]
        else:
            header[a + "x"] = header.pop(a)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def mutate_zip(rng: random.Random, data: bytes) -> bytes:
    """Members' names and texts of an archive that stays one."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if rng.random() < 0.7:
                text = mutate_text(rng, text)
            if rng.random() < 0.2:
                name = rng.choice(
                    (f"../{name}", f"/{name}", name.upper(), name + "/", "\\".join(name.split("/")))
                )
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                new.writestr(name, text, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))  # fmt: skip
    return out.getvalue()
