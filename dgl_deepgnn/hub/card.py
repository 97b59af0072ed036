"""The model card: README.md of a published model, written from its files alone."""

from __future__ import annotations

import shlex
from statistics import fmean, stdev
from typing import Any

from dgl_deepgnn.data.catalog import find_loader
from dgl_deepgnn.hub.config import Config
from dgl_deepgnn.speedup.report import describe_ratio, describe_target, median_steps
from dgl_deepgnn.wording import counted, fixed

__all__ = ["model_card"]

ENTRY_INDEX = "`entry.json`"
"""Which, in a repository of one model, leaves out the card: it may be edited there."""


def model_card(
    config: Config,
    metrics: dict[str, Any],
    speedups: dict[str, Any],
    repository: str | None = None,
) -> str:
    """Markdown text with results, early training, use, limits and provenance.

    Parameters
    ----------
    config : Config
        Content of ``config.json``.
    metrics, speedups : dict
        Content of ``metrics.json`` and ``speedup.json``.
    repository : str, optional
        Of the Hugging Face Hub, if that is where the card is read.

    Returns
    -------
    str
        The same text for the same content.
    """
    sections = [
        _head(config, metrics),
        _results(config, metrics),
        _early_training(speedups),
        _use(config, repository or config.name),
        _limits(config, metrics),
        _provenance(config, ENTRY_INDEX if repository else "`index.json` of the zoo"),
    ]
    return "\n\n".join(sections) + "\n"


_RESIDUALS = {
    None: "none",
    "initial": "initial: every layer sees the first one's features; the ends do not aggregate",
}


def _head(config: Config, metrics: dict[str, Any]) -> str:
    arguments, data = config.model.arguments, config.data
    facts = {
        "architecture": config.model.name,
        "depth": counted(arguments["num_layers"], "graph convolution"),
        "width": arguments["hidden_feats"],
        "parameters": f"{metrics['parameters']:,}",
        "task": f"{data.level} {data.target}: {data.description or data.name}",
        "initialization": arguments["init"],
        "residual aggregation": f"t = {arguments['t']}",
        "residual connections": _RESIDUALS.get(arguments["residual"], arguments["residual"]),
        "normalization layers": arguments["norm_layer"],
        "dropout": f"{arguments['dropout']:g}",
        "weights": f"safetensors, {config.weights.dtype}, of seed {config.weights.seed}",
        "licence": config.licence,
    }
    parent = config.recipe.parent
    if parent is not None:
        kept = "frozen" if parent.body_rate == 0 else f"at {parent.body_rate:g} of the head's rate"
        facts["fine-tuned from"] = f"{parent.name}, its layers' weights {kept}"
        facts["fine-tuned from"] += f" (weights: SHA-256 {parent.sha256})" if parent.sha256 else ""
    description = f"{config.recipe.description.strip()}\n\n" if config.recipe.description else ""
    return f"# {config.name}\n\n{description}{_table(['', ''], list(facts.items()))}"


def _results(config: Config, metrics: dict[str, Any]) -> str:
    name, own = metrics["metric"], metrics["weights"]
    by = f"best validation {name}"
    if config.recipe.training.select_by == "loss":
        by = "least validation loss"
    rows = [
        (metric, _number(test["mean"]), "-" if test["std"] is None else _number(test["std"]))
        for metric, test in metrics["test"].items()
    ]
    seeds = [
        (result["seed"], result["best_epoch"], result["val"][name], result["test"][name])
        for result in metrics["seeds"]
    ]
    splits = config.data.splits
    which = "one fixed split" if splits == 1 else f"{splits} splits, seed s on split s mod {splits}"
    return (
        f"## Results\n\nTest part, {counted(len(seeds), 'seed')}, {which}. Weights are those of "
        f"the epoch with the {by}; the test part chooses no epoch.\n\n"
        f"{_table(['metric', 'mean', 'standard deviation'], rows)}\n\n"
        f"{_table(['seed', 'best epoch', f'validation {name}', f'test {name}'], seeds)}\n\n"
        f"The published weights, as stored, are of seed {own['seed']}, the best by validation: "
        f"test {name} {_number(own['test'][name])}.{_references(config, name)}\n\n"
        "![Training loss by step](loss.png)"
    )


def _references(config: Config, metric: str) -> str:
    """Scores of other networks."""
    if not config.references:
        return ""
    rows = []
    for reference in config.references:
        scores = reference.scores
        spread = _number(stdev(scores)) if len(scores) > 1 else "-"
        rows.append((reference.name, _number(fmean(scores)), spread, len(scores), reference.source))
    header = ["network", f"test {metric}", "standard deviation", "seeds", "settings"]
    return (
        "\n\nBeside them, other networks on the same data and splits, their epoch chosen by "
        f"validation, too:\n\n{_table(header, rows)}"
    )


