"""How a job talks to the person who started it: errors, logs, progress, devices, threads.

Nothing in this package may change a number. The rerun fingerprint (workflow/fingerprint.py)
therefore ignores it: imports from `runtime`, and statements that only call what they brought,
are dropped before code is hashed. Keep computation out of here.
"""

from runtime.errors import InputError
from runtime.log import get_logger
from runtime.progress import progress

__all__ = ["InputError", "get_logger", "progress"]
