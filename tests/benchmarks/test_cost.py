"""The cost benchmark: equal work for all, a bound that is one, tables that are the data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cost import clock, forms, growth, imports, memory, operations, steps
from benchmarks.cost.batches import NAMES, small_graphs, time_batches
from benchmarks.cost.bound import PRODUCTS, BareProducts, normalized_adjacency
from benchmarks.cost.contenders import BOUNDS, CONTENDERS, build, our_model, trainer
from benchmarks.cost.graphs import CLASSES, SIZES, Problem, Size, random_problem
from benchmarks.cost.report import PLOT, report
from benchmarks.cost.stacks import dgl_stack, pyg_stack
from benchmarks.cost.targets import targets
from dgl_deepgnn import aggregation_operator

ROOT = Path(__file__).parents[2]
ALL = [name for family in CONTENDERS.values() for name in family]
TINY = Size(50, 200, 96, words=True)


def needs_pyg(name: str) -> None:
    if name.startswith("PyG"):
        pytest.importorskip("torch_geometric")


@pytest.fixture
def problem() -> Problem:
    return random_problem(TINY)


def test_the_graph_is_undirected_with_one_self_loop_a_node(problem: Problem) -> None:
    matrix = problem.graph.adj_external().to_dense()
    assert torch.equal(matrix, matrix.T)
    assert (torch.diagonal(matrix) == 1).all()
    assert problem.graph.num_edges() == TINY.edges + TINY.nodes
    assert problem.plain.num_edges() == TINY.edges


@pytest.mark.parametrize("name", ALL)
def test_contenders_score_all_nodes_and_learn(name: str, problem: Problem) -> None:
    needs_pyg(name)
    contender = build(name, problem, layers=5)
    before = contender.infer().clone()  # memory that the bound uses again
    assert before.shape == (TINY.nodes, CLASSES)
    # No contender may compute with vanishing (denormal) or overflowing numbers.
    assert 1e-3 < before.square().mean().sqrt() < 1e3
    first, second = contender.train().clone(), contender.train()
    torch.testing.assert_close(first, before)
    if name not in BOUNDS:
        assert not torch.equal(first, second), "the step changed nothing"


def test_only_operators_anew_are_built_at_every_step(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def count(*args: Any, **kwargs: Any) -> Any:
        built.append(args)
        return aggregation_operator(*args, **kwargs)

    monkeypatch.setattr("dgl_deepgnn.operator.memory.aggregation_operator", count)
    for name, builds in (("ResGCN", 1), ("ResGCN, operator anew", 3)):
        contender = build(name, problem, layers=3)
        for _ in range(3):
            contender.train()
        assert len(built) == builds
        built.clear()


def test_every_form_of_a_graph_is_the_same_network(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "Cora", TINY)
    made: list[Any] = []

    def keep(*args: Any) -> Any:
        made.append(trainer(*args))
        return made[-1]

    monkeypatch.setattr(forms, "trainer", keep)
    cell = forms.time_forms("Cora", 3, seconds=0, least=2)
    assert list(cell["train"]) == list(cell["infer"])
    assert cell["train"].keys() >= {forms.OPERATOR, forms.ANEW, "`DGLGraph`"}
    scores = [steps.infer() for steps in made]
    assert len(scores) == len(cell["train"])
    assert all(torch.equal(one, scores[0]) for one in scores)


@pytest.mark.parametrize("product", PRODUCTS)
def test_bound_has_the_products_of_a_linear_gcn(product: str, problem: Problem) -> None:
    """Independently: autograd through dense matrices, with the scores' gradient that is used."""
    bound = BareProducts(problem, 4, product)
    matrix = bound.matrix.to_dense()
    weights = [weight.clone().requires_grad_() for weight in bound.weights]
    scores = problem.feat
    for weight in weights:
        scores = matrix @ scores @ weight
    grads = torch.autograd.grad(scores, weights, bound.last_grad)
    torch.testing.assert_close(bound.train(), scores.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bound.infer(), scores.detach(), rtol=1e-4, atol=1e-6)
    for mine, exact in zip(bound.weight_grads, grads, strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-3, atol=1e-7)


