"""ResGraphSAGE against DGL's SAGEConv and against the variances it promises."""

from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph

from dgl_deepgnn import ResGraphSAGE, ResSAGEConv


def stock(conv: ResSAGEConv) -> dgl.nn.SAGEConv:
    theirs = dgl.nn.SAGEConv(conv.in_feats, conv.out_feats, "mean")
    with torch.no_grad():
        theirs.fc_self.weight.copy_(conv.weight_self.T)
        theirs.fc_self.bias.copy_(conv.bias)
        theirs.fc_neigh.weight.copy_(conv.weight_neigh.T)
    return theirs


@pytest.mark.parametrize("in_feats", [3, 9])
def test_stock_settings_are_a_stack_of_sageconv(graph: DGLGraph, in_feats: int) -> None:
    model = ResGraphSAGE(in_feats, 6, 4, 3, t=1, residual=None, init="glorot")
    for conv in model.convs:
        torch.nn.init.normal_(conv.bias)
    feat = torch.randn(graph.num_nodes(), in_feats)
    expected = feat
    for index, conv in enumerate(model.convs):
        expected = stock(conv)(graph, expected.relu() if index else expected)
    torch.testing.assert_close(model(graph, feat), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_dst", [2, 5])
def test_relation_between_node_types_is_that_of_sageconv(num_dst: int) -> None:
    conv = ResSAGEConv(3, 4, spectral_radius=1.0)
    relation = dgl.heterograph(
        {("user", "buys", "item"): ([0, 1, 4, 2], [1, 0, 0, 1])}, {"user": 5, "item": num_dst}
    )
    feat = torch.randn(5, 3), torch.randn(num_dst, 3)
    torch.testing.assert_close(conv(relation, feat), stock(conv)(relation, feat))
    with pytest.raises(DGLError, match="pass feat as a pair"):
        conv(relation, feat[0])


def gains(model: ResGraphSAGE) -> list[tuple[float, float]]:
    return [
        (
            conv.in_feats * conv.weight_self.var(correction=0).item(),
            conv.in_feats * conv.weight_neigh.var(correction=0).item(),
        )
        for conv in model.convs
    ]


def test_two_weights_share_the_critical_variance() -> None:
    torch.manual_seed(0)
    model = ResGraphSAGE(250, 300, 200, 3, residual=None)
    expected = [(1, 1), (1, 1), (0.5, 0.5)]
    for found, wanted in zip(gains(model), expected, strict=True):
        assert found == pytest.approx(wanted, rel=0.03)


def test_variance_split_follows_t() -> None:
    torch.manual_seed(0)
    model = ResGraphSAGE(250, 300, 200, 4, residual=None, t="harmonic:1", interpolation="variance")
    # C_self = 2 (1 - t), C_neigh = 2 t with t = 1, 1/2, 1/3, 1/4; half of both in the last layer.
    expected = [(0, 2), (1, 1), (4 / 3, 2 / 3), (3 / 4, 1 / 4)]
    for found, wanted in zip(gains(model), expected, strict=True):
        assert found == pytest.approx(wanted, rel=0.03)


def test_variance_split_leaves_the_operator_alone(graph: DGLGraph) -> None:
    split = ResGraphSAGE(3, 4, 2, 3, t=0.3, interpolation="variance", spectral_radius=1.0)
    whole = ResGraphSAGE(3, 4, 2, 3, t=1.0, spectral_radius=1.0)
    whole.load_state_dict(split.state_dict())
    feat = torch.randn(graph.num_nodes(), 3)
    torch.testing.assert_close(split(graph, feat), whole(graph, feat))


def test_fixup_starts_both_weights_of_a_branch_at_zero() -> None:
    model = ResGraphSAGE(5, 6, 4, 3, residual="fixup")
    branch = model.convs[1]
    assert not branch.weight_self.any()
    assert not branch.weight_neigh.any()


def test_glorot_draws_are_those_of_sageconv() -> None:
    torch.manual_seed(0)
    ours, theirs = ResSAGEConv(300, 100, init="glorot"), dgl.nn.SAGEConv(300, 100, "mean")
    variance = theirs.fc_neigh.weight.var().item()
    assert ours.weight_neigh.var().item() == pytest.approx(variance, rel=0.05)
    assert ours.weight_self.var().item() == pytest.approx(variance, rel=0.05)


def test_unknown_interpolation() -> None:
    with pytest.raises(DGLError, match=r"interpolation must be 'operator' or 'variance'.*'both'"):
        ResSAGEConv(3, 4, interpolation="both")