def _early_training(speedups: dict[str, Any]) -> str:
    budget, targets = speedups["budget"], speedups["targets"]
    shares = list(map(describe_target, speedups["target_shares"]))
    header = ["arm", "learning rate", *[f"steps to {share}" for share in shares]]
    arms = [
        (arm, f"{facts['lr']:.2g}", *[median_steps(steps, budget) for steps in facts["steps"]])
        for arm, facts in speedups["arms"].items()
    ]
    ratios = [
        (pair, *[describe_ratio(ratio) for ratio in values])
        for pair, values in speedups["speedups"].items()
    ]
    return (
        "## Early training\n\n"
        "Optimizer steps to a training loss of "
        + " and ".join(f"{target:.3g}" for target in targets)
        + f", held for three steps; medians of {counted(len(speedups['seeds']), 'seed')}, "
        f"budget {budget} steps, every arm at its own best learning rate from the same grid.\n\n"
        f"{_table(header, arms)}\n\n"
        "Speed-up: ratio of medians with a bootstrap 95 % interval; `>` marks a lower bound, "
        "where the other arm does not get there within the budget.\n\n"
        f"{_table(['speed-up', *[f'to {share}' for share in shares]], ratios)}\n\n"
        "![Training loss by step and arm](speedup.png)"
    )


_OF_TARGET = (
    ' Scores are those of all nodes, type by type; `graph.ndata["is_target"]` says which belong to '
    "the type that had labels, in their order."
)


def _use(config: Config, name: str) -> str:
    source = config.recipe.data.name
    named = "" if find_loader(source)[0].safe else f" --data {shlex.quote(source)}"
    edge = ', edge_weight=graph.edata["weight"]' if config.data.weighted else ""
    edge += ', edge_feat=graph.edata["feat"]' if config.model.arguments.get("edge_feats") else ""
    return (
        "## Use\n\n```python\n"
        "from dgl_deepgnn.hub import from_pretrained\n\n"
        f'model = from_pretrained("{name}")  # in evaluation mode\n'
        "graph = model.prepare(graph)  # a raw one, as in training\n"
        f'scores = model(graph, graph.ndata["feat"]{edge})\n'
        f'tuned = from_pretrained("{name}", out_feats=5)  # a new head, to be trained\n'
        "```\n\n```sh\n"
        f"dgl-deepgnn evaluate {name}{named}\n"
        f"dgl-deepgnn predict {name} --graph graphs.bin --output predictions.csv\n```"
    )


def _limits(config: Config, metrics: dict[str, Any]) -> str:
    arguments, data = config.model.arguments, config.data
    edge_feats = arguments.get("edge_feats")
    preparation = data.preparation
    relations = None if preparation is None else preparation.relations
    graphs = "homogeneous graphs with "
    if relations is not None:
        edges = "; ".join(" ".join(kind) for kind in relations.edge_types)
        graphs = (
            f"heterogeneous graphs of the node types {', '.join(relations.node_types)} and the "
            f"edges {edges}, which become one graph with "
        )
    lines = [
        f"Meant for research on deep graph networks and as a start for fine-tuning on data like "
        f"{data.name}; not for decisions about people, and not tested in any product.",
        f"Input: {graphs}{counted(arguments['in_feats'], 'node feature')}"
        + (f" and {counted(edge_feats, 'edge feature')}" if edge_feats else "")
        + (", and edge weights" if data.weighted else "")
        + (", every node with a self-loop" if data.self_loops else "")
        + ". `model.prepare` and `predict` do to raw graphs what was done in training."
        + ("" if relations is None or relations.target is None else _OF_TARGET),
        f"Trained and scored on {data.name} alone. What it does on other data is not known.",
    ]
    if not data.inductive:
        lines.append(
            f"Transductive: the graph, with the features of the test {data.level}s, was there "
            "during training. On graphs never seen, expect less."
        )
    spread = metrics["test"][metrics["metric"]]["std"]
    if spread is not None:
        lines.append(
            f"Another seed moves the test {metrics['metric']} by {_number(spread)} (standard "
            "deviation): smaller differences to other models say nothing."
        )
    if arguments["norm_layer"] != "none":
        lines.append(f"Uses {arguments['norm_layer']} normalization: see the description above.")
    return "## Intended use and limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _provenance(config: Config, index: str) -> str:
    data, environment = config.data, config.environment
    facts = {
        "data": data.name,
        "data options": _plain(data.options) or "defaults",
        "data licence": data.licence or "not stated",
        "data citation": data.citation or "not stated",
        "data fingerprint (SHA-256)": f"`{data.fingerprint}`",
        **{key.replace("_", " "): _plain(value) for key, value in data.facts.items()},
        "versions": _plain(environment.get("versions", {})),
        "trained on": f"{environment.get('device')}, threads: {environment.get('threads')}",
        "seeds": _plain(config.seeds),
    }
    return (
        f"## Provenance\n\n{_table(['', ''], list(facts.items()))}\n\n"
        f"Cite as: {config.citation}.\n\n"
        f"The recipe, with every default, is in `config.json`; {index} has the SHA-256 "
        f"of every {'other ' if index == ENTRY_INDEX else ''}file."
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return fixed(value, 4)


def _table(header: list[str], rows: list[Any]) -> str:
    def text(cell: Any) -> str:
        return _number(cell) if isinstance(cell, float) else str(cell).replace("|", "\\|")

    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(text, line))} |" for line in lines)
