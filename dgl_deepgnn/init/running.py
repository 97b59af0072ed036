"""Running a model to look at it, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dgl_deepgnn.errors import DGLError

__all__ = [
    "Forward",
    "as_called",
    "first_tensor",
    "kept_on_error",
    "mean_square",
    "tensors_of",
    "undisturbed",
]

Forward = Callable[[Any], object]
"""How a model is called: ``forward(model)`` runs it."""


def as_called(
    graph: object | None, feat: object | None, edge_weight: object | None, forward: Forward | None
) -> Forward:
    """Return the caller's `forward`, or ``model(graph, feat, edge_weight)`` with what there is."""
    if forward is not None:
        if feat is not None:
            raise DGLError(
                "feat and forward were both given: forward=lambda model: model(...) calls the "
                "model with features of its own. Leave out one of them."
            )
        if not callable(forward):
            raise DGLError(
                f"forward must be a function that calls the model, as in forward=lambda model: "
                f"model(blocks, feat); got a {type(forward).__name__}."
            )
        return forward
    arguments = [part for part in (graph, feat, edge_weight) if part is not None]
    return lambda model: model(*arguments)


@contextmanager
def undisturbed(module: nn.Module, *others: object, training: bool) -> Iterator[None]:
    """Run a model without a trace: mode, buffers, random state and graphs' data are put back.

    So are tensors that it keeps as attributes, such as results for a later call.

    Parameters
    ----------
    module : nn.Module
        The model.
    *others : object
        What else may hold graphs that the model writes to: its arguments, a function that calls it.
    training : bool
        The mode in which it runs.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    kept = [(part, dict(vars(part))) for part in module.modules()]
    with ExitStack() as stack:
        for graph in _graphs([vars(part) for part in module.modules()], *others):
            stack.enter_context(_local_scope(graph))
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        stack.enter_context(torch.no_grad())
        module.train(training)
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
            for buffer, value in buffers:
                buffer.copy_(value)
            for part, before in kept:
                for name, value in [*vars(part).items()]:
                    if isinstance(value, Tensor) and value is not before.get(name, part):
                        if name in before:
                            vars(part)[name] = before[name]
                        else:
                            del vars(part)[name]


@contextmanager
def _local_scope(graph: Any) -> Iterator[None]:
    """DGL's, which leaves what was written to the graph where an error ends it."""
    scope = graph.local_scope()
    scope.__enter__()
    try:
        yield
    finally:
        scope.__exit__(None, None, None)


@contextmanager
def kept_on_error(module: nn.Module) -> Iterator[None]:
    """Give parameters and buffers their values back if anything goes wrong."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if not is_lazy(t)]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        raise


def _graphs(*values: object, depth: int = 4) -> list[Any]:
    """Graphs in containers, and in the variables and defaults of functions."""
    found: dict[int, Any] = {}
    for value in values:
        if hasattr(value, "local_scope") and hasattr(value, "ndata"):
            found[id(value)] = value
        elif depth:
            inner: list[object] = []
            if isinstance(value, (list, tuple)):
                inner = list(value)
            elif isinstance(value, dict):
                inner = list(value.values())
            elif callable(value) and hasattr(value, "__code__"):
                names = value.__code__.co_names
                inner = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]  # type: ignore[attr-defined]
                inner += [value.__globals__[n] for n in names if n in value.__globals__]  # type: ignore[attr-defined]
                inner += list(value.__defaults__ or ())  # type: ignore[attr-defined]
            found.update((id(g), g) for g in _graphs(*inner, depth=depth - 1))
    return list(found.values())


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty cell raises)
    except ValueError:
        return False
    return True


def tensors_of(output: object) -> list[Tensor]:
    """Return the floating-point tensors of an output: those of all heads, or node types."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() and output.numel() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in tensors_of(part)]
    return []


def first_tensor(output: object) -> Tensor | None:
    """Return the first of them, if there is one."""
    return next(iter(tensors_of(output)), None)


def mean_square(values: Tensor) -> float:
    """Mean square of a tensor's entries, summed in double precision."""
    norm = torch.linalg.vector_norm(values.detach(), dtype=torch.float64)
    return norm.item() ** 2 / max(values.numel(), 1)
