"""Learning rates that transfer: the table by hand, and what one step does at every size."""

from __future__ import annotations

import dgl
import pytest
import torch
from torch import nn

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE, create_model
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init import UnknownModuleError
from dgl_deepgnn.optim import OptimizerName, param_groups

dgl.seed(0)
GRAPH = dgl.rand_graph(60, 400).add_self_loop()
FEAT = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(5, (60,), generator=torch.Generator().manual_seed(1))
KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
OPTIMIZERS: list[OptimizerName] = ["adam", "adamw", "sgd"]


def rates(
    model: nn.Module, optimizer: OptimizerName = "adam", **options: object
) -> dict[str, float]:
    """Learning rates by name, from the groups of lr = 1."""
    groups = param_groups(model, 1.0, optimizer, **options)  # type: ignore[arg-type]
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(by_id)
    return {name: by_id.pop(id(p)) for name, p in model.named_parameters()} | dict.fromkeys(by_id)


# --- the table ---


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_at_the_reference_size_all_rates_are_one(optimizer: OptimizerName) -> None:
    for family in ("resgcn", "resgin", "resgraphsage"):
        model = create_model(family, in_feats=12, hidden_feats=32, out_feats=5, num_layers=18)
        assert len(model.branches) == 16
        assert set(rates(model, optimizer).values()) == {1.0}, family


def test_adam_at_four_times_the_width_and_the_branches() -> None:
    found = rates(ResGraphSAGE(12, 128, 5, 66))
    branch = {"weight_self": 1 / 8, "weight_neigh": 1 / 8, "bias": 1 / 2}  # 1/4 * 1/sqrt(4)
    for index in range(1, 65):
        for name, rate in branch.items():
            assert found.pop(f"convs.{index}.{name}") == rate
    assert found == {
        "convs.0.weight_self": 1,
        "convs.0.weight_neigh": 1,
        "convs.0.bias": 1,
        "convs.65.weight_self": 1 / 4,
        "convs.65.weight_neigh": 1 / 4,
        "convs.65.bias": 1,
    }


def test_every_layer_of_a_gin_branch_counts_and_the_first_mlp_has_one_input_layer() -> None:
    found = rates(ResGIN(12, 64, 5, 66))
    for layer in (0, 1):
        assert found[f"convs.7.mlp.{layer}.weight"] == 1 / 4
        assert found[f"convs.7.mlp.{layer}.bias"] == 1 / 2
    assert found["convs.0.mlp.0.weight"] == 1 and found["convs.0.mlp.1.weight"] == 1 / 2
    assert found["convs.65.mlp.0.weight"] == 1 / 2
    assert found["convs.65.mlp.1.weight"] == 1  # from scores to scores: not as wide as the network


def test_sgd_depends_on_depth_only_where_the_scale_of_branches_does_not() -> None:
    for layers in (18, 66):
        found = rates(ResGCN(12, 64, 5, layers), "sgd")
        assert found["convs.1.weight"] == pytest.approx(1 / 2 * 2**0.5)
        assert found["convs.1.bias"] == pytest.approx(2**0.5)
        assert found["convs.0.weight"] == found["convs.0.bias"] == pytest.approx(2**0.5)
        last = f"convs.{layers - 1}"
        assert found[f"{last}.weight"] == 1 / 2 and found[f"{last}.bias"] == 1
    plain = rates(ResGCN(12, 64, 5, 66, residual="plain"), "sgd")
    assert plain["convs.1.weight"] == pytest.approx(1 / 2 * 2**0.5 / 64)
    assert plain["convs.1.bias"] == pytest.approx(2**0.5 / 64)
    assert rates(ResGCN(12, 32, 5, 66, residual="plain"))["convs.1.weight"] == 4 / 64


