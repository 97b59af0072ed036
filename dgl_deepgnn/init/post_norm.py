"""Residual branches whose sum with their skip connection is normalized: they start small.

Behind ``norm(h + f(h))`` with terms of one size half of what came in is left; behind N of them
:math:`2^{-N}`, and a gradient is as small. With branches of mean square 1 / N a share of
:math:`(1 + 1/N)^{-N} > 1/e` goes all the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dgl_deepgnn.init.branches import is_made_of, is_sum, sums

__all__ = ["shares_of_branches"]

_NORMS = ("BatchNormBackward", "LayerNormBackward", "GroupNormBackward", "RMSNormBackward")


def is_norm(node: Any) -> bool:
    """Whether a node of autograd's graph is a normalization layer's, such as x * rsqrt(...)."""
    if node.name() == "MulBackward0":  # RMSNorm
        return any(p is not None and p.name() == "RsqrtBackward0" for p, _ in node.next_functions)
    return any(name in node.name() for name in _NORMS)


def shares_of_branches(
    roots: list[Any], order: list[Any], weights_of: Callable[[Any], frozenset[int] | None]
) -> dict[int, float]:
    """Mean square that the products at the ends of such branches are to have, skips having one.

    Parameters
    ----------
    roots, order : list
        Autograd's nodes of the outputs, and all that they were computed by.
    weights_of : callable
        Weights that a node multiplies features with; None for what is made of weights alone.

    Returns
    -------
    dict of int to float
        By the identities of the weights: one over the number of the branches.
    """
    if not any(map(is_norm, order)):
        return {}
    consumers: dict[Any, list[Any]] = {}
    for node in order:
        for part, _ in node.next_functions:
            if part is not None:
                consumers.setdefault(part, []).append(node)
    ends = []
    for node, _ in sums(roots):
        users = consumers.get(node, [])
        part_of_another = len(users) == 1 and is_sum(users[0])
        if part_of_another or not _normed(node, consumers, {*roots}, weights_of):
            continue
        terms = _terms(node, consumers, weights_of)
        for branch in terms:
            skip = next((term for term in terms if is_made_of(branch, term)), None)
            if skip is not None:
                ends.append(_last_weights(branch, skip, weights_of))
    if len(ends) < 2:
        return {}
    return {weight: 1 / len(ends) for end in ends for weight in end}


def _terms(
    node: Any,
    consumers: dict[Any, list[Any]],
    weights_of: Callable[[Any], frozenset[int] | None],
) -> list[Any]:
    """What a sum adds up, and sums that are only part of it; not biases."""
    found: list[Any] = []
    for part, _ in node.next_functions:
        if part is None or weights_of(part) is None:
            continue
        if is_sum(part) and len(consumers[part]) == 1:
            found += _terms(part, consumers, weights_of)
        else:
            found.append(part)
    return found


def _normed(
    node: Any,
    consumers: dict[Any, list[Any]],
    roots: set[Any],
    weights_of: Callable[[Any], frozenset[int] | None],
) -> bool:
    """Whether whatever uses a node gets it normalized, skip connections and the caller included."""
    seen, todo = {node}, [node]
    while todo:
        last = todo.pop()
        users = consumers.get(last, [])
        if last in roots or any(weights_of(user) for user in users):
            return False
        # Used by a sum and by something else: a skip connection that nothing normalizes.
        if len(users) > 1 and any(is_sum(user) for user in users):
            return False
        new = [user for user in users if user not in seen and not is_norm(user)]
        seen.update(new)
        todo += new
    return True


def _last_weights(
    end: Any, start: Any, weights_of: Callable[[Any], frozenset[int] | None]
) -> set[int]:
    """Weights that no other comes behind on the way to the end of a branch, but in attention."""
    found: set[int] = set()
    seen, todo = {start, end}, [end]
    while todo:
        node = todo.pop()
        weights = weights_of(node)
        if weights is None or "Softmax" in node.name() or is_norm(node):
            continue
        if weights:
            found |= weights
            continue
        new = [part for part, _ in node.next_functions if part is not None and part not in seen]
        seen.update(new)
        todo += new
    return found
