"""Residual branches of a model: found by a run of it, and started at zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.running import Forward, tensors_of, undisturbed

__all__ = ["find_branches", "is_made_of", "is_sum", "start_outputs_at_zero", "sums"]


def find_branches(module: nn.Module, forward: Forward, *others: object) -> list[nn.Module]:
    """Submodules whose outputs a model adds to what they were made of.

    Of every sum of two tensors in the run, one of which was computed from the other, the weights in
    between are those of a branch. If no one submodule holds them all, the one that runs last stands
    for them. A branch around the model's input is found if that requires a gradient.

    Parameters
    ----------
    module : nn.Module
        The model.
    forward : callable
        ``forward(module)`` calls it.
    *others : object
        What else may hold graphs that the call writes to.

    Returns
    -------
    list of nn.Module
        In the order in which they run, each once.
    """
    order: dict[nn.Module, int] = {}
    made: dict[nn.Module, set[Any]] = {}

    def ran(part: nn.Module, args: Any, output: Any) -> None:
        order.setdefault(part, len(order))
        made.setdefault(part, set()).update(t.grad_fn for t in tensors_of(output))

    handles = [part.register_forward_hook(ran) for part in module.modules()]
    try:
        with undisturbed(module, forward, *others, training=True), torch.enable_grad():
            roots = [t.grad_fn for t in tensors_of(forward(module)) if t.grad_fn is not None]
    finally:
        for handle in handles:
            handle.remove()
    holds = {part: {id(p) for p in part.parameters() if p.dim() > 1} for part in order}
    known = {id(p) for p in module.parameters()}
    found: dict[nn.Module, None] = {}
    for _, (a, b) in sums(roots):
        weights, nodes = _between(a, b) or _between(b, a) or (set(), set())
        weights &= known
        inside = [
            part
            for part, own in holds.items()
            if own and own <= weights and made[part] & nodes  # its output is on the way
        ]
        if inside:
            whole = [part for part in inside if holds[part] == weights]
            found[max(whole or inside, key=lambda part: order[part])] = None
    return sorted(found, key=lambda part: order[part])


def is_sum(node: Any) -> bool:
    """Whether a node of autograd's graph adds two tensors that gradients reach."""
    parts = [part for part, _ in node.next_functions if part is not None]
    return type(node).__name__ == "AddBackward0" and len(parts) == 2


def sums(roots: list[Any]) -> Iterator[tuple[Any, tuple[Any, Any]]]:
    """Nodes of every sum that the results were computed by, and of its two terms."""
    seen, todo = set(roots), list(roots)
    while todo:
        node = todo.pop()
        parts = [part for part, _ in node.next_functions if part is not None]
        if is_sum(node):
            yield node, (parts[0], parts[1])
        new = [part for part in parts if part not in seen]
        seen.update(new)
        todo += new


def is_made_of(end: Any, start: Any) -> bool:
    """Whether there is a way from one node of autograd's graph to a later one."""
    return end is not start and _between(end, start) is not None


def _between(end: Any, start: Any) -> tuple[set[int], set[Any]] | None:
    """Weight matrices and nodes on the ways from one node to a later one, if there is a way."""
    oldest = 0 if hasattr(start, "variable") else start._sequence_nr()
    weights: set[int] = set()
    seen, todo, reached = {end}, [end], False
    while todo:
        node = todo.pop()
        if node is start:
            reached = True
            continue
        if hasattr(node, "variable"):
            if node.variable.dim() > 1:
                weights.add(id(node.variable))
            continue
        if node._sequence_nr() < oldest:  # it came before
            continue
        for part, _ in node.next_functions:
            if part is not None and part not in seen:
                seen.add(part)
                todo.append(part)
    return (weights, seen) if reached else None


@torch.no_grad()
def start_outputs_at_zero(
    module: nn.Module, branches: list[nn.Module], forward: Forward, *others: object
) -> set[int]:
    """See that every branch hands on zeros; where it does not, zero as few weights as it takes.

    Returns
    -------
    set of int
        Ids of the weights that it took.

    Raises
    ------
    DGLError
        If a branch is not called, or hands on something else whatever its weights are.
    """
    pending = {
        index: [p for p in branch.parameters() if p.requires_grad and p.dim() > 1]
        for index, branch in enumerate(branches)
    }
    zeroed: dict[int, list[tuple[nn.Parameter, Tensor]]] = {index: [] for index in pending}
    while live := _not_zero(module, branches, forward, *others):
        for index in live:
            if not pending[index]:
                raise DGLError(
                    f"branches[{index}], a {type(branches[index]).__name__}, does not start at "
                    "zero with all its weights zero: something else in it, such as a bias, adds "
                    "to its output. rezero_ multiplies the output by zero, whatever it is."
                )
            weight = pending[index].pop()  # those defined last are the likeliest
            zeroed[index].append((weight, weight.clone()))
            weight.zero_()
    needed: set[int] = set()
    while any(zeroed.values()):  # is each of them needed?
        tried = {index: weights.pop() for index, weights in zeroed.items() if weights}
        for weight, value in tried.values():
            weight.copy_(value)
        for index in _not_zero(module, branches, forward, *others):
            tried[index][0].zero_()
            needed.add(id(tried[index][0]))
    return needed


def _not_zero(
    module: nn.Module, branches: list[nn.Module], forward: Forward, *others: object
) -> list[int]:
    """Which branches hand on anything but zeros."""
    squares: dict[int, float] = {}
    with _watched(branches, squares), undisturbed(module, forward, *others, training=True):
        forward(module)
    missing = next((index for index in range(len(branches)) if index not in squares), None)
    if missing is not None:
        raise DGLError(
            f"branches[{missing}], a {type(branches[missing]).__name__}, is not called when the "
            "model runs: name the submodules whose outputs are added to their inputs."
        )
    return [index for index, square in squares.items() if square != 0]


@contextmanager
def _watched(branches: list[nn.Module], squares: dict[int, float]) -> Iterator[None]:
    def watch(index: int) -> Any:
        def hook(branch: nn.Module, args: Any, output: Any) -> None:
            square = sum(t.double().square().sum().item() for t in tensors_of(output))
            squares[index] = squares.get(index, 0.0) + square

        return hook

    handles = [branch.register_forward_hook(watch(i)) for i, branch in enumerate(branches)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