def test_bound_aggregates_as_dgl_does(problem: Problem) -> None:
    (layer,) = dgl_stack("GraphConv", problem, 1).layers
    matrix = normalized_adjacency(problem.graph)
    expected = matrix @ (problem.feat @ layer.weight)
    torch.testing.assert_close(layer(problem.graph, problem.feat), expected)


@pytest.mark.parametrize(
    ("family", "in_dgl", "in_pyg"),
    [
        ("GCN", "GraphConv", "GCNConv"),
        ("GraphSAGE", "SAGEConv", "SAGEConv"),
        ("GIN", "GINConv", "GINConv"),
    ],
)
def test_the_libraries_compute_the_same(
    family: str, in_dgl: str, in_pyg: str, problem: Problem
) -> None:
    """With equal weights, the three stacks of a family have equal scores: no one works less."""
    ours = our_model({"GCN": "ResGCN", "GraphSAGE": "ResGraphSAGE", "GIN": "ResGIN"}[family],
                     problem, 3, plain=True)  # fmt: skip
    expected = dgl_stack(in_dgl, problem, 3)
    size = sum(p.numel() for p in expected.parameters())
    assert sum(p.numel() for p in ours.parameters()) == size
    pytest.importorskip("torch_geometric")
    for csr in (False, True):
        other = pyg_stack(in_pyg, problem, 3, csr=csr)
        with torch.no_grad():
            for mine, theirs in zip(expected.layers, other.layers, strict=True):
                for name, parameter in theirs.named_parameters():
                    parameter.copy_(_counterpart(name, dict(mine.named_parameters())))
        torch.testing.assert_close(
            other(problem.feat), expected(problem.feat), rtol=1e-3, atol=1e-4
        )


