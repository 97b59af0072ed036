"""A first recipe for one's own data: what is seen in it, and what follows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.data.catalog import find_loader
from dgl_deepgnn.recipe import data_slug, load_recipe
from dgl_deepgnn.wording import counted

__all__ = ["Proposal", "propose_recipe"]

FEW_LABELS = 500
"""Training nodes a class up to which the settings of the citation graphs are better: with 230 and
330 (Cora and Citeseer) by three points, with 3,900 (Pubmed) worse by two, at the decay of few
(benchmarks/templates.md)."""
MANY_LABELS = 100
"""Training nodes a class from which those settings hold on to the first layer's features more, and
decay the weights less: with 230 and 330 better by 0.4 and 1.5 points, with 20 worse by 0.6 and 0.2
(benchmarks/templates.md)."""
VERY_FEW_LABELS = 30
"""The same where too few edges join training nodes to say whether neighbours are alike."""
HOMOPHILOUS = 0.5
"""From which adjusted homophily (arXiv:2209.06177) neighbours are taken for alike."""
SPARSE = 0.8
"""Share of zeros from which features are taken for a bag of words. Of dense ones the settings of
citation graphs drop too much: seven points worse on csbm, half a point better on digits
(benchmarks/templates.md)."""
MIN_EDGES = 20
"""Between training nodes, to say whether they join equal labels."""
MANY_EDGES = 5_000_000
"""Edges of one graph beyond which it is trained on in parts."""
PART_NODES = 2_000
"""Nodes of a part, about."""
STEPS = {"graph": 6_000, "node": 2_000, "edge": 2_000}
"""Training steps on many graphs, about, by level."""
MANY_CLASSES = 50
"""Different whole numbers up to which floats may be classes."""
RARE = 0.05
"""Share of the training items below which a class is named."""
CITATIONS = {
    "model.name": "resgcn",
    "model.residual": "initial",
    "model.norm_layer": "none",
    "model.dropout": 0.6,
    "optimizer.weight_decay": {"branches": 0.1, "ends": 0.005},
    "optimizer.clip_norm": None,
    "schedule.name": "none",
    "schedule.warmup_steps": 0,
    "training.epochs": 400,
    "training.patience": 100,
    "training.evaluate_every": 2,
}
"""Of the recipes of citation graphs."""
MANY_LABELLED = {
    "model.options.alpha": 0.2,
    "optimizer.weight_decay": {"branches": 0.1, "ends": 0.001},
}
"""What is different of those whose nodes are mostly labelled."""


@dataclass
class Proposal:
    """A recipe's keys in which it differs from the template, each with its reason."""

    name: str
    template: str
    facts: str
    """The data in one line."""
    data: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    """Values by dotted key."""
    reasons: dict[str, str] = field(default_factory=dict)
    """By section and key, such as ``model.name``, in front of which they stand."""

    def to_yaml(self) -> str:
        """The recipe as a file, with the reasons as comments.

        Examples
        --------
        >>> print(propose_recipe("digits").to_yaml())
        # digits: 1,797 nodes, 19,858 edges beside self-loops, 64 features; node multiclass, 10
        ...
        name: resgraphsage16.digits
        extends: template.node
        ...
        """
        lines = [f"# {line}" for line in _wrapped(self.facts)]
        lines += [f"name: {self.name}", f"extends: {self.template}"]
        tree: dict[str, dict[str, Any]] = {"data": self.data}
        for dotted_key, value in self.changes.items():
            section, key, *inner = dotted_key.split(".")
            mine = tree.setdefault(section, {})
            if inner:
                mine.setdefault(key, {})[inner[0]] = value
            else:
                mine[key] = value
        for section, content in tree.items():
            lines.append(f"{section}:")
            for key, value in content.items():
                reason = self.reasons.get(f"{section}.{key}", "")
                lines += [f"  # {line}" for line in _wrapped(reason)]
                style = None if isinstance(value, dict) else False
                dumped = yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=style)
                lines += [f"  {line}" for line in dumped.splitlines()]
        return "\n".join(lines) + "\n"

    def change(self, reason: str, changes: Mapping[str, Any]) -> None:
        """Set dotted keys for one reason."""
        self.changes |= changes
        first = next(iter(changes))
        self.reasons[".".join(first.split(".")[:2])] = reason


