"""Initializer hooks: the critical initialization and the schemes it is compared with."""

import dgl_deepgnn.init.torch_layers
from dgl_deepgnn.graph import DGL_VERSION
from dgl_deepgnn.init.comparison import lsuv_, virgo_
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    UnknownModuleError,
    collect_stages,
    register_initializer,
)
from dgl_deepgnn.init.residual import fixup_, rezero_
from dgl_deepgnn.init.schemes import SCHEMES, critical_, glorot_, he_

if DGL_VERSION is not None:
    # Their hooks are registered.
    import dgl_deepgnn.init.dgl_attention
    import dgl_deepgnn.init.dgl_layers
    import dgl_deepgnn.init.dgl_refused
    import dgl_deepgnn.init.dgl_relations  # noqa: F401

__all__ = [
    "SCHEMES",
    "GraphContext",
    "LinearMap",
    "UnknownModuleError",
    "collect_stages",
    "critical_",
    "fixup_",
    "glorot_",
    "he_",
    "lsuv_",
    "register_initializer",
    "rezero_",
    "virgo_",
]
