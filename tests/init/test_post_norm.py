"""Residual branches in front of a normalization: which they are, and how large they start."""

import dgl
import pytest
import torch
from torch import nn

from dgl_deepgnn.init import critical_, fixup_
from dgl_deepgnn.init.tracing import trace

WIDTH = 64


class Block(nn.Module):
    """A sum of features and a branch, normalized behind the sum or in front of the branch."""

    def __init__(self, norm, kind="post", width=WIDTH):
        super().__init__()
        self.norm, self.kind = norm(width), kind
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, graph, h):
        """Update the nodes."""
        if self.kind == "pre":
            return h + self.down(torch.relu(self.up(self.norm(h))))
        branch = self.down(torch.relu(self.up(h)))
        if self.kind == "plain":
            return self.norm(branch)
        if self.kind == "beside":  # no skip connection, two maps
            return self.norm(branch + self.up(h)[:, : h.shape[1]])
        return self.norm(h + branch)


class Attention(nn.Module):
    """Post-norm attention, with a map of its output or none."""

    def __init__(self, output):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.o = nn.Linear(WIDTH, WIDTH) if output else nn.Identity()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, graph, h):
        """Update the nodes."""
        score = dgl.ops.u_dot_v(graph, self.q(h), self.k(h)) / WIDTH**0.5
        share = dgl.ops.edge_softmax(graph, score)
        return self.norm(h + self.o(dgl.ops.u_mul_e_sum(graph, self.v(h), share)))


class ByHand(nn.Module):
    """RMSNorm as users write it."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        """Divide by the root mean square."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class Head(nn.Linear):
    """A last layer."""

    def forward(self, graph, h):
        """Score the nodes."""
        return super().forward(h)


def chain(*blocks):
    return dgl.nn.Sequential(*blocks)


def graph_and_feat(width=WIDTH):
    torch.manual_seed(0)
    at = torch.arange(100)
    return dgl.add_self_loop(dgl.graph((at, (at + 1) % 100))), torch.randn(100, width)


def shares(model):
    graph, feat = graph_and_feat()
    found = trace(model, lambda feat: model(graph, feat), feat).shares
    return {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


NORMS = [
    nn.LayerNorm,
    nn.RMSNorm,
    ByHand,
    nn.BatchNorm1d,
    lambda width: nn.GroupNorm(4, width),
]


@pytest.mark.parametrize("norm", NORMS)
def test_the_last_weights_of_branches_in_front_of_a_normalization_share(norm):
    found = shares(chain(*[Block(norm) for _ in range(5)], Head(WIDTH, 3)))
    ends = {name: share for name, share in found.items() if name.endswith("weight")}
    assert ends == {f"{index}.down.weight": 0.2 for index in range(5)}


@pytest.mark.parametrize("kind", ["pre", "plain", "beside"])
def test_other_branches_do_not(kind):
    assert shares(chain(*[Block(nn.LayerNorm, kind) for _ in range(5)])) == {}


def test_nor_do_those_in_front_of_a_last_normalization_alone():
    class Last(Head):
        def forward(self, graph, h):
            return super().forward(graph, nn.functional.layer_norm(h, [WIDTH]))

    assert shares(chain(*[Block(nn.LayerNorm, "pre") for _ in range(5)], Last(WIDTH, 3))) == {}


def test_two_branches_of_one_sum_share():
    class Two(Block):
        def forward(self, graph, h):
            hidden = torch.relu(self.up(h))
            return self.norm(h + self.down(hidden) + self.up(h)[:, :WIDTH])

    found = shares(chain(*[Two(nn.LayerNorm) for _ in range(3)]))
    ends = {name: share for name, share in found.items() if name.endswith("weight")}
    assert ends.keys() == {f"{i}.{part}.weight" for i in range(3) for part in ("up", "down")}


def test_a_sum_that_the_caller_gets_as_well_is_not_behind_a_normalization():
    class Both(Block):
        def forward(self, graph, h):
            total = h + self.down(torch.relu(self.up(h)))
            return self.norm(total), total

    assert shares(Both(nn.LayerNorm)) == {}


@pytest.mark.parametrize(("output", "last"), [(True, "o"), (False, "v")])
def test_queries_and_keys_of_attention_keep_their_scale(output, last):
    found = shares(chain(*[Attention(output) for _ in range(4)]))
    ends = {name for name in found if name.endswith("weight")}
    assert ends == {f"{index}.{last}.weight" for index in range(4)}


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("depth", [16, 128])
def test_a_part_of_the_input_gets_through_any_number_of_layers(measured, depth):
    """The law (1 + 1/N)^-N of the mean square; with terms of one size it is 2^-N."""
    width = 256
    graph, feat = graph_and_feat(width)
    model = chain(*[Block(nn.LayerNorm, width=width) for _ in range(depth)])
    critical_(model, graph, feat if measured else None)
    through = torch.cosine_similarity(model(graph, feat), feat).mean().item() ** 2
    assert through == pytest.approx((1 + 1 / depth) ** -depth, rel=0.3)


def test_a_branch_of_an_activation_that_asks_for_biases_starts_small_with_them():
    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.map, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

        def forward(self, graph, h):
            return self.norm(h + nn.functional.gelu(self.map(h)))

    graph, feat = graph_and_feat()
    model = critical_(chain(*[Gelu() for _ in range(32)]), graph, feat)
    assert all(0 < block.map.bias.square().mean() < 0.173 / 16 for block in model)
    through = torch.cosine_similarity(model(graph, feat), feat).mean().item()
    assert through > 0.4


def test_one_branch_in_front_of_a_normalization_is_as_large_as_its_skip():
    graph, feat = graph_and_feat()
    model = critical_(chain(Block(nn.LayerNorm), Head(WIDTH, WIDTH)), graph, feat)
    branch = model[0].down(torch.relu(model[0].up(feat)))
    assert branch.square().mean().item() == pytest.approx(1, rel=0.01)


def test_fixup_starts_them_at_zero_all_the_same():
    graph, feat = graph_and_feat()
    model = chain(*[Block(nn.LayerNorm) for _ in range(8)])
    fixup_(model, graph=graph, feat=feat)
    expected = nn.functional.layer_norm(feat, [WIDTH])
    assert torch.allclose(model(graph, feat), expected, atol=1e-3)
    assert not any(block.down.weight.any() for block in model)
    assert all(block.up.weight.any() for block in model)


def test_a_convolution_of_dgl_is_such_a_branch():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = dgl.nn.GraphConv(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

        def forward(self, graph, h):
            return self.norm(h + torch.relu(self.conv(graph, h)))

    graph, feat = graph_and_feat()
    model = critical_(chain(*[Residual() for _ in range(20)]), graph, feat)
    handed_on = model[0].conv(graph, feat)
    assert handed_on.square().mean().item() == pytest.approx(1 / 20, rel=1)
