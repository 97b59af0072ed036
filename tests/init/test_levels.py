"""The closed form by activation: order one at every depth, or said why not."""

from __future__ import annotations

from collections.abc import Callable

import dgl
import pytest
import torch
import torch.nn.functional as F
from dgl import DGLError
from dgl.nn import GATConv, GINConv, GraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn.init import critical_
from dgl_deepgnn.init.activation import critical_point
from dgl_deepgnn.nn import ResGINConv, ResGraphConv, ResSAGEConv

Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture(scope="module")
def graph() -> dgl.DGLGraph:
    """A grid of 12 x 12 nodes."""
    nodes = torch.arange(144).view(12, 12)
    src = torch.cat([nodes[:, :-1].flatten(), nodes[:-1].flatten()])
    dst = torch.cat([nodes[:, 1:].flatten(), nodes[1:].flatten()])
    return dgl.to_bidirected(dgl.graph((src, dst))).add_self_loop()


class Stack(nn.Module):
    def __init__(
        self, make: Callable[[], nn.Module], depth: int, activation: Function = F.relu
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(depth))
        self.function = activation
        self.signal: list[float] = []  # in front of the activations

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        self.signal = []
        for index, layer in enumerate(self.layers):
            h = layer(graph, self.function(h) if index else h).flatten(1)
            self.signal.append(h.detach().square().mean().item())
        return h


@pytest.mark.parametrize("depth", [8, 32, 64, 128])
@pytest.mark.parametrize(("activation", "low", "high"), [(F.gelu, 0.2, 10), (nn.SiLU(), 0.7, 40)])
def test_gelu_and_silu_stay_at_their_mean_square(
    activation: Function, low: float, high: float, depth: int, graph: dgl.DGLGraph
) -> None:
    """Every layer, for fresh features whatever their scale; the gradient, too."""
    model = critical_(Stack(lambda: GraphConv(256, 256), depth, activation), graph)
    for scale in (0.3, 1.0, 3.0):
        out = model(graph, scale * torch.randn(144, 256))
        slack = 1 if scale == 1 else 4
        assert all(low / slack < square < high * slack for square in model.signal[4:-1])
        assert 0.03 < model.signal[-1] < 10
    weights = [model.layers[index].weight for index in (0, -2)]
    first, last = torch.autograd.grad(out, weights, torch.randn_like(out))
    assert 1e-3 < first.square().mean() / last.square().mean() < 1e3


@pytest.mark.filterwarnings("ignore:.*scatters around its mean")
@pytest.mark.parametrize(
    "make",
    [
        lambda: SAGEConv(96, 96, "mean"),
        lambda: SAGEConv(96, 96, "pool"),
        lambda: GINConv(nn.Sequential(nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 96)), "sum"),
        lambda: ResGraphConv(96, 96),
        lambda: ResSAGEConv(96, 96),
        lambda: ResGINConv(96, 96),
    ],
)
def test_layers_with_gelu(make: Callable[[], nn.Module], graph: dgl.DGLGraph) -> None:
    model = critical_(Stack(make, 32, F.gelu), graph)
    model(graph, torch.randn(144, 96))
    assert all(0.1 < square < 100 for square in model.signal[4:])


@pytest.mark.parametrize(
    ("activation", "gain"),
    [
        (nn.ReLU(), 2.0),
        (nn.LeakyReLU(0.5), 1.6),
        (nn.PReLU(init=0.1), 2 / 1.01),
        (nn.Identity(), 1.0),
        (nn.Tanh(), 1.0),
        (nn.GELU(), 1.98306),
        (nn.SiLU(), 1.98800),
    ],
)
def test_variances_by_activation(activation: nn.Module, gain: float) -> None:
    """Inner layers have C_W; the first one takes features of mean square one, the last gives it."""
    point = critical_point(activation)
    layers = [part for _ in range(3) for part in (nn.Linear(500, 500), activation)]
    model = critical_(nn.Sequential(*layers[:-1]))
    first, inner, last = (
        (part.weight.var().item() * 500, part.bias.var().item())
        for part in model
        if isinstance(part, nn.Linear)
    )
    square = point.weight_variance if point.mean_square is None else point.mean_square or 1.0
    assert first[0] == pytest.approx(square - point.bias_variance, rel=0.02)
    assert inner[0] == pytest.approx(gain, rel=0.02)
    assert last[0] == pytest.approx(gain / (square - point.bias_variance), rel=0.02)
    for bias in (first[1], inner[1]):
        assert bias == pytest.approx(point.bias_variance, rel=0.25)
    assert last[1] == 0


def test_a_part_that_ends_in_an_activation() -> None:
    gelu = critical_point(nn.GELU())
    ending = nn.Sequential(nn.Linear(400, 400), nn.GELU())
    cut = nn.Sequential(nn.Linear(400, 400), nn.GELU(), nn.Linear(400, 400))
    for model in (ending, cut):
        critical_(model, output_layer=False)
        linear = [part for part in model if isinstance(part, nn.Linear)][-1]
        assert linear.bias.var().item() == pytest.approx(gelu.bias_variance, rel=0.25)
    assert cut[2].weight.var().item() * 400 == pytest.approx(1.98306, rel=0.03)


def test_without_biases_it_is_an_error_that_says_what_to_do(graph: dgl.DGLGraph) -> None:
    model = Stack(lambda: GraphConv(16, 16, bias=False), 3, F.silu)
    with pytest.raises(DGLError, match=r"'layers.0.weight' has no bias.*silu.*0\.555.*bias=True"):
        critical_(model, graph)
    critical_(Stack(lambda: GraphConv(16, 16, bias=False), 3, torch.tanh), graph)
    norm = [nn.Linear(16, 16, bias=False), nn.LayerNorm(16), nn.SiLU()]
    critical_(nn.Sequential(*norm, nn.Linear(16, 4)))  # the norm sets the scale


def test_an_activation_without_critical_point_is_an_error(graph: dgl.DGLGraph) -> None:
    with pytest.raises(DGLError, match=r"Behind 'layers.0.weight': sigmoid has no critical point"):
        critical_(Stack(lambda: GraphConv(16, 16), 3, torch.sigmoid), graph)
    scores = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    critical_(scores)  # at the end it is none between layers


def test_what_is_no_known_activation_is_said() -> None:
    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) ** 2)

    with pytest.warns(UserWarning, match=r"behind 'first.weight' \(pow\) is no activation"):
        critical_(Squares())


def test_attention_heads_with_gelu_are_refused_where_attention_selects(
    graph: dgl.DGLGraph,
) -> None:
    with pytest.raises(DGLError, match="explodes"):
        critical_(Stack(lambda: GATConv(64, 16, 4), 32, nn.SiLU()), graph)


@pytest.mark.filterwarnings("ignore:.*scatters around its mean")
@pytest.mark.parametrize("depth", [24, 64])
@pytest.mark.parametrize("norm", ["both", "none"])
def test_citations_without_cycles_stay_at_order_one(norm: str, depth: int) -> None:
    """In every layer: neither the largest diagonal entry nor the mean growth would do."""
    generator = torch.Generator().manual_seed(5)
    later = torch.arange(1, 200).repeat_interleave(5)
    earlier = (later * torch.rand(len(later), generator=generator)).long()
    graph = dgl.to_simple(dgl.graph((earlier, later), num_nodes=200)).add_self_loop()
    model = critical_(Stack(lambda: GraphConv(256, 256, norm=norm), depth), graph)
    model(graph, torch.randn(200, 256))
    assert all(0.02 < square < 50 for square in model.signal)
