"""Deep graph convolutional network (GCN)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgl_deepgnn.aggregation import AggregationOperator, Norm
from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage, register_initializer
from dgl_deepgnn.nn.body import DeepGNN, register_model
from dgl_deepgnn.nn.conv import ResidualConv, is_hooked, is_plain_call, undivided_radius

__all__ = ["ResGCN", "ResGraphConv"]


class ResGraphConv(ResidualConv):
    r"""Graph convolution with residual aggregation.

    .. math:: H' = A_t H W + b, \qquad A_t = (1 - t) I + t A / \lambda

    With ``t=1`` and ``spectral_radius=1.0`` it is :class:`dgl.nn.GraphConv` (Kipf and Welling,
    arXiv:1609.02907).

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    norm : {"both", "right", "left", "none"}
        Normalisation, as in :class:`dgl.nn.GraphConv`.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1.
    bias : bool
        Whether to add a bias.
    init : {"critical", "he", "glorot"}
        Initialization of the weights.
    spectral_radius : float, optional
        What the aggregation is divided by; by default the graph's own spectral radius.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(5, 12).add_self_loop()
    >>> ResGraphConv(3, 4, t=0.5)(graph, torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        *,
        norm: Norm = "both",
        t: float = 1.0,
        bias: bool = True,
        init: str = "critical",
        spectral_radius: float | None = None,
    ) -> None:
        super().__init__(in_feats, out_feats, norm, t, init, spectral_radius)
        self.weight = nn.Parameter(torch.empty(in_feats, out_feats))
        self.bias = nn.Parameter(torch.zeros(out_feats)) if bias else None
        self.reset_parameters()

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Aggregate, multiply, add the bias."""
        out = self.aggregate_and_multiply(operator, src, dst, self.weight)
        return out if self.bias is None else out + self.bias

    @classmethod
    def add_in_turn(
        cls, convs: Sequence[ResidualConv], operator: AggregationOperator, x: Tensor, scale: float
    ) -> Tensor:
        """All residual connections in one step, which keeps one matrix of features a layer."""
        if operator.is_trainable or not all(
            operator.t == conv.t
            and conv.bias is not None
            and is_plain_call(conv, ResGraphConv, operator, x)
            for conv in convs
        ):
            return super().add_in_turn(convs, operator, x, scale)
        parameters = tuple(cast(Tensor, p) for conv in convs for p in (conv.weight, conv.bias))
        if torch.is_grad_enabled():
            return _ResidualConnections.apply(x, scale, operator, *parameters)
        return _add_in_turn(x, scale, operator, parameters)

    def beside_skip(
        self, operator: AggregationOperator, feat: Tensor, x: Tensor, scale: float, skip: float
    ) -> Tensor:
        """Both parts in one aggregation, since this layer is linear."""
        if is_hooked(self):
            return super().beside_skip(operator, feat, x, scale, skip)
        mixed = torch.addmm(x, feat, self.weight, beta=skip, alpha=scale)
        out = self.aggregate(operator, mixed, mixed)
        return out if self.bias is None else torch.add(out, self.bias, alpha=scale)


def _add_in_turn(
    x: Tensor,
    scale: float,
    operator: AggregationOperator,
    parameters: tuple[Tensor, ...],
    inputs: list[Tensor] | None = None,
) -> Tensor:
    """``x + scale * (A relu(x) W + b)`` in turn; the relu(x) are appended to `inputs`."""
    matrix, _ = operator.matrices(x.device, x.dtype)
    x = x.clone()
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        feat = torch.relu(x)
        x.addmm_(matrix @ feat, weight, alpha=scale).add_(bias, alpha=scale)
        if inputs is not None:
            inputs.append(feat)
    return x


class _ResidualConnections(torch.autograd.Function):
    """The same with few passes over memory in the backward pass, too.

    Autograd would keep two matrices of features a layer; this keeps one, and adds in place: that
    also leaves no holes of freed memory between those that are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: float, operator: AggregationOperator, *parameters: Tensor
    ) -> Tensor:
        inputs: list[Tensor] = []
        out = _add_in_turn(x, scale, operator, parameters, inputs)
        ctx.save_for_backward(x, *inputs[1:], *parameters)  # x is kept anyway, relu(x) is not
        ctx.scale, ctx.operator = scale, operator
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        scale, operator, saved = ctx.scale, ctx.operator, ctx.saved_tensors
        (x, *inputs), parameters = saved[: len(saved) // 3], saved[len(saved) // 3 :]
        if torch.is_grad_enabled():  # a second derivative is asked for: leave it to autograd
            return _differentiable_gradients(ctx, x, parameters, grads[0])
        _, transpose = operator.matrices(x.device, x.dtype)
        grad, grad_feat = x.new_empty(x.shape).copy_(grads[0]), torch.empty_like(x)
        ones = x.new_ones(1, len(x))
        weights = torch._foreach_mul(parameters[::2], scale)
        grad_parameters: list[Tensor] = []
        for feat, weight in zip(reversed([torch.relu(x), *inputs]), reversed(weights), strict=True):
            aggregated = transpose @ grad
            grad_parameters += [torch.mm(ones, grad)[0], torch.mm(feat.T, aggregated)]
            torch.mm(aggregated, weight.T, out=grad_feat)
            torch.ops.aten.threshold_backward.grad_input(grad_feat, feat, 0, grad_input=grad_feat)
            grad.add_(grad_feat)
        torch._foreach_mul_(grad_parameters, scale)
        return grad, None, None, *reversed(grad_parameters)


def _differentiable_gradients(ctx: Any, x: Tensor, parameters: list[Tensor], grad: Tensor) -> Any:
    out = x
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        product = ctx.operator @ torch.mm(torch.relu(out), weight)
        out = out + ctx.scale * (product + bias)
    wanted = [t for t in (x, *parameters) if t.requires_grad]
    gradients = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    first, *others = (next(gradients) if t.requires_grad else None for t in (x, *parameters))
    return first, None, None, *others


@register_initializer(ResGraphConv)
def _describe(conv: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(conv, ResGraphConv)
    radius = undivided_radius(conv, context)
    return [[LinearMap(conv, conv.weight, conv.in_feats, conv.out_feats, conv.bias, radius)]]


@register_model("resgcn")
class ResGCN(DeepGNN):
    """Deep GCN of :class:`ResGraphConv` layers.

    Parameters
    ----------
    in_feats, hidden_feats, out_feats, num_layers : int
        Widths, and the number of graph convolutions.
    norm : {"both", "right", "left", "none"}
        Normalisation of the aggregation, as in :class:`dgl.nn.GraphConv`.
    **body
        Keyword arguments of :class:`DeepGNN`: `t`, `residual`, `init`, `dropout`, `head`, ...

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(20, 60).add_self_loop()
    >>> model = ResGCN(8, 16, 3, num_layers=64)
    >>> model(graph, torch.randn(20, 8)).shape
    torch.Size([20, 3])
    """

    def __init__(
        self,
        in_feats: int,
        hidden_feats: int,
        out_feats: int,
        num_layers: int,
        *,
        norm: Norm = "both",
        **body: Any,
    ) -> None:
        conv = partial(ResGraphConv, norm=norm)
        super().__init__(conv, in_feats, hidden_feats, out_feats, num_layers, **body)
        self.config["norm"] = norm
