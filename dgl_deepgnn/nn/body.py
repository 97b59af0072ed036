"""The deep body that GCN, GraphSAGE, GIN and RGCN share, and the registry of models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init import SCHEMES
from dgl_deepgnn.init.hooks import (
    GraphContext,
    Stage,
    collect_stages,
    register_initializer,
    scale_last,
)
from dgl_deepgnn.nn.checkpoint import run_checkpointed
from dgl_deepgnn.nn.conv import ResidualConv, is_hooked, with_edge_feat
from dgl_deepgnn.nn.dropout import Dropout
from dgl_deepgnn.nn.heads import EdgeHead, GraphHead
from dgl_deepgnn.nn.pretrained import Pretrained
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.schedule import interpolation_schedule, without_ends
from dgl_deepgnn.registry import Registry, load_plugins

__all__ = [
    "HEADS",
    "MODELS",
    "NORM_LAYERS",
    "RESIDUALS",
    "DeepGNN",
    "constructor_arguments",
    "create_model",
    "list_models",
    "register_model",
]

Residual = Literal["plain", "scaled", "fixup", "initial"]
RESIDUALS: tuple[Residual | None, ...] = (None, "plain", "scaled", "fixup", "initial")
HEADS = ("node", "graph", "edge")
NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "layer": nn.LayerNorm,
    "batch": nn.BatchNorm1d,
}


class DeepGNN(Pretrained, nn.Module):
    r"""Deep network of one kind of graph convolution, with the three principles as options.

    Layer l of L maps

    .. math:: x_{l+1} = x_l + \tau_l \, \mathrm{conv}_l(A_t, \mathrm{relu}(x_l)) ;

    the first convolution maps `in_feats` to `hidden_feats` and, for node scores, the last one
    maps `hidden_feats` to `out_feats`, both without a residual connection.

    Parameters
    ----------
    conv : callable
        ``conv(in_feats, out_feats, t=..., init=..., spectral_radius=...)`` makes a layer.
    in_feats, hidden_feats, out_feats : int
        Widths of the input, of every layer and of the scores.
    num_layers : int
        Number L of graph convolutions.
    t : float or str
        Residual aggregation, see :func:`dgl_deepgnn.interpolation_schedule`.
    residual : {None, "plain", "scaled", "fixup", "initial"}
        Residual connections: none; :math:`\tau = 1`; :math:`\tau = 1/\sqrt{B}` with B the number
        of residual connections; the same :math:`\tau` and branches that start at zero; the
        latter beside :math:`(1 - \alpha) A_t x_l + \alpha x_1` instead of :math:`x_l`, where
        the first layer and the output layer do not aggregate (after APPNP, arXiv:1810.05997,
        and GCNII, arXiv:2007.02133).
    init : {"critical", "he", "glorot"}
        Initialization. With ``t=1`` the other two run on the aggregation as DGL computes it,
        undivided by its spectral radius, so that they are DGL's stock layers.
    dropout : float
        Probability with which the input of every convolution is dropped, 0 <= dropout < 1.
    norm_layer : {"none", "layer", "batch"}
        Normalization in front of every ReLU; deep networks need none, it is for comparison.
    head : {"node", "graph", "edge"}
        What is scored: each node, each graph of the batch, each edge.
    readout : {"mean", "sum", "max"}
        Pooling of the graph head.
    edge_feats : int
        Width of the edge features that the edge head reads, and with `edge_messages` the
        convolutions; 0 for none.
    edge_messages : bool
        Whether the messages of all convolutions but the first, whose features no ReLU has seen,
        depend on the edge features, :meth:`AggregationOperator.messages`.
    alpha : float
        Weight of the first layer's features with ``residual="initial"``, 0 < alpha < 1.
    spectral_radius : float or "growth", optional
        What the aggregation is divided by; by default each graph's own spectral radius, with
        "growth" its :func:`~dgl_deepgnn.growth` over `num_layers`, for directed graphs that are not
        strongly connected, such as acyclic ones with self-loops.
    output_gain : float
        Factor on the initial weights of the layer that makes the scores, at least 0. Below 1, the
        first steps are not spent on unlearning scores that were drawn by chance.
    checkpoint : bool
        Whether training keeps only the input of every segment of about :math:`\sqrt L` layers
        and computes the rest again for the backward pass (Chen et al., arXiv:1604.06174): the
        same gradients, in memory of about :math:`\sqrt L` layers, for one more forward pass.

    Raises
    ------
    DGLError
        If an argument is out of range; the message says what is allowed.
    """

    needs_edge_feats = False
    """Whether there is no such model without edge features."""

    def __init__(
        self,
        conv: Callable[..., ResidualConv],
        in_feats: int,
        hidden_feats: int,
        out_feats: int,
        num_layers: int,
        *,
        t: float | str = "per-depth",
        residual: Residual | None = "fixup",
        init: str = "critical",
        dropout: float = 0.0,
        norm_layer: str = "none",
        head: str = "node",
        readout: str = "mean",
        edge_feats: int = 0,
        edge_messages: bool = False,
        alpha: float = 0.1,
        spectral_radius: float | Literal["growth"] | None = None,
        output_gain: float = 1.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "conv", "__class__")
        }
        """Constructor arguments, as a checkpoint stores them."""
        for name in ("in_feats", "hidden_feats", "out_feats", "num_layers"):
            width = self.config[name]
            whole = isinstance(width, int) and not isinstance(width, bool)
            _require(name, width, "a whole number of at least 1", whole and width >= 1)
        _require("residual", residual, f"one of {RESIDUALS}", residual in RESIDUALS)
        _require("head", head, f"one of {HEADS}", head in HEADS)
        _require(
            "norm_layer", norm_layer, f"one of {tuple(NORM_LAYERS)}", norm_layer in NORM_LAYERS
        )
        number = isinstance(dropout, int | float)
        _require("dropout", dropout, "a number in [0, 1)", number and 0 <= dropout < 1)
        number = isinstance(alpha, int | float)
        _require("alpha", alpha, "a number in (0, 1)", number and 0 < alpha < 1)
        number = isinstance(output_gain, int | float) and not isinstance(output_gain, bool)
        _require(
            "output_gain",
            output_gain,
            "a number of at least 0",
            number and 0 <= output_gain < float("inf"),
        )
        # The second forward pass would count every batch twice in the running statistics.
        _require(
            "norm_layer",
            norm_layer,
            "other than 'batch' with checkpoint=True",
            not (checkpoint and norm_layer == "batch"),
        )
        whole = isinstance(edge_feats, int) and not isinstance(edge_feats, bool)
        _require(
            "edge_feats", edge_feats, "a whole number of at least 0", whole and edge_feats >= 0
        )
        _require("edge_messages", edge_messages, "True or False", isinstance(edge_messages, bool))
        if edge_messages and (edge_feats < 1 or num_layers < 2):
            raise DGLError(
                "edge_messages needs edge features and at least two layers, got edge_feats="
                f"{edge_feats} and num_layers={num_layers}. In a recipe they are the data's: "
                "data.options.edge_feats names their field."
            )
        by_growth = spectral_radius == "growth"
        # What the layers divide by is a float32: its inverse must be one, too.
        least, most = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
        number = isinstance(spectral_radius, int | float) and least <= spectral_radius <= most
        _require(
            "spectral_radius",
            spectral_radius,
            "None, a positive number or 'growth'",
            number or by_growth or spectral_radius is None,
        )
        _require("init", init, f"one of {tuple(SCHEMES)}", init in SCHEMES)
        self.in_feats, self.num_layers = in_feats, num_layers
        self.residual, self.init, self.alpha = residual, init, alpha
        self.output_gain, self.checkpoint = output_gain, checkpoint
        schedule = interpolation_schedule(t, num_layers)
        if spectral_radius is None and init != "critical" and set(schedule) == {1.0}:
            spectral_radius = 1.0
        # With schedules that vary by layer, the layers interpolate; else t is in the operator.
        self.constant_t = len(set(schedule)) == 1
        if residual == "initial":
            schedule = without_ends(schedule, both=head == "node")
        last = out_feats if head == "node" else hidden_feats
        widths = [in_feats, *[hidden_feats] * (num_layers - 1), last]
        divisor = None if by_growth else spectral_radius
        # Only layers that have edge features are asked for them: a plugin's may know none.
        reads = {"edge_feats": edge_feats} if edge_messages else {}
        self.convs = nn.ModuleList(
            conv(*ends, t=step, init=init, spectral_radius=divisor, **(reads if index else {}))
            for index, (ends, step) in enumerate(zip(pairwise(widths), schedule, strict=True))
        )
        for layer in self.convs if by_growth else ():
            layer.depth = num_layers  # type: ignore[assignment]
        self.norms = nn.ModuleList(NORM_LAYERS[norm_layer](width) for width in widths[1:-1])
        self.dropout = Dropout(dropout)
        self.head: GraphHead | EdgeHead | None = None
        if head == "graph":
            self.norms.append(NORM_LAYERS[norm_layer](hidden_feats))
            self.head = GraphHead(hidden_feats, out_feats, readout)
        elif head == "edge":
            self.norms.append(NORM_LAYERS[norm_layer](hidden_feats))
            self.head = EdgeHead(hidden_feats, out_feats, edge_feats)
        self.branch_scale = self._branch_scale()
        self.reset_parameters()

    def __repr__(self) -> str:
        """As it was constructed: a thousand layers, each of another t, would fill a screen."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
        return f"{type(self).__name__}({arguments})"

    @property
    def branches(self) -> list[ResidualConv]:
        """Convolutions with a residual connection around them."""
        if self.residual is None:
            return []
        return list(self.convs[1:-1] if self.head is None else self.convs[1:])  # type: ignore[arg-type]

    @property
    def head_prefix(self) -> str:
        """Prefix of the names of the parameters that belong to the number of outputs alone.

        Examples
        --------
        >>> from dgl_deepgnn import ResGCN
        >>> ResGCN(in_feats=2, hidden_feats=2, out_feats=2, num_layers=3).head_prefix
        'convs.2.'
        """
        return f"convs.{self.num_layers - 1}." if self.head is None else "head."

    def _branch_scale(self) -> float:
        """Factor tau in front of every branch."""
        branches = self.branches
        return 1.0 if not branches or self.residual == "plain" else len(branches) ** -0.5

    def reset_parameters(self) -> None:
        """Draw all weights anew by the model's initialization."""
        SCHEMES[self.init](self)

    def operator(self, graph: AnyGraph, edge_weight: Tensor | None = None) -> AggregationOperator:
        """Operator of `graph` for this model; pass it in the graph's place to reuse it."""
        return self.inner_conv.operator(graph, edge_weight, folded=self.constant_t)

    @property
    def reads_edges(self) -> bool:
        """Whether the convolutions read edge features."""
        return self.inner_conv.edge_feats > 0

    @property
    def inner_conv(self) -> ResidualConv:
        """Layer that reads of a graph what the others do."""
        convs = cast("list[ResidualConv]", list(self.convs))
        reading = (conv for conv in convs[1:] if conv.edge_feats)
        return next(reading, convs[min(1, self.num_layers - 1)])

    def forward(
        self,
        graph: AnyGraph | AggregationOperator,
        feat: Tensor,
        edge_weight: Tensor | None = None,
        edge_feat: Tensor | None = None,
    ) -> Tensor:
        """Score nodes, graphs or edges.

        Parameters
        ----------
        graph : DGLGraph or AggregationOperator
            A homogeneous graph or batch of graphs, or what :meth:`operator` made of it.
        feat : Tensor
            Node features, shape (N, in_feats), dense or sparse (CSR): with wide, mostly zero
            features, such as bags of words, the first layer is faster on the latter.
        edge_weight : Tensor, optional
            Non-negative weights of the aggregation, shape (E,).
        edge_feat : Tensor, optional
            Features that the edge head or the convolutions read, shape (E, edge_feats).

        Returns
        -------
        Tensor
            Scores, shape (nodes, graphs or edges, out_feats).

        Raises
        ------
        DGLError
            If a shape or dtype does not fit the graph or the model, or nobody reads edge features
            that are given.
        """
        self.check_features(feat)
        if not isinstance(graph, AggregationOperator):
            graph = self.operator(graph, edge_weight)
        elif edge_weight is not None:
            raise DGLError("The operator holds its edge weights: give edge_weight to it.")
        graph, edge_feat = self.with_edge_feat(graph, edge_feat)
        hidden = self.features(graph, feat)
        if self.head is None:
            return hidden
        if isinstance(self.head, EdgeHead):
            return self.head(graph.graph_on(hidden.device), hidden, edge_feat)
        return self.head(graph.graph, hidden)

    def with_edge_feat(
        self, operator: AggregationOperator, edge_feat: Tensor | None
    ) -> tuple[AggregationOperator, Tensor | None]:
        """What convolutions and head read of the edge features; refuse those that nobody reads."""
        if self.reads_edges:
            operator = with_edge_feat(operator, edge_feat, self.inner_conv.edge_feats)
            return operator, operator.edge_feat
        if edge_feat is not None and not isinstance(self.head, EdgeHead):
            raise DGLError(
                f"This {type(self).__name__} reads no edge features: build it with "
                "edge_messages=True and their number as edge_feats, or leave out edge_feat."
            )
        return operator, edge_feat

    def check_features(self, feat: Tensor) -> None:
        """Refuse features of another width or type than the model's."""
        if not isinstance(feat, Tensor):
            raise DGLError(
                f"feat is a {type(feat).__name__}; a tensor is expected. Of a heterogeneous graph "
                "dgl_deepgnn.load_data or model.prepare makes one graph with one."
            )
        if feat.dim() != 2 or feat.shape[1] != self.in_feats:
            raise DGLError(
                f"Features have shape {tuple(feat.shape)}, but the model was built with "
                f"in_feats={self.in_feats}: expected (nodes, {self.in_feats})."
            )
        dtype = next(self.convs.parameters()).dtype
        mixed = (feat.dtype == torch.float64) != (dtype == torch.float64)
        if mixed or not feat.is_floating_point():  # autocast takes care of the shorter types
            cast = "feat.float()" if dtype == torch.float32 else f"feat.to({dtype})"
            raise DGLError(
                f"Features are {feat.dtype}, but the model's weights are {dtype}: give {cast}."
            )

    def features(self, operator: AggregationOperator, feat: Tensor) -> Tensor:
        """Node features after the last convolution (for the node head: the scores)."""
        x = first = self.convs[0](operator, self.dropout(feat))

        def run(some: range, x: Tensor) -> Tensor:
            return self._run_layers(some, operator, x, first)

        layers = range(1, self.num_layers)
        keep_all = not (self.checkpoint and self.training and torch.is_grad_enabled())
        x = run(layers, x) if keep_all else run_checkpointed(run, layers, x)
        return x if self.head is None else self._activate(self.num_layers - 1, x)

    def _run_layers(
        self, layers: range, operator: AggregationOperator, x: Tensor, first: Tensor
    ) -> Tensor:
        """Layers with these indices, behind the first one."""
        branches = self.num_layers - (2 if self.head is None else 1)
        inner = range(layers.start, min(layers.stop, branches + 1))
        added = inner and self.residual not in (None, "initial")
        if added and all(map(self._is_relu_alone, inner)):
            convs = cast("list[ResidualConv]", list(self.convs[inner.start : inner.stop]))
            x = convs[0].add_in_turn(convs, operator, x, self.branch_scale)
            layers = range(inner.stop, layers.stop)
        for index in layers:
            conv = self.convs[index]
            assert isinstance(conv, ResidualConv)
            if self.residual is None or index > branches:
                x = conv(operator, self._activate(index - 1, x))
            elif self.residual == "initial":
                x = self.dropout(x)  # the skip connection is aggregated, too
                hidden = torch.relu(self.norms[index - 1](x))
                x = conv.beside_skip(operator, hidden, x, self.branch_scale, 1 - self.alpha)
                x = torch.add(x, first, alpha=self.alpha)
            else:
                hidden = self._activate(index - 1, x)
                x = torch.add(x, conv(operator, hidden), alpha=self.branch_scale)
        return x

    def _is_relu_alone(self, index: int) -> bool:
        """Whether nothing but a ReLU stands in front of a layer."""
        dropped = self.training and self.dropout.p > 0
        norm = self.norms[index - 1]
        return isinstance(norm, nn.Identity) and not (dropped or is_hooked(norm))

    def _activate(self, index: int, x: Tensor) -> Tensor:
        return self.dropout(torch.relu(self.norms[index](x)))


