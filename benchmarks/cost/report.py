"""The page of tables, ``README.md``, made of ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cost import growth
from benchmarks.cost.batches import SIZE
from benchmarks.cost.contenders import CONTENDERS, OURS
from benchmarks.cost.forms import OPERATOR
from benchmarks.cost.graphs import SIZES
from benchmarks.cost.steps import GRID
from benchmarks.cost.targets import targets, where

__all__ = ["PLOT", "report"]

PLOT = "growth.png"

RULES = """\
All contenders of a table take turns in one process, in a random order each round; figures are
medians with quartiles in brackets, after a run that does not count. The graph is random and
undirected with self-loops, width 64, seven classes, ReLU in between; a training step is forward,
cross-entropy on all nodes, backward and `Adam(fused=True)`. Features: a bag of 1433 words at Cora's
size, else 128 normal numbers. Graph formats, operators (ours) and normalised edges (`cached=True`
of PyTorch Geometric) are made before the clock starts, except in *operator anew*.

- **bare products**: the sparse and dense matrix products of the same training step of a GCN, and
  nothing else: no bias, ReLU, loss, optimizer or autograd, and the dense ones write into memory
  that is there already. The sparse ones are, in turn, PyTorch's three: `F.embedding_bag`,
  `torch.sparse.mm(matrix, x, "sum")`, and `torch.mm(matrix, x, out=out)`, which also writes into
  memory that is there. The lower bound is the fastest of the three.
- **ours** are `ResGCN`, `ResGraphSAGE` and `ResGIN` with their defaults, residual aggregation and
  connections included; *plain* is `t=1, residual=None`, the architecture of the others; *sparse
  features* hands over the words as a CSR matrix, which of the others' layers here only PyG's
  GCNConv takes.
- **DGL** and **PyG** are stacks of the layer named; *sparse matrix* hands PyTorch Geometric a CSR
  matrix in place of its usual list of edges. GIN's perceptron has two layers everywhere. A
  GCN2Conv stack begins and ends with a linear layer, since that layer keeps the width. The weights
  are scaled so that no contender computes with vanishing numbers.

What is left out, to keep the run short: deeper networks on the bigger graphs,
GraphSAGE and GIN at 100k nodes, two threads but for one depth of GCN a size, and some of PyTorch
Geometric, which is the slowest, where other rows of it stand nearby."""

PROFILE = """\
Shares of the time of a training step by kind of operation, as PyTorch's profiler records them (it
slows short operations down). Fresh memory is not a kind of its own: its first use costs time in the
operation that writes to it."""


OTHERS = """\
Other questions have tables and commands of their own:

- [time_to_accuracy.md](time_to_accuracy.md): seconds to a validation score, the recipes' models
  beside GCNII, GraphSAGE and GIN of DGL's and PyTorch Geometric's layers
  (`python -m benchmarks.time_to_accuracy`; takes hours, and goes on where it was stopped);
- [baselines.md](baselines.md): test scores of GCNII, GCN, GraphSAGE, GIN and an interaction network
  in our protocol, beside the zoo's models (`python -m benchmarks.baselines`; takes hours, and goes
  on where it was stopped);
- [hooks.md](hooks.md): what `critical_` makes of models as DGL's users write them, before training
  and in it (`python -m benchmarks.hooks`; training takes hours, `--steps 0` leaves it out;
  `--workers 2` for two cores), and of every convolution of DGL's, in
  [docs/hooks.md](../docs/hooks.md) (`python -m benchmarks.hooks.table`);
- [one_line_fix.md](one_line_fix.md): one stack of DGL's layers trained before and after `critical_`
  (`python benchmarks/one_line_fix.py`);
- [accuracy_by_depth.md](accuracy_by_depth.md): test accuracy by depth where the label is 32 hops
  away, the recipe beside stock layers, usual practice and GCNII
  (`python -m benchmarks.accuracy_by_depth`);
- [templates.md](templates.md): what `dgl-deepgnn init` proposes, and the same with one setting
  changed, by validation (`python -m benchmarks.templates`; takes hours, and goes on where it was
  stopped);
- [finetuning.md](finetuning.md): a published model fine-tuned on few labels, beside training anew
  (`python -m benchmarks.finetuning`);
- [edges.md](edges.md): the scale of deep networks that read edge features or relations, beside
  DGL's layers (`python -m benchmarks.edges`);
- [scale.md](scale.md): a million nodes: seconds and memory of every stage, their growth, and
  training by clusters beside DGL's and PyTorch Geometric's (`python -m benchmarks.scale`);
