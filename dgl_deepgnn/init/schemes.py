"""Initialization schemes: how the weights that the hooks describe are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    WithoutGraph,
    collect_stages,
)
from dgl_deepgnn.registry import Registry

__all__ = ["SCHEMES", "critical_", "critical_std", "draw", "glorot_", "he_"]

M = TypeVar("M", bound=nn.Module)
Scheme = Callable[..., nn.Module]
SCHEMES: Registry[Scheme] = Registry("initialization")
"""Schemes that need no more than the module (and its graph): the `init` of our models."""


@SCHEMES.register("critical")
def critical_(
    module: M,
    graph: AnyGraph | None = None,
    *,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    r"""Critical initialization: outputs and gradients of order one at every depth.

    Every weight is drawn from a normal distribution of variance

    .. math:: C_W / \mathrm{fan\_in}, \qquad C_W = 2 / \lambda^2,

    with :math:`\lambda` the spectral radius of the aggregation in front of it (1 without
    one), and all biases are zero. The last layer, with no ReLU after it, has
    :math:`C_W = 1 / \lambda^2`. The first principle of DeZoort and Hanin,
    arXiv:2306.11668; the dependence on :math:`\lambda` is derived here.

    Parameters
    ----------
    module : nn.Module
        One layer, or a tree of layers with ReLU between them: ``torch.nn.Linear``, DGL's
        ``GraphConv``, ``SAGEConv``, ``GINConv``, ``GATConv``, ``GATv2Conv``, this package's own,
        and whatever :func:`register_initializer` added. Layers are taken in the order of
        definition. Changed in place.
    graph : DGLGraph, optional
        Needed where the aggregation is a sum; otherwise without it the graph is taken to be
        undirected. Of a batch, the largest spectral radius counts.
    edge_weight : Tensor, optional
        Weights of its edges, shape (E,), if the model uses any.
    output_layer : bool
        Whether the last layer is the output (no ReLU after it). Pass False for a
        part of a network that ends in a ReLU.
    strict : bool
        Whether a module with parameters of an unknown class is an error; otherwise it is left
        alone.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        If a class is unknown, the graph is needed and missing, or it has no directed cycle.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(1000, 10000).add_self_loop()
    >>> layers = [dgl.nn.GraphConv(64, 64, activation=torch.relu) for _ in range(31)]
    >>> layers.append(dgl.nn.GraphConv(64, 64))
    >>> model = critical_(dgl.nn.Sequential(*layers), graph)
    >>> bool(1e-4 < model(graph, torch.randn(1000, 64)).square().mean() < 10)
    True
    """
    stages = collect_stages(module, GraphContext(graph, edge_weight, strict))
    draw(stages, critical_std, output_layer)
    return module


@SCHEMES.register("he")
def he_(module: M, *, strict: bool = True) -> M:
    r"""He initialization: normal, variance :math:`2 / \mathrm{fan\_in}` in every layer.

    What it leaves out is the graph: no spectral radius, no split between GraphSAGE's two
    weights. Source: He et al., arXiv:1502.01852.

    Parameters
    ----------
    module, strict
        As in :func:`critical_`.

    Returns
    -------
    nn.Module
        The same module.

    Examples
    --------
    >>> layer = he_(nn.Linear(1000, 1000))
    >>> round(1000 * layer.weight.var().item(), 1)
    2.0
    """
    stages = collect_stages(module, WithoutGraph(strict=strict))
    draw(stages, lambda linear, gain: math.sqrt(2 / linear.fan_in))
    return module


@SCHEMES.register("glorot")
def glorot_(module: M, *, strict: bool = True) -> M:
    r"""Glorot initialization, DGL's default: uniform.

    The variance is :math:`2 / (\mathrm{fan\_in} + \mathrm{fan\_out})`, times the squared gain
    that DGL's own layer uses (GraphSAGE: that of ReLU).

    Source: Glorot and Bengio, AISTATS 2010.

    Parameters
    ----------
    module, strict
        As in :func:`critical_`.

    Returns
    -------
    nn.Module
        The same module.

    Examples
    --------
    >>> layer = glorot_(nn.Linear(1000, 1000))
    >>> round(1000 * layer.weight.var().item(), 1)
    1.0
    """

    def std(linear: LinearMap, gain: float) -> float:
        return linear.glorot_gain * math.sqrt(2 / (linear.fan_in + linear.fan_out))

    draw(collect_stages(module, WithoutGraph(strict=strict)), std, uniform=True)
    return module


def critical_std(linear: LinearMap, gain: float) -> float:
    """Critical standard deviation of a map that a ReLU (gain 2) or nothing (1) follows."""
    return math.sqrt(gain * linear.share / linear.fan_in) / linear.spectral_radius


def draw(
    stages: list[Stage],
    std: Callable[[LinearMap, float], float],
    output_layer: bool = False,
    uniform: bool = False,
) -> None:
    """Draw every weight with the standard deviation ``std(linear_map, gain)``; zero every bias.

    A shared weight is drawn once, as its first map says.
    """
    drawn: set[int] = set()
    with torch.no_grad():
        for index, stage in enumerate(stages):
            gain = 1.0 if output_layer and index == len(stages) - 1 else 2.0
            for linear in stage:
                if linear.bias is not None:
                    linear.bias.zero_()
                if linear.weight.numel() == 0 or id(linear.weight) in drawn:
                    continue
                drawn.add(id(linear.weight))
                sigma = std(linear, gain) * linear.scale
                if uniform:
                    linear.weight.uniform_(-math.sqrt(3) * sigma, math.sqrt(3) * sigma)
                else:
                    linear.weight.normal_(0.0, sigma)
