"""Learning rates that carry over from one depth and width to another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import Stage, WithoutGraph, collect_stages

__all__ = ["OptimizerName", "learning_rate_factors", "param_groups"]

OptimizerName = Literal["adam", "adamw", "sgd"]

WIDTH, BRANCHES = 32, 16
"""The size at which every factor of a model with branches of scale 1/sqrt(BRANCHES) is 1."""


def param_groups(
    model: nn.Module,
    lr: float,
    optimizer: OptimizerName = "adam",
    *,
    weight_decay: float | Mapping[str, float] = 0.0,
    branches: Iterable[nn.Module] | None = None,
    branch_scale: float | None = None,
    strict: bool = True,
) -> list[dict[str, Any]]:
    r"""Parameter groups whose learning rates suit every depth and width.

    The best `lr` of a small network is about the best of a large one. Each parameter gets `lr`
    times a factor, see :func:`learning_rate_factors`.

    Parameters
    ----------
    model : nn.Module
        A model of this package, or one of your own whose layers have initializer hooks, see
        :func:`dgl_deepgnn.init.register_initializer`. Layers are taken in the order of definition;
        the first one reads the data.
    lr : float
        Learning rate of a network of width 32 with 16 residual branches of scale 1/4.
    optimizer : {"adam", "adamw", "sgd"}
        What the groups are for: ``torch.optim.Adam``, ``AdamW``, or ``SGD`` with or without
        momentum.
    weight_decay : float or dict
        Weight decay as without this rule: one number, or numbers by parameter name (a parameter
        that is not named gets none). AdamW takes ``lr * weight_decay`` off each weight at every
        step: there it is divided by the factor, so that the product stays. In Adam and SGD it is a
        term of the loss, whose minimum knows nothing of learning rates: there it stays itself.
    branches : iterable of nn.Module, optional
        The submodules whose outputs are added to their inputs. A model that has the attributes
        `branches` and `branch_scale`, as this package's have, needs neither argument.
    branch_scale : float, optional
        The factor in front of each branch; 1 by default.
    strict : bool
        Whether a module with parameters but without a hook is an error; otherwise its parameters
        are treated like biases.

    Returns
    -------
    list of dict
        Groups with ``params``, ``lr`` and ``weight_decay``, one for each pair of the latter.
        PyTorch's learning-rate schedulers scale each by its own rate.

    Raises
    ------
    DGLError
        If an argument is out of range, a branch is not part of the model, a name not that of a
        parameter, or a module's class unknown.

    Examples
    --------
    >>> from dgl_deepgnn import ResGCN
    >>> model = ResGCN(in_feats=16, hidden_feats=64, out_feats=4, num_layers=66)
    >>> optimizer = torch.optim.Adam(param_groups(model, lr=0.01))
    >>> [(len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    [(3, 0.01), (64, 0.0025), (65, 0.005)]
    """
    if not lr > 0:
        raise DGLError(f"lr must be positive, got {lr!r}.")
    factors = learning_rate_factors(
        model, optimizer, branches=branches, branch_scale=branch_scale, strict=strict
    )
    parameters = dict(model.named_parameters())
    if isinstance(weight_decay, Mapping):
        unknown = sorted(set(weight_decay) - set(parameters))
        if unknown:
            raise DGLError(
                f"weight_decay names {unknown[0]!r}, which is no parameter of the model."
            )
    else:
        weight_decay = dict.fromkeys(parameters, weight_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = weight_decay.get(name, 0.0)
        if decay < 0:
            raise DGLError(f"weight_decay must not be negative, got {decay!r}.")
        groups.setdefault((factors[name], decay), []).append(parameter)
    return [
        {
            "params": some,
            "lr": lr * factor,
            "weight_decay": decay / factor if optimizer == "adamw" else decay,
        }
        for (factor, decay), some in groups.items()
    ]


def learning_rate_factors(
    model: nn.Module,
    optimizer: OptimizerName = "adam",
    *,
    branches: Iterable[nn.Module] | None = None,
    branch_scale: float | None = None,
    strict: bool = True,
) -> dict[str, float]:
    r"""What :func:`param_groups` multiplies the learning rate of each parameter with.

    With B branches of scale :math:`\tau`, and n the inputs of a weight matrix:

    =============================  =============================  =============================
    parameters                     Adam, AdamW                    SGD
    =============================  =============================  =============================
    weights inside a branch        :math:`32/n \cdot 4/(B\tau)`   :math:`32/n \cdot 1/(B\tau^2)`
    others inside a branch         :math:`4/(B\tau)`              :math:`1/(B\tau^2)`
    weights of the first layer     1                              1
    weights of the other layers    :math:`32/n`                   :math:`32/n`
    biases, normalization          1                              1
    =============================  =============================  =============================

    and, with SGD, times :math:`\sqrt{m/32}`, m the outputs, but for the layer that makes the
    scores.

    A layer with fewer inputs than the first one has outputs may read data, too, such as edge
    features, or the scores: its :math:`32/n` is at most 1.

    A step of Adam moves the output of one branch by about :math:`\tau n` times the learning rate,
    one of SGD by :math:`\tau^2 n` times the gradient there, whose entries are of order
    :math:`1/\sqrt{m}`, and the moves of all branches add up, since they see nearly the
    same features and the same gradient. Derived here (docs/transfer.md); of width alone it is
    the maximal update parametrization of Yang et al., arXiv:2203.03466.

    Parameters
    ----------
    model, optimizer, branches, branch_scale, strict
        As in :func:`param_groups`.

    Returns
    -------
    dict of str to float
        By the parameter's name. The model is not changed.

    Raises
    ------
    DGLError
        As :func:`param_groups`.

    Examples
    --------
    >>> layers = nn.ModuleList([nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 3)])
    >>> learning_rate_factors(layers, branches=layers[1:2])
    {'0.weight': 1.0, '0.bias': 1.0, '1.weight': 2.0, '1.bias': 4.0, '2.weight': 0.5, '2.bias': 1.0}
    """
    if optimizer not in get_args(OptimizerName):
        raise DGLError(
            f"optimizer must be one of {', '.join(map(repr, get_args(OptimizerName)))}, "
            f"got {optimizer!r}."
        )
    if branches is None:
        branches = getattr(model, "branches", ())
        branch_scale = getattr(model, "branch_scale", 1.0) if branch_scale is None else branch_scale
    branches = list(branches)
    scale = 1.0 if branch_scale is None else branch_scale
    if not scale > 0:
        raise DGLError(f"branch_scale must be positive, got {scale!r}.")
    inside = _parameters_of(branches, model)
    # How much all branches together move the output, beside BRANCHES of scale 1/sqrt(BRANCHES).
    power = 2 if optimizer == "sgd" else 1
    together = len(branches) * scale**power / BRANCHES ** (1 - power / 2)
    in_branch = 1 / together if branches else 1.0
    stages = _stages(model, strict)
    width = max((linear.fan_out for linear in stages[0]), default=0) if stages else 0
    fan_in = {id(m.weight): m.fan_in for stage in reversed(stages) for m in stage}
    fan_out = {id(m.weight): m.fan_out for stage in stages for m in stage}
    first = {id(m.weight) for stage in stages[:1] for m in stage}
    scores = {id(t) for stage in stages[-1:] for m in stage for t in (m.weight, m.bias)}
    factors = {}
    for name, parameter in model.named_parameters():
        inputs = fan_in.get(id(parameter), WIDTH)
        factor = in_branch if id(parameter) in inside else 1.0
        if id(parameter) in inside or id(parameter) not in first:
            factor *= WIDTH / (inputs if inputs >= width else max(inputs, WIDTH))
        outputs = fan_out.get(id(parameter), parameter.shape[-1] if parameter.ndim else 0)
        if optimizer == "sgd" and outputs >= width > 0 and id(parameter) not in scores:
            factor *= math.sqrt(outputs / WIDTH)
        factors[name] = factor
    return factors


def _parameters_of(branches: list[nn.Module], model: nn.Module) -> set[int]:
    own = {id(parameter) for parameter in model.parameters()}
    found = {id(parameter) for branch in branches for parameter in branch.parameters()}
    if not found <= own:
        raise DGLError(
            f"branches holds parameters that are not part of {type(model).__name__}: give its own "
            "submodules, such as model.layers[1:-1]."
        )
    return found


def _stages(model: nn.Module, strict: bool) -> list[Stage]:
    """Linear maps of a model, which is left as it is."""
    # Hooks reset what no initialization draws: all of it is put back.
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    kept = [(t, t.detach().clone()) for t in tensors if not nn.parameter.is_lazy(t)]
    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
        try:
            return collect_stages(model, WithoutGraph(strict=strict))
        finally:
            for tensor, value in kept:
                tensor.copy_(value)
