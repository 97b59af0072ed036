"""Every class of ``dgl.nn.pytorch.conv`` in closed form: right at any depth, or left alone."""

from __future__ import annotations

import copy
import math

import dgl
import pytest
import torch
from dgl import DGLError
from torch import Tensor, nn

from benchmarks.hooks.dgl_classes import GRAPHS, HERE, NOT_MADE, STACKS, WIDTH, bare, graph_for
from dgl_deepgnn.init import UnknownModuleError, critical_, he_
from dgl_deepgnn.init.dgl_refused import REASONS
from dgl_deepgnn.init.schemes import closed_form_

pytestmark = pytest.mark.filterwarnings("ignore")  # of narrow draws, and of missing probes

CLASSES = set(dgl.nn.pytorch.conv.__all__)
REFUSED = {
    *(name for name in HERE if name in REASONS),
    *(name for name in HERE if name == "GatedGCNConv"),  # it adds its input
    "GINConv('max')",
    "HeteroGraphConv, max",
    "SAGEConv('lstm')",
}
KNOWN = [name for name in HERE if name not in REFUSED]
DIRECTED = [name for name in KNOWN if name != "APPNPConv"]  # there it is no mean and has no weight


def test_no_class_is_missed() -> None:
    assert set(map(bare, HERE)) | set(NOT_MADE) >= CLASSES
    assert set(REASONS) <= CLASSES
    made = {bare(name) for name in KNOWN} & CLASSES
    assert made | set(REASONS) | {"EdgeWeightNorm"} == CLASSES


@torch.no_grad()
def typical_square(name: str, graph: dgl.DGLGraph, depth: int) -> float:
    """Geometric mean over four draws of the mean square behind so many layers."""
    logarithms = []
    for seed in range(4):
        torch.manual_seed(seed)
        model = critical_(STACKS[name](depth), graph)
        out = model.eval()(graph, torch.randn(graph.num_nodes(), WIDTH))
        logarithms.append(math.log(out.square().mean().item()))
    return math.exp(sum(logarithms) / 4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "undirected") for name in KNOWN] + [(name, "directed") for name in DIRECTED],
)
def test_signal_at_16_and_32_layers(name: str, kind: str) -> None:
    """Of a draw of L stages of width 64 the logarithm has variance 5 L / 64, half of it as mean."""
    graph = graph_for(name, GRAPHS[kind]())
    at_16, at_32 = (typical_square(name, graph, depth) for depth in (16, 32))
    more = 10 if "basis" in name else 1  # two bases make three matrices that resemble each other
    assert 1e-3 < at_16 < 50 * more
    assert 3e-4 < at_32 < 50 * more
    assert 1 / 50 / more < at_32 / at_16 < 20 * more


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused_is_named_and_left_as_it_is(name: str) -> None:
    graph = graph_for(name, GRAPHS["undirected"]())
    refused, known = STACKS[name](2), nn.Linear(WIDTH, WIDTH)
    model = nn.ModuleDict({"mine": refused, "known": known})
    before = copy.deepcopy(model)
    with pytest.raises(UnknownModuleError, match=rf"{bare(name)}.*ModuleDict\.mine\.layers\.0;"):
        critical_(model, graph)
    assert_same(model, before)  # in the known part, too
    for scheme in (lambda m: critical_(m, graph, strict=False), lambda m: he_(m, strict=False)):
        scheme(model)
        assert_same(model["mine"], before["mine"])
        assert not torch.equal(known.weight, before["known"].weight) and not known.bias.any()


def assert_same(module: nn.Module, before: nn.Module) -> None:
    state = module.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(
            value,
            state[name],
        ), name


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_frozen_stays(name: str) -> None:
    graph = graph_for(name, GRAPHS["undirected"]())
    model = STACKS[name](2).requires_grad_(False)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.9, 1.1)
    before = copy.deepcopy(model)
    he_(closed_form_(model, graph))
    assert_same(model, before)


def test_what_has_no_reason_of_its_own_is_refused_too() -> None:
    layer = dgl.nn.GlobalAttentionPooling(nn.Linear(4, 1))
    with pytest.raises(UnknownModuleError, match="No initializer is known for GlobalAttention"):
        critical_(layer)


def test_reasons_read_as_sentences() -> None:
    for name, reason in REASONS.items():
        assert reason[0].islower() and not reason.endswith("."), name
        assert 40 < len(reason) < 200, name


@pytest.mark.parametrize("cached", [False, True])
def test_a_cached_layer_does_not_keep_what_the_probe_showed_it(cached: bool) -> None:
    graph = GRAPHS["undirected"]()
    layers = [dgl.nn.SGConv(WIDTH, WIDTH, 2, cached), nn.ReLU(), nn.Linear(WIDTH, WIDTH)]
    feat = torch.randn(graph.num_nodes(), WIDTH)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            return self.layers[2](torch.relu(self.layers[0](graph, h)))

    model = critical_(Model(), graph)
    assert layers[0]._cached_h is None
    critical_(model, graph, torch.ones_like(feat))
    assert layers[0]._cached_h is None
    once = model(graph, feat)
    assert (layers[0]._cached_h is None) != cached
    critical_(model, graph)
    assert not torch.equal(model(graph, feat), once)


def test_a_heterograph_without_the_relations_is_an_error() -> None:
    conv = dgl.nn.HeteroGraphConv({"follows": dgl.nn.GraphConv(4, 4)})
    with pytest.raises(DGLError, match=r"relations follows.*Pass the heterograph"):
        critical_(conv)
    other = dgl.heterograph({("a", "likes", "b"): ([0], [0])})
    with pytest.raises(DGLError, match="Pass the heterograph that has them"):
        critical_(conv, other)
