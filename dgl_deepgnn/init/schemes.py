"""Initialization schemes: how the weights that the hooks describe are drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    WithoutGraph,
    collect_stages,
    require_module,
)
from dgl_deepgnn.init.levels import Levels, find_levels
from dgl_deepgnn.init.measured import measure
from dgl_deepgnn.init.probe import (
    check,
    find_probe,
    warn_of_batch,
    warn_of_no_probe,
    warn_of_spread,
)
from dgl_deepgnn.init.running import Forward, as_called, kept_on_error
from dgl_deepgnn.registry import Registry

__all__ = ["SCHEMES", "closed_form_", "critical_", "critical_std", "draw", "glorot_", "he_"]

M = TypeVar("M", bound=nn.Module)
Scheme = Callable[..., nn.Module]
SCHEMES: Registry[Scheme] = Registry("initialization")
"""Schemes that need no more than the module (and its graph): the `init` of our models."""


def critical_(
    module: M,
    graph: AnyGraph | None = None,
    feat: Tensor | None = None,
    *,
    forward: Forward | None = None,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    orthogonal: bool = False,
    strict: bool = True,
) -> M:
    r"""Critical initialization: outputs and gradients of order one at every depth.

    **In closed form**, without features: every weight is drawn from a normal distribution of
    variance

    .. math:: C_W / (\lambda^2 \, \mathrm{fan\_in}),

    with :math:`\lambda` the spectral radius of the aggregation in front of it (1 without
    one). The first principle of DeZoort and Hanin, arXiv:2306.11668; the dependence on
    :math:`\lambda` is derived here. :math:`C_W` is that of the activation, which is found by
    running standard normal features through the model, whether it is a module, a function, or an
    argument of a layer: 2 for ReLU, :math:`2 / (1 + a^2)` for one of slope a below zero,
    1 for none. Others (GELU, SiLU, tanh) have the critical point of
    :func:`~dgl_deepgnn.init.activation.critical_point`: biases of variance :math:`C_b`, and
    a mean square K in front of the activation. Other biases are zero.

    Features are assumed to have mean square one. So the first layer, :math:`(K - C_b)` in place of
    :math:`C_W`, brings them to K (of ReLU 2, so that they have mean square one behind it), and
    the last layer, with no activation after it, hands on mean square one (behind ReLU:
    :math:`C_W = 1`). Features of another scale are forgotten within tens of layers where K is not
    0, and are kept by a kind of ReLU.

    **Measured**, with features or with `forward`: for any model. It runs once in training mode,
    and each weight is scaled where it is first multiplied, so that the product has mean square
    one (0.01 in front of a gate's sigmoid); so is what one of DGL's convolutions hands on. So
    whatever happens in between is seen:
    hand-written sums over neighbours, attention, gates, dropout, normalization, residual
    additions. Of those each term has mean square one, so that the sum grows like the number of
    terms (of terms of one sign: its square), never exponentially in it. In either way a residual
    branch whose sum is normalized, ``norm(h + f(h))``, starts at mean square one over the number
    of such branches: of terms of one size little would be left behind many of them. Batch
    normalization gets the running statistics of the features. A warning says where the output in
    evaluation mode is far from that in training mode (much dropout, batch normalization on other
    features), or features twice as large explode.

    Parameters
    ----------
    module : nn.Module
        For the closed form one layer, or a tree of layers with activations between them:
        ``torch.nn.Linear``, DGL's ``GraphConv``, ``SAGEConv``, ``GINConv``, ``GATConv``,
        ``GATv2Conv``, this package's own, and whatever :func:`register_initializer` added. Layers
        are taken in the order of definition. Measured, any model. Changed in place; what does
        not require a gradient is left as it is.
    graph : DGLGraph, optional
        In closed form needed where the aggregation is a sum; otherwise without it the graph is
        taken to be undirected. Of a batch, the largest spectral radius counts.
    feat : Tensor, optional
        Features to measure with, typical of the data: the model is called as
        ``module(graph, feat)``, or ``module(graph, feat, edge_weight)`` if there are weights.
    forward : callable, optional
        How to call a model that is called otherwise: ``forward(module)`` does it, as in
        ``critical_(model, forward=lambda model: model(blocks, feat))``.
    edge_weight : Tensor, optional
        Weights of its edges, shape (E,), if the model uses any.
    output_layer : bool
        In closed form: whether the last layer is the output (no activation after it). Pass False
        for a part of a network that ends in the activation that its other layers have.
    orthogonal : bool
        Draw matrices with orthogonal rows or columns and the same variance: one draw scatters less
        around the mean over draws.
    strict : bool
        In closed form: whether a module with parameters of an unknown class is an error; otherwise
        it is left alone, with everything in it, and a warning names it.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        In closed form if a class is unknown, the graph is needed and missing, or it has no
        directed cycle, if an activation has no critical point or needs a bias that a layer does
        not have, or if the probe does not stay at order one; measured, if the features are not
        finite or nothing can be measured. The weights are then what they were.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(1000, 10000).add_self_loop()
    >>> layers = [dgl.nn.GraphConv(256, 256, activation=torch.relu) for _ in range(31)]
    >>> layers.append(dgl.nn.GraphConv(256, 256))
    >>> model = critical_(dgl.nn.Sequential(*layers), graph)
    >>> bool(1e-4 < model(graph, torch.randn(1000, 256)).square().mean() < 10)
    True

    A layer written by hand, which no closed form knows:

    >>> class Gated(nn.Module):
    ...     def __init__(self, width):
    ...         super().__init__()
    ...         self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
    ...     def forward(self, graph, h):
    ...         neighbours = dgl.ops.copy_u_sum(graph, self.value(h))
    ...         return torch.sigmoid(self.gate(h)) * torch.relu(neighbours)
    >>> feat = torch.randn(1000, 64)
    >>> model = critical_(dgl.nn.Sequential(*[Gated(64) for _ in range(32)]), graph, feat)
    >>> bool(0.1 < model(graph, feat).square().mean() < 100)
    True
    """
    require_module(module, graph)
    if feat is None and forward is None:
        return _checked_(module, graph, edge_weight, output_layer, orthogonal, strict)
    context = WithoutGraph(strict=False)  # the graph may be anything that the model takes
    forward = as_called(graph, feat, edge_weight, forward)
    with kept_on_error(module):
        stages = collect_stages(module, context)
        draw(stages, critical_std, orthogonal=orthogonal)
        measure(module, stages, forward, (graph, feat))
    return module


def _checked_(
    module: M,
    graph: AnyGraph | None,
    edge_weight: Tensor | None,
    output_layer: bool,
    orthogonal: bool,
    strict: bool,
) -> M:
    """Closed form, and what a probe says of it."""
    context = GraphContext(graph, edge_weight, strict)
    with kept_on_error(module):
        # How many aggregations follow one another?
        counting = WithoutGraph(graph, edge_weight, strict)
        collect_stages(module, counting)
        context = replace(context, depth=len(counting.aggregations))
        stages = collect_stages(module, context)
        probe, reason = None, "it takes no features"
        if any(stages):
            probe, reason = find_probe(module, stages, context)
        trace = None if probe is None else probe.trace
        levels = find_levels(module, [s for s in stages if s], trace, output_layer)
        draw(stages, critical_std, output_layer, orthogonal=orthogonal, levels=levels)
        for name, operation in levels.unknown.items():
            warnings.warn(
                f"What stands behind {name!r} ({operation}) is no activation that is known, and "
                "counts as none. Measured, critical_(model, graph, feat), it is seen.",
                stacklevel=3,
            )
        if context.left:
            names = [name for name, part in module.named_modules() if _is_in(part, context.left)]
            warnings.warn(
                f"Left as they were, and not checked: {', '.join(names) or 'the whole model'}. "
                "Measured, critical_(model, graph, feat), any layer is initialized.",
                stacklevel=3,
            )
        elif sum(map(bool, stages)) > 1:  # one layer cannot drift
            if probe is None:
                warn_of_no_probe(module, reason, levels, stacklevel=4)
            else:
                try:
                    check(module, stages, context, probe, levels, stacklevel=4)
                except DGLError:  # what does not fit shows in another draw, too; bad luck does not
                    draw(stages, critical_std, output_layer, orthogonal=orthogonal, levels=levels)
                    check(module, stages, context, probe, levels, stacklevel=4)
        warn_of_spread(module, stages, orthogonal, stacklevel=4)
        warn_of_batch(context, stacklevel=4)
    return module


def _is_in(part: nn.Module, parts: list[nn.Module]) -> bool:
    return any(part is other for other in parts)


@SCHEMES.register("critical")
def closed_form_(
    module: M,
    graph: AnyGraph | None = None,
    *,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    """Return :func:`critical_` without features, and unchecked."""
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
    orthogonal: bool = False,
    levels: Levels | None = None,
) -> None:
    """Draw every weight with the standard deviation ``std(linear_map, gain)``; zero every bias.

    Gains are 2 and, in an output layer, 1; or what `levels` ask for, biases included. A
    shared weight is drawn once, as its first map says; what is frozen stays as it is.
    """
    drawn: set[int] = set()
    with torch.no_grad():
        for index, stage in enumerate(stages):
            for linear in stage:
                gain = 1.0 if output_layer and index == len(stages) - 1 else 2.0
                variance = 0.0
                if levels is not None:
                    gain = levels.gain[id(linear.weight)]
                    variance = levels.bias_variance.get(id(linear.weight), 0.0)
                if linear.bias is not None and linear.bias.requires_grad:
                    linear.bias.zero_()
                    if variance > 0:
                        linear.bias.normal_(0.0, math.sqrt(variance))
                frozen = not linear.weight.requires_grad
                if frozen or linear.weight.numel() == 0 or id(linear.weight) in drawn:
                    continue
                drawn.add(id(linear.weight))
                sigma = std(linear, gain) * linear.scale
                if orthogonal:
                    linear.weight.copy_(sigma * _orthogonal(linear.weight.shape))
                elif uniform:
                    linear.weight.uniform_(-math.sqrt(3) * sigma, math.sqrt(3) * sigma)
                else:
                    linear.weight.normal_(0.0, sigma)


def _orthogonal(shape: torch.Size) -> Tensor:
    """Matrices with orthogonal rows or columns and entries of mean square one."""
    if len(shape) > 2:  # one a relation or head
        return torch.stack([_orthogonal(shape[1:]) for _ in range(shape[0])])
    return math.sqrt(max(shape)) * nn.init.orthogonal_(torch.empty(shape))