- [gradients.md](gradients.md): what it costs two processes to send each other their gradients
  (`python -m benchmarks.gradients`);
- [one_draw.md](one_draw.md): how far one draw is from the mean of all
  (`python -m benchmarks.one_draw`);
- [signal_by_depth.md](signal_by_depth.md): signal and gradient by depth, DGL's layers and ours
  (`python benchmarks/signal_by_depth.py`);
- [docs/depth.md](../docs/depth.md): steps to a target from 16 to 1024 layers
  (`python benchmarks/depth.py`);
- [docs/speedups.md](../docs/speedups.md): the speed-up records of the recipes
  (`python benchmarks/speedups.py`);
- [docs/transfer.md](../docs/transfer.md): learning rates over depth and width
  (`python -m benchmarks.transfer`)."""


def report(results: dict[str, Any]) -> str:
    """Markdown of all sections that there are."""
    machine, sections = results["machine"], results["sections"]
    minutes = sum(results["seconds"].values()) / 60
    command = "python -m benchmarks.cost --quick" if results["quick"] else "make benchmark"
    lines = ["# Speed, memory and depth", ""]
    if results["quick"]:
        lines += ["**A smoke run: too few rounds and layers for these figures to mean much.**", ""]
    lines += [
        f"Made by `{command}` in {minutes:.0f} minutes; `python -m benchmarks.cost --only SECTION` "
        f"measures one section again: {', '.join(f'`{name}`' for name in results['seconds'])}.",
        "",
        "Measured on: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
        "",
        OTHERS,
        "",
        "## Targets",
        "",
        *targets_table(results),
        "",
        "## A training step and an inference",
        "",
        RULES,
        "",
    ]
    for section in GRID:
        for cell in sections.get(section, []):
            lines += steps_table(cell)
    for name, make in TABLES.items():
        if name in sections:
            lines += [*make(sections[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def targets_table(results: dict[str, Any]) -> list[str]:
    """Every target, the missed ones first."""
    found = targets(results)
    missed = [target for target in found if not target.met]
    rows = [
        [
            target.what,
            target.place,
            f"{target.limit:g}{target.unit}",
            f"{target.measured:.2f}{target.unit}",
            "met" if target.met else "**MISSED**",
        ]
        for target in sorted(found, key=lambda target: target.met)
    ]
    said = f"{len(found) - len(missed)} of {len(found)} are met."
    profile = " For those that are not, see [the profile](#profile)." if missed else ""
    header = ["what", "where", "at most", "measured", ""]
    return [said + profile, "", *table(header, rows)]


def steps_table(cell: dict[str, Any]) -> list[str]:
    """Times of one graph, depth and number of threads."""
    rows = []
    for family, names in CONTENDERS.items():
        for name in names:
            if name in cell["train"]:
                row = [name]
                for task in ("train", "infer"):
                    ours = cell[task][OURS[family]]["median"]
                    times = cell[task][name]
                    row += [milliseconds(times), f"{times['median'] / ours:.2f}"]
                rows.append([*row, f"{cell['train'][name]['rounds']}"])
    header = ["network", "training step, ms", "times ours", "inference, ms", "times ours", "rounds"]
    size = SIZES[cell["size"]]
    return [f"### {where(cell)} ({size.edges + size.nodes:,} edges)", "", *table(header, rows), ""]


def memory_table(cells: list[dict[str, Any]]) -> list[str]:
    """Peaks by contender."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["bytes"]))
    rows = [[name, *(megabytes(cell["bytes"].get(name)) for cell in cells)] for name in names]
    return [
        "## Memory",
        "",
        "Peak of the resident memory during two training steps in a process of their own, beyond "
        "what the libraries, the graph and its features take, MB. One thread.",
        "",
        *table(["network", *map(where, cells)], rows),
    ]


def checkpoint_table(section: dict[str, Any]) -> list[str]:
    """Memory of the deep one, times of the less deep ones."""
    memory, times = section["memory"], section["train"]
    rows = [
        [name, milliseconds(times[key]), f"{times[key]['median'] / times['kept']['median']:.2f}"]
        for key, name in (("kept", "everything kept"), ("checkpoint", "`checkpoint=True`"))
    ]
    return [
        "## Checkpoints",
        "",
        f"A ResGCN of {section['layers']:,} layers with `checkpoint=True` on 20 thousand nodes: "
        f"{memory['process'] / 1e9:.2f} GB for the whole process at its peak, "
        f"{memory['bytes'] / 1e9:.2f} GB of it the training's, {memory['seconds']:.1f} s a step. "
        f"What it costs in time, at {section['timed_layers']} layers, so that nine rounds do not "
        "last an hour:",
        "",
        *table(["", "training step, ms", "ratio"], rows),
    ]


