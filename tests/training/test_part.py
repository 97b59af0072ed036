"""The parts of a partition hold the whole graph, and together score it as one machine does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import part as module
from dgl_deepgnn.training.batches import Batches
from dgl_deepgnn.training.part import Evaluation, Part, PartBatches, read_partition
from dgl_deepgnn.training.partition import partition
from dgl_deepgnn.training.processes import Processes
from dgl_deepgnn.training.run import train
from dgl_deepgnn.training.trainer import Trainer, build_model

dgl = pytest.importorskip("dgl")

CLUSTERS, MACHINES, CPU = 12, 3, torch.device("cpu")


def recipe(**sections: Any) -> Recipe:
    batching = {"kind": "clusters", "parts": CLUSTERS, "size": 6}
    return Recipe.model_validate(
        {
            "name": "parts",
            "data": {"name": "csbm", "options": {"num_nodes": 300}},
            "model": {"num_layers": 4, "hidden_feats": 8, **sections.pop("model", {})},
            "training": {"epochs": 2, "batching": batching, **sections.pop("training", {})},
            **sections,
        }
    )


class Everything:
    """In the place of a ``DistGraph``: data of the whole, the graph of one part."""

    def __init__(self, folder: Path, index: int, together: threading.Barrier) -> None:
        config = folder / "deepgnn.json"
        loaded = [
            dgl.distributed.load_partition(str(config), i)
            for i in range(len(json.loads(config.read_text())["node_map"]["_N"]))
        ]
        self.local_partition = loaded[index][0]
        self.ndata = self._joined([some[1] for some in loaded])
        self.edata = self._joined([some[2] for some in loaded])
        self.barrier = together.wait

    @staticmethod
    def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key.rpartition("/")[2]: torch.cat([p[key] for p in parts]) for key in parts[0]}

    def num_nodes(self) -> int:
        return len(self.ndata["feat"])

    def get_node_partition_policy(self, name: str) -> None:
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "partition"
    partition(recipe(), MACHINES, path)
    return path


@pytest.fixture
def parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    return parts_of(folder, recipe(), monkeypatch)


def parts_of(folder: Path, some: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    facts, lock = read_partition(folder, some), threading.Lock()
    shared: dict[str, Tensor] = {}

    def shared_tensor(shape: Any, dtype: Any, name: str, part_policy: Any) -> Tensor:
        with lock:
            return shared.setdefault(name, torch.full(shape, torch.nan, dtype=dtype))

    monkeypatch.setattr(dgl.distributed, "DistTensor", shared_tensor)
    together = threading.Barrier(facts.machines, timeout=60)
    return [Part.of(Everything(folder, i, together), facts) for i in range(facts.machines)]


def at_once(calls: list[Callable[[], Tensor]]) -> list[Tensor]:
    """What each returns, each in a thread of its own."""
    found: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i, call=call: found.update({i: call()}))
        for i, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(calls))]


@pytest.fixture
def whole() -> TaskData:
    return load_data("csbm", num_nodes=300)


def test_the_parts_hold_every_node_and_edge_once(parts: list[Part], whole: TaskData) -> None:
    (graph,) = whole.graphs
    original = parts[0].graphs[0].ndata["orig_id"]
    assert torch.equal(original.sort().values, torch.arange(graph.num_nodes()))
    own = torch.cat([part.ids[: part.own] for part in parts])
    assert torch.equal(own, torch.arange(graph.num_nodes()))
    edges = set()
    for part in parts:
        src, dst = part.local.edges()
        edges |= set(
            zip(original[part.ids[src]].tolist(), original[part.ids[dst]].tolist(), strict=True)
        )
        assert torch.equal(part.labels, whole.labels[original])
        for name, mask in whole.splits[0].items():
            assert torch.equal(part.splits[0][name], mask[original])
        assert torch.equal(part.graphs[0].ndata["feat"], graph.ndata["feat"][original])
        assert part.fingerprint() == whole.fingerprint()
        assert (part.in_feats, part.num_outputs) == (whole.in_feats, whole.num_outputs)
    src, dst = graph.edges()
    assert edges == set(zip(src.tolist(), dst.tolist(), strict=True))
    assert sum(part.local.num_edges() for part in parts) == graph.num_edges()


def test_clusters_are_induced_subgraphs_of_the_whole(parts: list[Part], whole: TaskData) -> None:
    (graph,) = whole.graphs
    original = parts[0].graphs[0].ndata["orig_id"]
    nodes = [part.cut.nodes for part in parts]
    assert torch.equal(torch.cat(nodes).sort().values, torch.arange(graph.num_nodes()))
    for part in parts:
        assert len(part.cut.graphs) == CLUSTERS // MACHINES
        sizes = [cluster.num_nodes() for cluster in part.cut.graphs]
        for cluster, ids in zip(part.cut.graphs, part.cut.nodes.split(sizes), strict=True):
            expected = dgl.node_subgraph(graph, original[ids])
            found, wanted = (some.adj_external(scipy_fmt="csr") for some in (cluster, expected))
            assert (found != wanted).nnz == 0 and found.nnz == wanted.nnz > 0


@pytest.mark.parametrize("t", [1.0, 0.4])
@pytest.mark.parametrize("residual", ["plain", "scaled", "fixup", "initial", None])
@pytest.mark.parametrize("name", ["resgcn", "resgraphsage", "resgin"])
def test_parts_score_as_the_whole(
    folder: Path,
    whole: TaskData,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    residual: str | None,
    t: float,
) -> None:
    options = {"norm": "both"} if name != "resgcn" else {}
    some = recipe(model={"name": name, "residual": residual, "t": t, "options": options})
    parts = parts_of(folder, some, monkeypatch)
    model = build_model(some.model, whole).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        expected = model(whole.graphs[0], whole.graphs[0].ndata["feat"])
    evaluations = [Evaluation(part, 0, Processes(), torch.device("cpu")) for part in parts]
    found = torch.cat(at_once([lambda e=e: e.scores(model, "1MB") for e in evaluations]))
    original = parts[0].graphs[0].ndata["orig_id"]
    splits = whole.splits[0]
    counts = torch.stack(list(splits.values())).any(dim=0)[original]
    expected = expected[original][counts]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    for evaluation in evaluations:
        assert torch.equal(evaluation.labels, whole.labels[original][counts])
        for part, mask in splits.items():
            assert torch.equal(evaluation.masks[part], mask[original][counts])


def test_every_machine_makes_as_many_steps(parts: list[Part]) -> None:
    """Also one that has fewer clusters with nodes to learn from, or none: its steps count for 0."""
    few, none = parts[1], parts[2]
    few.splits[0]["train"][few.cut.nodes[few.cut.graphs[0].num_nodes() :]] = False
    none.splits[0]["train"][none.cut.nodes] = False
    facts = parts[0].facts.model_copy(update={"train_clusters": [[4], [1], [0]]})
    some = recipe()
    model = build_model(some.model, parts[0])
    for index, clusters in enumerate((4, 1, 0)):
        part = parts[index]
        object.__setattr__(part, "facts", facts)
        batches = PartBatches(
            part, 0, model, some.training.batching, torch.device("cpu"), Processes()
        )
        assert batches.steps_per_epoch == 2
        drawn = list(batches.training(torch.Generator().manual_seed(1)))
        assert len(drawn) == 2
        counted = sum(int(batch.masks["train"].sum()) for batch in drawn)
        assert counted == int(part.splits[0]["train"][part.cut.nodes].sum())
        assert (counted > 0) == (clusters > 0)


def test_a_step_of_all_clusters_has_the_gradient_of_one_process(
    parts: list[Part], whole: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = recipe(training={"batching": {"kind": "clusters", "parts": CLUSTERS, "size": CLUSTERS}})
    original = parts[0].graphs[0].ndata["orig_id"]
    assignment = torch.empty(whole.num_items, dtype=torch.int64)
    for index, part in enumerate(parts):
        cluster = part.graphs[0].ndata["cluster"][part.ids[: part.own]]
        assignment[original[part.ids[: part.own]]] = cluster + index * (CLUSTERS // MACHINES)
    monkeypatch.setattr("dgl_deepgnn.training.sampling._partition", lambda *_: assignment)
    model = build_model(some.model, whole)
    cpu, loss = torch.device("cpu"), torch.nn.CrossEntropyLoss(reduction="sum")

    def gradients(batch: Any) -> list[Tensor]:
        model.zero_grad()
        mask = batch.masks["train"]
        loss(batch.scores(model)[mask], batch.labels[mask]).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    (one,) = Batches(whole, 0, model, some.training.batching, cpu).training(torch.Generator())
    expected = gradients(one)
    shares = [
        gradients(
            next(
                PartBatches(p, 0, model, some.training.batching, cpu, Processes()).training(
                    torch.Generator()
                )
            )
        )
        for p in parts
    ]
    for index, gradient in enumerate(expected):
        found = sum(share[index] for share in shares)
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-5)


def test_the_operator_must_be_that_of_the_partition(parts: list[Part]) -> None:
    some = recipe(model={"options": {"norm": "right"}})
    model, arguments = build_model(some.model, parts[0]), (some.training.batching, CPU, Processes())
    with pytest.raises(UserError, match=r"made for the aggregation both, .* has right"):
        PartBatches(parts[0], 0, model, *arguments)


def test_what_is_not_finite_is_found_wherever_it_is(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each machine sees its own nodes, and all have to come through the exchanges."""
    part = parts[2]
    part.graphs[0].ndata["feat"][part.ids[0]] = torch.nan
    some, together = recipe(), threading.Barrier(len(parts), timeout=60)
    found: list[Tensor] = []

    def gather(self: Processes, values: Tensor) -> Tensor:
        found.append(values)
        together.wait()
        result = torch.cat(found)
        together.wait()
        found.clear()
        together.wait()
        return result

    monkeypatch.setattr(Processes, "gather", gather)
    trainers = [Trainer(some, part, 0) for part in parts]

    def explain(trainer: Trainer) -> Any:
        return trainer._explain_divergence(trainer.batches.evaluation[0])

    for text in at_once([lambda t=t: explain(t) for t in trainers]):
        assert "stands in the output of convs.0" in str(text)


