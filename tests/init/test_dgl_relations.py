"""Layers of several relations: the variance that each gets, and the growth of a relational sum."""

from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError
from dgl.nn import GATConv, GINConv, GraphConv, HeteroGraphConv, RelGraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn.init import collect_stages, critical_, he_
from dgl_deepgnn.init.dgl_relations import relational_growth

pytestmark = pytest.mark.filterwarnings("ignore:Nothing was checked")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    """Two relations end in users, one in items; every second item is rated."""
    return dgl.heterograph(
        {
            ("user", "follows", "user"): ([0, 1, 2, 3], [1, 2, 3, 0]),
            ("item", "pleases", "user"): ([0, 1, 0, 1], [0, 1, 2, 3]),
            ("user", "rates", "item"): ([0, 1], [0, 2]),
        },
        {"user": 4, "item": 4},
    )


def variance(weight: Tensor, fan_in: int) -> float:
    return fan_in * weight.var().item()


def roughly(value: float) -> object:
    return pytest.approx(value, rel=0.05)


@pytest.mark.parametrize(("aggregate", "power"), [("sum", -1), ("mean", 1), ("stack", 0)])
def test_relations_share_the_variance(graph: dgl.DGLGraph, aggregate: str, power: int) -> None:
    conv = HeteroGraphConv(
        {
            "follows": SAGEConv(300, 100, "mean"),
            "pleases": GraphConv(300, 100, "right"),
            "rates": GraphConv(300, 100, "right"),
        },
        aggregate,
    )
    critical_(conv, graph, output_layer=False)
    shared = 2 * 2.0**power
    assert variance(conv.mods["follows"].fc_self.weight, 300) == roughly(shared / 2)
    assert variance(conv.mods["follows"].fc_neigh.weight, 300) == roughly(shared / 2)
    assert variance(conv.mods["pleases"].weight, 300) == roughly(shared)
    # Half of the items get nothing: what the others get is twice as much.
    assert variance(conv.mods["rates"].weight, 300) == roughly(2 if aggregate == "stack" else 4)


def test_names_may_say_where_relations_end(graph: dgl.DGLGraph) -> None:
    conv = HeteroGraphConv({kind: GraphConv(300, 100, "right") for kind in graph.canonical_etypes})
    critical_(conv, output_layer=False)
    found = {name: variance(module.weight, 300) for name, module in conv.mod_dict.items()}
    assert found == {
        ("user", "follows", "user"): roughly(1),
        ("item", "pleases", "user"): roughly(1),
        ("user", "rates", "item"): roughly(2),
    }


def test_the_last_stage_alone_is_added(graph: dgl.DGLGraph) -> None:
    mlp = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300))
    conv = HeteroGraphConv({"follows": GINConv(mlp, "mean"), "pleases": GATConv(300, 75, 4)})
    assert [len(stage) for stage in collect_stages(conv.mods["follows"])] == [1, 1]
    critical_(conv, graph, output_layer=False)
    assert variance(mlp[0].weight, 300) == roughly(2 / 2**2)  # (1 + eps) and the mean
    assert variance(mlp[2].weight, 300) == roughly(1)
    assert variance(conv.mods["pleases"].fc.weight, 300) == roughly(1)
    assert variance(he_(conv).mods["pleases"].fc.weight, 300) == roughly(2)


def test_a_sum_over_a_relation_has_no_radius_of_its_own(graph: dgl.DGLGraph) -> None:
    conv = HeteroGraphConv({"follows": GraphConv(4, 4, "none")})
    with pytest.raises(DGLError, match="GraphConv sums over neighbours"):
        critical_(conv, graph)


# --- RelGraphConv --------------------------------------------------------------------------------


def relational(seed: int = 0) -> tuple[dgl.DGLGraph, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(40, (2, 200), generator=generator)
    graph = dgl.graph((ends[0], ends[1]), num_nodes=40)
    etypes = torch.randint(3, (200,), generator=generator)
    return graph, etypes


def test_growth_of_one_relation_is_the_spectral_radius() -> None:
    graph, _ = relational()
    graph = dgl.to_bidirected(graph)
    dense = torch.zeros(40, 40).index_put_(graph.edges()[::-1], torch.ones(graph.num_edges()))
    radius = torch.linalg.eigvals(dense).abs().max().item()
    one = torch.zeros(graph.num_edges(), dtype=torch.long)
    found = relational_growth(graph, one, None, False, None, 64)
    assert found == pytest.approx(radius, rel=0.1)
    half = torch.full((graph.num_edges(), 1), 0.5)
    found = relational_growth(graph, one, half, False, None, 64)
    assert found == pytest.approx(radius / 2, rel=0.1)


def test_growth_of_the_node_itself_alone_is_one() -> None:
    graph, etypes = relational()
    none = relational_growth(graph, etypes, torch.zeros(200), True, None, 32)
    assert none == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("regularizer", [None, "basis", "bdd"])
@pytest.mark.parametrize("self_loop", [True, False])
def test_variances(regularizer: str | None, self_loop: bool) -> None:
    graph, etypes = relational()
    graph.edata[dgl.ETYPE] = etypes
    conv = RelGraphConv(120, 120, 3, regularizer, 4, self_loop=self_loop)
    nn.init.ones_(conv.h_bias)
    critical_(conv, graph, output_layer=False)
    bases = 4 if regularizer == "basis" else None
    radius = relational_growth(graph, etypes, None, self_loop, bases, 8)
    fan_in = 30 if regularizer == "bdd" else 120
    assert variance(conv.linear_r.W, fan_in) == roughly(2 / radius**2)
    if self_loop:
        assert variance(conv.loop_weight, 120) == roughly(2 / radius**2)
    if regularizer == "basis":
        rows = conv.linear_r.coeff
        torch.testing.assert_close(rows @ rows.T, torch.eye(3))
    assert not conv.h_bias.any()


def test_fewer_bases_than_relations_have_rows_of_norm_one() -> None:
    conv = he_(RelGraphConv(8, 8, 5, "basis", 2))
    torch.testing.assert_close(conv.linear_r.coeff.norm(dim=1), torch.ones(5))


def test_behind_a_layer_norm_the_rest_is_the_nodes_own() -> None:
    conv = RelGraphConv(300, 300, 2, layer_norm=True)
    critical_(conv, output_layer=False)
    assert variance(conv.loop_weight, 300) == roughly(1)


def test_relations_of_the_edges_must_be_known() -> None:
    graph, _ = relational()
    for arguments in ((), (graph,)):
        with pytest.raises(DGLError, match=r"graph\.edata\[dgl\.ETYPE\]"):
            critical_(RelGraphConv(4, 4, 2), *arguments)
