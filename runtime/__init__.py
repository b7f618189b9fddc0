"""How a job talks to the person who started it: errors, logs, progress, devices, threads.

Nothing in this package may change a number: keep computation out of here.
"""

from runtime.errors import InputError
from runtime.log import get_logger
from runtime.progress import progress

__all__ = ["InputError", "get_logger", "progress"]