def test_heads_and_norms() -> None:
    found = rates(ResGCN(12, 64, 5, 17, head="edge", edge_feats=4, norm_layer="layer"))
    assert len(ResGCN(12, 64, 5, 17, head="edge").branches) == 16
    assert found["head.pair.weight"] == 32 / 132 and found["head.score.weight"] == 1 / 2
    assert found["norms.3.weight"] == 1


@pytest.mark.parametrize("residual", [None, "plain", "scaled", "fixup", "initial"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_shallow_networks_have_rates(layers: int, residual: str | None) -> None:
    model = ResGCN(12, 64, 5, layers, residual=residual)
    assert all(rate > 0 for rate in rates(model).values())


# --- models of the user's own ---


class Own(nn.Module):
    def __init__(self, width: int, depth: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.embed = nn.Linear(12, width)
        self.layers = nn.ModuleList(dgl.nn.GraphConv(width, width) for _ in range(depth))
        self.out = nn.Linear(width, 5)

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        x = self.embed(feat)
        for layer in self.layers:
            x = x + self.scale * layer(graph, torch.relu(x))
        return self.out(x)


def test_own_model_with_named_branches() -> None:
    model = Own(64, 32, 0.5)
    found = rates(model, branches=model.layers, branch_scale=0.5)
    assert found["layers.0.weight"] == 1 / 2 * 4 / 16 and found["layers.0.bias"] == 4 / 16
    assert found["embed.weight"] == 1 and found["out.weight"] == 1 / 2
    assert rates(model)["layers.0.weight"] == 1 / 2  # of width alone


def test_a_name_for_what_is_wrong() -> None:
    model = Own(8, 2, 1.0)
    for options, message in (
        ({"branches": [nn.Linear(2, 2)]}, "not part of Own"),
        ({"branches": [model.layers]}, "holds a ModuleList: give its entries"),
        ({"branches": ["layers.0"]}, "must be modules, .* got 'layers.0'"),
        ({"branches": "layers"}, "must be a list of modules"),
        ({"branches": model.embed}, "must be a list of modules"),
        ({"inputs": [nn.Linear(2, 2)]}, "inputs holds parameters that are not part of Own"),
        ({"branch_scale": 0.5}, "of no use without branches"),
        ({"branch_scale": float("inf")}, "branch_scale must be positive, and finite"),
        ({"branch_scale": "1"}, "branch_scale must be positive"),
        ({"weight_decay": float("nan")}, "weight_decay must not be negative"),
        ({"weight_decay": None}, "weight_decay must not be negative"),
        ({"optimizer": "rmsprop"}, "'adam', 'adamw', 'sgd'"),
        ({"branch_scale": 0.0}, "branch_scale must be positive"),
        ({"weight_decay": -1.0}, "must not be negative"),
        ({"weight_decay": {"nonsense": 1.0}}, "'nonsense', which is no parameter"),
    ):
        with pytest.raises(DGLError, match=message):
            param_groups(model, 0.1, **options)  # type: ignore[arg-type]
    for lr in (0.0, float("inf"), float("nan"), "0.1", None):
        with pytest.raises(DGLError, match="lr must be positive, and finite"):
            param_groups(model, lr)  # type: ignore[arg-type]
    with pytest.raises(DGLError, match=r"must be a torch.nn.Module, got \[\]"):
        param_groups([], 0.1)  # type: ignore[arg-type]
    for strict in (True, False):
        with pytest.raises(DGLError, match=r"0.weight has no shape yet: call the model once"):
            param_groups(nn.Sequential(nn.LazyLinear(3)), 0.1, strict=strict)
    unknown = nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4))
    with pytest.raises(UnknownModuleError, match="Bilinear"):
        param_groups(unknown, 0.1)
    assert rates(unknown, strict=False)["1.weight"] == 1


class ReZero(nn.Module):
    """Scalars of the model's own, and in each layer."""

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gamma, self.inner = nn.Parameter(torch.ones(width)), nn.Linear(width, width)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.token = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1, width))
        self.embed = nn.Linear(12, width)
        self.layers = nn.ModuleList(self.Layer(width) for _ in range(4))
        self.out = nn.Linear(width, 5)


