"""DGL's layers under `critical_`: the variances, and what the signal does with depth."""

from __future__ import annotations

from collections.abc import Callable

import dgl
import pytest
import torch
from dgl import DGLError
from dgl.nn import (
    APPNPConv,
    DenseGraphConv,
    DenseSAGEConv,
    GATConv,
    GATv2Conv,
    GCN2Conv,
    GINConv,
    GraphConv,
    SAGEConv,
    SGConv,
    TAGConv,
)
from torch import Tensor, nn

from dgl_deepgnn import spectral_radius
from dgl_deepgnn.init import UnknownModuleError, collect_stages, critical_, glorot_, he_

WIDTH = 256


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    """20 nodes, undirected, every node with one self-loop."""
    return dgl.to_bidirected(dgl.rand_graph(20, 45)).remove_self_loop().add_self_loop()


@pytest.fixture
def directed() -> tuple[dgl.DGLGraph, Tensor]:
    """Directed, weighted: no norm has spectral radius one."""
    graph = dgl.rand_graph(12, 40).add_self_loop()
    return graph, torch.rand(graph.num_edges()) + 0.1


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GraphConv both": lambda: GraphConv(WIDTH, WIDTH, norm="both"),
    "GraphConv right": lambda: GraphConv(WIDTH, WIDTH, norm="right"),
    "GraphConv left": lambda: GraphConv(WIDTH, WIDTH, norm="left"),
    "GraphConv none": lambda: GraphConv(WIDTH, WIDTH, norm="none"),
    "SAGEConv mean": lambda: SAGEConv(WIDTH, WIDTH, "mean"),
    "SAGEConv gcn": lambda: SAGEConv(WIDTH, WIDTH, "gcn"),
    "SAGEConv pool": lambda: SAGEConv(WIDTH, WIDTH, "pool"),
    "GINConv sum": lambda: GINConv(nn.Linear(WIDTH, WIDTH), "sum", init_eps=0.5),
    "GINConv sum, MLP": lambda: GINConv(mlp(), "sum"),
    "GINConv mean": lambda: GINConv(nn.Linear(WIDTH, WIDTH), "mean", init_eps=0.5),
    "GATConv": lambda: GATConv(WIDTH, WIDTH // 4, 4),
    "GATv2Conv": lambda: GATv2Conv(WIDTH, WIDTH // 4, 4),
}


@torch.no_grad()
def signal(layers: nn.ModuleList, graph: dgl.DGLGraph, **arguments: Tensor) -> Tensor:
    """Mean square after every layer of a ReLU network."""
    x = torch.randn(graph.num_nodes(), WIDTH)
    squares = []
    for index, layer in enumerate(layers):
        x = layer(graph, torch.relu(x) if index else x, **arguments).flatten(1)
        squares.append(x.square().mean())
    return torch.stack(squares)


@pytest.mark.parametrize("name", LAYERS)
def test_signal_at_64_layers_is_that_at_16(name: str, graph: dgl.DGLGraph) -> None:
    layers = nn.ModuleList(LAYERS[name]() for _ in range(64))
    draws = [
        signal(critical_(layers, graph, output_layer=False), graph)
        # The log-norm of one draw fluctuates with the number of linear layers.
        for _ in range(20 if "MLP" in name else 8)
    ]
    mean = torch.stack(draws).mean(0)
    assert 1 / 3 < mean[63] / mean[15] < 3
    assert 1e-2 < mean[15] < 1e2


@pytest.mark.parametrize("name", ["GraphConv both", "GraphConv none", "SAGEConv mean"])
def test_stock_initialization_would_not_pass(name: str, graph: dgl.DGLGraph) -> None:
    layers = nn.ModuleList(LAYERS[name]() for _ in range(40))
    squares = signal(layers, graph)
    assert abs(torch.log10(squares[39] / squares[15])) > 3


@pytest.mark.parametrize(
    "name", ["GraphConv both", "GraphConv none", "GINConv sum", "SAGEConv gcn"]
)
def test_directed_weighted_graph(name: str, directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    layers = nn.ModuleList(LAYERS[name]() for _ in range(48))
    draws = [
        signal(
            critical_(layers, graph, edge_weight=weight, output_layer=False),
            graph,
            edge_weight=weight,
        )
        for _ in range(8)
    ]
    mean = torch.stack(draws).mean(0)
    assert 1 / 3 < mean[47] / mean[15] < 3


def variance(weight: Tensor, fan_in: int) -> float:
    """Weight variance in units of 1 / fan_in."""
    return fan_in * weight.var().item()


def roughly(value: float) -> object:
    """Up to the sampling error of the variance of some 30 000 normal entries."""
    return pytest.approx(value, rel=0.04)


# --- GraphConv -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
def test_graph_conv(norm: str, directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = GraphConv(300, 100, norm=norm)
    nn.init.ones_(conv.bias)
    critical_(conv, graph, edge_weight=weight, output_layer=False)
    radius = spectral_radius(graph, norm, weight).item()
    assert variance(conv.weight, 300) == roughly(2 / radius**2)
    assert not conv.bias.any()
    critical_(conv, graph)  # the output layer
    assert variance(conv.weight, 300) == roughly(1 / spectral_radius(graph, norm).item() ** 2)


def test_graph_conv_without_a_graph() -> None:
    conv = critical_(GraphConv(300, 100, bias=False))
    assert variance(conv.weight, 300) == roughly(1)
    with pytest.raises(DGLError, match=r"GraphConv sums over neighbours.*Pass the graph"):
        critical_(GraphConv(3, 3, norm="none"))
    # He's and Glorot's do not look at the graph.
    assert variance(he_(GraphConv(300, 100, norm="none")).weight, 300) == roughly(2)


def test_graph_conv_without_weight_leaves_it_to_the_next_layer(graph: dgl.DGLGraph) -> None:
    model = nn.ModuleList([nn.Linear(300, 300), GraphConv(300, 300, "right", weight=False)])
    nn.init.ones_(model[1].bias)
    critical_(model, graph, output_layer=False)
    assert variance(model[0].weight, 300) == roughly(2)
    assert not model[1].bias.any()
    model = nn.ModuleList([nn.Linear(3, 3), GraphConv(3, 3, "none", weight=False)])
    with pytest.raises(DGLError, match="sums over neighbours"):
        critical_(model)
    with pytest.raises(UnknownModuleError, match=r"multiplies the features by .*ModuleList\.1"):
        critical_(model, graph)


# --- several hops in one layer, dense matrices ---------------------------------------------------


def dense_radius(graph: dgl.DGLGraph, weight: Tensor, least: float, norm: str = "both") -> float:
    """Of the matrix divided by its own sums."""
    dense = torch.zeros(12, 12, dtype=torch.float64)
    dense.index_put_(graph.edges()[::-1], weight.double(), accumulate=True)
    rows, columns = (dense.sum(axis).clamp(min=least) for axis in (1, 0))
    if norm == "both":
        dense = dense * (rows[:, None] * columns) ** -0.5
    elif norm == "right":
        dense = dense / rows[:, None]
    return torch.linalg.eigvals(dense).abs().max().item()


def test_hops(directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = critical_(SGConv(300, 100, k=3), graph, edge_weight=weight, output_layer=False)
    radius = dense_radius(graph, weight, 0)
    assert variance(conv.fc.weight, 300) == roughly(2 / radius**6)
    norm = critical_(SGConv(300, 100, k=3, norm=nn.LayerNorm(300)), graph, edge_weight=weight)
    assert variance(norm.fc.weight, 300) == roughly(1)
    conv = critical_(TAGConv(300, 100, k=2), graph, edge_weight=weight, output_layer=False)
    mean = (1 + radius**2 + radius**4) / 3
    assert variance(conv.lin.weight, 900) == roughly(2 / mean)
    # Without weights both sides are divided by the roots of the in-degrees: that is a mean.
    assert variance(critical_(SGConv(300, 100, k=3), graph).fc.weight, 300) == roughly(1)


@pytest.mark.parametrize("norm", ["both", "right", "none"])
def test_dense_matrices(norm: str, directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = DenseGraphConv(300, 100, norm=norm)
    critical_(conv, graph, edge_weight=weight, output_layer=False)
    assert variance(conv.weight, 300) == roughly(2 / dense_radius(graph, weight, 1, norm) ** 2)
    mean = critical_(DenseSAGEConv(300, 100), graph, edge_weight=weight)
    assert variance(mean.fc.weight, 300) == roughly(1)


def test_gcnii_fills_up_what_its_identity_part_leaves(
    directed: tuple[dgl.DGLGraph, Tensor],
) -> None:
    graph, _ = directed
    conv = critical_(GCN2Conv(300, layer=4, alpha=0.1, lambda_=0.5), graph, output_layer=False)
    assert variance(conv.weight1, 300) == roughly(2 / conv.beta)
    conv = GCN2Conv(300, layer=4, alpha=0.5, project_initial_features=False)
    critical_(conv, graph, output_layer=False)
    assert variance(conv.weight2, 300) == roughly(4 / conv.beta)


def test_appnp_is_refused_where_its_aggregation_is_no_mean(graph: dgl.DGLGraph) -> None:
    layers = [nn.Linear(4, 4), APPNPConv(10, 0.1)]
    critical_(nn.ModuleList(layers), graph)
    star = dgl.graph(([0] * 9, range(9)))  # one source for all
    with pytest.raises(UnknownModuleError, match="APPNPConv multiplies the features by 0"):
        critical_(nn.ModuleList(layers * 16), star)


def test_acyclic_graph_is_an_error() -> None:
    chain = dgl.graph(([0, 1], [1, 2]))
    for layer in (GraphConv(3, 3), SAGEConv(3, 3, "mean"), GATConv(3, 3, 1)):
        with pytest.raises(DGLError, match="add_self_loop"):
            critical_(layer, chain)


# --- SAGEConv ------------------------------------------------------------------------------------


def test_sage_mean_shares_the_variance(directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = SAGEConv((300, 200), 150, "mean")
    nn.init.ones_(conv.fc_self.bias)
    critical_(conv, graph, edge_weight=weight, output_layer=False)
    radius = spectral_radius(graph, "right", weight).item()
    assert variance(conv.fc_self.weight, 200) == roughly(1)
    assert variance(conv.fc_neigh.weight, 300) == roughly(1 / radius**2)
    assert not conv.fc_self.bias.any()


def test_sage_gcn_has_one_weight(directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = critical_(SAGEConv(300, 150, "gcn"), output_layer=False)
    assert variance(conv.fc_neigh.weight, 300) == roughly(2)
    critical_(conv, dgl.graph(([0, 1], [1, 2])), output_layer=False)  # it adds self-loops itself
    assert variance(conv.fc_neigh.weight, 300) == roughly(2)
    nn.init.ones_(conv.bias)
    critical_(conv, graph, edge_weight=weight, output_layer=False)
    dense = torch.eye(12)
    dense.index_put_(graph.edges()[::-1], weight, accumulate=True)
    dense /= graph.in_degrees()[:, None] + 1
    radius = torch.linalg.eigvals(dense).abs().max().item()
    assert variance(conv.fc_neigh.weight, 300) == roughly(2 / radius**2)
    assert not conv.bias.any()


def test_sage_pool_has_two_stages() -> None:
    conv = critical_(SAGEConv(300, 150, "pool"), output_layer=True)
    assert [len(stage) for stage in collect_stages(conv)] == [1, 2]
    assert variance(conv.fc_pool.weight, 300) == roughly(2)
    assert variance(conv.fc_self.weight, 300) == roughly(0.5)
    assert variance(conv.fc_neigh.weight, 300) == roughly(0.5)


def test_sage_without_critical_scale(directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    with pytest.raises(UnknownModuleError, match="'lstm' has no critical scale"):
        critical_(SAGEConv(3, 3, "lstm"))
    with pytest.raises(UnknownModuleError, match="'pool' with edge weights"):
        critical_(SAGEConv(3, 3, "pool"), graph, edge_weight=weight)


def test_norm_of_sage_is_reset() -> None:
    conv = SAGEConv(4, 4, "mean", norm=nn.LayerNorm(4))
    nn.init.normal_(conv.norm.weight)
    critical_(conv)
    assert conv.norm.weight.tolist() == [1] * 4


# --- GINConv -------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [-1.0, 0.0, 0.7])
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_gin(kind: str, eps: float, directed: tuple[dgl.DGLGraph, Tensor]) -> None:
    graph, weight = directed
    conv = GINConv(mlp(), kind, init_eps=eps, learn_eps=True)
    critical_(conv, graph, edge_weight=weight)
    dense = torch.zeros(12, 12)
    dense.index_put_(graph.edges()[::-1], weight, accumulate=True)
    if kind == "mean":
        dense /= graph.in_degrees()[:, None]
    dense += (1 + eps) * torch.eye(12)
    radius = torch.linalg.eigvals(dense).abs().max().item()
    assert variance(conv.apply_func[0].weight, WIDTH) == roughly(2 / radius**2)
    assert variance(conv.apply_func[2].weight, WIDTH) == roughly(1)
    assert conv.eps.item() == pytest.approx(eps)


def test_gin_on_an_acyclic_graph_has_its_own_features() -> None:
    chain = dgl.graph(([0, 1], [1, 2]))
    conv = critical_(GINConv(nn.Linear(300, 100), init_eps=0.5), chain)
    assert variance(conv.apply_func.weight, 300) == roughly(1 / 1.5**2)


def test_gin_mean_without_a_graph() -> None:
    conv = critical_(GINConv(nn.Linear(300, 100), "mean", init_eps=0.5))
    assert variance(conv.apply_func.weight, 300) == roughly(1 / 2.5**2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (GINConv(nn.Linear(3, 3), "max"), "'max' has no critical scale"),
        (GINConv(None, "sum"), "no linear layer in apply_func"),
        (GINConv(torch.relu, "sum"), "no linear layer in apply_func"),
        (GINConv(nn.ReLU(), "mean"), "no linear layer in apply_func"),
        (GINConv(nn.Linear(3, 3), "sum", init_eps=-2), "negatively"),
    ],
)
def test_gin_errors(layer: nn.Module, message: str, graph: dgl.DGLGraph) -> None:
    with pytest.raises(UnknownModuleError, match=message):
        critical_(layer, graph)
    critical_(layer, graph, strict=False)


def test_gin_needs_the_graph() -> None:
    with pytest.raises(DGLError, match="GINConv sums over neighbours"):
        critical_(GINConv(nn.Linear(3, 3), "sum"))


# --- GATConv, GATv2Conv --------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [GATConv, GATv2Conv])
def test_attention(layer: type[nn.Module]) -> None:
    conv = layer(300, 50, 4)
    values = conv.fc if layer is GATConv else conv.fc_src
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(7.0)
    critical_(conv, output_layer=False)
    assert variance(values.weight, 300) == roughly(2)
    for name, parameter in conv.named_parameters():
        if "bias" in name:
            assert not parameter.any()
        elif "attn" in name:  # as the layer itself draws it
            assert 0.05 < parameter.std() < 2
        else:
            assert 0 < parameter.std() < 1


@pytest.mark.parametrize("layer", [GATConv, GATv2Conv])
def test_attention_between_node_types(layer: type[nn.Module]) -> None:
    conv = critical_(layer((300, 200), 50, 4), output_layer=False)
    assert variance(conv.fc_src.weight, 300) == roughly(2)
    stock = layer((300, 200), 50, 4)
    assert conv.fc_dst.weight.var().item() == roughly(stock.fc_dst.weight.var().item())


@pytest.mark.parametrize("layer", [GATConv, GATv2Conv])
def test_attention_with_a_projected_residual(layer: type[nn.Module]) -> None:
    conv = layer(300, 50, 4, residual=True)
    nn.init.ones_(conv.res_fc.bias)
    critical_(conv, output_layer=False)
    values = conv.fc if layer is GATConv else conv.fc_src
    assert variance(values.weight, 300) == roughly(1)
    assert variance(conv.res_fc.weight, 300) == roughly(1)
    assert not conv.res_fc.bias.any()


@pytest.mark.parametrize("layer", [GATConv, GATv2Conv])
def test_attention_with_an_identity_residual_is_an_error(layer: type[nn.Module]) -> None:
    conv = layer(8, 4, 2, residual=True)
    before = conv.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    with pytest.raises(UnknownModuleError, match="adds its input as it is"):
        critical_(conv)
    critical_(conv, strict=False)
    for name, value in conv.state_dict().items():
        assert torch.equal(value, before[name])


def test_attention_with_shared_weights() -> None:
    conv = critical_(GATv2Conv(300, 50, 4, share_weights=True), output_layer=False)
    assert variance(conv.fc_src.weight, 300) == roughly(2)
    assert conv.fc_dst is conv.fc_src


# --- glorot_ is DGL's own default ----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: GraphConv(300, 100),
        lambda: SAGEConv(300, 100, "mean"),
        lambda: SAGEConv(300, 100, "gcn"),
        lambda: SAGEConv(300, 100, "pool"),
        lambda: GATConv(300, 50, 4, residual=True),
        lambda: GATv2Conv(300, 50, 4, residual=True),
    ],
)
def test_glorot_has_the_variance_of_dgl(make: Callable[[], nn.Module]) -> None:
    stock, ours = make(), glorot_(make())
    for (name, theirs), mine in zip(stock.named_parameters(), ours.parameters(), strict=True):
        if "bias" not in name and "attn" not in name:
            assert mine.var().item() == roughly(theirs.var().item()), name
