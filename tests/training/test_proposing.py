"""First recipes for one's own data: what is seen in it, and that they train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.data.task_data import PARTS
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import make_graph
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training import Trainer, proposing
from dgl_deepgnn.training.proposing import propose_recipe


def node_graph(nodes: int = 200, feat: torch.Tensor | None = None) -> dgl.DGLGraph:
    torch.manual_seed(0)
    ends = torch.randint(0, nodes, (2, 4 * nodes))
    graph = dgl.graph((ends[0], ends[1]), num_nodes=nodes)
    graph.ndata["feat"] = torch.randn(nodes, 5) * 30 if feat is None else feat
    graph.ndata["label"] = torch.arange(nodes) % 3
    return graph


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def save(graphs: list[dgl.DGLGraph], **labels: torch.Tensor) -> str:
        dgl.save_graphs("mine.bin", graphs, labels)
        return "file:mine.bin"

    return save


def recipe_of(data: str, **options: Any) -> Recipe:
    """Through a file, as a user has it."""
    proposal = propose_recipe(data, options)
    Path("proposed.yaml").write_text(proposal.to_yaml(), "utf-8")
    return load_recipe("proposed.yaml")


def takes_a_step(recipe: Recipe) -> None:
    small = {"num_layers": 3, "hidden_feats": 4}
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=small)})
    trainer = Trainer(recipe, load_data(recipe.data.name, **recipe.data.options), seed=0)
    assert 0 < trainer.run_epoch()[0].loss < 100


def test_nodes(save: Any) -> None:
    recipe = recipe_of(save([node_graph()]))
    assert recipe.name == "resgraphsage16.mine"
    assert recipe.data.options == {"features": "standardize"}
    # Labels at random: a third of the edges joins equal ones, though there are few of them.
    assert recipe.model == load_recipe("template.node").model
    takes_a_step(recipe)


def test_bag_of_words_with_few_labels(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = node_graph(feat=(torch.rand(200, 40) < 0.1).float())
    recipe = recipe_of(save([graph]))
    assert recipe.data.options == {"features": "rescale-nonzero"}
    assert recipe.model.residual == "fixup"  # too many edges join unlike ones
    mask = torch.zeros(200, dtype=torch.bool)
    for part, low, high in (("train", 0, 60), ("val", 60, 100), ("test", 100, 200)):
        graph.ndata[f"{part}_mask"] = mask.clone().index_fill(0, torch.arange(low, high), True)
    assert recipe_of(save([graph])).model.name == "resgraphsage"
    alike = dgl.graph((torch.arange(197), torch.arange(3, 200)), num_nodes=200)
    alike.ndata.update(graph.ndata)
    recipe = recipe_of(save([alike]))
    assert (recipe.model.name, recipe.model.residual) == ("resgcn", "initial")
    assert recipe.optimizer.weight_decay.branches == 0.1
    assert (recipe.model.options, recipe.optimizer.weight_decay.ends) == ({}, 0.005)
    takes_a_step(recipe)
    # With more labels, less decay.
    monkeypatch.setattr(proposing, "MANY_LABELS", 20)
    recipe = recipe_of(save([alike]))
    assert (recipe.model.options, recipe.optimizer.weight_decay.ends) == ({"alpha": 0.2}, 0.001)
    assert recipe.optimizer.weight_decay.branches == 0.1
    takes_a_step(recipe)
    alike.ndata["feat"] = torch.randn(200, 40)  # the same of features that are not words
    assert recipe_of(save([alike])).model == load_recipe("template.node").model


@pytest.mark.parametrize(
    ("per_class", "alike", "wanted"),
    [
        (20, None, True),
        (31, None, False),
        (500, 0.8, True),
        (501, 0.8, False),
        (20, 0.6, False),  # which by chance 0.4 would
        (20, 0.75, True),
    ],
)
def test_when_labels_are_few_and_neighbours_alike(
    per_class: int, alike: float | None, wanted: bool
) -> None:
    assert proposing._like_citations(per_class, alike, chance=0.4) == wanted


def test_a_scaling_of_ones_own_stays(save: Any) -> None:
    assert recipe_of(save([node_graph()]), features="none").data.options == {"features": "none"}
    assert "features" not in recipe_of("digits").data.options  # its loader knows better


def test_graphs_with_edge_features(save: Any) -> None:
    graphs = []
    for index in range(50):
        graph = dgl.rand_graph(6, 12)
        graph.ndata["feat"] = torch.randn(6, 2) + index
        graph.edata["bond"] = torch.randn(12, 3)
        graphs.append(graph)
    recipe = recipe_of(save(graphs, label=torch.arange(50) % 2), edge_feats="bond")
    assert recipe.model.name == "resgin" and recipe.model.options["edge_messages"] is True
    assert recipe.model.options["readout"] == "sum"  # the template's options stay
    assert recipe.training.batching.model_dump(exclude_defaults=True) == {
        "kind": "graphs",
        "size": 30 // 4,
    }
    assert recipe.training.epochs == 200  # 2000 steps would be 467
    takes_a_step(recipe)


def test_relations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("opinions")
    assert recipe.model.name == "resrgcn"
    takes_a_step(recipe)


def test_own_relations(save: Any) -> None:
    ends = torch.randint(0, 40, (2, 120))
    graph = dgl.heterograph(
        {("a", "to", "b"): (ends[0], ends[1]), ("b", "back", "a"): (ends[1], ends[0])},
        num_nodes_dict={"a": 40, "b": 40},
    )
    graph.nodes["a"].data["feat"] = torch.randn(40, 3)
    graph.nodes["b"].data["feat"] = torch.randn(40, 2)
    graph.nodes["a"].data["label"] = torch.arange(40) % 2
    recipe = recipe_of(save([graph]))
    assert recipe.model.name == "resrgcn"
    takes_a_step(recipe)


def test_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_of("tracks")
    assert recipe.training.batching.size == 3  # of 12 graphs to train on
    assert recipe.model.options == {"edge_messages": True}
    takes_a_step(recipe)


def test_a_large_graph_is_trained_in_parts(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposing, "MANY_EDGES", 500)
    batching = recipe_of(save([node_graph()])).training.batching
    assert (batching.kind, batching.parts, batching.size) == ("clusters", 20, 10)
    assert batching.memory == "4GB"


def test_a_rare_class_is_named(save: Any) -> None:
    graph = node_graph(400)
    graph.ndata["label"] = (torch.arange(400) % 40 == 0).long() * 2 + torch.arange(400) % 2
    graph.ndata["label"].clamp_(max=2)
    text = propose_recipe(save([graph])).to_yaml()
    assert "# The rarest class has 2.5% of the training items." in text
    assert "class_weights: none" in text


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_homophily_is_that_of_the_training_part(seed: int) -> None:
    """By an edge-by-edge count, and whatever the labels of the others are."""
    generator = torch.Generator().manual_seed(seed)
    graphs, labels = [], torch.randint(0, 3, (40,), generator=generator)
    for _ in range(2):
        graph = make_graph(tuple(torch.randint(0, 20, (2, 120), generator=generator)), num_nodes=20)
        graph.ndata["feat"] = torch.zeros(20, 1)
        graphs.append(graph)
    train = torch.rand(40, generator=generator) < 0.5
    train[0], train[1], train[2] = True, False, False
    one = torch.arange(40)
    split = {"train": train, "val": ~train & (one < 21), "test": ~train & (one >= 21)}
    if not (split["val"].any() and split["test"].any()):
        return
    task = TaskData("t", graphs, "node", "multiclass", labels, [split], 3)
    pairs = [
        (u + 20 * index, v + 20 * index)
        for index, graph in enumerate(graphs)
        for u, v in zip(*(end.tolist() for end in graph.edges()), strict=True)
        if u != v and train[u + 20 * index] and train[v + 20 * index]
    ]
    same = sum(int(labels[u] == labels[v]) for u, v in pairs)
    expected = same / len(pairs) if len(pairs) >= 20 else None
    counts = [int((labels[train] == c).sum()) for c in range(3)]
    chance = sum((count / sum(counts)) ** 2 for count in counts)
    assert proposing._homophily(task) == (expected, pytest.approx(chance))
    other = labels.where(train, (labels + 1) % 3)
    moved = TaskData("t", graphs, "node", "multiclass", other, [split], 3)
    assert proposing._homophily(moved) == proposing._homophily(task)


def test_no_such_data() -> None:
    with pytest.raises(DGLError, match="does not exist"):
        propose_recipe("file:absent.bin")


@pytest.mark.parametrize("level", ["node", "graph", "edge"])
def test_templates_are_recipes(level: str) -> None:
    recipe = load_recipe(f"template.{level}", {"data.name": "digits", "name": "x"})
    assert recipe.model.num_layers == 16 and recipe.seeds == [0, 1, 2, 3, 4]


# --- what the user may not have meant ---


def facts_of(data: str, **options: Any) -> str:
    return propose_recipe(data, options).facts


def test_what_is_not_read_is_said(save: Any) -> None:
    graphs = [dgl.rand_graph(6, 12) for _ in range(20)]
    for graph in graphs:
        graph.ndata["atom"] = torch.arange(6)
        graph.edata["bond"] = torch.randn(12, 3)
    name = save(graphs, label=torch.arange(20) % 2)
    facts = facts_of(name)
    assert "(indicators of the degrees)" in facts
    assert "NOT READ: ndata['atom'], edata['bond'] (" in facts
    assert "edata" not in facts_of(name, edge_feats="bond")
    recipe_of(name)  # facts are comments


def test_features_of_edges_that_are_not_read_are_said(save: Any) -> None:
    graph = node_graph()
    graph.edata["feat"] = torch.rand(graph.num_edges(), 2)
    assert "NOT READ: edata['feat'] (" in facts_of(save([graph]))
    assert "NOT READ" not in facts_of(save([graph]), edge_feats="feat")


def test_what_is_not_read_of_tables_and_of_several_types_is_said(save: Any) -> None:
    folder = Path("table")
    folder.mkdir()
    (folder / "meta.yaml").write_text(
        "dataset_name: own\nnode_data: [{file_name: nodes.csv}]\n"
        "edge_data: [{file_name: edges.csv}]\n"
    )
    nodes = [f"{n},{n % 2},{n / 10}" for n in range(40)]
    (folder / "nodes.csv").write_text("\n".join(["node_id,label,age", *nodes]))
    edges = [f"{n},{(n + 3) % 40},1.5" for n in range(40)]
    (folder / "edges.csv").write_text("\n".join(["src_id,dst_id,weight", *edges]))
    assert "NOT READ: ndata['age'], edata['weight'] (" in facts_of("csv:table")
    assert "NOT READ: ndata['age'] (" in facts_of("csv:table", edge_weight="weight")

    ends = torch.arange(40), torch.arange(40).roll(1)
    graph = dgl.heterograph({("user", "buys", "item"): ends, ("item", "by", "user"): ends[::-1]})
    graph.nodes["user"].data.update({"label": torch.arange(40) % 2, "age": torch.rand(40)})
    graph.nodes["item"].data["feat"] = torch.rand(40, 3)
    graph.edges["buys"].data["price"] = torch.rand(40)
    facts = facts_of(save([graph]))
    edge = ("user", "buys", "item")
    assert f"NOT READ: nodes['user'].data['age'], edges[{edge!r}].data['price'] (" in facts


def test_what_tells_nothing_is_said(save: Any) -> None:
    graph = node_graph()
    assert "THE SAME" not in facts_of(save([graph])).upper()
    feat = torch.randn(200, 4, dtype=torch.float64)
    feat[:, 1] = 3
    feat[:, 3] = 1.7e9 + feat[:, 3]  # seconds since 1970: float32 has seven digits
    graph.ndata["feat"] = feat
    assert "2 OF 4 FEATURES are the same for all nodes (as float32): columns 1, 3" in facts_of(
        save([graph])
    )
    graph.ndata["feat"] = torch.zeros(200, 0)
    with pytest.raises(DGLError, match=r"ndata\['feat'\] of graph 0 has no columns"):
        facts_of(save([graph]))


def test_labels_that_may_be_classes_or_of_one_kind(save: Any) -> None:
    graph = node_graph()
    classes = graph.ndata["label"] = torch.arange(200) % 3
    masks = {f"{part}_mask": torch.arange(200) % 3 == i for i, part in enumerate(PARTS)}
    graph.ndata["label"] = classes.float()
    facts = facts_of(save([graph]))
    assert "regression" in facts and "whole numbers, 0 to 2, saved as floats" in facts
    # A table without some labels holds the others as floats.
    masks = {name: mask & (torch.arange(200) < 150) for name, mask in masks.items()}
    graph.ndata["label"][150:] = torch.nan
    graph.ndata.update(masks)
    graph.ndata["train_mask"][180] = True
    with pytest.raises(DGLError, match="a multiclass label is -1"):
        facts_of(save([graph]), target="multiclass")
    graph.ndata["train_mask"][180] = False
    assert "node multiclass, 3 classes" in facts_of(save([graph]), target="multiclass")

    graph = node_graph()
    graph.ndata["label"] = (torch.arange(200) % 4 == 0).to(torch.uint8)
    graph.ndata.update({f"{part}_mask": torch.arange(200) % 4 == i for i, part in enumerate(PARTS)})
    facts = facts_of(save([graph]))
    assert "ALL LABELS of the train part are 1. ALL LABELS of the val part are 0" in facts


def test_targets_far_from_one_are_said(save: Any) -> None:
    graph = node_graph()
    for labels, wrong in (
        (torch.randn(200), False),
        (300 + 60 * torch.randn(200), True),
        (torch.randn(200) * 1e-3, True),
        (torch.randn(200, 2) * torch.tensor([1.0, 50.0]), True),
    ):
        graph.ndata["label"] = labels
        assert ("TARGETS have a mean of" in facts_of(save([graph]))) == wrong


def test_classes_without_items_are_said(save: Any) -> None:
    graph = node_graph()
    assert "CLASSES" not in facts_of(save([graph]))
    graph.ndata["label"] = graph.ndata["label"] * 10 + 5
    assert "23 OF 26 CLASSES without a training item" in facts_of(save([graph]))


def test_self_loops_that_were_added_are_not_counted(save: Any) -> None:
    graph = dgl.graph(([0, 1, 2], [1, 2, 2]), num_nodes=50)
    graph.ndata.update({"feat": torch.randn(50, 2), "label": torch.arange(50) % 2})
    facts = facts_of(save([graph]))
    assert "50 nodes, 2 edges beside self-loops" in facts and "NO EDGES" not in facts
    alone = dgl.graph(([], []), num_nodes=50)
    alone.ndata.update(graph.ndata)
    assert "NO EDGES" in facts_of(save([alone]))


@pytest.mark.parametrize(
    ("name", "own"), [("resgin16.nci1", set()), ("resgraphsage16.tolokers", {"epochs"})]
)
def test_recipes_that_say_they_are_proposed(name: str, own: set[str], tmp_path: Path) -> None:
    recipe = load_recipe(name)
    try:
        proposal = propose_recipe(recipe.data.name)
    except DGLError as error:
        pytest.skip(f"the data of {name} is not at hand: {error}")
    (tmp_path / "proposed.yaml").write_text(proposal.to_yaml(), "utf-8")
    proposed = load_recipe(tmp_path / "proposed.yaml")
    for section in ("data", "model", "optimizer", "schedule"):
        assert getattr(recipe, section) == getattr(proposed, section)
    assert recipe.training.model_dump(exclude=own) == proposed.training.model_dump(exclude=own)
