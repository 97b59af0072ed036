"""The page of tables, ``scale.md``, made of ``scale.json`` alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.cost.clock import quartiles
from benchmarks.cost.report import table
from benchmarks.scale.contenders import OURS
from benchmarks.scale.growth import (
    BANDWIDTH,
    EDGES,
    MACHINES,
    STEPS,
    Fit,
    fit,
    line,
    on_paper,
    taken,
)
from benchmarks.scale.plot import sizes
from benchmarks.scale.problem import CLASSES, INSIDE, MEMORY, THREADS, WIDTH

__all__ = ["COMMAND", "report", "summary"]

COMMAND = "python -m benchmarks.scale"
MOST, FASTER, GROWN = 12e9, 1.3, 0.25
"""Bytes at the peak; times as fast as the others; bytes in memory a byte of wider features."""
LARGE = 10**6
"""Nodes from which on the first goal is meant."""

RULES = f"""\
The graph is a stochastic block graph with self-loops: {INSIDE:.0%} of the edges are drawn within
blocks, which are as large as a cluster is on average; the {CLASSES} classes are of blocks, and the
means of their features lie a little apart in much noise. The network is a `ResGCN` of width {WIDTH}
with its defaults, trained by the package's own `Trainer` from a recipe with
`batching: {{kind: clusters, ...}}`. Features lie in a file that is mapped (`torch.from_file`).
Every stage runs in a process of its own, in {THREADS} threads. *Resident* is the process at its
peak during a step, with the libraries and with the pages of mapped files, which the system takes
back when it needs room; *anonymous* is what it cannot take back."""

TURNS = """\
The contenders take turns, an epoch each in a random order every round, in one process; the first
round does not count. An epoch is the library's own loop over its own loader, putting the batches
together included, no worker processes. They are given the same clusters (recursive METIS) in the
same order; that every step has the same nodes is checked before, and their number in every step.
All minimize the cross-entropy of the training nodes by `Adam(fused=True)`. DGL's and PyTorch
Geometric's are stacks of stock layers with `h + relu(conv(h))` between the first and the last, so
many layers as `ResGCN` has. Theirs keep the edges between the clusters of a step. PyTorch
Geometric's own METIS is in packages that PyPI has no wheels of, so its `ClusterData` is given
DGL's; its `ClusterLoader` is its own."""


def report(results: dict[str, Any]) -> str:
    """Markdown of all sections that there are."""
    sections = results["sections"]
    command = f"{COMMAND} --quick" if results["quick"] else COMMAND
    lines = ["# A million nodes", ""]
    if results["quick"]:
        lines += ["**A smoke run: too small for these figures to mean much.**", ""]
    minutes = sum(results["seconds"].values()) / 60
    lines += [
        f"Made by `{command}` in {minutes:.0f} minutes; `{COMMAND} --only SECTION` measures one "
        f"section again: {', '.join(f'`{name}`' for name in results['seconds'])}.",
        "",
        "Measured on: "
        + ", ".join(f"{name} {value}" for name, value in results["machine"].items())
        + ".",
        "",
        RULES,
        "",
        "## Goals",
        "",
        *table(["what", "goal", "measured", ""], list(_goals(sections))),
    ]
    cells = sizes(sections)
    if cells:
        lines += size_table(cells[-1])
    if len(cells) > 1:
        lines += growth_table(cells) + paper_table(cells)
    if "width" in sections:
        lines += width_table(sections["width"])
    for cell in sections.get("throughput", []):
        lines += throughput_table(cell)
    return "\n".join(lines) + "\n"


def summary(results: dict[str, Any]) -> str:
    """What docs/scaling.md says of it."""
    sections = results["sections"]
    cell = sizes(sections)[-1]
    plan, facts = cell["plan"], cell["stages"]["epoch"]["facts"]
    peak = max(step["resident"] for _, step in _steps(cell))
    lines = [
        f"`{COMMAND}` trains a ResGCN of {plan['layers']} layers on a block graph of "
        f"{plan['nodes']:,} nodes, {cell['edges']:,} edges and {plan['in_feats']} features, which "
        f"stay in a mapped file, by clusters: in {THREADS} threads an epoch takes "
        f"{taken(cell, 'an epoch of training', 'seconds'):.0f} s "
        f"({facts['nodes'] / taken(cell, 'an epoch of training', 'seconds'):,.0f} nodes a second), "
        f"the scores of all nodes take "
        f"{taken(cell, 'inference, layer by layer', 'seconds'):.0f} s, cutting it for two machines "
        f"{taken(cell, 'cut for two machines, written', 'seconds'):.0f} s, and no stage more than "
        f"{_gb(peak)} of memory.",
    ]
    for cell in sections["throughput"]:
        fastest = min(
            (name for name in cell["seconds"] if name != OURS),
            key=lambda name: median(_ratios(cell, name)),
        )
        ratio = quartiles(_ratios(cell, fastest))
        lines.append(
            f"On the same batches, in {_threads(cell)}, it sees {ratio['median']:.2f} times as "
            f"many nodes a second as the next, {fastest} (quartiles {ratio['q25']:.2f} to "
            f"{ratio['q75']:.2f} of {ratio['rounds']} rounds)."
        )
    lines.append(
        "All figures, their growth from 100,000 nodes on, and what a billion edges on sixteen "
        "machines would need: [benchmarks/scale.md](../benchmarks/scale.md)."
    )
    text = "\n".join(textwrap.wrap(" ".join(lines), 100, break_on_hyphens=False))
    return f"{text}\n\n![Seconds and memory of the stages](../benchmarks/scale.png)"


