"""How kernels are compiled: cached on disk where that can be written."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile at the first call, without the interpreter lock, cached if there is a place for it.

    Use it for functions that are called with one signature only: two processes that compile two
    signatures of one function at the same time could swap their cache files.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither __pycache__ nor the user's cache folder can be written
        return njit(**options)(function)
