"""DGL's attention layers with edge features or dot products: the variances."""

from __future__ import annotations

import dgl
import pytest
import torch
from dgl.nn import AGNNConv, DotGatConv, EdgeGATConv, EGATConv, GATConv, GATv2Conv
from torch import Tensor, nn

from dgl_deepgnn.init import collect_stages, critical_, he_


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


def variance(weight: Tensor, fan_in: int) -> float:
    return fan_in * weight.var().item()


def roughly(value: float) -> object:
    return pytest.approx(value, rel=0.05)


def test_edge_features_add_one_part_in_as_many_as_there_are_layers() -> None:
    layers = nn.ModuleList(EdgeGATConv(300, 100, 75, 4) for _ in range(8))
    critical_(layers, output_layer=False)
    for layer in layers:
        assert variance(layer.fc.weight, 300) == roughly(1)
        assert variance(layer.res_fc.weight, 300) == roughly(1)
        assert variance(layer.fc_edge.weight, 100) == roughly(1 / 8)
    alone = critical_(EdgeGATConv(300, 100, 75, 4, residual=False), output_layer=False)
    assert variance(alone.fc.weight, 300) == roughly(2)


def test_new_edge_features_are_of_three_parts() -> None:
    conv = critical_(EGATConv(300, 200, 75, 50, 4), output_layer=False)
    assert variance(conv.fc_node_src.weight, 300) == roughly(2)
    for part, fan_in in ((conv.fc_ni, 300), (conv.fc_nj, 300), (conv.fc_fij, 200)):
        assert variance(part.weight, fan_in) == roughly(2 / 3)
    assert not conv.bias.any()


@pytest.mark.skipif(not hasattr(dgl.nn, "GatedGCNConv"), reason="since DGL 2.0")
def test_gates_share_and_so_do_node_and_neighbours() -> None:
    conv = dgl.nn.GatedGCNConv(300, 200, 250, batch_norm=False)
    critical_(conv, output_layer=False)
    for part in (conv.A, conv.B):
        assert variance(part.weight, 300) == roughly(1)
    for part, fan_in in ((conv.D, 300), (conv.E, 300), (conv.C, 200)):
        assert variance(part.weight, fan_in) == roughly(2 / 3)
        assert not part.bias.any()


def test_dot_products() -> None:
    conv = critical_(DotGatConv((300, 200), 75, 4), output_layer=False)
    assert variance(conv.fc_src.weight, 300) == roughly(2)
    assert 0 < conv.fc_dst.weight.std() < 1
    assert variance(critical_(DotGatConv(300, 75, 4)).fc.weight, 300) == roughly(1)


def test_likeness_has_nothing_to_draw() -> None:
    conv = AGNNConv(init_beta=0.7)
    assert collect_stages(conv) == []
    assert critical_(conv).beta.item() == pytest.approx(0.7)


@pytest.mark.parametrize("make", [lambda: GATConv(8, 2, 4), lambda: GATv2Conv(8, 2, 4)])
def test_frozen_attention_is_not_drawn(make) -> None:
    conv = make()
    vectors = [p for name, p in conv.named_parameters() if "attn" in name]
    before = [vector.requires_grad_(False).clone() for vector in vectors]
    values = conv.fc if hasattr(conv, "fc") else conv.fc_src
    old = values.weight.clone()
    he_(critical_(conv))
    assert all(torch.equal(a, b) for a, b in zip(vectors, before, strict=True))
    assert not torch.equal(values.weight, old)