def _require(name: str, value: object, allowed: str, ok: bool) -> None:
    if not ok:
        raise DGLError(f"{name} must be {allowed}, got {value!r}.")


@register_initializer(DeepGNN)
def _describe(model: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(model, DeepGNN)
    branches = model.branches
    stages: list[Stage] = []
    for conv in model.convs:
        described = collect_stages(conv, context)
        if model.residual in ("fixup", "initial") and conv in branches:
            # Fixup's inner factor stands in front of the branch, where it scales the last bias
            # too: the biases of a thousand branches, moving together, would drown the features.
            described = scale_last(described, 0.0)
        stages += described
    for module in (*model.norms, *([] if model.head is None else [model.head])):
        stages += collect_stages(module, context)
    return scale_last(stages, model.output_gain)


MODELS: Registry[type[DeepGNN]] = Registry("model")
register_model = MODELS.register
"""Decorate a class to enter it under a name; see :class:`dgl_deepgnn.registry.Registry`."""


def constructor_arguments(model: type[DeepGNN]) -> dict[str, Any]:
    """Arguments that a model is built of, and their types: its own, and those of what it extends.

    Parameters
    ----------
    model : type
        The class.

    Returns
    -------
    dict
        Annotations by name, ``Any`` where there is none.
    """
    return {
        name: Any if parameter.annotation is parameter.empty else parameter.annotation
        for part in reversed(model.__mro__)
        if issubclass(part, DeepGNN)
        for name, parameter in inspect.signature(part, eval_str=True).parameters.items()
        if name != "conv"
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered architectures that match a shell-style pattern.

    Examples
    --------
    >>> list_models("resg[ci]*")
    ['resgcn', 'resgin']
    """
    load_plugins()
    return MODELS.names(pattern)


def create_model(name: str, *, pretrained: str | None = None, **arguments: Any) -> DeepGNN:
    """Build a registered architecture.

    Parameters
    ----------
    name : str
        One of :func:`list_models`.
    pretrained : str, optional
        Name of a published model of this architecture, to be loaded.
    **arguments
        Its constructor's arguments; with `pretrained`, those of
        :meth:`DeepGNN.from_pretrained`: `zoo`, `out_feats`.

    Returns
    -------
    DeepGNN
        The new model.

    Raises
    ------
    UnknownNameError
        If there is no such model; the message proposes the nearest name.
    DGLError
        If an argument is out of range, or given beside `pretrained`.
    ZooError
        If the pretrained model is of another class, or cannot be loaded.

    Examples
    --------
    >>> model = create_model("resgcn", in_feats=4, hidden_feats=8, out_feats=2, num_layers=3)
    """
    load_plugins()
    if pretrained is None:
        return MODELS[name](**arguments)
    other = sorted(set(arguments) - {"zoo", "out_feats"})
    if other:
        raise DGLError(
            f"A pretrained model has its arguments from the zoo: leave out {', '.join(other)}. "
            "Allowed beside pretrained: zoo, out_feats."
        )
    return MODELS[name].from_pretrained(pretrained, **arguments)
