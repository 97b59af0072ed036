"""All residual connections of a GCN as one step of autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.operator.aggregation import AggregationOperator

__all__ = ["ResidualConnections", "add_in_turn"]


def add_in_turn(
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


class ResidualConnections(torch.autograd.Function):
    """`add_in_turn` with few passes over memory in the backward pass, too.

    Autograd would keep two matrices of features a layer; this keeps one, and adds in place: that
    also leaves no holes of freed memory between those that are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: float, operator: AggregationOperator, *parameters: Tensor
    ) -> Tensor:
        """Features after all residual connections; keeps the input of every layer."""
        inputs: list[Tensor] = []
        out = add_in_turn(x, scale, operator, parameters, inputs)
        ctx.save_for_backward(x, *inputs[1:], *parameters)  # x is kept anyway, relu(x) is not
        ctx.scale, ctx.operator = scale, operator
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients in the features and in every weight and bias."""
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