def _goals(sections: dict[str, Any]) -> Iterator[list[str]]:
    for cell in sizes(sections):
        if cell["plan"]["nodes"] >= LARGE:
            peak = max(step["resident"] for _, step in _steps(cell))
            what = f"peak of the resident set, every stage, {cell['plan']['nodes']:,} nodes"
            yield _goal(what, f"at most {_gb(MOST)}", _gb(peak), peak <= MOST)
    if "width" in sections:
        narrow, wide = sections["width"][0], sections["width"][-1]
        for row in ("data loaded", "trainer made, cut in the cache", "an epoch of training"):
            more = taken(wide, row, "anonymous") - taken(narrow, row, "anonymous")
            ratio = more / (_file(wide) - _file(narrow))
            columns = f"{wide['plan']['in_feats']} features, not {narrow['plan']['in_feats']}"
            what = f"anonymous bytes that a byte of the file adds, {row}, {columns}"
            yield _goal(what, f"at most {GROWN}", f"{ratio:.2f}", ratio <= GROWN)
    for cell in sections.get("throughput", []):
        ratio = min(median(_ratios(cell, name)) for name in cell["seconds"] if name != OURS)
        what = f"throughput, {OURS} / the fastest of the others, {_threads(cell)}"
        yield _goal(what, f"at least {FASTER}", f"{ratio:.2f}", ratio >= FASTER)


def _goal(what: str, goal: str, measured: str, met: bool) -> list[str]:
    return [what, goal, measured, "met" if met else "**MISSED**"]


def size_table(cell: dict[str, Any]) -> list[str]:
    """Every step of every stage at one size."""
    plan, stages = cell["plan"], cell["stages"]
    cut, trained = stages["metis"]["facts"], stages["epoch"]["facts"]
    rows = [
        [name, f"{step['seconds']:.1f}", _gb(step["resident"]), _gb(step["anonymous"])]
        for name, step in _steps(cell)
    ]
    losses, each = trained["losses"], quartiles(trained["step_seconds"])
    return [
        "",
        f"## {plan['nodes']:,} nodes, {cell['edges']:,} edges",
        "",
        f"{plan['in_feats']} features, in a file of {_gb(_file(cell))}; {plan['layers']} layers. "
        "METIS "
        f"cuts the graph into {plan['nodes'] // plan['part']:,} clusters of {cut['smallest']:,} to "
        f"{cut['largest']:,} nodes, within which {cut['kept_edges']:.0%} of the edges lie; "
        f"{plan['per_step']} of them a step. Inference is by `layerwise_inference` with "
        f'`memory="{MEMORY}"`.',
        "",
        *table(["stage, step", "seconds", "resident", "anonymous"], rows),
        "",
        f"The epoch has {len(losses)} steps of {each['median']:.2f} s ({each['q25']:.2f} to "
        f"{each['q75']:.2f}), on {trained['nodes'] / len(losses):,.0f} nodes each. The loss falls "
        f"from {losses[0]:.3f} to {losses[-1]:.3f}, and of the test nodes of the whole graph "
        f"{stages['inference']['facts']['accuracy']:.1%} are then scored right.",
    ]


def growth_table(cells: list[dict[str, Any]]) -> list[str]:
    """Seconds and memory by size, and their powers."""
    heads = [f"{cell['plan']['nodes']:,}" for cell in cells]
    lines = [
        "",
        "## Growth",
        "",
        f"By number of nodes, {cells[0]['edges'] // cells[0]['plan']['nodes']} edges each. The "
        "power is that of the line through the logarithms, with the standard error of least "
        "squares; 1 is linear.",
    ]
    for quantity, name in (("seconds", "seconds"), ("anonymous", "peak of anonymous memory, GB")):
        rows = []
        for row in STEPS:
            nodes, values = line(cells, row, quantity)
            scale, digits = (1e-9, 2) if quantity == "anonymous" else (1.0, 1)
            numbers = [f"{scale * value:.{digits}f}" for value in values]
            rows.append([row, *numbers, _power(fit(nodes, values))])
        beyond = ", beyond that of the libraries" if quantity == "anonymous" else ""
        lines += ["", f"### {name}{beyond}", "", *table(["step", *heads, "power"], rows)]
    return [*lines, "", "![Seconds and memory of the stages against nodes](scale.png)"]


