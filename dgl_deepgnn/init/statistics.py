"""Batch normalization in evaluation mode: the statistics of one pass, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["on_other_features", "set_statistics", "tracking"]


def tracking(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Trainable batch normalizations that keep statistics, unless in a mode of their own."""
    return [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        and part.running_mean is not None
        and part.training == module.training
        and all(parameter.requires_grad for parameter in part.parameters())
    ]


def set_statistics(norms: list[nn.modules.batchnorm._BatchNorm], run: Callable[[], object]) -> None:
    """Set the running statistics to those of one pass: ``run()``, in training mode.

    They outlive what `run` itself puts back. A layer that is called twice keeps the last call's.
    """
    found: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
    momenta = [norm.momentum for norm in norms]

    def leave(norm: Any, args: Any, output: Any) -> None:
        found[norm] = norm.running_mean.clone(), norm.running_var.clone()

    handles = [norm.register_forward_hook(leave) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 1.0
        run()
    finally:
        for norm, momentum, handle in zip(norms, momenta, handles, strict=True):
            norm.momentum = momentum
            handle.remove()
    with torch.no_grad():
        for norm, (mean, variance) in found.items():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


@contextmanager
def on_other_features(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Let the nodes change places where the first of some layers gets their features.

    To all that follows these are features of the same distribution that it has not seen.
    """
    met: list[Any] = []

    def enter(norm: Any, args: Any) -> Any:
        if met and met[0] is not norm:
            return None
        met.append(norm)
        order = torch.randperm(len(args[0]), generator=torch.Generator().manual_seed(0))
        return (args[0][order.to(args[0].device)], *args[1:])

    handles = [norm.register_forward_pre_hook(enter) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
