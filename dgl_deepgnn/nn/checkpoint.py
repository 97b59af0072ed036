"""Training in the memory of about a root of the layers."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["run_checkpointed"]

RELEASE_EVERY = 4
"""Segments between two returns of free memory: more often costs time, more rarely memory."""


def run_checkpointed(run: Callable[[range, Tensor], Tensor], layers: range, x: Tensor) -> Tensor:
    """Run layers in segments, of which only the input is kept for the backward pass.

    Non-reentrant checkpoints (Chen et al., arXiv:1604.06174), so that it works under
    ``DistributedDataParallel``; random numbers are drawn the same way twice.

    Parameters
    ----------
    run : callable
        ``run(some_layers, x)`` applies layers one after another.
    layers : range
        Indices of the layers.
    x : Tensor
        Input of the first of them.

    Returns
    -------
    Tensor
        Output of the last.
    """
    length = max(1, math.isqrt(len(layers)))

    def run_segment(number: int, segment: range, x: Tensor) -> Tensor:
        if number % RELEASE_EVERY == 0 and not x.is_cuda:
            _release_free_memory()
        return run(segment, x)

    for number in range(-(-len(layers) // length)):
        segment = layers[number * length : (number + 1) * length]
        x = checkpoint(run_segment, number, segment, x, use_reentrant=False)
    return x


def _release_free_memory() -> None:
    """Hand freed memory back to the system.

    PyTorch asks for aligned memory, and glibc before 2.38 does not find freed blocks of the very
    size again for that: a thousand checkpointed layers would end with gigabytes of holes.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
