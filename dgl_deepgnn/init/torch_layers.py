"""Initializer hooks of PyTorch's own layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage, register_initializer


@register_initializer(nn.Linear)
def _linear(module: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(module, nn.Linear)
    return [
        [LinearMap(module, module.weight, module.in_features, module.out_features, module.bias)]
    ]


@register_initializer(nn.modules.batchnorm._NormBase)  # also instance and synchronized ones
@register_initializer(nn.LayerNorm)
@register_initializer(nn.GroupNorm)
def _normalization(module: Any, context: GraphContext) -> list[Stage]:
    if all(parameter.requires_grad for parameter in module.parameters()):
        module.reset_parameters()
    return []


if hasattr(nn, "RMSNorm"):  # since PyTorch 2.4
    register_initializer(nn.RMSNorm)(_normalization)


@register_initializer(nn.PReLU)
def _prelu(module: nn.Module, context: GraphContext) -> list[Stage]:
    """Slopes stay what they are: the weights in front suit them."""
    return []


@register_initializer(nn.Embedding)
def _embedding(module: Any, context: GraphContext) -> list[Stage]:
    """Rows of mean square one, as features are."""
    if module.weight.requires_grad:
        module.reset_parameters()
        if module.max_norm is not None:
            with torch.no_grad():
                norms = module.weight.norm(module.norm_type, dim=1, keepdim=True)
                module.weight.mul_((module.max_norm / norms).clamp(max=1))
    return []
