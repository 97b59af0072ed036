"""Batch normalization in evaluation mode: the statistics of one pass; and features not seen yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

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


def shuffled(rows: Tensor) -> Tensor:
    """Return features whose nodes have changed places.

    To all that follows they are of the same distribution, but none that it has seen.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order.to(rows.device)]


@contextmanager
def on_other_features(
    layers: Iterable[nn.Module], change: Callable[[Tensor], Tensor] = shuffled
) -> Iterator[None]:
    """Change the features that the first of some layers gets."""
    met = False

    def enter(layer: Any, args: Any, kwargs: Any) -> Any:
        nonlocal met
        if met:
            return None
        met = True
        return _changed(args, change), _changed(kwargs, change)

    handles = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() and value.dim() > 1 else value
    if type(value) in (list, tuple):
        return type(value)(_changed(part, change) for part in value)
    if type(value) is dict:
        return {key: _changed(part, change) for key, part in value.items()}
    return value
