"""What a model does to signal, gradient and node differences before it is trained."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dgl_deepgnn.diagnostics.advice import advise
from dgl_deepgnn.diagnostics.plot import draw
from dgl_deepgnn.diagnostics.recording import Geometry, Record, Row, record, replicate, shuffle
from dgl_deepgnn.diagnostics.verdicts import Verdict, judge, number
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.files import write_figure
from dgl_deepgnn.graph import AnyGraph, as_graph, is_graph
from dgl_deepgnn.init import critical_
from dgl_deepgnn.nn import DeepGNN, ResGINConv, ResGraphConv, ResSAGEConv
from dgl_deepgnn.theory import Family, Prediction, predict
from dgl_deepgnn.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["QUANTITIES", "Diagnosis", "Verdict", "diagnose"]

QUANTITIES = ("mean_square", "gradient", "correlation", "dirichlet")
_FAMILIES: dict[type, Family] = {ResGraphConv: "gcn", ResSAGEConv: "graphsage", ResGINConv: "gin"}
_DPI = 110
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
          directions :math:`h / \lVert h \rVert`: 0 alike, 2 unrelated;
        - ``training``, only where it differs: mean square in training mode, with dropout.
    theory : dict of str to numpy.ndarray, optional
        What the theory predicts for each of them, shape (rows,); None where it does not apply.
        "training" is there for models of this package alone.
    verdicts : list of Verdict
        One for each principle.
    output_loss : numpy.ndarray
        Cross-entropy of the output, as scores of classes, against labels at random, shape
        (draws,).
    even_loss : float
        The same where all scores are equal: the logarithm of the number of classes.
    output : str
        Which of several outputs the last row and the loss are of: the first matrix.
    other_outputs : dict of str to float
        Mean squares of the others, in the first draw. The gradient is that of all outputs.
    """

    layers: list[str]
    measured: dict[str, np.ndarray]
    theory: dict[str, np.ndarray] | None
    verdicts: list[Verdict]
    output_loss: np.ndarray
    even_loss: float
    output: str = "output"
    other_outputs: dict[str, float] = field(default_factory=dict)

    def mean(self, quantity: str) -> np.ndarray:
        """Mean of a quantity over the draws, shape (rows,)."""
        return self.measured[quantity].mean(axis=0)

    def table(self, max_rows: int = 20) -> str:
        """Table of means over the draws, scales of input and output, and the verdicts.

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
            if quantity == "mean_square" and "training" in self.measured:
                columns.append(("in training", self.mean("training")))
                if self.theory is not None and "training" in self.theory:
                    columns.append(("theory", self.theory["training"]))
        lines = [f"{'layer':{width}}" + "".join(f"{name:>13}" for name, _ in columns)]
        for row in rows:
            cells = "".join(f"{number(values[row]):>13}" for _, values in columns)
            lines.append(f"{self.layers[row]:{width}}{cells}")
        return "\n".join([*lines, "", *self.notes()])

    __str__ = table

    def notes(self) -> list[str]:
        """Paragraphs on the scales of input and output, the verdicts, and what they do not say."""
        signal, loss = self.mean("mean_square"), float(self.output_loss.mean())
        return [
            f"input: mean square {number(signal[0])}"
            + ("." if 0.01 <= signal[0] <= 100 else "; scale the features to about 1."),
            f"output: mean square {number(signal[-1])}; as scores of classes it costs a "
            f"cross-entropy of {number(loss)} against labels at random, where equal scores cost "
            f"{number(self.even_loss)}"
            + ("." if loss < 3 * self.even_loss else ": the first steps only make it smaller."),
            *self._others(),
            *map(str, self.verdicts),
            "All this is the network at its start: healthy means that nothing stands in the way of "
            "training, not how well it will train.",
        ]

    def _others(self) -> list[str]:
        if not self.other_outputs:
            return []
        squares = (f"{name} {number(square)}" for name, square in self.other_outputs.items())
        return [
            f"Of {counted(1 + len(self.other_outputs), 'output')} the table shows {self.output}, "
            f"and the gradient of all. Mean squares of the others: {', '.join(squares)}."
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything measured and predicted, ready for JSON (None where it is not finite)."""
        theory = self.theory
        measured = self.measured.items()
        return {
            "layers": self.layers,
            "draws": len(self.measured["mean_square"]),
            "mean": {name: _jsonable(values.mean(0)) for name, values in measured},
            "min": {name: _jsonable(values.min(0)) for name, values in measured},
            "max": {name: _jsonable(values.max(0)) for name, values in measured},
            "theory": None
            if theory is None
            else {name: _jsonable(values) for name, values in theory.items()},
            "output_loss": _jsonable(self.output_loss),
            "even_loss": self.even_loss,
            "output": self.output,
            "other_outputs": {
                name: square if math.isfinite(square) else None
                for name, square in self.other_outputs.items()
            },
            "verdicts": [vars(verdict) for verdict in self.verdicts],
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw every quantity by layer, with the theory and the verdicts.

        Parameters
        ----------
        path : str or Path, optional
            A PNG file to write.

        Returns
        -------
        matplotlib.figure.Figure
            The figure, which needs no display.
        """
        figure = draw(self.measured, self.theory, self.verdicts)
        if path is not None:
            write_figure(Path(path), figure, _DPI)
        return figure

    def _repr_html_(self) -> str:
        """Table and plot, as a notebook shows them."""
        png = io.BytesIO()
        self.plot().savefig(png, format="png", dpi=_DPI)
        data = base64.b64encode(png.getvalue()).decode()
        table = html.escape(self.table())
        return (
            f'<pre style="white-space: pre-wrap">{table}</pre>'
            f'<img alt="diagnosis by layer" src="data:image/png;base64,{data}">'
        )


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
    copy of the model with dropout off, and their mean square with dropout on, too: the model and
    PyTorch's random state are not changed. A layer is one of DGL's or this package's convolutions
    or, outside of them, whatever module holds a weight matrix. Verdicts are by the mean over the
    draws, and say when other draws could have given another. What they advise is tried on a copy
    first, where it is an initialization. A healthy network is one that can be trained: how well,
    nobody knows before.

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
        How the model is called: ``forward(model)`` returns the output, of several (in a tuple,
        list or dict) the one to judge first. By default ``model(graph, feat)``.
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
        Print it, or call its ``plot(path)`` or ``to_dict()``; a notebook shows it.

    Raises
    ------
    DGLError
        If the graph is not homogeneous, the features are not finite or all zero, no layer is
        found, the model cannot be copied, or the theory is that of another number of layers.

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
    in_training = None
    if theory is None and isinstance(model, DeepGNN):
        theory = _theory(model, graph, feat, edge_weight)
        if theory is not None and model.config["dropout"] > 0:
            in_training = _theory(model, graph, feat, edge_weight, model.config["dropout"])
    # What could mend the scale, as the caller would write it.
    initializers: dict[str, Callable[[nn.Module], object]] = {
        "critical_(model, graph)": lambda model: critical_(model, graph, edge_weight=edge_weight)
    }
    if forward is not None:
        initializers["critical_(model, forward=forward)"] = lambda model: critical_(
            model, forward=forward
        )
    else:
        initializers["critical_(model, graph, feat)"] = lambda model: critical_(
            model, given, feat, edge_weight=edge_weight
        )
        arguments = (feat,) if edge_weight is None else (feat, edge_weight)

        def forward(model: nn.Module) -> Tensor:
            # Some models write into the graph.
            return model(given.local_var() if is_graph(given) else given, *arguments)

    geometry = Geometry(graph)

    def run(model: nn.Module, draws: int, redraw: Callable[[nn.Module], object]) -> list[Record]:
        recorded: list[Record] = []
        for index in range(draws):
            replica = replicate(model)
            if index or redraw is reinitialize:
                redraw(replica)
            recorded.append(
                record(replica, forward, geometry, training=not index or recorded[0].dropout)
            )
        return recorded

    def rejudge(trial: nn.Module) -> list[Verdict]:
        return _judge(run(trial, min(draws, 5), shuffle))

    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.enable_grad():
        torch.manual_seed(seed)
        if any(map(is_lazy, model.parameters())):
            model = replicate(model)
            with torch.no_grad():
                forward(model)  # it gives every weight its shape
        recorded = run(model, draws, reinitialize or shuffle)
        verdicts = advise(_judge(recorded), model, initializers, rejudge)
    first = recorded[0]
    predicted = None
    if theory is not None:
        predicted = _align(theory, len(first.rows))
        if in_training is not None and first.dropout:
            predicted["training"] = _align(in_training, len(first.rows))["mean_square"]
    return Diagnosis(
        [row.layer for row in first.rows],
        {name: _gather(recorded, name) for name in _measured(first)},
        predicted,
        verdicts,
        np.array([record.loss for record in recorded]),
        first.even_loss,
        first.name,
        first.others,
    )


def _measured(first: Record) -> tuple[str, ...]:
    return (*QUANTITIES, "training") if first.dropout else QUANTITIES


def _gather(recorded: list[Record], name: str) -> np.ndarray:
    """Statistic of each draw and row."""
    return np.array([[getattr(row, name) for row in record.rows] for record in recorded])


def _judge(recorded: list[Record]) -> list[Verdict]:
    first = recorded[0]
    measured = {name: _gather(recorded, name) for name in (*_measured(first), "sensitivity")}
    body = _body(first.rows)
    by_graph = [[record.rows[index].by_graph for index in body] for record in recorded]
    widths = np.array([row.width for row in first.rows])
    return judge(measured, body, widths, np.array(by_graph) if len(body) else None)


def _body(rows: list[Row]) -> np.ndarray:
    """Indices of the rows of like features: of the convolutions, and behind the last one.

    A head is left out: its biases lift what has vanished. Without convolutions, whatever enters
    a layer.
    """
    convs = [index for index, row in enumerate(rows) if row.convolves]
    body = [*convs, convs[-1] + 1] if convs else range(max(2, len(rows) - 1))
    return np.array([index for index in body if rows[index].nodes], dtype=int)


def _theory(
    model: DeepGNN,
    graph: AnyGraph,
    feat: Tensor,
    edge_weight: Tensor | None,
    dropout: float = 0.0,
) -> Prediction | None:
    """Prediction for a model of ours, or None where the theory does not reach."""
    config, family = model.config, _FAMILIES.get(type(model.convs[0]))
    covered = (
        family is not None
        and config["norm_layer"] == "none"
        and not config["edge_messages"]
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
        dropout=dropout,
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