def paper_table(cells: list[dict[str, Any]]) -> list[str]:
    """A billion edges on sixteen machines, computed."""
    found = on_paper(cells)
    plan = cells[-1]["plan"]
    rows = [
        ["memory while the trainer is made, of a share", _gb(found.peak)],
        ["features, in a mapped file, of a share", _gb(found.features)],
        ["layer buffers of inference, in files, of a share", _gb(found.buffers)],
        ["once, on one of them: cutting the graph, memory", _gb(found.cut)],
        ["once, on one of them: cutting the graph, hours", _hours(found.cut_hours)],
        ["an epoch: hours", _hours(found.epoch)],
        ["sums of the gradients in it: hours", f"{found.gradients:.2g}"],
        ["inference of all nodes, layer by layer: hours", _hours(found.inference)],
        ["neighbours' features from other machines in it: hours", f"{found.exchange:.2g}"],
    ]
    first = ["memory of training (graph, cut, operators), of a share", _gb(found.part)]
    return [
        "",
        f"## On paper: {EDGES:,} edges on {MACHINES} machines",
        "",
        f"Computed from the table above, not measured: {found.nodes:,} nodes with as many edges "
        f"each as here, {plan['in_feats']} features and {plan['layers']} layers of width {WIDTH}, "
        f"on machines like this one, {found.share:,} nodes a machine.",
        "",
        *table(["a machine needs", ""], [first, *rows]),
        "",
        "Assumed: every machine trains on its own share of the clusters, so many nodes a step as "
        "here, and all take a step together. Memory grows by the bytes that a node adds (the "
        "slope of the line through the sizes above), time from the largest size on by the power "
        "above; in brackets by the power less and plus its error. Gradients and features of "
        f"neighbours travel at {8e-9 * BANDWIDTH:.0f} Gbit/s, none of it while something is "
        "computed, the neighbours' features once a layer for every edge that leaves a cluster, as "
        "if no two clusters of a machine were neighbours. A graph server takes its share of the "
        "graph and the features on top, in memory that it shares with the trainer; labels and "
        "masks of all nodes, a dozen bytes each, are on every machine.",
    ]


def width_table(cells: list[dict[str, Any]]) -> list[str]:
    """Memory with few and with many features."""
    rows = [
        [row, *(_gb(taken(cell, row, kind)) for kind in KINDS for cell in cells)] for row in STEPS
    ]
    heads = [f"{kind}, {cell['plan']['in_feats']} features" for kind in KINDS for cell in cells]
    return [
        "",
        "## Wider features",
        "",
        f"Peak memory on a graph of {cells[0]['plan']['nodes']:,} nodes, whose features take "
        + " and ".join(_gb(_file(cell)) for cell in cells)
        + " in their file.",
        "",
        *table(["step", *heads], rows),
    ]


KINDS = ("resident", "anonymous")


def throughput_table(cell: dict[str, Any]) -> list[str]:
    """Nodes a second, and ratios within the rounds."""
    plan, rows = cell["plan"], []
    for name, seconds in cell["seconds"].items():
        speed = quartiles([cell["nodes"] / each for each in seconds])
        ratio = quartiles(_ratios(cell, name))
        rows.append(
            [
                name,
                f"{speed['median']:,.0f} ({speed['q25']:,.0f} to {speed['q75']:,.0f})",
                f"{ratio['median']:.2f} ({ratio['q25']:.2f} to {ratio['q75']:.2f})",
                f"{cell['edges'][name]:,.0f}",
            ]
        )
    heads = ["contender", "nodes a second", "times slower than ours", "edges a step"]
    rounds = len(next(iter(cell["seconds"].values())))
    return [
        "",
        f"## Throughput, {_threads(cell)}",
        "",
        *([TURNS, ""] if cell["threads"] == 1 else []),
        f"{plan['nodes']:,} nodes, {cell['steps']} steps an epoch, {plan['in_feats']} features, "
        f"{plan['layers']} layers of width {WIDTH}; medians and quartiles of {rounds} rounds, "
        "ratios within a round.",
        "",
        *table(heads, rows),
    ]


def _steps(cell: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    for stage, measured in cell["stages"].items():
        for name, step in measured["steps"].items():
            yield (name if name == stage else f"{stage}, {name}"), step


def _ratios(cell: dict[str, Any], name: str) -> list[float]:
    """Seconds of a contender by ours, round by round."""
    pairs = zip(cell["seconds"][name], cell["seconds"][OURS], strict=True)
    return [other / ours for other, ours in pairs]


def _file(cell: dict[str, Any]) -> int:
    """Bytes of the features."""
    return cell["stages"]["generation"]["facts"]["feature_bytes"]


def _threads(cell: dict[str, Any]) -> str:
    return "one thread" if cell["threads"] == 1 else f"{cell['threads']} threads"


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"


def _hours(values: tuple[float, float, float]) -> str:
    low, middle, high = values
    return f"{middle:.2g} ({low:.2g} to {high:.2g})"


def _power(found: Fit) -> str:
    return f"{found.power:.2f}" + ("" if found.error is None else f" ± {found.error:.2f}")