def import_table(section: dict[str, Any]) -> list[str]:
    """Seconds of both imports."""
    rows = [
        ["`import dgl`", milliseconds(section["dgl"])],
        ["`import dgl_deepgnn` after it", milliseconds(section["dgl_deepgnn"])],
    ]
    rounds = section["dgl"]["rounds"]
    return ["## Import", "", *table(["", f"ms, {rounds} fresh interpreters"], rows)]


def forms_table(cells: list[dict[str, Any]]) -> list[str]:
    """Times by what stands in the graph's place."""
    lines = [
        "## A graph in place of its operator",
        "",
        "The same ResGCN, called as `model(graph, feat)` with each of these for `graph`, in one "
        "thread. The operator is remembered: what is timed beside the network is that the graph is "
        "found unchanged. For the last row the operator is built. This section counts the time of "
        "the processor, not of the clock, so that other jobs on the machine disturb it less.",
    ]
    for cell in cells:
        rows = []
        for name in cell["train"]:
            row = [name]
            for task in ("train", "infer"):
                times = cell[task][name]
                ratio = times["median"] / cell[task][OPERATOR]["median"]
                row += [milliseconds(times), f"{ratio:.2f}"]
            rows.append([*row, f"{cell['train'][name]['rounds']}"])
        size = SIZES[cell["size"]]
        head = ["graph", "training step, ms", "ratio", "inference, ms", "ratio", "rounds"]
        lines += [
            "",
            f"### Forms of a graph, {where(cell)} ({size.edges + size.nodes:,} edges)",
            "",
            f"Load of the machine's cores by other jobs as it began: {cell['load']:.1f}.",
            "",
            *table(head, rows),
        ]
    return lines


def batches_table(section: dict[str, Any]) -> list[str]:
    """Graphs a second."""
    rows = [
        [name, f"{section['graphs'] / times['median']:,.0f}", milliseconds(times)]
        for name, times in section["train"].items()
    ]
    return [
        "## Batches of small graphs",
        "",
        f"A training step on {section['graphs']} graphs of {SIZE} nodes on average, "
        f"{section['layers']} layers and a mean over each graph. Putting the batch together is "
        "part of it: `operator.select` (ours), `dgl.batch`, `Batch.from_data_list`.",
        "",
        *table(["network", "graphs a second", "step, ms"], rows),
    ]


def growth_table(section: dict[str, Any]) -> list[str]:
    """Exponents of growth."""
    rows = [
        [name, *(f"{growth.slope(points, what, name):.2f}" for points, what in columns)]
        for columns in [[(p, what) for p in section.values() for what in growth.QUANTITIES]]
        for name in growth.NAMES
    ]
    heads = [f"{what} against {axis}" for axis in section for what in ("time", "memory")]
    return [
        "## Growth",
        "",
        "Exponents, 1 being linear: slopes of the lines through the logarithms. At the left end "
        "fixed costs make them smaller, at the right end graphs that outgrow the cache larger.",
        "",
        *table(["network", *heads], rows),
        "",
        f"![Time and memory of a training step against depth and edges]({PLOT})",
    ]


def profile_table(cells: list[dict[str, Any]]) -> list[str]:
    """Shares of the kinds of operations."""
    lines = ["## Profile", "", PROFILE]
    for cell in cells:
        kinds = list(next(iter(cell["kinds"].values())))
        rows = [
            [
                name,
                *(f"{seconds[kind] / sum(seconds.values()):.0%}" for kind in kinds),
                f"{1e3 * sum(seconds.values()):.0f}",
            ]
            for name, seconds in cell["kinds"].items()
        ]
        lines += ["", f"### Profile, {where(cell)}", "", *table(["network", *kinds, "ms"], rows)]
    return lines


TABLES: dict[str, Callable[[Any], list[str]]] = {
    "memory": memory_table,
    "checkpoint": checkpoint_table,
    "import": import_table,
    "forms": forms_table,
    "batches": batches_table,
    "growth": growth_table,
    "profile": profile_table,
}


def milliseconds(times: dict[str, Any]) -> str:
    """Median and quartiles."""
    median, low, high = (1e3 * times[key] for key in ("median", "q25", "q75"))
    digits = 1 if median < 100 else 0
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def megabytes(taken: int | None) -> str:
    """Memory, or nothing where it was not measured."""
    return "-" if taken is None else f"{taken / 1e6:,.0f}"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
