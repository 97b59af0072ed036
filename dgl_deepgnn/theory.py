r"""Signal, correlation and gradient by depth, predicted from the graph alone.

At large width every neuron of a layer is an independent Gaussian vector over the nodes, so one
N x N covariance describes the layer, and each layer maps it by a known function. The
recursions are derived here, in the setting of DeZoort and Hanin, arXiv:2306.11668, who state
the principles; the kernel of ReLU is that of Cho and Saul (NeurIPS 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.operator.aggregation import aggregation_operator
from dgl_deepgnn.operator.matrix import Norm
from dgl_deepgnn.operator.schedule import interpolation_schedule, without_ends

__all__ = ["FAMILIES", "Family", "Prediction", "kappa", "kappa_derivative", "predict"]

Family = Literal["gcn", "graphsage", "gin"]
FAMILIES: dict[Family, Norm] = {"gcn": "both", "graphsage": "right", "gin": "none"}
"""Families of convolutions and the aggregation of each."""


@dataclass(frozen=True)
class Prediction:
    r"""What the theory expects of a network of L layers, at initialization and large width.

    Entry l of an array belongs to the features that layer l hands on: entry 0 is the
    input, entries 1 to L - 1 are taken after the ReLU, entry L is the output.

    Parameters
    ----------
    signal : numpy.ndarray
        Mean square of the features, shape (L + 1,).
    correlation : numpy.ndarray
        Mean correlation (uncentred: the cosine) of two nodes of the same graph, shape (L + 1,).
    dirichlet : numpy.ndarray
        Dirichlet energy of the nodes' directions, shape (L + 1,): mean over the edges of
        :math:`\lVert h_u / \lVert h_u \rVert - h_v / \lVert h_v \rVert \rVert^2`, 0 for
        neighbours that are alike, 2 for unrelated ones.
    gradient : numpy.ndarray
        Squared norm of the gradient before the ReLU, relative to the gradient at the output,
        shape (L + 1,).
    weight_gradient : numpy.ndarray
        Squared norm of the gradient in the weights of each layer, for a gradient of norm one
        at the output, shape (L,).
    """

    signal: np.ndarray
    correlation: np.ndarray
    dirichlet: np.ndarray
    gradient: np.ndarray
    weight_gradient: np.ndarray


def kappa(rho: np.ndarray) -> np.ndarray:
    r"""Correlation after a ReLU of two Gaussian variables of correlation `rho`.

    .. math:: \kappa(\rho) = \frac{\sqrt{1 - \rho^2} + \rho (\pi - \arccos \rho)}{\pi}

    Normalised by the mean square: with unit variances
    :math:`E[\mathrm{relu}(a)\, \mathrm{relu}(b)] = \kappa(\rho) / 2`.

    Examples
    --------
    >>> kappa(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [0.0, 0.3183, 1.0]
    """
    return (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi


def kappa_derivative(rho: np.ndarray) -> np.ndarray:
    r"""Derivative of :func:`kappa`: twice the probability that both variables are positive.

    .. math:: \kappa'(\rho) = 1 - \arccos(\rho) / \pi

    Examples
    --------
    >>> kappa_derivative(np.array([-1.0, 0.0, 1.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return 1 - np.arccos(rho) / np.pi


def predict(
    graph: AnyGraph,
    feat: Tensor | np.ndarray,
    family: Family = "gcn",
    num_layers: int = 64,
    *,
    hidden_feats: int = 64,
    out_feats: int | None = None,
    norm: Norm | None = None,
    interpolation: Literal["operator", "variance"] = "operator",
    mlp_layers: int = 2,
    t: float | str = "per-depth",
    residual: Literal["plain", "scaled", "fixup", "initial"] | None = "fixup",
    init: str = "critical",
    alpha: float = 0.1,
    dropout: float = 0.0,
    edge_weight: Tensor | None = None,
    spectral_radius: float | Literal["growth"] | None = None,
    output_layer: bool = True,
) -> Prediction:
    r"""Predict signal, correlation and gradient by depth.

    One convolution maps the covariance :math:`K` of its input to

    .. math:: S = C_\mathrm{self} K + C_\mathrm{neigh} A_t K A_t^\top

    (GCN and GIN: :math:`C_\mathrm{self} = 0`), the following linear layers of an MLP map
    :math:`S` to :math:`C\, V(S)`, and ReLU maps :math:`S` to

    .. math:: V(S)_{ab} = \tfrac12 \sqrt{S_{aa} S_{bb}}\,
              \kappa\bigl(S_{ab} / \sqrt{S_{aa} S_{bb}}\bigr).

    C is the fan-in times the variance of the weights. A residual connection adds the
    branch's covariance, times :math:`\tau^2`, to the stream's. The covariance of the gradients
    runs backwards through the transposed maps, with :math:`\kappa'/2` for the ReLU. Dropout with
    probability p multiplies the diagonal of a covariance by :math:`1 / (1 - p)`, since every node
    draws for itself; aggregation averages that down by the degree.

    The arguments are those of the models. To predict a stack of DGL's own layers give
    ``t=1, residual=None, init="glorot"``.

    Parameters
    ----------
    graph : DGLGraph
        A homogeneous graph or a batch of them; N x N matrices are computed.
    feat : Tensor or numpy.ndarray
        Node features, shape (N, in_feats).
    family : {"gcn", "graphsage", "gin"}
        Kind of convolution.
    num_layers : int
        Number L of convolutions.
    hidden_feats, out_feats : int
        Widths of the layers and of the output (by default that of the layers).
    norm : {"both", "right", "left", "none"}, optional
        Normalisation of the aggregation, by default the family's.
    interpolation : {"operator", "variance"}
        Form of residual aggregation in GraphSAGE.
    mlp_layers : int
        Linear layers in a GIN convolution.
    t : float or str
        Residual aggregation, see :func:`dgl_deepgnn.interpolation_schedule`.
    residual : {None, "plain", "scaled", "fixup", "initial"}
        Residual connections.
    init : {"critical", "he", "glorot"}
        Initialization.
    alpha : float
        Weight of the first layer's features with ``residual="initial"``.
    dropout : float
        Probability with which an entry of the input of a convolution is dropped. With it the
        prediction is for training mode, and of the features as the next layer gets them;
        without, for evaluation mode. With ``residual="initial"`` the signal alone is exact then:
        the skip connection drops again and again, and what comes of it is not Gaussian.
    edge_weight : Tensor, optional
        Non-negative weights of the aggregation, shape (E,).
    spectral_radius : float or "growth", optional
        What the aggregation is divided by; as in the models, by default each graph's own
        spectral radius, and 1 for ``t=1`` with an `init` other than critical; with "growth" its
        growth over `num_layers`.
    output_layer : bool
        Whether the last convolution is the output layer. Otherwise a ReLU follows it, and the
        gradient is that of its features.

    Returns
    -------
    Prediction
        Entries by layer.

    Raises
    ------
    DGLError
        If an argument is out of range or the graph has no critical scale.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(20, 60).add_self_loop()
    >>> prediction = predict(graph, torch.randn(20, 64), t=1, residual=None, init="glorot")
    >>> bool(prediction.signal[-1] < 1e-18)
    True
    """
    graph = as_graph(graph)
    _check(graph, feat, family, num_layers, residual, init, dropout)
    schedule = interpolation_schedule(t, num_layers)
    if spectral_radius is None and init != "critical" and set(schedule) == {1.0}:
        spectral_radius = 1.0
    if residual == "initial":
        schedule = without_ends(schedule, both=output_layer)
    aggregation = aggregation_operator(
        graph,
        norm or FAMILIES[family],
        1.0,
        edge_weight,
        spectral_radius=None if spectral_radius == "growth" else spectral_radius,
        depth=num_layers if spectral_radius == "growth" else None,
    )
    num_nodes = graph.num_nodes()
    matrix = sp.csr_matrix((aggregation @ torch.eye(num_nodes, dtype=torch.float64)).numpy())
    last = (out_feats or hidden_feats) if output_layer else hidden_feats
    widths = [feat.shape[1], *[hidden_feats] * (num_layers - 1), last]
    num_branches = 0 if residual is None else max(0, num_layers - (2 if output_layer else 1))
    layers = [
        _layer(
            matrix,
            schedule[index],
            (widths[index], widths[index + 1]),
            family,
            interpolation,
            mlp_layers,
            init,
            is_output=output_layer and index == num_layers - 1,
            is_zero=residual in ("fixup", "initial") and 1 <= index <= num_branches,
        )
        for index in range(num_layers)
    ]
    tau = 1.0 if residual in (None, "plain") else max(1, num_branches) ** -0.5
    network = _Network(layers, num_branches, tau, alpha if residual == "initial" else None, dropout)
    # A diverging network overflows: its infinities are the prediction.
    with np.errstate(over="ignore", invalid="ignore"):
        features = np.asarray(feat, dtype=np.float64)
        streams = network.forward(features @ features.T / features.shape[1])
        gradient, weight_gradient = network.backward(streams, output_layer)
        statistics = _Statistics(graph)
        handed_on = [network.drop(streams[0]), *map(network.hand_on, streams[1:])]
        if output_layer:
            handed_on[-1] = streams[-1]
        signal, correlation, dirichlet = zip(*map(statistics, handed_on), strict=True)
    return Prediction(*map(np.array, (signal, correlation, dirichlet, gradient, weight_gradient)))


def _check(
    graph: AnyGraph,
    feat: Tensor | np.ndarray,
    family: str,
    num_layers: int,
    residual: str | None,
    init: str,
    dropout: float,
) -> None:
    if not 0 <= dropout < 1:
        raise DGLError(f"dropout must be a number in [0, 1), got {dropout!r}.")
    for name, value, allowed in (
        ("family", family, tuple(FAMILIES)),
        ("residual", residual, (None, "plain", "scaled", "fixup", "initial")),
        ("init", init, ("critical", "he", "glorot")),
    ):
        if value not in allowed:
            raise DGLError(f"{name} must be one of {allowed}, got {value!r}.")
    if num_layers < 1:
        raise DGLError(f"num_layers must be at least 1, got {num_layers}.")
    if graph.is_block or not graph.is_homogeneous:
        raise DGLError("The theory needs a homogeneous graph or a batch of them.")
    if feat.ndim != 2 or feat.shape[0] != graph.num_nodes():
        raise DGLError(
            f"Features have shape {tuple(feat.shape)}, but the graph has {graph.num_nodes()} "
            f"nodes: expected ({graph.num_nodes()}, in_feats)."
        )


def _correlations(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and the products of standard deviations."""
    std = np.sqrt(np.diag(covariance))
    scale = np.outer(std, std)
    rho = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale != 0)
    return np.clip(rho, -1, 1), scale


def _relu(covariance: np.ndarray) -> np.ndarray:
    rho, scale = _correlations(covariance)
    return scale * kappa(rho) / 2


def _relu_backward(covariance: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return gradient * kappa_derivative(_correlations(covariance)[0]) / 2


def _sandwich(matrix: sp.csr_matrix, middle: np.ndarray) -> np.ndarray:
    """``matrix @ middle @ matrix.T`` for a symmetric `middle`."""
    return matrix @ (matrix @ middle).T


@dataclass(frozen=True)
class _Layer:
    """One convolution: its operator and the gains ``fan_in * variance`` of its linear maps."""

    operator: sp.csr_matrix
    widths: tuple[int, int]
    neigh_gain: float
    self_gain: float | None  # None where there is no weight of its own for the node itself
    mlp_gains: tuple[float, ...]

    def forward(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Covariance after each linear map."""
        out = self.neigh_gain * _sandwich(self.operator, inputs)
        if self.self_gain is not None:
            out = out + self.self_gain * inputs
        outs = [out]
        for gain in self.mlp_gains:
            outs.append(gain * _relu(outs[-1]))
        return outs

    def backward(self, inputs: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Gradient at the input, and the squared norm of that in the weights."""
        fan_in, fan_out = self.widths
        squared_norm = 0.0
        outs = self.forward(inputs)[:-1]
        for covariance, gain in zip(reversed(outs), reversed(self.mlp_gains), strict=True):
            squared_norm += fan_out * float((_relu(covariance) * gradient).sum())
            gradient = gain * _relu_backward(covariance, gradient)
        squared_norm += fan_in * float((_sandwich(self.operator, inputs) * gradient).sum())
        through = self.neigh_gain * _sandwich(self.operator.T, gradient)
        if self.self_gain is not None:
            squared_norm += fan_in * float((inputs * gradient).sum())
            through = through + self.self_gain * gradient
        return through, squared_norm


def _layer(
    matrix: sp.csr_matrix,
    t: float,
    widths: tuple[int, int],
    family: Family,
    interpolation: str,
    mlp_layers: int,
    init: str,
    is_output: bool,
    is_zero: bool,
) -> _Layer:
    """Layer of a family; `is_zero` where its last map starts at zero (fixup)."""
    maps = mlp_layers if family == "gin" else 1

    def gain(fan_in: int, last: bool, share: float = 1.0, glorot_gain: float = 1.0) -> float:
        if last and is_zero:
            return 0.0
        if init == "critical":
            return share * (1.0 if last and is_output else 2.0)
        return 2.0 if init == "he" else glorot_gain**2 * 2 * fan_in / (fan_in + widths[1])

    share, self_gain = 1.0, None
    if family == "graphsage":
        share = t if interpolation == "variance" else 0.5
        # DGL's own SAGEConv draws its weights with the gain of ReLU.
        self_gain = gain(widths[0], True, 1 - share, 2**0.5)
    neigh_gain = gain(widths[0], maps == 1, share, 2**0.5 if self_gain is not None else 1)
    mlp_gains = tuple(gain(widths[1], index == maps - 1) for index in range(1, maps))
    if t < 1 and not (family == "graphsage" and interpolation == "variance"):
        matrix = sp.csr_matrix((1 - t) * sp.eye(matrix.shape[0], format="csr") + t * matrix)
    return _Layer(matrix, widths, neigh_gain, self_gain, mlp_gains)


@dataclass(frozen=True)
class _Network:
    """Layers 1 to `num_branches` have a residual connection around them.

    The covariances of gradients are sums over neurons: so widths do not enter.
    """

    layers: list[_Layer]
    num_branches: int
    tau: float
    alpha: float | None
    dropout: float

    def drop(self, covariance: np.ndarray) -> np.ndarray:
        """Covariance behind dropout, of features or of gradients."""
        scale = self.dropout / (1 - self.dropout)
        return covariance + scale * np.diag(np.diag(covariance)) if scale else covariance

    def hand_on(self, stream: np.ndarray) -> np.ndarray:
        """Covariance behind the ReLU and dropout."""
        return self.drop(_relu(stream))

    def forward(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Covariance of the input and, before the ReLU, after every layer."""
        stream = first = cross = self.layers[0].forward(self.drop(inputs))[-1]
        streams = [inputs, stream]
        for index, layer in enumerate(self.layers[1:], start=1):
            branch = layer.forward(self.hand_on(stream))[-1]
            if index > self.num_branches:
                stream = branch
            elif self.alpha is None:
                stream = stream + self.tau**2 * branch
            else:
                keep = 1 - self.alpha
                mixed = layer.operator @ cross  # cross: covariance with the first layer
                stream = (
                    keep**2 * _sandwich(layer.operator, self.drop(stream))
                    + self.alpha * keep * (mixed + mixed.T)
                    + self.alpha**2 * first
                    + self.tau**2 * branch
                )
                cross = keep * mixed + self.alpha * first
            streams.append(stream)
        return streams

    def backward(
        self, streams: list[np.ndarray], output_layer: bool
    ) -> tuple[list[float], list[float]]:
        """Squared norms of the gradients at every layer, and in its weights."""
        num_nodes = len(streams[0])
        gradient = np.eye(num_nodes) / num_nodes
        if not output_layer:
            gradient = _relu_backward(streams[-1], self.drop(gradient))
        # Sum of the gradients that reach the first layer directly (alpha): its covariance, and
        # that with the gradient of the layer at hand.
        skipped = skipped_cross = np.zeros_like(gradient)
        norms, weight_norms = [np.trace(gradient)], []
        for index in range(len(self.layers) - 1, 0, -1):
            layer, inputs = self.layers[index], self.hand_on(streams[index])
            residual = index <= self.num_branches
            outgoing = gradient * self.tau**2 if residual else gradient
            through, squared_norm = layer.backward(inputs, outgoing)
            through = _relu_backward(streams[index], self.drop(through))
            if not residual:
                gradient = through
            elif self.alpha is None:
                gradient = gradient + through
            else:
                keep = 1 - self.alpha
                skipped = skipped + skipped_cross + skipped_cross.T + gradient
                skipped_cross = keep * (layer.operator.T @ (skipped_cross + gradient).T).T
                gradient = keep**2 * self.drop(_sandwich(layer.operator.T, gradient)) + through
                if index == 1:
                    gradient = (
                        gradient
                        + self.alpha * (skipped_cross + skipped_cross.T)
                        + self.alpha**2 * skipped
                    )
            norms.append(np.trace(gradient))
            weight_norms.append(squared_norm)
        through, squared_norm = self.layers[0].backward(self.drop(streams[0]), gradient)
        norms.append(np.trace(self.drop(through)))
        weight_norms.append(squared_norm)
        return norms[::-1], weight_norms[::-1]


class _Statistics:
    """Mean square, correlation and Dirichlet energy of a covariance on a graph."""

    def __init__(self, graph: AnyGraph) -> None:
        sizes = graph.batch_num_nodes().cpu().numpy()
        self.graph_of_node = np.repeat(np.arange(len(sizes)), sizes)
        src, dst = (ends.cpu().numpy() for ends in graph.edges())
        self.edges = src[src != dst], dst[src != dst]

    def __call__(self, covariance: np.ndarray) -> tuple[float, float, float]:
        square = np.diag(covariance)
        signal = square.mean()
        rho, _ = _correlations(covariance)
        # A node without features has no direction.
        pairs = self.graph_of_node[:, None] == self.graph_of_node
        pairs &= np.outer(square > 0, square > 0)
        np.fill_diagonal(pairs, False)
        correlation = rho[pairs].mean() if pairs.any() else np.nan
        src, dst = self.edges
        alive = (square[src] > 0) & (square[dst] > 0)
        dirichlet = 2 * (1 - rho[src, dst][alive].mean()) if alive.any() else np.nan
        return signal, correlation, dirichlet
