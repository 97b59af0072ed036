"""What a model does to signal, gradient and node differences before it is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgl_deepgnn.diagnostics.verdicts import Verdict, judge, number
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.nn import DeepGNN, ResGINConv, ResGraphConv, ResidualConv, ResSAGEConv
from dgl_deepgnn.theory import Family, Prediction, predict
from dgl_deepgnn.wording import counted

__all__ = ["Diagnosis", "Verdict", "diagnose"]

QUANTITIES = ("mean_square", "gradient", "correlation", "dirichlet")
_FAMILIES: dict[type, Family] = {ResGraphConv: "gcn", ResSAGEConv: "graphsage", ResGINConv: "gin"}
_MAX_THEORY_ENTRIES = 10**8  # of all layers' covariances: 0.8 GB


@dataclass(frozen=True)
class Diagnosis:
    r"""What :func:`diagnose` measured, with a row for the input of each layer and the output.

    Parameters
    ----------
    layers : list of str
        Name of the layer that the features enter, in the order of execution; "output" last.
    measured : dict of str to numpy.ndarray
        Shape (draws, rows); nan where a quantity is not defined:

        - ``mean_square``: mean square of the features;
        - ``gradient``: squared norm of the gradient in the layer's weights, for a gradient of
          norm one in a random direction at the output;
        - ``correlation``: mean cosine of two nodes of the same graph;
        - ``dirichlet``: mean over the edges of the squared distance between the nodes'
          directions :math:`h / \lVert h \rVert`: 0 alike, 2 unrelated.
    theory : dict of str to numpy.ndarray, optional
        What the theory predicts for each of them, shape (rows,); None where it does not apply.
    verdicts : list of Verdict
        One for each principle.
    """

    layers: list[str]
    measured: dict[str, np.ndarray]
    theory: dict[str, np.ndarray] | None
    verdicts: list[Verdict]

    def mean(self, quantity: str) -> np.ndarray:
        """Mean of a quantity over the draws, shape (rows,)."""
        return self.measured[quantity].mean(axis=0)

    def table(self, max_rows: int = 20) -> str:
        """Table of means over the draws, and the verdicts.

        Parameters
        ----------
        max_rows : int
            Of a deeper model, about as many evenly spaced layers are shown.
        """
        rows = np.unique(np.linspace(0, len(self.layers) - 1, max_rows).round().astype(int))
        width = max(len("layer"), *(len(self.layers[row]) for row in rows))
        columns = []
        for quantity in QUANTITIES:
            columns.append((quantity.replace("_", " "), self.mean(quantity)))
            if self.theory is not None:
                columns.append(("theory", self.theory[quantity]))
        lines = [f"{'layer':{width}}" + "".join(f"{name:>13}" for name, _ in columns)]
        for row in rows:
            cells = "".join(f"{number(values[row]):>13}" for _, values in columns)
            lines.append(f"{self.layers[row]:{width}}{cells}")
        lines.append("")
        lines += [f"{v.principle}: {v.status.upper()}. {v.message}" for v in self.verdicts]
        return "\n".join(lines)

    __str__ = table

    def to_dict(self) -> dict[str, Any]:
        """Everything measured and predicted, ready for JSON (None where it is not finite)."""
        theory = self.theory
        return {
            "layers": self.layers,
            "draws": len(self.measured["mean_square"]),
            "mean": {name: _jsonable(self.mean(name)) for name in QUANTITIES},
            "min": {name: _jsonable(self.measured[name].min(0)) for name in QUANTITIES},
            "max": {name: _jsonable(self.measured[name].max(0)) for name in QUANTITIES},
            "theory": None
            if theory is None
            else {name: _jsonable(theory[name]) for name in QUANTITIES},
            "verdicts": [vars(verdict) for verdict in self.verdicts],
        }

    def plot(self, path: str | Path) -> None:
        """Draw every quantity by layer, with the theory and the verdicts, into a PNG file."""
        from dgl_deepgnn.diagnostics.plot import draw

        draw(self, path)


def diagnose(
    model: nn.Module,
    graph: AnyGraph,
    feat: Tensor,
    *,
    edge_weight: Tensor | None = None,
    forward: Callable[[nn.Module], Tensor] | None = None,
    draws: int = 10,
    reinitialize: Callable[[nn.Module], object] | None = None,
    theory: Prediction | None = None,
    seed: int = 7919,
) -> Diagnosis:
    """Measure a model's signal, gradient and node differences by layer, and judge them.

    Features are measured where they enter a layer (for a layer after a ReLU, behind it), on a
    copy of the model with dropout off: the model and PyTorch's random state are not changed. A
    layer is one of DGL's or this package's convolutions or, outside of them, whatever module
    holds a weight matrix.

    Parameters
    ----------
    model : nn.Module
        Any model on a graph, ours or the user's own.
    graph : DGLGraph
        A homogeneous graph or a batch of them.
    feat : Tensor
        Node features, shape (N, ...).
    edge_weight : Tensor, optional
        Weights of the edges, shape (E,); given to the model as a third argument.
    forward : callable, optional
        How the model is called: ``forward(model)`` returns the output. By default
        ``model(graph, feat)``.
    draws : int
        Number of random initializations. The first is the model as it is; each further one
        shuffles the entries of every weight matrix and their signs, which redraws an
        initialization of independent, symmetric entries, whichever it was.
    reinitialize : callable, optional
        ``reinitialize(model)`` draws all weights of a copy anew, for all draws: for example
        ``lambda model: model.reset_parameters()``.
    theory : Prediction, optional
        What to compare with. By default a model of this package without normalization layers is
        predicted, if the graph is small enough.
    seed : int
        Seed of the draws: not that of the features, lest weights and features be equal numbers.

    Returns
    -------
    Diagnosis
        Print it, or call its ``plot(path)`` or ``to_dict()``.

    Raises
    ------
    DGLError
        If the graph is not homogeneous, the features are not finite or all zero, no layer is
        found, or the theory is that of another number of layers.

    Examples
    --------
    >>> import dgl
    >>> graph, feat = dgl.rand_graph(50, 500).add_self_loop(), torch.randn(50, 64)
    >>> relu = torch.nn.ReLU()
    >>> layers = [dgl.nn.GraphConv(64, 64, activation=relu) for _ in range(16)]
    >>> model = dgl.nn.Sequential(*layers)
    >>> diagnose(model, graph, feat).verdicts[0].status
    'vanishing'
    """
    if draws < 1:
        raise DGLError(f"draws must be at least 1, got {draws}.")
    given, graph = graph, as_graph(graph)
    if graph.is_block or not graph.is_homogeneous:
        raise DGLError(
            "diagnose needs a homogeneous graph or a batch of them: dgl.to_homogeneous(graph) "
            "makes one, and a sampler's blocks are diagnosed on their full graph."
        )
    if not bool(torch.isfinite(feat).all()) or not bool((feat != 0).any()):
        raise DGLError("feat must be finite and not all zero: nothing could be told by such input.")
    if theory is None and isinstance(model, DeepGNN):
        theory = _theory(model, graph, feat, edge_weight)
    if forward is None:
        arguments = (given, feat) if edge_weight is None else (given, feat, edge_weight)

        def forward(model: nn.Module) -> Tensor:
            return model(*arguments)

    geometry = _Geometry(graph)
    recorded: list[_Record] = []
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        for draw in range(draws):
            replica = copy.deepcopy(model)
            if reinitialize is not None:
                reinitialize(replica)
            elif draw:
                _shuffle(replica)
            recorded.append(_record(replica, forward, geometry))
    first = recorded[0]
    measured = {
        name: np.array([[getattr(row, name) for row in record] for record in recorded])
        for name in QUANTITIES
    }
    means = {name: values.mean(axis=0) for name, values in measured.items()}
    return Diagnosis(
        [row.layer for row in first],
        measured,
        None if theory is None else _align(theory, len(first)),
        judge(means, np.array([row.nodes for row in first]), first[0].width),
    )


@dataclass
class _Row:
    """Statistics of the features that enter a layer."""

    layer: str
    nodes: bool  # whether there is one row of features a node
    width: int
    mean_square: float
    correlation: float
    dirichlet: float
    gradient: float = math.nan


_Record = list[_Row]


class _Geometry:
    """The graph as the statistics need it."""

    def __init__(self, graph: AnyGraph) -> None:
        self.num_nodes = graph.num_nodes()
        sizes = graph.batch_num_nodes().cpu()
        self.graph_of_node = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        src, dst = (ends.cpu() for ends in graph.edges())
        self.src, self.dst = src[src != dst], dst[src != dst]

    def row(self, layer: str, feat: Tensor) -> _Row:
        features = feat.detach().double().cpu().flatten(1)
        nodes = len(features) == self.num_nodes
        group = self.graph_of_node if nodes else torch.zeros(len(features), dtype=torch.int64)
        norm = features.norm(dim=1)
        alive = norm > 0  # a node without features has no direction
        direction = features / norm.clamp(min=torch.finfo(norm.dtype).tiny)[:, None]
        count = torch.bincount(group[alive]).double()
        total = direction.new_zeros(len(count), features.shape[1])
        total.index_add_(0, group[alive], direction[alive])
        pairs = float((count * (count - 1)).sum())
        correlation = float(total.square().sum() - count.sum()) / pairs if pairs else math.nan
        return _Row(
            layer,
            nodes,
            features.shape[1],
            float(features.square().mean()),
            correlation,
            self._dirichlet(direction, alive) if nodes else math.nan,
        )

    def _dirichlet(self, direction: Tensor, alive: Tensor) -> float:
        kept = alive[self.src] & alive[self.dst]
        if not kept.any():
            return math.nan
        energy = 0.0
        ends = zip(self.src[kept].split(2**16), self.dst[kept].split(2**16), strict=True)
        for src, dst in ends:  # in parts: edges are many, features wide
            energy += float((direction[src] - direction[dst]).square().sum())
        return energy / int(kept.sum())


def _record(
    model: nn.Module, forward: Callable[[nn.Module], Tensor], geometry: _Geometry
) -> _Record:
    """Run one draw forward and backward."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()  # its running statistics are not yet those of any data
    rows: list[tuple[nn.Module, _Row]] = []
    for name, layer in _layers(model, ""):

        def enter(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            feat = _first_features((*args, *kwargs.values()))
            if feat is not None:
                rows.append((module, geometry.row(name, feat)))

        layer.register_forward_pre_hook(enter, with_kwargs=True)
        for parameter in layer.parameters():
            parameter.requires_grad_()
    out = _first_features([forward(model)])
    if not rows or out is None:
        raise DGLError(
            f"No layer of {type(model).__name__} was found that takes features and holds a weight "
            "matrix; diagnose needs a model that is called through its submodules."
        )
    direction = torch.randn_like(out) / math.sqrt(out.numel())
    (out * direction).sum().backward()
    for layer, row in rows:
        weights = [p.grad for p in layer.parameters() if p.dim() >= 2 and p.grad is not None]
        if weights:
            row.gradient = float(sum(grad.double().square().sum() for grad in weights))
    return [*(row for _, row in rows), geometry.row("output", out)]


def _layers(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Outermost modules that count as a layer, with their names."""
    is_conv = isinstance(module, ResidualConv) or any(
        base.__module__.startswith("dgl.nn.pytorch.conv") for base in type(module).__mro__
    )
    if is_conv or any(p.dim() >= 2 for p in module.parameters(recurse=False)):
        yield path or type(module).__name__, module
        return
    for name, child in module.named_children():
        yield from _layers(child, f"{path}.{name}" if path else name)


def _first_features(arguments: Any) -> Tensor | None:
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            argument = _first_features(argument)
        if isinstance(argument, Tensor) and argument.is_floating_point() and argument.dim() >= 2:
            return argument
    return None


def _shuffle(model: nn.Module) -> None:
    """Permute the entries of every matrix, with random signs: their sum must be drawn anew, too."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                entries = parameter.flatten()
                order = torch.randperm(len(entries)).to(entries.device)
                sign = torch.randint(2, entries.shape).to(entries) * 2 - 1
                parameter.copy_((entries[order] * sign).view_as(parameter))


def _theory(
    model: DeepGNN, graph: AnyGraph, feat: Tensor, edge_weight: Tensor | None
) -> Prediction | None:
    """Prediction for a model of ours, or None where the theory does not reach."""
    config, family = model.config, _FAMILIES.get(type(model.convs[0]))
    covered = (
        family is not None
        and config["norm_layer"] == "none"
        and config["init"] in ("critical", "he", "glorot")
        and graph.num_nodes() ** 2 * config["num_layers"] <= _MAX_THEORY_ENTRIES
    )
    if not covered:
        return None
    names = [
        "num_layers",
        "hidden_feats",
        "out_feats",
        "norm",
        "interpolation",
        "mlp_layers",
        "t",
        "residual",
        "init",
        "alpha",
        "spectral_radius",
    ]
    return predict(
        graph,
        feat.detach().cpu(),
        family,  # type: ignore[arg-type]
        edge_weight=None if edge_weight is None else edge_weight.detach(),
        output_layer=model.head is None,
        **{name: config[name] for name in names if name in config},
    )


def _align(theory: Prediction, rows: int) -> dict[str, np.ndarray]:
    """Prediction by row; a head after the convolutions is not predicted."""
    num_layers = len(theory.weight_gradient)
    if num_layers + 1 > rows:
        raise DGLError(
            f"The theory is that of {counted(num_layers, 'layer')}, but the model has "
            f"{rows - 1}: call dgl_deepgnn.theory.predict with the model's own number of layers."
        )
    complete = num_layers + 1 == rows

    def padded(values: np.ndarray) -> np.ndarray:
        kept = values if complete else values[:num_layers]
        return np.append(kept, np.full(rows - len(kept), np.nan))

    return {
        "mean_square": padded(theory.signal),
        # The prediction is for a gradient of norm one behind the last convolution.
        "gradient": padded(theory.weight_gradient if complete else theory.gradient * np.nan),
        "correlation": padded(theory.correlation),
        "dirichlet": padded(theory.dirichlet),
    }


def _jsonable(values: np.ndarray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