@pytest.mark.parametrize("strict", [True, False])
def test_scalars_beside_layers_change_no_rate_of_the_layers(strict: bool) -> None:
    model = ReZero(256)
    found = rates(model, branches=model.layers, strict=strict)
    assert found["alpha"] == found["token"] == found["embed.weight"] == 1
    assert found["layers.0.inner.weight"] == found["out.weight"] == 1 / 8
    assert found["layers.0.gamma"] == 1


def test_layers_inside_one_without_a_closed_form() -> None:
    conv = dgl.nn.GATConv(64, 16, 4, residual=True)
    assert rates(nn.Sequential(nn.Linear(12, 64), conv))["1.fc.weight"] == 1 / 2
    attention = nn.Sequential(nn.Linear(12, 64), nn.MultiheadAttention(64, 2))
    with pytest.raises(UnknownModuleError, match=r"in_proj_weight of MultiheadAttention .* at .*1"):
        rates(attention)
    found = rates(attention, strict=False)
    assert found["1.in_proj_weight"] == 1 and found["1.out_proj.weight"] == 1 / 2


def test_what_wraps_a_network_keeps_its_branches() -> None:
    inner = ResGCN(12, 64, 5, 66)
    expected = list(rates(inner).values())
    wrappers: list[nn.Module] = [
        nn.DataParallel(inner),
        nn.Sequential(inner),
        nn.ModuleDict({"body": inner}),
        torch.compile(inner),  # type: ignore[list-item]
    ]
    for wrapper in wrappers:
        assert list(rates(wrapper).values()) == expected, type(wrapper)
    both = rates(nn.ModuleList([inner, ResGCN(12, 64, 5, 18)]))
    assert both["0.convs.1.bias"] == 1 / 2 and both["1.convs.1.bias"] == 1
    other = nn.Linear(3, 3)
    other.branches = 2  # type: ignore[assignment]
    assert set(rates(other).values()) == {1.0}


def test_what_reads_the_data() -> None:
    layers = [nn.Linear(128, 128), nn.Linear(128, 5)]
    behind = rates(nn.Sequential(nn.Embedding(50, 128), *layers), strict=False)
    assert behind["0.weight"] == 1 and behind["1.weight"] == 1 / 4
    beside = rates(nn.Sequential(nn.Embedding(50, 16), *layers), strict=False)
    assert beside["1.weight"] == 1  # features, perhaps with the embedding beside them
    for names in (("author", "paper"), ("paper", "author")):
        sizes = {"author": 8, "paper": 1433}
        encoders = nn.ModuleDict({name: nn.Linear(sizes[name], 64) for name in names})
        found = rates(nn.ModuleList([encoders, nn.Linear(64, 64)]))
        assert [found[f"0.{name}.weight"] for name in names] == [1, 1]
        assert found["1.weight"] == 1 / 2
    chain = rates(nn.ModuleDict({"first": nn.Linear(8, 64), "second": nn.Linear(64, 64)}))
    assert chain["second.weight"] == 1 / 2
    model = nn.ModuleList([nn.Linear(8, 64), nn.Linear(1433, 64), nn.Linear(64, 64)])
    assert rates(model)["1.weight"] == 32 / 1433
    found = rates(model, inputs=model[:2])
    assert found["0.weight"] == found["1.weight"] == 1 and found["2.weight"] == 1 / 2


def test_width_is_that_of_the_network_not_of_a_wide_first_layer() -> None:
    for wide in (1, 2, 4):
        sizes = [(12, wide * 128), (wide * 128, 128), (128, 128), (128, 128), (128, 5)]
        model = nn.ModuleList(nn.Linear(*size) for size in sizes)
        found = rates(model, "sgd", branches=model[2:4])
        plain = rates(model, "sgd", branches=model[2:4], branch_scale=0.5)
        assert found["2.weight"] == pytest.approx(1 / 4 * 2 / 2)
        assert plain["2.bias"] == pytest.approx(2 / 2 / 0.25)
    small = nn.ModuleList(
        [nn.Linear(12, 64), nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 3)]
    )
    assert rates(small)["2.weight"] == 2


