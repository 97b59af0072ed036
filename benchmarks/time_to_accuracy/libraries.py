"""Layers, graphs, batches and pooling of DGL and of PyTorch Geometric under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import dgl
import torch
from dgl import DGLGraph
from torch import Tensor, nn

__all__ = ["DGL", "LIBRARIES", "Library", "PyG"]


class Library(Protocol):
    """What the peers' networks and their training need."""

    def gcn2(self, width: int, layer: int, alpha: float, lambda_: float) -> nn.Module:
        """Layer number `layer`, from 1, of GCNII."""

    def sage(self, fan_in: int, fan_out: int) -> nn.Module:
        """Layer of GraphSAGE with the mean over the neighbours."""

    def gin(self, mlp: nn.Module) -> nn.Module:
        """Layer of GIN around a perceptron."""

    def call(self, conv: nn.Module, graph: Any, feat: Tensor, *first: Tensor) -> Tensor:
        """Output of a layer; GCNII's layers read the features of the `first` one, too."""

    def whole(self, graph: DGLGraph, network: str) -> Any:
        """What the layers of a `network` read of one large graph."""

    def items(self, graphs: Sequence[DGLGraph]) -> list[Any]:
        """Graphs as :meth:`batch` takes them."""

    def batch(self, items: Sequence[Any]) -> tuple[Any, Tensor]:
        """Some graphs as one, and its features."""

    def pool(self, graph: Any, feat: Tensor) -> Tensor:
        """Sum of the features over each graph of a batch."""


class DGL:
    """DGL's layers on DGL's graphs."""

    def gcn2(self, width: int, layer: int, alpha: float, lambda_: float) -> nn.Module:
        """Without a bias, as GCNII's authors have it."""
        return dgl.nn.GCN2Conv(width, layer, alpha, lambda_, bias=False)

    def sage(self, fan_in: int, fan_out: int) -> nn.Module:
        """As it comes."""
        return dgl.nn.SAGEConv(fan_in, fan_out, "mean")

    def gin(self, mlp: nn.Module) -> nn.Module:
        """As it comes."""
        return dgl.nn.GINConv(mlp, "sum")

    def call(self, conv: nn.Module, graph: Any, feat: Tensor, *first: Tensor) -> Tensor:
        """``conv(graph, feat)``."""
        return conv(graph, feat, *first)

    def whole(self, graph: DGLGraph, network: str) -> Any:
        """The graph itself, its formats made once."""
        graph.create_formats_()
        return graph

    def items(self, graphs: Sequence[DGLGraph]) -> list[Any]:
        """The graphs themselves."""
        return list(graphs)

    def batch(self, items: Sequence[Any]) -> tuple[Any, Tensor]:
        """As ``dgl.dataloading.GraphDataLoader`` puts them together."""
        graph = dgl.batch(list(items))
        return graph, graph.ndata["feat"]

    def pool(self, graph: Any, feat: Tensor) -> Tensor:
        """As ``dgl.nn.SumPooling`` does it."""
        with graph.local_scope():
            graph.ndata["h"] = feat
            return dgl.sum_nodes(graph, "h")


class PyG:
    """PyTorch Geometric's layers; on one large graph in their fastest form, a sparse matrix."""

    def gcn2(self, width: int, layer: int, alpha: float, lambda_: float) -> nn.Module:
        """On a matrix that is normalized already."""
        from torch_geometric.nn import GCN2Conv

        return GCN2Conv(width, alpha, lambda_, layer, normalize=False)

    def sage(self, fan_in: int, fan_out: int) -> nn.Module:
        """As it comes."""
        from torch_geometric.nn import SAGEConv

        return SAGEConv(fan_in, fan_out)

    def gin(self, mlp: nn.Module) -> nn.Module:
        """As it comes."""
        from torch_geometric.nn import GINConv

        return GINConv(mlp)

    def call(self, conv: nn.Module, graph: Any, feat: Tensor, *first: Tensor) -> Tensor:
        """``conv(feat, edges)``."""
        return conv(feat, *first, getattr(graph, "edge_index", graph))

    def whole(self, graph: DGLGraph, network: str) -> Any:
        """Matrix (CSR) of the edges, for GCNII with the weights that ``gcn_norm`` gives them."""
        from torch_geometric.nn.conv.gcn_conv import gcn_norm
        from torch_geometric.utils import to_torch_csr_tensor

        nodes, weight = graph.num_nodes(), None
        edges = torch.stack(graph.edges(order="eid"))
        if network == "GCN2Conv":
            edges, weight = gcn_norm(edges, num_nodes=nodes, add_self_loops=False)
        # The matrix is the transpose of what the list of edges stands for.
        return to_torch_csr_tensor(edges.flip(0), weight, size=(nodes, nodes))

    def items(self, graphs: Sequence[DGLGraph]) -> list[Any]:
        """As ``Data``."""
        from torch_geometric.data import Data

        return [
            Data(x=graph.ndata["feat"], edge_index=torch.stack(graph.edges(order="eid")))
            for graph in graphs
        ]

    def batch(self, items: Sequence[Any]) -> tuple[Any, Tensor]:
        """As ``torch_geometric.loader.DataLoader`` puts them together."""
        from torch_geometric.data import Batch

        graph = Batch.from_data_list(list(items))
        return graph, graph.x

    def pool(self, graph: Any, feat: Tensor) -> Tensor:
        """As its examples do it."""
        from torch_geometric.nn import global_add_pool

        return global_add_pool(feat, graph.batch, graph.num_graphs)


LIBRARIES: dict[str, Library] = {"DGL": DGL(), "PyG": PyG()}
