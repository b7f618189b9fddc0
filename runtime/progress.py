"""Progress: a bar on a terminal, a line every five percent elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from runtime.log import get_logger

T = TypeVar("T")


def progress(
    items: Iterable[T], description: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Yield `items`, showing how far we are. `total` is taken from ``len(items)`` if it has one."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=description, total=total, unit=unit, leave=False)
        return
    log = get_logger(description.split()[0] if description else "progress")
    start = last = time.monotonic()
    next_share = 0.05
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if total and done / total >= next_share and now - last >= 5.0:
            log.info(
                "%s %d %% (%d/%d %s, %.0f s)",
                description,
                100 * done / total,
                done,
                total,
                unit,
                now - start,
            )
            next_share = done / total + 0.05
            last = now
        elif not total and now - last >= 30.0:
            log.info("%s %d %s, %.0f s", description, done, unit, now - start)
            last = now
    log.info("%s done: %d %s in %.1f s", description, done, unit, time.monotonic() - start)
