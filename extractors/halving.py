"""Batches that do not fit into memory are halved until they do."""

from collections.abc import Callable

import numpy as np

from runtime import InputError, get_logger

log = get_logger("batch")

# What CPU allocators and the libraries of CUDA say; CUDA itself has a type of its own.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")


def _out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in NO_MEMORY
    )


class Halving:
    """Call `function` on a batch (B, ...) -> (B, ...), in parts where the whole does not fit.

    A size that did not fit is not tried again. Values agree as they do between batch sizes. Raises
    InputError when a single item does not fit.
    """

    def __init__(self, function: Callable[[np.ndarray], np.ndarray], unit: str):
        self.function, self.unit = function, unit
        self.most: int | None = None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        import torch

        size = min(len(batch), self.most or len(batch))
        parts: list[np.ndarray] = []
        at = 0
        while at < len(batch):
            try:
                parts.append(self.function(batch[at : at + size]))
                at += size
                continue
            except (RuntimeError, MemoryError) as e:
                if not _out_of_memory(e):
                    raise
                if size == 1:
                    raise InputError(
                        f"one of the {self.unit} alone does not fit into memory ({' '.join(str(e).split())[:100]})",
                        "free the GPU, choose precision fp16 or bf16, shorter chunks, or run without it"
                        " (CUDA_VISIBLE_DEVICES= )",
                    ) from e
            size = self.most = size // 2  # outside `except`: the traceback holds the tensors
            log.warning("out of memory: going on with %d %s at a time", size, self.unit)
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