def _counterpart(name: str, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """DGL's parameter for one of PyTorch Geometric's."""
    if name in ("bias", "lin.weight"):
        return weights["bias"] if name == "bias" else weights["weight"].T
    if name.startswith("lin_l"):  # of the neighbours, with the bias
        return weights["fc_self.bias" if name.endswith("bias") else "fc_neigh.weight"]
    if name.startswith("lin_r"):
        return weights["fc_self.weight"]
    return weights[name.replace("nn.", "apply_func.")]


def test_rounds_are_interleaved_and_at_least_as_many() -> None:
    calls: list[str] = []
    tasks = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    times = clock.measure(tasks, seconds=0, least=4, label="")
    assert {value["rounds"] for value in times.values()} == {4}
    assert len(calls) == 3 * 5
    assert all(set(calls[start : start + 3]) == set("abc") for start in range(0, 15, 3))


def test_quartiles() -> None:
    expected = {"median": 3.0, "q25": 2.0, "q75": 4.0, "rounds": 5}
    assert clock.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == expected


def test_peak_memory_sees_the_activations() -> None:
    size = [4000, 8000, 64, False]
    shallow, deep = (memory.peak_memory("DGL GraphConv", size, layers) for layers in (4, 24))
    one = 4 * 4000 * 64  # bytes of one layer's features
    assert 20 * one < deep - shallow < 200 * one


def test_kinds_of_operations() -> None:
    names = {
        "aten::_sparse_mm_reduce_impl": "sparse products",
        "GSpMMBackward": "sparse products",
        "aten::_embedding_bag_forward_only": "sparse products",
        "aten::addmm": "dense products",
        "aten::add_": "elementwise",
        "aten::fill_": "copies and fills",
        "aten::_fused_adam_": "optimizer",
        "autograd::engine::evaluate_function: MmBackward0": operations.REST,
        "aten::t": operations.REST,
    }
    assert {name: operations.kind_of(name) for name in names} == names


def test_slope_of_a_line_is_its_exponent() -> None:
    points = [{"x": x, "bytes": {"ResGCN": 7 * x**2}} for x in (1, 10, 100)]
    assert growth.slope(points, "bytes", "ResGCN") == pytest.approx(2)


def test_small_graphs_are_simple_and_have_the_size_announced() -> None:
    graphs = small_graphs()
    sizes = [graph.num_nodes() for graph in graphs]
    assert 29 < sum(sizes) / len(sizes) < 31
    assert all(graph.in_degrees().min() >= 3 for graph in graphs[:50])


def test_batches_run_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_geometric")
    monkeypatch.setattr("benchmarks.cost.batches.GRAPHS", 32)
    monkeypatch.setattr("benchmarks.cost.batches.BATCH", 8)
    assert set(time_batches(seconds=0, least=2)) == set(NAMES)


def results(step_times: dict[str, float]) -> dict[str, Any]:
    """Results of made-up times of training steps in seconds."""
    times = {
        name: {"median": value, "q25": value, "q75": value, "rounds": 9}
        for name, value in step_times.items()
    }
    cell = {"size": "Cora", "layers": 64, "threads": 1, "train": times, "infer": times}
    return {
        "machine": {"processor": "abacus"},
        "quick": False,
        "seconds": {"cora-64": 60.0},
        "sections": {"cora-64": [cell]},
    }


def test_report_has_the_figures_and_says_what_is_missed() -> None:
    made = results(
        {
            **dict.fromkeys(BOUNDS, 0.2),
            next(iter(BOUNDS)): 0.1,
            "ResGCN": 0.12,
            "ResGCN, plain": 0.118,
            "DGL GraphConv": 0.19,
            "PyG GCNConv": 0.25,
        }
    )
    verdicts = {target.what: target.met for target in targets(made)}
    assert verdicts == {
        "training step, ResGCN / DGL GraphConv": False,
        "training step, ResGCN / PyG GCNConv": True,
        "training step, ResGCN / fastest bare products": True,
        "training step, ResGCN / ResGCN, plain": True,
    }
    text = report(made)
    row = "| training step, ResGCN / DGL GraphConv | Cora's size, 64 layers, one thread "
    assert row + "| 0.6 | 0.63 | **MISSED** |" in text
    assert "| DGL GraphConv | 190 (190 to 190) | 1.58 | 190 (190 to 190) | 1.58 | 9 |" in text
    assert "3 of 4 are met" in text


def test_sections_make_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """From real measurements of tiny ones."""
    monkeypatch.setitem(SIZES, "Cora", TINY)
    names = [name for name in ALL if not name.startswith("PyG")]
    monkeypatch.setattr("benchmarks.cost.targets.SMALL", {"DGL GraphConv": 0.6})
    made = results({})
    made["sections"] = {
        "cora-64": [steps.time_steps("Cora", 64, names, seconds=0, least=2)],
        "forms": [{"load": 0.0, **forms.time_forms("Cora", 3, seconds=0, least=2)}],
        "import": {name: clock.quartiles([s]) for name, s in imports.time_imports().items()},
        "profile": [
            {"size": "Cora", "layers": 3, "kinds": operations.profile_step("Cora", 3, ["ResGCN"])}
        ],
    }
    text = report(json.loads(json.dumps(made)))
    for heading in (
        "## Targets",
        "### Forms of a graph, ",
        "## Import",
        "### Profile, Cora's size, 3 layers",
    ):
        assert heading in text
    assert "nan" not in text


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("results.json")), ids=str)
def test_page_is_made_of_the_results(file: Path) -> None:
    measured = json.loads(file.read_text("utf-8"))
    text = file.with_name("README.md").read_text("utf-8")
    assert text == report(measured), "run: python -m benchmarks.cost"
    assert not measured["quick"]
    assert file.with_name(PLOT).exists()
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        assert (file.parent / target).exists()
