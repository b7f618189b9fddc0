"""What a part finds: tables, checks and notes, written to its JSON file after every entry.

A part that is killed at its time limit therefore leaves what it had found by then.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from store.atomic import write_text

PASSED, FAILED, ERROR, LATE, LEFT_OUT = "passed", "failed", "error", "out of time", "left out"
RUNNING = "running"


@dataclass(frozen=True)
class Options:
    """How a part runs.

    device: "cuda" or "cpu". quick: a rehearsal, as small as it still runs every line. seconds: the
    part's time limit. folder: a temporary folder of its own. threads: CPU threads it may use.
    """

    device: str
    quick: bool
    seconds: float
    folder: Path
    threads: int


class Record:
    """The findings of one part.

    path: JSON file, rewritten after every entry. name: of the part. title: one line for the page.
    """

    def __init__(self, path: Path, name: str, title: str):
        self.path = path
        self.data: dict = {
            "part": name,
            "title": title,
            "status": RUNNING,
            "tables": [],
            "failures": [],
            "notes": [],
        }
        self.write()

    def write(self) -> None:
        write_text(self.path, json.dumps(_finite(self.data), indent=1) + "\n")

    def table(self, title: str, *header: str) -> None:
        """Begin a table; `row` then adds to it."""
        self.data["tables"].append({"title": title, "header": list(header), "rows": []})
        self._say(title)

    def row(self, *cells: object) -> None:
        """A line of the last table; as many cells as its header has."""
        table = self.data["tables"][-1]
        if len(cells) != len(table["header"]):
            raise ValueError(f"{len(cells)} cells for the columns {table['header']}")
        table["rows"].append(list(cells))
        self.write()
        self._say(" | ".join(text(cell) for cell in cells))

    def check(self, what: str, holds: bool, found: object = "") -> str:
        """Note a failure unless the claim holds; returns "yes" or "NO" for a cell."""
        if not holds:
            self.data["failures"].append(f"{what}: {text(found)}")
            self.write()
            self._say(f"FAILED {what}: {text(found)}")
        return "yes" if holds else "NO"

    def note(self, sentence: str) -> None:
        """A sentence below the tables, such as why something was left out."""
        self.data["notes"].append(sentence)
        self.write()
        self._say(sentence)

    def _say(self, line: str) -> None:
        print(f"  {line}", flush=True)


def text(value: object) -> str:
    """A cell as text: four significant digits, whole numbers from 1,000 on."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 and math.isfinite(value) else f"{value:.4g}"
    return f"{value:,d}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _finite(value):
    """JSON knows neither infinity nor NaN: they become text."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
