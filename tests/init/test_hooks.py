"""Collecting the linear maps of a module tree: order, unknown modules, shared weights."""

from __future__ import annotations

import copy

import dgl
import pytest
import torch
from dgl import DGLError
from torch import nn

from dgl_deepgnn import ResGIN, ResGraphSAGE
from dgl_deepgnn.init import (
    LinearMap,
    UnknownModuleError,
    critical_,
    fixup_,
    glorot_,
    he_,
    lsuv_,
    rezero_,
    virgo_,
)
from dgl_deepgnn.init import hooks as hooks_module
from dgl_deepgnn.init.hooks import (
    GraphContext,
    WithoutGraph,
    collect_stages,
    fixup_branch,
    multiply_radius,
    register_initializer,
)


class Kernel(nn.Module):
    """A layer that no hook describes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 4))
        self.inner = nn.Linear(4, 4)


@pytest.fixture
def restore_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "_HOOKS", dict(hooks_module._HOOKS))


@pytest.fixture
def graph() -> dgl.DGLGraph:
    return dgl.graph(([0, 1, 1, 2], [1, 0, 2, 1]))


def test_stages_follow_the_order_of_definition() -> None:
    first, second, third = (nn.Linear(i, i + 1) for i in (1, 2, 3))
    tree = nn.ModuleDict({"z": nn.Sequential(first, nn.ReLU(), second), "a": third})
    stages = collect_stages(tree)
    assert [[m.owner for m in stage] for stage in stages] == [[first], [second], [third]]
    (linear,) = stages[1]
    assert linear.weight is second.weight and linear.bias is second.bias
    assert (linear.fan_in, linear.fan_out) == (2, 3)
    assert (linear.spectral_radius, linear.share, linear.scale) == (1, 1, 1)


def test_unknown_module_is_named_with_its_path() -> None:
    tree = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"deep": nn.ModuleList([Kernel()])}))
    with pytest.raises(UnknownModuleError, match=r"known for Kernel.*at Sequential\.1\.deep\.0;"):
        critical_(tree)
    with pytest.raises(DGLError, match=r"known for Kernel.*register_initializer.*at Kernel;"):
        critical_(Kernel())


def test_path_leads_through_layers_with_hooks() -> None:
    gin = dgl.nn.GINConv(nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4)), "mean")
    with pytest.raises(UnknownModuleError, match=r"Bilinear.*at ModuleList\.1\.apply_func\.1;"):
        critical_(nn.ModuleList([nn.Linear(4, 4), gin]))
    sage = ResGraphSAGE(4, 4, 2, num_layers=3)
    sage.norms[0] = Kernel()
    with pytest.raises(UnknownModuleError, match=r"Kernel.*at ResGraphSAGE\.norms\.0;"):
        critical_(sage)


@pytest.mark.filterwarnings("ignore:Left as they were")
@pytest.mark.parametrize("scheme", [critical_, he_, glorot_])
def test_not_strict_leaves_unknown_modules_alone_with_all_that_is_in_them(scheme) -> None:
    tree = nn.Sequential(nn.Linear(4, 4), Kernel(), nn.Bilinear(4, 4, 4))
    before = copy.deepcopy(tree)
    scheme(tree, strict=False)
    assert not torch.equal(before[0].weight, tree[0].weight) and not tree[0].bias.any()
    for unknown in (1, 2):
        for old, new in zip(before[unknown].parameters(), tree[unknown].parameters(), strict=True):
            assert torch.equal(old, new)


def test_what_is_left_alone_is_named() -> None:
    tree = nn.ModuleDict({"known": nn.Linear(4, 4), "mine": Kernel()})
    with pytest.warns(UserWarning, match=r"Left as they were, and not checked: mine\."):
        critical_(tree, strict=False)


def test_not_strict_reaches_into_layers_with_hooks() -> None:
    gin = dgl.nn.GINConv(nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 4)), "mean")
    critical_(gin, strict=False)
    assert not gin.apply_func[0].bias.any()


@pytest.mark.parametrize(
    "layer",
    [
        dgl.nn.GINEConv(nn.Linear(4, 4)),
        dgl.nn.EdgeConv(4, 4),
        dgl.nn.TypedLinear(4, 4, 2),
        dgl.nn.GlobalAttentionPooling(nn.Linear(4, 1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_of_dgl_without_hook_are_unknown(layer: nn.Module) -> None:
    """Their linear layers alone do not tell what they compute."""
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(UnknownModuleError, match=type(layer).__name__):
        critical_(nn.ModuleList([layer]))
    critical_(nn.ModuleList([layer]), strict=False)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_containers_and_layers_without_weights_are_passed_through() -> None:
    tree = dgl.nn.Sequential(dgl.nn.AvgPooling(), nn.Dropout(), nn.Linear(4, 4), nn.Identity())
    assert len(collect_stages(tree)) == 1
    assert collect_stages(nn.ModuleList()) == []
    assert critical_(nn.ReLU()) is not None


def test_hook_of_a_users_class(restore_hooks: None) -> None:
    @register_initializer(Kernel)
    def describe(module, context):
        inner = collect_stages(module.inner, context)
        return [[LinearMap(module, module.kernel, 4, 4, spectral_radius=2.0)], *inner]

    class Special(Kernel):
        pass

    stages = collect_stages(nn.Sequential(Kernel(), Special()))
    assert [stage[0].spectral_radius for stage in stages] == [2, 1, 2, 1]
    with pytest.raises(ValueError, match="Kernel has an initializer hook already"):
        register_initializer(Kernel)(describe)


def test_hook_may_know_only_some_configurations(restore_hooks: None) -> None:
    @register_initializer(Kernel)
    def describe(module, context):
        raise UnknownModuleError(module, "Not this one.")

    kernel = Kernel()
    before = kernel.inner.weight.clone()
    with pytest.raises(UnknownModuleError, match=r"Not this one\. It is at ModuleList\.0;"):
        critical_(nn.ModuleList([kernel]))
    critical_(nn.ModuleList([kernel]), strict=False)
    assert torch.equal(kernel.inner.weight, before)


def test_shared_module_is_drawn_once() -> None:
    """As what it is first, not as the output layer that it is, too."""
    shared = nn.Linear(400, 400)
    inner = nn.Sequential(shared, nn.ReLU(), nn.Linear(400, 400), nn.ReLU())
    critical_(nn.Sequential(inner, nn.Sequential(shared)))
    assert 400 * shared.weight.var().item() == pytest.approx(2, rel=0.05)


def test_tied_weight_is_drawn_once_and_both_biases_are_zero() -> None:
    first, second = nn.Linear(400, 400), nn.Linear(400, 400)
    second.weight = first.weight
    critical_(nn.Sequential(first, nn.ReLU(), second))
    assert 400 * first.weight.var().item() == pytest.approx(2, rel=0.05)
    assert not first.bias.any() and not second.bias.any()


def test_computed_weights_are_an_error() -> None:
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(UnknownModuleError, match=r"is computed from others.*Sequential\.0;"):
        critical_(nn.Sequential(parametrized))
    before = parametrized.weight.clone()
    assert torch.equal(critical_(parametrized, strict=False).weight, before)


def test_lazy_weights_are_an_error() -> None:
    with pytest.raises(UnknownModuleError, match="call the model once"):
        critical_(nn.Sequential(nn.LazyLinear(4)))


def test_normalization_layers_are_reset() -> None:
    norms = nn.ModuleList([nn.LayerNorm(4), nn.BatchNorm1d(4)])
    for norm in norms:
        nn.init.normal_(norm.weight)
    norms[1].running_mean.fill_(3.0)
    assert collect_stages(norms) == []
    for norm in norms:
        assert norm.weight.tolist() == [1] * 4 and norm.bias.tolist() == [0] * 4
    assert not norms[1].running_mean.any()


@pytest.mark.parametrize("scheme", [critical_, he_, glorot_])
def test_frozen_parameters_are_left_alone(scheme) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    nn.init.ones_(model[0].bias)
    model[1].running_mean.fill_(3.0)
    before = copy.deepcopy(model.state_dict())
    scheme(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scheme", [critical_, he_, glorot_])
def test_any_precision(scheme, dtype: torch.dtype) -> None:
    layer = nn.Linear(300, 300, dtype=dtype)
    scheme(layer)
    expected = 2 if scheme is he_ else 1
    assert 300 * layer.weight.double().var().item() == pytest.approx(expected, rel=0.05)


def test_deep_copy_is_initialized_on_its_own() -> None:
    model = ResGIN(4, 8, 2, num_layers=3)
    twin = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    critical_(twin)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(twin.convs[0].mlp[0].weight, model.convs[0].mlp[0].weight)


def test_context_computes_a_radius_once(
    graph: dgl.DGLGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = hooks_module.spectral_radius
    monkeypatch.setattr(
        hooks_module, "spectral_radius", lambda *a, **k: calls.append(a) or original(*a, **k)
    )
    context = GraphContext(graph)
    module = nn.Identity()
    for _ in range(3):
        assert context.spectral_radius(module, "none") == pytest.approx(2**0.5)
        assert context.spectral_radius(module, "none", 1.5) == pytest.approx(2**0.5 + 1.5)
    assert len(calls) == 2
    weighted = GraphContext(graph, torch.full((4,), 2.0))
    assert weighted.spectral_radius(module, "none") == pytest.approx(2 * 2**0.5)


def test_swapped_module_and_graph() -> None:
    graph, model = dgl.graph(([0, 1], [1, 0])), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    calls = {
        "Sequential": [
            lambda: critical_(graph, model),
            lambda: fixup_(graph, [model[0]], model),
            lambda: rezero_(graph, [model[0]], model),
        ],
        "DGLGraph": [
            lambda: critical_(graph),
            lambda: he_(graph),
            lambda: lsuv_(graph, model, torch.ones(2, 2)),
            lambda: virgo_(graph, model),
        ],
    }
    for kind, some in calls.items():
        for call in some:
            with pytest.raises(DGLError, match=rf"critical_\(model, graph\).*stands a {kind}\."):
                call()


def test_context_without_a_graph() -> None:
    module = nn.Identity()
    assert GraphContext().spectral_radius(module, "both") == 1
    assert GraphContext().spectral_radius(module, "right", 0.5) == 1.5
    with pytest.raises(DGLError, match=r"Identity sums.*critical_\(module, graph\)"):
        GraphContext().spectral_radius(module, "none")
    assert WithoutGraph().spectral_radius(module, "none", 3.0) == 1
    with pytest.raises(DGLError, match="edge_weight was given without the graph"):
        critical_(nn.Linear(2, 2), edge_weight=torch.ones(3))


def test_largest_radius_of_a_batch_counts(graph: dgl.DGLGraph) -> None:
    batch = dgl.batch([graph, dgl.graph(([0, 0, 0], [0, 0, 0]))])
    assert GraphContext(batch).spectral_radius(nn.Identity(), "none") == pytest.approx(3)


def test_multiply_radius() -> None:
    (stage,) = collect_stages(nn.Linear(2, 2))
    (once,) = multiply_radius(stage, 3.0)
    (twice,) = multiply_radius([once], 2.0)
    assert (stage[0].spectral_radius, once.spectral_radius, twice.spectral_radius) == (1, 3, 6)


@pytest.mark.parametrize(
    ("stages", "scales"), [(1, [0]), (2, [64**-0.5, 0]), (3, [64**-0.25, 64**-0.25, 0])]
)
def test_fixup_branch(stages: int, scales: list[float]) -> None:
    """Fixup's rule 2: L^(-1 / (2m - 2))."""
    branch = collect_stages(nn.Sequential(*[nn.Linear(2, 2) for _ in range(stages)]))
    scaled = fixup_branch(branch, 64)
    assert [m.scale for stage in scaled for m in stage] == pytest.approx(scales)