@pytest.mark.parametrize(
    "sections, message",
    [
        (
            {"data": {"name": "csbm"}},
            r"a partition of csbm \{'num_nodes': 300\}, the recipe is for csbm",
        ),
        (
            {"training": {"batching": {"kind": "clusters", "parts": 6, "size": 3}}},
            "cut into 12 clusters; training.batching of the recipe is kind clusters, parts 6",
        ),
        ({"model": {"norm_layer": "batch"}}, "norm_layer batch takes its statistics over a whole"),
        (
            {"training": {"batching": {"kind": "full"}}},
            "cut into 12 clusters; training.batching of the recipe is kind full",
        ),
        (
            {"training": {"batching": {"kind": "clusters", "parts": 12, "size": 4}}},
            "size 4 .* cannot be shared evenly among 3 machines: make it a multiple",
        ),
    ],
)
def test_a_recipe_that_does_not_fit(folder: Path, sections: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_partition(folder, recipe(**sections))


def test_without_servers_there_is_no_training_on_a_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DGL_IP_CONFIG", raising=False)
    with pytest.raises(UserError, match="no graph servers: start `dgl-deepgnn train --dist"):
        train(recipe(), partition=folder, progress=False)


def test_what_is_no_partition(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="is not a partition: `dgl-deepgnn partition RECIPE` makes"):
        read_partition(tmp_path, recipe())
    text = (folder / module.FACTS).read_text()
    (tmp_path / module.FACTS).write_text(text.replace('"machines": 3', '"machines": 2'))
    with pytest.raises(UserError, match=r"partition\.json is damaged"):
        read_partition(tmp_path, recipe())
