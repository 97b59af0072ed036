"""Learning rates that carry over from one depth and width to another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from numbers import Real
from statistics import mode
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import Stage, UnknownModuleError, WithoutGraph, collect_stages

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
    inputs: Iterable[nn.Module] | None = None,
    strict: bool = True,
) -> list[dict[str, Any]]:
    r"""Parameter groups whose learning rates suit every depth and width.

    The best `lr` of a small network is about the best of a large one. Each parameter gets `lr`
    times a factor, see :func:`learning_rate_factors`.

    Parameters
    ----------
    model : nn.Module
        A model of this package, or one of your own whose layers have initializer hooks, see
        :func:`dgl_deepgnn.init.register_initializer`. Layers are taken in the order of definition.
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
        `branches` and `branch_scale`, as this package's have, needs neither argument, nor does one
        that holds or wraps such models.
    branch_scale : float, optional
        The factor in front of each branch; 1 by default.
    inputs : iterable of nn.Module, optional
        The submodules that read the data: the first layer of each gets the rate of a first layer.
        By default it is the model's first layer (none, if it takes what an embedding in front of
        it gives), with those beside it in an ``nn.ModuleDict`` that have other inputs and as many
        outputs.
    strict : bool
        Whether a weight matrix without a hook is an error; otherwise it is treated like a bias.
        Its module's other layers are taken either way, and scalars and vectors are biases.

    Returns
    -------
    list of dict
        Groups with ``params``, ``lr`` and ``weight_decay``, one for each pair of the latter.
        PyTorch's learning-rate schedulers scale each by its own rate.

    Raises
    ------
    DGLError
        If an argument is out of range, a branch is not part of the model, a name not that of a
        parameter, a parameter without shape yet, or the class of a module with weights unknown.

    Examples
    --------
    >>> from dgl_deepgnn import ResGCN
    >>> model = ResGCN(in_feats=16, hidden_feats=64, out_feats=4, num_layers=66)
    >>> optimizer = torch.optim.Adam(param_groups(model, lr=0.01))
    >>> [(len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    [(3, 0.01), (64, 0.0025), (65, 0.005)]
    """
    _require_positive("lr", lr)
    factors = learning_rate_factors(
        model, optimizer, branches=branches, branch_scale=branch_scale, inputs=inputs, strict=strict
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
        if not (isinstance(decay, Real) and 0 <= decay < math.inf):
            raise DGLError(f"weight_decay must not be negative, and finite, got {decay!r}.")
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
    inputs: Iterable[nn.Module] | None = None,
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

    A layer with fewer inputs than the network is wide may read data, too, such as edge features,
    or the scores: its :math:`32/n` is at most 1, but for one inside a branch that takes just what
    the layer before gives.

    A step of Adam moves the output of one branch by about :math:`\tau n` times the learning rate,
    one of SGD by :math:`\tau^2 n` times the gradient there, whose entries are of order
    :math:`1/\sqrt{m}`, and the moves of all branches add up, since they see nearly the
    same features and the same gradient. Derived here (docs/transfer.md); of width alone it is
    the maximal update parametrization of Yang et al., arXiv:2203.03466.

    Parameters
    ----------
    model, optimizer, branches, branch_scale, inputs, strict
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
    if not isinstance(model, nn.Module):
        raise DGLError(f"model must be a torch.nn.Module, got {model!r}.")
    if lazy := [n for n, p in model.named_parameters() if nn.parameter.is_lazy(p)]:
        raise DGLError(f"{lazy[0]} has no shape yet: call the model once with its data before.")
    power = 2 if optimizer == "sgd" else 1
    inside: dict[int, float] = {}
    for some, scale in _branches(model, branches, branch_scale):
        # How much all branches together move the output, beside BRANCHES of 1/sqrt(BRANCHES).
        together = len(some) * scale**power / BRANCHES ** (1 - power / 2)
        inside |= {id(p): 1 / together for branch in some for p in branch.parameters()}
    stages = _stages(model, strict)
    width = _width(stages)
    fan_in = {id(m.weight): m.fan_in for stage in reversed(stages) for m in stage}
    fan_out = {id(m.weight): m.fan_out for stage in stages for m in stage}
    chained = set(_chained(stages))
    first = _readers(model, stages, inputs)
    scores = {id(t) for stage in stages[-1:] for m in stage for t in (m.weight, m.bias)}
    factors = {}
    for name, parameter in model.named_parameters():
        key = id(parameter)
        factor = inside.get(key, 1.0)
        if key in inside or key not in first:
            n = fan_in.get(key, WIDTH)
            exact = n >= width or (key in inside and key in chained)
            factor *= WIDTH / (n if exact else max(n, WIDTH))
        outputs = fan_out.get(key, parameter.shape[-1] if parameter.ndim else 0)
        if optimizer == "sgd" and outputs >= width > 0 and key not in scores:
            factor *= math.sqrt(outputs / WIDTH)
        factors[name] = factor
    return factors


def _require_positive(name: str, value: object) -> None:
    if not (isinstance(value, Real) and 0 < float(value) < math.inf):
        raise DGLError(f"{name} must be positive, and finite, got {value!r}.")


def _branches(
    model: nn.Module, branches: Iterable[nn.Module] | None, scale: float | None
) -> list[tuple[list[nn.Module], float]]:
    """Branches and their scale, of each network in the model that has some."""
    if scale is not None:
        _require_positive("branch_scale", scale)
    if branches is not None:
        some = _modules("branches", branches, model)
        return [(some, 1.0 if scale is None else scale)] if some else []
    found = []
    for part in model.modules():  # what wraps a network has no such attributes
        theirs, own = getattr(part, "branches", None), getattr(part, "branch_scale", None)
        if isinstance(theirs, Iterable) and isinstance(own, Real):
            found.append((list(theirs), float(own) if scale is None else scale))
    if scale is not None and not found:
        raise DGLError(f"branch_scale={scale!r} is of no use without branches: name them.")
    return [(some, own) for some, own in found if some]


def _modules(name: str, values: Any, model: nn.Module) -> list[nn.Module]:
    """The submodules of the argument of that name."""
    values = values.values() if isinstance(values, nn.ModuleDict) else values
    some = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values
    if not isinstance(some, list):
        raise DGLError(f"{name} must be a list of modules, such as [model.layer], got {some!r}.")
    for value in some:
        if not isinstance(value, nn.Module):
            raise DGLError(f"{name} must be modules, such as model.layers[1:-1], got {value!r}.")
        if isinstance(value, nn.ModuleList | nn.ModuleDict):
            raise DGLError(f"{name} holds a {type(value).__name__}: give its entries one by one.")
    own = {id(parameter) for parameter in model.parameters()}
    if not {id(parameter) for value in some for parameter in value.parameters()} <= own:
        raise DGLError(
            f"{name} holds parameters that are not part of {type(model).__name__}: give its own "
            "submodules, such as model.layers[1:-1]."
        )
    return some


def _width(stages: list[Stage]) -> int:
    """Of the network: what most layers give, and the first one not less than."""
    outputs = [max(m.fan_out for m in stage) for stage in stages if stage]
    return min(outputs[0], mode(outputs)) if outputs else 0


def _chained(stages: list[Stage]) -> Iterator[int]:
    """Weights that take as many features as the stage before them gives."""
    for before, stage in pairwise(stages):
        given = {m.fan_out for m in before}
        yield from (id(m.weight) for m in stage if {m.fan_in} == given)


def _readers(model: nn.Module, stages: list[Stage], inputs: Iterable[nn.Module] | None) -> set[int]:
    """Weights that are multiplied with the data."""
    if inputs is not None:
        return {w for part in _modules("inputs", inputs, model) for w in _first(part, stages)}
    if not stages or _embedded(model, stages):
        return set()
    first, outputs = {id(m.weight) for m in stages[0]}, {m.fan_out for m in stages[0]}
    sizes = {id(m.weight): (m.fan_in, m.fan_out) for stage in stages for m in stage}
    for group in model.modules():
        # An encoder for each type of nodes; a chain of layers may be in a dict, too.
        entries = group.values() if isinstance(group, nn.ModuleDict) else ()
        heads = [_first(entry, stages) for entry in entries]
        if first in heads:
            for head in heads:
                if all({sizes[w][1]} == outputs != {sizes[w][0]} for w in head):
                    first = first | head
    return first


def _first(part: nn.Module, stages: list[Stage]) -> set[int]:
    """Weights of the first stage that has some of this module."""
    own = {id(parameter) for parameter in part.parameters()}
    found = [{id(m.weight) for m in stage if id(m.weight) in own} for stage in stages]
    return next(filter(None, found), set())


def _embedded(model: nn.Module, stages: list[Stage]) -> bool:
    """Whether the first stage takes what a matrix without stage, an embedding say, gives."""
    known = {id(m.weight) for stage in stages for m in stage}
    sizes: set[int] = set()
    for parameter in model.parameters():
        if id(parameter) in known:
            break
        sizes |= set(parameter.shape) if _is_matrix(parameter) else set()
    return all(m.fan_in in sizes for m in stages[0])


def _stages(model: nn.Module, strict: bool) -> list[Stage]:
    """Linear maps of a model, which is left as it is."""
    context = WithoutGraph(strict=False, into_unknown=True)
    # Hooks reset what no initialization draws: all of it is put back.
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    kept = [(t, t._version, t.detach().clone()) for t in tensors]
    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.no_grad():
        try:
            stages = collect_stages(model, context)
        finally:
            for tensor, version, value in kept:
                if tensor._version != version:  # else a backward pass may still want it
                    tensor.copy_(value)
    known = {id(m.weight) for stage in stages for m in stage}
    for module in context.left if strict else ():
        for name, parameter in module.named_parameters(recurse=False):
            if _is_matrix(parameter) and id(parameter) not in known:
                raise UnknownModuleError(
                    module,
                    f"How many inputs {name} of {type(module).__name__} has is not known; describe "
                    "it with dgl_deepgnn.init.register_initializer.",
                    root=model,
                )
    return stages


def _is_matrix(parameter: Tensor) -> bool:
    """A leading 1 is that of attention vectors and tokens."""
    return parameter.ndim >= 2 and len(parameter) > 1
