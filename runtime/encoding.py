"""Can Python name every file here?"""

import os
import sys

from runtime.errors import InputError


def check_encoding() -> None:
    """InputError where file names are not UTF-8: those with an accent would "not exist".

    Python takes UTF-8 even in the locale C, unless it is told not to (PYTHONUTF8=0) or the locale
    has another encoding.
    """
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") == "utf8":
        return
    told = [f"{v}={os.environ[v]}" for v in ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8") if os.environ.get(v)]  # fmt: skip
    raise InputError(
        f"Python takes file names for {encoding} here ({', '.join(told) or 'no locale is set'}), so names"
        " with other letters could not be found",
        "export LC_ALL=C.UTF-8, or unset PYTHONUTF8",
    )
