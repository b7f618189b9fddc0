"""Numbers in text from elsewhere: decimal numbers and nothing else, one reader for every format.

Python's own `float` also takes `0_1` (1.0), `infinity` and digits of other scripts, which no tool
writes into a table on purpose. What is missing has the words that C libraries print for NaN, those of
Microsoft's among them (``-nan(ind)``, ``1.#QNAN0``, ``-1.#IND``, rounded ``1.#R`` and ``-1.#J``).
"""

import math
import re

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_NAN = re.compile(r"[+-]?(nan(\((ind|snan)\))?|1\.#((qnan|snan|ind)0*|qo|io|r|j))", re.IGNORECASE)
_INFINITE = re.compile(r"([+-]?)(inf(inity)?|1\.#inf0*)", re.IGNORECASE)
EXACT = 1 << 53  # whole numbers up to here have a float of their own


def is_nan(word: str) -> bool:
    """Whether a word is a C library's way to print NaN, in any case."""
    return _NAN.fullmatch(word.strip()) is not None


def decimal(word: str) -> float:
    """Value of a decimal number, spaces around it allowed; ValueError for any other word."""
    word = word.strip()
    if not _DECIMAL.fullmatch(word):
        raise ValueError(f"{word[:40]!r} is no decimal number")
    return float(word)


def whole(word: str) -> int:
    """Value of a whole number, also written `100.0`; ValueError for any other word."""
    if _WHOLE.fullmatch(word.strip()):
        return int(word)
    value = decimal(word)
    if not (value.is_integer() and abs(value) <= EXACT):
        raise ValueError(f"{word[:40]!r} is no whole number")
    return int(value)


def real(word: str) -> float:
    """As `decimal`, but the words for NaN and infinity have their value, too."""
    word = word.strip()
    if is_nan(word):
        return math.nan
    if found := _INFINITE.fullmatch(word):
        return -math.inf if found[1] == "-" else math.inf
    return decimal(word)