def propose_recipe(data: str, options: Mapping[str, Any] | None = None) -> Proposal:
    """Look at data and fill in a template: what network, of what scale, trained how.

    Only features, edges and the labels of the training part are looked at, and whether those of the
    validation part differ.

    Parameters
    ----------
    data : str
        Name of the data set, as in :func:`dgl_deepgnn.load_data`. It is trusted, even to run code.
    options : mapping, optional
        Of the data set.

    Returns
    -------
    Proposal
        With `to_yaml`; the recipe is checked.

    Raises
    ------
    DGLError
        If the data is absent or unfit.

    Examples
    --------
    >>> proposal = propose_recipe("tracks")
    >>> proposal.template, proposal.name
    ('template.edge', 'resgraphsage16.tracks')
    """
    given = dict(options or {})
    own = find_loader(data)[0].features == "none"
    task = load_data(data, **given)
    template = f"template.{task.level}"
    counts = [int(task.splits[0][part].sum()) for part in ("train", "val", "test")]
    balance, per_class = _classes(task)
    alike, chance = _homophily(task)
    section: dict[str, Any] = {"name": data}
    if given:
        section["options"] = given
    found = Proposal("", template, _facts(task, counts, balance, alike, chance), section)

    if own and "features" not in given:
        how, reason = _scaling(task)
        section["options"] = {**given, "features": how}
        found.reasons["data.options"] = reason
    if _relational(task):
        found.change(
            "Nodes and edges of several types: one matrix for every relation.",
            {"model.name": "resrgcn", "model.t": "per-depth:8"},
        )
    elif (
        task.level == "node"
        and per_class is not None
        and _like_citations(per_class, alike, chance)
        and _zeros(task) >= SPARSE
    ):
        found.change(
            f"Features mostly zero, such as words, {counted(per_class, 'label')} a class in the "
            "median"
            + ("" if alike is None else ", neighbours mostly alike")
            + ": the settings of the citation graphs, which hold on to the first layer's features "
            "and decay all weights.",
            CITATIONS | (MANY_LABELLED if per_class >= MANY_LABELS else {}),
        )
    if task.edge_feats and not _relational(task):
        found.change(
            "Edges have features: messages read them.", {"model.options.edge_messages": True}
        )
    _set_length(found, task)
    if task.target == "multiclass" and balance is not None and balance < RARE:
        found.change(
            f"The rarest class has {balance:.1%} of the training items. `balanced` weighs all "
            "classes alike: better for it, worse for accuracy.",
            {"training.class_weights": "none"},
        )
    model = load_recipe(template, {"data": section, **found.changes}).model
    found.name = f"{model.name}{model.num_layers}.{data_slug(data)}"
    return found


