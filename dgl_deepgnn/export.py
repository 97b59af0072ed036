"""Models as programs of tensors: (edge_index, features) in, scores out, without this package.

The exported program builds the aggregation operator itself, with PyTorch's own gather and
scatter, so that it takes graphs of any size.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import AnyGraph, Graph, as_graph
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.heads import EdgeHead, GraphHead, pool
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.matrix import Norm

__all__ = ["ITERATIONS", "TensorModel", "export_onnx", "export_program"]

ITERATIONS = 50
"""Steps of the power iteration for the spectral radius, which are part of the program."""
_TOLERANCE = 1e-4  # of the program's scores on the example, relative to the largest


def export_program(
    model: DeepGNN,
    graph: AnyGraph,
    feat: Tensor,
    edge_feat: Tensor | None = None,
    *,
    spectral_radius: float | None = None,
) -> torch.export.ExportedProgram:
    """Export a model by ``torch.export``, for graphs of any size.

    Parameters
    ----------
    model : DeepGNN
        A trained model; it is exported in evaluation mode.
    graph : DGLGraph
        An example: one graph, or whatever models take for one.
    feat : Tensor
        Its node features, shape (N, in_feats).
    edge_feat : Tensor, optional
        Its edge features, shape (E, edge_feats), if the model reads them.
    spectral_radius : float, optional
        Divide the aggregation by this in every graph. By default the program computes the graph's
        own, by 50 steps of power iteration.

    Returns
    -------
    ExportedProgram
        ``program.module()(edge_index, feat)``, with `edge_feat` behind them if the model reads it:
        edge_index of shape (2, E), int64, sources first, with the self-loops that the model
        was trained with. Scores of shape (nodes, edges or one graph, out_feats).

    Raises
    ------
    DGLError
        If the program's scores on the example are not the model's: on long chains of nodes 50
        steps are too few. Give `spectral_radius` there.

    Examples
    --------
    >>> from dgl_deepgnn import ResGCN
    >>> graph, feat = Graph(([0, 1, 2], [1, 2, 0])).add_self_loop(), torch.ones(3, 4)
    >>> model = ResGCN(4, 8, 2, num_layers=3)
    >>> program = export_program(model, graph, feat)
    >>> edge_index = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
    >>> program.module()(edge_index, torch.ones(2, 4)).shape
    torch.Size([2, 2])
    """
    module, arguments, shapes = _prepare(model, graph, feat, edge_feat, spectral_radius)
    with torch.no_grad():
        return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)


def export_onnx(
    model: DeepGNN,
    path: str | Path,
    graph: AnyGraph,
    feat: Tensor,
    edge_feat: Tensor | None = None,
    *,
    spectral_radius: float | None = None,
) -> Path:
    """Export a model to an ONNX file with the inputs edge_index, feat (and edge_feat).

    Needs ``pip install 'dgl-deepgnn[export]'``.

    Parameters
    ----------
    path : Path
        The file; it must not be there yet.
    model, graph, feat, edge_feat, spectral_radius
        As in :func:`export_program`.

    Returns
    -------
    Path
        The file. Its output is named scores.

    Raises
    ------
    DGLError
        As in :func:`export_program`.
    UserError
        If the file is there, its folder is not, or a package is missing.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists. Give another path, or remove it.")
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}.")
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX export needs {error.name}: pip install 'dgl-deepgnn[export]'."
        ) from None
    exported = export_program(model, graph, feat, edge_feat, spectral_radius=spectral_radius)
    names = ["edge_index", "feat", *(["edge_feat"] if edge_feat is not None else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            exported, input_names=names, output_names=["scores"], dynamo=True, verbose=False
        )
    assert program is not None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # whole, or not there
        program.save(str(Path(folder) / path.name))
        os.replace(Path(folder) / path.name, path)
    return path


class TensorModel(nn.Module):
    """A model as a function of tensors alone.

    Parameters
    ----------
    model : DeepGNN
        The model; its parameters are shared.
    spectral_radius : float, optional
        As in :func:`export_program`.
    """

    def __init__(self, model: DeepGNN, spectral_radius: float | None = None) -> None:
        super().__init__()
        self.model = model
        inner = model.inner_conv
        if inner.edge_feats and inner.edge_map is None:
            raise DGLError(
                f"{type(model).__name__} reads the relations of edges: not exported yet."
            )
        self.norm: Norm = inner.norm
        self.t = inner.t if model.constant_t and inner.t > 0 else 1.0
        self.radius = inner.spectral_radius if spectral_radius is None else spectral_radius

    def forward(self, edge_index: Tensor, feat: Tensor, edge_feat: Tensor | None = None) -> Tensor:
        """Scores, shape (nodes, edges or one graph, out_feats)."""
        graph = _TensorGraph(edge_index, feat.shape[0])
        operator = _TensorOperator(graph, self.norm, self.t, self.radius, feat)
        if self.model.reads_edges:
            operator.edge_feat = edge_feat
        hidden = self.model.features(operator, feat)
        head = self.model.head
        if isinstance(head, EdgeHead):
            return head(graph, hidden, edge_feat)
        if isinstance(head, GraphHead):
            ones = torch.ones_like(edge_index[0, :1]).expand(hidden.shape[0])
            return head.linear(pool(hidden, ones - 1, ones.sum().reshape(1), head.readout))
        return hidden


class _TensorGraph(Graph):
    """A graph whose ids nobody looks at, since they are those of every graph."""

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self._ends, self._num_nodes = (edge_index[0], edge_index[1]), num_nodes

    def num_edges(self) -> int:
        return self._ends[0].shape[0]


class _TensorOperator(AggregationOperator):
    """The same operator, of PyTorch's gather and scatter."""

    is_trainable = True
    """So no shortcut asks for a matrix."""

    def __init__(
        self, graph: _TensorGraph, norm: Norm, t: float, radius: float | None, feat: Tensor
    ) -> None:
        self.graph, self.t = graph, t
        self.shape = (feat.shape[0], feat.shape[0])
        self._src, self._dst = graph.edges()
        ones = torch.ones_like(self._src, dtype=torch.float64)
        zeros = feat.new_zeros(feat.shape[0], dtype=torch.float64)
        out_degree = zeros.scatter_add(0, self._src, ones).clamp(min=1)
        in_degree = zeros.scatter_add(0, self._dst, ones).clamp(min=1)
        scale = {
            "both": (out_degree[self._src] * in_degree[self._dst]).rsqrt(),
            "right": 1 / in_degree[self._dst],
            "left": 1 / out_degree[self._src],
            "none": ones,
        }[norm]
        start = in_degree ** {"right": 0.0, "none": 0.0, "both": 0.5, "left": 1.0}[norm]
        divisor = self._radius(scale, start) if radius is None else radius
        self._values = (t * scale / divisor).to(feat.dtype)

    def _radius(self, scale: Tensor, x: Tensor) -> Tensor:
        """Rayleigh quotient of the power iteration, shifted against alternation."""
        for step in range(ITERATIONS):
            product = torch.zeros_like(x).scatter_add(0, self._dst, scale * x[self._src])
            radius = (x * product).sum() / (x * x).sum()
            if step < ITERATIONS - 1:
                x = product + 0.5 * radius * x
                x = x / x.max()
        return radius

    def __matmul__(self, feat: Tensor) -> Tensor:
        message = feat[self._src] * self._values[:, None]
        index = self._dst[:, None].expand_as(message)
        out = torch.zeros_like(feat).scatter_add(0, index, message)
        return out + (1 - self.t) * feat if self.t < 1 else out

    def messages(self, feat: Tensor, edge_map: nn.Linear) -> Tensor:
        assert self.edge_feat is not None
        message = torch.relu(feat[self._src] + edge_map(self.edge_feat)) * self._values[:, None]
        index = self._dst[:, None].expand_as(message)
        out = torch.zeros_like(feat).scatter_add(0, index, message)
        return out + (1 - self.t) * feat if self.t < 1 else out


def _prepare(
    model: DeepGNN,
    graph: AnyGraph,
    feat: Tensor,
    edge_feat: Tensor | None,
    spectral_radius: float | None,
) -> tuple[TensorModel, tuple[Tensor, ...], dict[str, Any]]:
    """The module, its arguments on the example, and which of their dimensions vary."""
    graph = as_graph(graph)
    if graph.is_block or not graph.is_homogeneous or len(graph.batch_num_nodes()) != 1:
        raise DGLError("The example must be one homogeneous graph, not a batch or a block.")
    module = TensorModel(copy.deepcopy(model).eval(), spectral_radius).requires_grad_(False)
    edge_index = torch.stack(graph.edges(order="eid")).long().to(feat.device)
    arguments = (edge_index, feat) if edge_feat is None else (edge_index, feat, edge_feat)
    edges, nodes = torch.export.Dim("edges", min=2), torch.export.Dim("nodes", min=2)
    shapes = {"edge_index": {1: edges}, "feat": {0: nodes}}
    if edge_feat is not None:
        shapes["edge_feat"] = {0: edges}
    with torch.no_grad():
        expected = module.model(graph, feat, edge_feat=edge_feat)
        difference = (module(*arguments) - expected).abs().max() / expected.abs().max()
    if spectral_radius is None and not difference <= _TOLERANCE:
        raise DGLError(
            f"The program's scores on the example differ from the model's by {difference:.1e}: "
            f"{ITERATIONS} steps of power iteration do not find the graph's spectral radius. Give "
            "spectral_radius=, for this graph dgl_deepgnn.spectral_radius(graph, norm)."
        )
    return module, arguments, shapes
