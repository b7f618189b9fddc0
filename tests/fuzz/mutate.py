"""Seeded mutations of bytes and of nested settings."""

import random
from typing import Any

# What breaks parsers: limits of types, signs, encodings, separators, references, deep nesting.
TOKENS = tuple(
    token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")
    for token in (
        "0", "-1", "1e999", "-1e999", "nan", "inf", "1e308", "9" * 30, "1" * 5000, "0x10", "1_0",
        "4294967296", "18446744073709551616", "2147483648", "1e-320", "٣", "１", "½", "é", "\ufeff",
        "\u202e", "\ud800", "\0", "\r", "\n", "\r\n", "\t", '"', "'", ";", ",", ":", "@", "/", "../",
        "\\", "~", "%", "$(id)", "{", "}", "[", "]", "[" * 3000, "{a: " * 500, "&a [*a]", "*a", "<<: *a",
        "!!python/object/apply:os.system [id]", "!!timestamp 2001-99-99", "2001-13-45", "!!binary x",
        "? [a]\n: b", "---\n", "&", "&amp;", "&#0;", "&#x110000;", "<", ">", "</info>", "<chunk/>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]>", "<?xml version='1.0' encoding='utf-16'?>",
        "<?xml version='1.0' encoding='no-such'?>", "byte=", 'dim="1000000000000"', 'num="1000000000000"',
        'sr="0"', 'sr="-1"', 'type="STRING"', 'ftype="ASCII"', "null", "true", "NaN", "Infinity", "1e400",
        b"\xff", b"\xff\xfe", b"\xc3", b"\x80" * 8, b"\xff" * 8, b"\0" * 16, b"\x89HDF", b"PK\x03\x04",
    )
)  # fmt: skip

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**64, 10**400, 1e308, float("inf"), float("nan"), -0.0, 0.5,
    "", "x", "../x", "é", "\0", "\ud800", "1", "a" * 10000, [], [[]], [None], {}, {"x": 1}, {1: 2}, [1, "a"],
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, others: list[bytes], text: bool) -> bytes:
    """`data` after one to eight changes; text takes more tokens, binary more flipped bits."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 1, 2, 4, 8, 16, 64)))
        action = rng.random()
        if action < (0.15 if text else 0.4) and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif action < (0.25 if text else 0.6) and at < len(out):
            out[at] = rng.randrange(256)
        elif action < 0.7:
            token = rng.choice(TOKENS)
            if rng.random() < 0.5 and not text:
                out[at : at + len(token)] = token  # lengths kept: offsets stay right
            else:
                out[at : end if rng.random() < 0.5 else at] = token
        elif action < 0.78:
            del out[at:end]
        elif action < 0.84:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif action < 0.9:
            del out[rng.randrange(len(out) + 1) :]
        elif action < 0.96 and others:
            other = rng.choice(others)
            cut = rng.randrange(len(other) + 1)
            out = out[:at] + other[cut : cut + rng.choice((8, 64, 4096))] + out[end:]
        else:
            out += rng.randbytes(rng.choice((1, 3, 17)))
    return bytes(out)


def mutate_settings(rng: random.Random, value: Any) -> Any:
    """A nested mapping after one to four changes of keys and values, at any depth."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _change(rng, value)
    return value


def _change(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.7:
            return value | {key: _change(rng, value[key])}
        if action < 0.8:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.9:
            return value | {
                rng.choice(("x", key, str(key) + "s", "", "pathvars")): _odd(rng, value)
            }
        return value | {key: _odd(rng, value)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], _change(rng, value[at]), *value[at + rng.randrange(2) :]]
    return _odd(rng, value)


def _odd(rng: random.Random, value: Any) -> Any:
    if isinstance(value, int | float) and abs(value) < 1e300 and rng.random() < 0.5:
        return value * rng.choice((-1, 0, 2, 0.5, 1e6, 1e-6))
    return rng.choice(ODD)