def _set_length(found: Proposal, task: TaskData) -> None:
    """Epochs and batches by the size of the data."""
    graphs = len(task.graphs)
    in_training = _training_graphs(task)
    if graphs > 1 and in_training > 1:
        size = 32 if task.level == "graph" else 4
        size = max(1, min(size, in_training // 4))
        wanted = STEPS[task.level]
        epochs = min(200, max(20, round(wanted * size / in_training)))
        steps = epochs * -(-in_training // size)
        found.change(
            f"{counted(in_training, 'graph')} to train on: {steps:,} steps; about {wanted:,} where "
            "that is 20 to 200 epochs.",
            {
                "training.epochs": epochs,
                "training.batching.kind": "graphs",
                "training.batching.size": size,
            },
        )
    elif task.graphs[0].num_edges() > MANY_EDGES:
        parts = max(20, task.graphs[0].num_nodes() // PART_NODES)
        found.change(
            "Too large for one step: clusters of METIS, ten a step, and validation within a memory "
            "that is bounded.",
            {
                "training.epochs": 30,
                "training.evaluate_every": 1,
                "training.batching.kind": "clusters",
                "training.batching.parts": parts,
                "training.batching.size": 10,
                "training.batching.memory": "4GB",
            },
        )


def _facts(
    task: TaskData, counts: list[int], balance: float | None, alike: float | None, chance: float
) -> str:
    nodes = sum(graph.num_nodes() for graph in task.graphs)
    edges = sum(int((s != d).sum()) for s, d in (graph.edges() for graph in task.graphs))
    size = f"{nodes:,} nodes, {edges:,} edges beside self-loops, {task.in_feats} features"
    if _from_degrees(task):
        size += " (indicators of the degrees)"
    if len(task.graphs) > 1:
        size = f"{len(task.graphs):,} graphs, {size}"
    parts = [f"{task.name}: {size}", f"{task.level} {task.target}"]
    if task.target == "multiclass":
        parts[-1] += f", {task.num_outputs} classes"
    if balance is not None:
        parts.append(f"rarest class {balance:.1%} of the training part")
    if alike is not None:
        parts.append(
            f"{alike:.0%} of the edges between training nodes join equal labels, "
            f"{chance:.0%} would by chance"
        )
    parts.append("train/val/test {:,}/{:,}/{:,}".format(*counts))
    return ". ".join(["; ".join(parts), *_warnings(task, edges)]) + "."


def _from_degrees(task: TaskData) -> bool:
    columns = (task.info.get("preparation") or {}).get("node") or []
    return [column["field"] for column in columns] == [None]


def _warnings(task: TaskData, edges: int) -> list[str]:
    """What the user may not have meant, a sentence each."""
    found = []
    if unread := task.info.get("unread"):
        found.append(
            f"NOT READ: {', '.join(unread)} (node features are read from ndata['feat'], edge "
            "features and weights from the fields that the data's options edge_feats and "
            "edge_weight name)"
        )
    if edges == 0:
        found.append("NO EDGES: no node hears of another")
    labels = task.labels[task.splits[0]["train"]]
    if task.target == "regression":
        means, scales = labels.mean(dim=0), labels.std(dim=0)
        if not bool(((scales > 0.1) & (scales < 10) & (means.abs() < 10 * scales)).all()):
            found.append(
                "TARGETS have a mean of "
                f"{', '.join(f'{mean:.3g}' for mean in means.reshape(-1)[:5])} and a standard "
                f"deviation of {', '.join(f'{scale:.3g}' for scale in scales.reshape(-1)[:5])}: a "
                "network's outputs start at about one and are slow to get there. Save them with "
                "mean 0 and standard deviation 1"
            )
        whole = bool((labels == labels.round()).all()) and len(labels.unique()) <= MANY_CLASSES
        if whole and task.num_outputs == 1 and bool((labels >= 0).all()):
            found.append(
                f"LABELS are whole numbers, {labels.min():g} to {labels.max():g}, saved as floats: "
                "if they are classes, say --option target=multiclass"
            )
    if task.target == "binary":
        for part in ("train", "val"):
            some = task.labels[task.splits[0][part]].unique()
            if len(some) == 1:
                found.append(f"ALL LABELS of the {part} part are {int(some)}")
    if task.info.get("preparation") and not _from_degrees(task) and (constant := _constant(task)):
        columns = ", ".join(map(str, constant[:5])) + (", ..." if len(constant) > 5 else "")
        found.append(
            f"{len(constant)} OF {task.in_feats} FEATURES are the same for all nodes (as float32): "
            f"column{'s' * (len(constant) > 1)} {columns}"
        )
    if task.target == "multiclass" and (
        empty := int((torch.bincount(labels, minlength=task.num_outputs) == 0).sum())
    ):
        found.append(
            f"{empty} OF {task.num_outputs} CLASSES without a training item: classes are numbered "
            "from 0 to the largest label"
        )
    return found


def _classes(task: TaskData) -> tuple[float | None, int | None]:
    """Share of the rarest class that occurs in the training part, and the median of their items."""
    if task.target not in ("multiclass", "binary"):
        return None, None
    labels = task.labels[task.splits[0]["train"]]
    classes = 2 if task.target == "binary" else task.num_outputs
    counts = torch.bincount(labels, minlength=classes)
    return float(counts[counts > 0].min() / counts.sum()), int(counts.median())


def _homophily(task: TaskData) -> tuple[float | None, float]:
    """Share of edges between training nodes within a class (None: too few), and that by chance."""
    if task.level != "node" or task.target not in ("multiclass", "binary"):
        return None, 0.0
    mask = task.splits[0]["train"]
    same = both = offset = 0
    for graph in task.graphs:
        source, target = (end + offset for end in graph.edges())
        known = mask[source] & mask[target] & (source != target)
        same += int((task.labels[source[known]] == task.labels[target[known]]).sum())
        both += int(known.sum())
        offset += graph.num_nodes()
    shares = torch.bincount(task.labels[mask]).double()
    chance = float((shares / shares.sum()).square().sum())
    return (same / both if both >= MIN_EDGES else None), chance


def _like_citations(per_class: int, alike: float | None, chance: float) -> bool:
    """Whether the settings of the citation graphs are to be expected to be better."""
    if alike is None:
        return per_class <= VERY_FEW_LABELS
    return per_class <= FEW_LABELS and alike - chance >= HOMOPHILOUS * (1 - chance)


def _scaling(task: TaskData) -> tuple[str, str]:
    """How to scale features that are as the user saved them, and why."""
    if (zeros := _zeros(task)) >= SPARSE:
        return "rescale-nonzero", (
            f"{zeros:.0%} of the features are zero, which a mean would fill: divided by one number."
        )
    return (
        "standardize",
        "Every column with mean 0 and variance 1, for columns may differ in scale.",
    )


def _zeros(task: TaskData) -> float:
    """Share of zeros among the features."""
    feats = [graph.ndata["feat"] for graph in task.graphs]
    return sum(int((feat == 0).sum()) for feat in feats) / max(sum(f.numel() for f in feats), 1)


def _constant(task: TaskData) -> list[int]:
    """Columns of the nodes' features that tell nothing."""
    feats = [graph.ndata["feat"] for graph in task.graphs if graph.num_nodes()]
    low = torch.stack([feat.amin(dim=0) for feat in feats]).amin(dim=0)
    high = torch.stack([feat.amax(dim=0) for feat in feats]).amax(dim=0)
    return (low == high).nonzero().flatten().tolist()


def _relational(task: TaskData) -> bool:
    preparation = task.info.get("preparation") or {}
    return bool(task.info.get("relations") or preparation.get("relations"))


def _training_graphs(task: TaskData) -> int:
    chunks = task.splits[0]["train"].split(task.items_per_graph)
    return sum(bool(chunk.any()) for chunk in chunks)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 90)