def test_bottlenecks_inside_a_branch_follow_the_table() -> None:
    for width in (16, 64, 256):
        branch = nn.Sequential(nn.Linear(width, width // 4), nn.Linear(width // 4, width))
        model = nn.ModuleList([nn.Linear(12, width), branch, nn.Linear(width, 5)])
        found = rates(model, branches=[branch], branch_scale=4.0)
        assert found["1.0.weight"] == 32 / width and found["1.1.weight"] == 32 / (width // 4)


def test_model_and_random_state_are_left_alone() -> None:
    model = nn.ModuleList(
        [nn.Linear(4, 8), nn.BatchNorm1d(8), dgl.nn.GATConv(8, 4, 2, allow_zero_in_degree=True)]
    )
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.copy_(torch.full_like(tensor, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    param_groups(model, 0.1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(vars(parameter) for parameter in model.parameters())  # nothing hangs on them
    model = Own(8, 2, 1.0)
    loss = model(GRAPH, FEAT).sum()
    param_groups(model, 0.1)
    loss.backward()  # nothing it needs has been written to


# --- what a step does ---


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_does_not_change_with_the_rates(optimizer: OptimizerName) -> None:
    model = ResGCN(12, 64, 5, 34, residual="scaled")
    groups = param_groups(model, 0.1, optimizer, weight_decay=0.5)
    assert len({group["lr"] for group in groups}) > 2
    if optimizer != "adamw":
        assert {group["weight_decay"] for group in groups} == {0.5}
        return
    before = [p.clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(groups).step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), 0.95 * old)


def test_weight_decay_by_name() -> None:
    model = ResGCN(12, 64, 5, 4)
    groups = param_groups(model, 0.1, weight_decay={"convs.1.weight": 0.3})
    decayed = [p for group in groups if group["weight_decay"] == 0.3 for p in group["params"]]
    assert len(decayed) == 1 and decayed[0] is model.convs[1].weight
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}


def test_schedulers_scale_every_group_by_its_own_rate() -> None:
    groups = param_groups(ResGCN(12, 64, 5, 34), 0.1)
    optimizer = torch.optim.Adam(groups)
    first = [group["lr"] for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [rate / 4 for rate in first]
    )


def moved(name: OptimizerName, lr: float, transfer: bool, layers: int, width: int) -> float:
    """Root mean square by which three steps move the scores, mean over three draws."""
    moves = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = ResGCN(12, width, 5, layers, t="per-depth:2")
        groups = param_groups(model, lr, name) if transfer else model.parameters()
        optimizer = KINDS[name](groups, lr=lr)
        before = model(GRAPH, FEAT).detach()
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(GRAPH, FEAT), LABELS).backward()
            optimizer.step()
        moves.append(float((model(GRAPH, FEAT).detach() - before).square().mean().sqrt()))
    return sum(moves) / len(moves)


@pytest.mark.parametrize(
    ("name", "lr", "small", "large", "today"),
    [
        ("adam", 0.001, (6, 32), (66, 32), 2.5),
        ("adam", 0.001, (6, 16), (6, 256), 8),
        ("sgd", 0.01, (6, 16), (6, 256), 4),
    ],
)
def test_steps_move_the_scores_alike_at_every_size(
    name: OptimizerName, lr: float, small: tuple[int, int], large: tuple[int, int], today: float
) -> None:
    ratios = {
        transfer: moved(name, lr, transfer, *large) / moved(name, lr, transfer, *small)
        for transfer in (False, True)
    }
    assert ratios[False] > today
    assert 0.4 < ratios[True] < 2.5
