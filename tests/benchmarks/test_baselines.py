"""References for the zoo's models: the protocol, the choice of settings, resuming, the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from benchmarks.baselines import __main__ as command
from benchmarks.baselines import comparison, measure
from benchmarks.baselines.cards import references_of
from benchmarks.baselines.comparison import Ours, difference, our_model, stand
from benchmarks.baselines.networks import GCN, InteractionNetwork, dropout
from benchmarks.baselines.protocol import run
from benchmarks.baselines.references import SEEDS, TASKS, TUNING_SEEDS, Candidate, Reference, Task
from benchmarks.baselines.report import report
from benchmarks.baselines.rows import Row, Rows, choose, settings
from benchmarks.baselines.training import EdgeTraining, ReferenceTraining
from benchmarks.time_to_accuracy.tasks import Peer
from dgl_deepgnn.data import load_data
from dgl_deepgnn.hub.config import read_config
from dgl_deepgnn.recipe import load_recipe

ROOT = Path(__file__).parents[2]
CANDIDATES = tuple(
    Candidate(Peer("DGL", "GraphConv", 2, width, 0.1, weight_decay=5e-4), 0.03) for width in (4, 8)
)
QUICK = Reference("GCN, tuned", CANDIDATES, "nobody", epochs=6, patience=4, every=2)
TINY = Task("digits", "nothing_", None, 1, (QUICK,))


# --- the protocol ---


class Scripted:
    """A training of given validation scores; its weights are the number of the epoch."""

    def __init__(self, accuracies: list[float], losses: list[float] | None = None) -> None:
        self.accuracies, self.losses = accuracies, losses or [1.0] * len(accuracies)
        self.now, self.evaluated = 0, list[tuple[str, int]]()

    def epoch(self) -> None:
        self.now += 1

    def evaluate(self, part: str) -> dict[str, float]:
        self.evaluated.append((part, self.now))
        if part == "test":  # best where validation is worst
            return {"loss": 1.0, "accuracy": 1 - self.accuracies[self.now - 1]}
        return {"loss": self.losses[self.now - 1], "accuracy": self.accuracies[self.now - 1]}

    def weights(self) -> dict[str, Tensor]:
        return {"epoch": torch.tensor(self.now)}

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.now = int(weights["epoch"])


def reference(epochs: int, patience: int, every: int = 1) -> Reference:
    return Reference("GCN, tuned", CANDIDATES, "nobody", epochs, patience, every)


def test_the_test_score_is_that_of_the_epoch_best_by_validation() -> None:
    training = Scripted([0.5, 0.7, 0.6, 0.1, 0.2])
    found = run(training, reference(5, 5), "multiclass", test=True)
    assert (found["epoch"], found["epochs"]) == (2, 5)
    assert found["val"]["accuracy"] == 0.7 and found["test"]["accuracy"] == pytest.approx(0.3)
    assert [where for where in training.evaluated if where[0] == "test"] == [("test", 2)]


def test_without_the_test_part_nothing_reads_it() -> None:
    training = Scripted([0.5, 0.7])
    assert "test" not in run(training, reference(2, 2), "multiclass", test=False)
    assert {part for part, _ in training.evaluated} == {"val"}


def test_training_ends_when_patience_does() -> None:
    training = Scripted([0.5, 0.6, *[0.4] * 20])
    assert run(training, reference(20, 3), "multiclass", test=False)["epochs"] == 5


def test_a_tie_goes_to_the_lower_loss() -> None:
    training = Scripted([0.5, 0.5, 0.5], [1.0, 0.8, 0.9])
    assert run(training, reference(3, 3), "multiclass", test=False)["epoch"] == 2


def test_only_some_epochs_are_validated_and_the_last_always_is() -> None:
    training = Scripted([0.9, 0.5, 0.9, 0.6, 0.7])
    found = run(training, reference(5, 10, every=2), "multiclass", test=True)
    assert training.evaluated == [("val", 2), ("val", 4), ("val", 5), ("test", 5)]
    assert found["epoch"] == 5


# --- networks ---


def test_dropout_is_pytorchs() -> None:
    feat = torch.ones(200, 500)
    dropped = dropout(feat, 0.6, True)
    assert dropped.unique().tolist() == pytest.approx([0.0, 2.5])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropout(feat, 0.6, False) is feat and dropout(feat, 0.0, True) is feat


def test_dropout_of_a_sparse_matrix_draws_what_is_not_zero() -> None:
    feat = torch.randn(200, 500) * (torch.rand(200, 500) > 0.9)
    dropped = dropout(feat.to_sparse(), 0.6, True).to_dense()
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], feat[kept] / 0.4)
    assert kept.sum() / (feat != 0).sum() == pytest.approx(0.4, abs=0.02)


def test_gcn_is_its_formula() -> None:
    src, dst = torch.tensor([0, 1, 1, 2, 3]), torch.tensor([1, 0, 2, 1, 3])
    graph = dgl.graph((src, dst), num_nodes=4).remove_self_loop().add_self_loop()
    feat = torch.randn(4, 6) * (torch.rand(4, 6) > 0.5)
    model = GCN(6, 3, Peer("DGL", "GraphConv", 2, 5, 0.5)).eval()
    adjacency = torch.zeros(4, 4)
    adjacency[graph.edges()[1], graph.edges()[0]] = 1.0
    degree = adjacency.sum(dim=1)
    matrix = adjacency / (degree[:, None] * degree).sqrt()
    first, last = model.convs
    hidden = torch.relu(matrix @ feat @ first.weight + first.bias)
    expected = matrix @ hidden @ last.weight + last.bias
    torch.testing.assert_close(model(graph, feat), expected)
    torch.testing.assert_close(model(graph, feat.to_sparse()), expected)


def test_interaction_network_is_its_formula() -> None:
    graph = dgl.graph((torch.tensor([0, 0, 1, 2]), torch.tensor([2, 1, 2, 3])))
    feat, edge_feat = torch.randn(4, 5), torch.randn(4, 2)
    model = InteractionNetwork(5, 2, 8)

    def edge(number: int) -> tuple[int, int]:
        return graph.edges()[0][number].item(), graph.edges()[1][number].item()

    effects, sums = [], torch.zeros(4, 4)
    for number in range(4):
        source, target = edge(number)
        effects.append(model.relation(torch.cat([feat[target], feat[source], edge_feat[number]])))
        sums[target] += effects[number].detach()
    sums = [
        sum([effects[e] for e in range(4) if edge(e)[1] == n], torch.zeros(4)) for n in range(4)
    ]
    nodes = [model.object(torch.cat([feat[n], sums[n]])) for n in range(4)]
    expected = [
        model.score(torch.cat([nodes[edge(e)[1]], nodes[edge(e)[0]], effects[e]])) for e in range(4)
    ]
    torch.testing.assert_close(model(graph, feat, edge_feat), torch.cat(expected))


def test_an_interaction_network_learns_from_the_edges_of_its_part() -> None:
    data = load_data("tracks", events=8, particles=20)
    (reference,) = TASKS["tracks"].references
    training = EdgeTraining(reference, reference.candidates[-1], data, 0)
    before, weights = training.evaluate("test"), training.weights()
    (mask,) = (split["val"] for split in data.splits)
    _, labels = training.scores("val")
    assert labels.tolist() == data.labels[mask].tolist()
    for _ in range(10):
        training.epoch()
    assert training.evaluate("test")["roc_auc"] > before["roc_auc"] + 0.1
    training.restore(weights)
    assert training.evaluate("test") == before


def test_a_reference_learns_and_its_weights_come_back() -> None:
    data = load_data("digits")
    halved = Reference("GCN, tuned", CANDIDATES, "nobody", 30, 30, 1, halving=10)
    training = ReferenceTraining(halved, CANDIDATES[1], data, 0)
    before, weights = training.evaluate("test"), training.weights()
    for _ in range(30):
        training.epoch()
    assert training.evaluate("test")["accuracy"] > before["accuracy"] + 0.3
    assert training._optimizer.param_groups[0]["lr"] == pytest.approx(0.03 / 8)
    training.restore(weights)
    assert training.evaluate("test") == before


# --- rows ---


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "tiny", TINY)


def test_what_was_stopped_goes_on_where_it_was(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    measure.measure("tiny", [QUICK], [0, 1], out)
    first = out.read_text("utf-8").splitlines()
    seeds = sorted(json.loads(line)["seed"] for line in first)
    assert seeds == [0, 1, *sorted(2 * TUNING_SEEDS)]
    assert all(("test" in row) == (row["seed"] in (0, 1)) for row in map(json.loads, first))
    capsys.readouterr()

    out.write_text("".join(f"{line}\n" for line in first[:-1]))
    measure.measure("tiny", [QUICK], [0, 1, 2], out)
    assert len(capsys.readouterr().err.splitlines()) == 2
    second = out.read_text("utf-8").splitlines()
    assert second[: len(first) - 1] == first[:-1]
    again, before = json.loads(second[len(first) - 1]), json.loads(first[-1])
    assert {**again, "cpu": 0} == {**before, "cpu": 0}


def made(task: str, of: Reference, candidate: Candidate, seed: int, score: float) -> Row:
    facts = {"loss": 1.0, "accuracy": score, "roc_auc": score}
    row: dict[str, Any] = {"task": task, "reference": of.name, "seed": seed}
    row |= {"settings": settings(of, candidate), "epoch": 10, "epochs": 20, "val": facts}
    row |= {"cpu": 60.0, "versions": {"dgl": "1"}}
    return row if seed in TUNING_SEEDS else {**row, "test": facts}


def test_settings_are_chosen_by_validation_on_seeds_that_are_not_reported() -> None:
    worse, better = CANDIDATES
    first, second = TUNING_SEEDS
    rows = Rows([made("tiny", QUICK, better, first, 0.6), made("tiny", QUICK, worse, first, 0.7)])
    assert choose(rows, "tiny", QUICK, "multiclass") is None
    rows.add(made("tiny", QUICK, better, second, 0.8))
    rows.add(made("tiny", QUICK, worse, second, 0.6))
    rows.add(made("tiny", QUICK, worse, 0, 1.0))  # a reported one says nothing
    assert choose(rows, "tiny", QUICK, "multiclass") == better


def test_a_row_of_other_settings_does_not_count() -> None:
    row = made("tiny", QUICK, CANDIDATES[0], 0, 0.5)
    longer = Reference("GCN, tuned", CANDIDATES, "nobody", epochs=7, patience=4, every=2)
    assert Rows([row]).find("tiny", QUICK, CANDIDATES[0], 0) == row
    assert Rows([row]).find("tiny", longer, CANDIDATES[0], 0) is None


# --- differences ---


def test_intervals_are_those_of_scipys_tests() -> None:
    ours = dict(enumerate(np.random.default_rng(0).normal(80, 1, 10).tolist()))
    theirs = dict(enumerate(np.random.default_rng(1).normal(79, 3, 10).tolist()))
    pair = list(ours.values()), list(theirs.values())
    results = {True: stats.ttest_rel(*pair), False: stats.ttest_ind(*pair, equal_var=False)}
    for paired, result in results.items():
        low, high = result.confidence_interval(0.95)
        found = difference(ours, theirs, paired)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((low, high))
    # Only splits that both have are compared.
    some = difference(ours, {3: 0.0, 4: 0.0}, paired=True)
    assert some is not None and some.mean == pytest.approx((ours[3] + ours[4]) / 2)
    assert difference(ours, {3: 0.0}, paired=True) is None


# --- who takes part, and the page ---


def test_references_are_trained_on_our_recipes_splits_and_seeds() -> None:
    for task in TASKS.values():
        if task.ours is not None:
            recipe = load_recipe(task.ours)
            assert recipe.data.name == task.data
            assert tuple(recipe.seeds) == SEEDS[: len(recipe.seeds)]
            assert len(recipe.seeds) >= (len(SEEDS) if task.splits > 1 else 5)
            config = json.loads((ROOT / "zoo" / task.ours / "config.json").read_text("utf-8"))
            assert config["data"]["splits"] == task.splits
            assert config["data"]["target"] == task.target
            assert list(our_model(task.ours).scores) == recipe.seeds
        names = [reference.name for reference in task.references]
        assert len(names) == len(set(names))
    assert not set(SEEDS) & set(TUNING_SEEDS)


def test_the_page_says_where_ours_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {seed: 80.0 + seed / 10 for seed in SEEDS}
    monkeypatch.setattr(comparison, "our_model", lambda name: Ours(name, 64, 32, scores))
    cora = TASKS["cora"]
    tuned, gcnii = cora.references
    rows = Rows()
    for candidate in tuned.candidates:
        for seed in TUNING_SEEDS:
            rows.add(made("cora", tuned, candidate, seed, 0.5))
    for seed in SEEDS:
        rows.add(made("cora", tuned, tuned.candidates[0], seed, 0.70 + seed / 1000))
        if seed < 3:
            rows.add(made("cora", gcnii, gcnii.candidates[0], seed, 0.90 + seed / 1000))
    text = report(rows)
    assert "**Ours loses**, its score is lower beyond the interval: cora beside GCNII." in text
    assert "- Ours is higher beyond the interval: cora beside GCN, tuned." in text
    assert "| cora | GCN, tuned | 2 x 16 | 70.5 ± 0.3 (10) | `resgcn64.cora` | 64 x 32 |" in text
    assert "- cora, GCNII: 7 seeds of 10; about 7 minutes more." in text
    assert "- nci1, GIN: not there yet." in text
    assert "whatever the protocol: cora, GCN, tuned of arXiv:1609.02907; cora, GCNII" in text


def test_the_page_is_that_of_the_rows_and_the_zoo() -> None:
    """After a change of the zoo: ``python -m benchmarks.baselines --tasks``."""
    rows = Rows.of_file(ROOT / "benchmarks" / "baselines.jsonl")
    text = (ROOT / "benchmarks" / "baselines.md").read_text("utf-8")
    assert text == report(rows)
    for name, task in TASKS.items():
        for one in stand(rows, name, task):
            assert all(row["epoch"] <= row["epochs"] <= one.reference.epochs for row in one.rows)
    assert not any("test" in row for row in rows if row["seed"] in TUNING_SEEDS)


def test_the_command_writes_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", ["baselines", "--tasks", "--out", str(out)])
    command.main()
    assert (tmp_path / "rows.md").read_text("utf-8") == report(Rows())
    assert "not there yet" in capsys.readouterr().out


def test_the_cards_have_the_scores_of_the_rows() -> None:
    rows = Rows.of_file(ROOT / "benchmarks/baselines.jsonl")
    for name, task in TASKS.items():
        wanted = references_of(rows, name, task)
        if task.ours is None or not wanted:
            continue
        config = read_config(ROOT / "zoo" / task.ours / "config.json")
        assert config.references == wanted, "python -m benchmarks.baselines --tasks --cards"
        card = (ROOT / "zoo" / task.ours / "README.md").read_text("utf-8")
        for reference in wanted:
            assert f"| {reference.name} | {np.mean(reference.scores):.4f} | " in card
