"""What `critical_` makes of every class of ``dgl.nn.pytorch.conv``: the table of docs/hooks.md.

Writes ``benchmarks/dgl_classes.json`` and the table. A row is a stack of 32 layers of width 64.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dgl
import torch
from tqdm import tqdm

from benchmarks.hooks.dgl_classes import GRAPHS, HERE, NOT_MADE, STACKS, WIDTH, bare, graph_for
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.files import write_json, write_text
from dgl_deepgnn.init import UnknownModuleError, critical_
from dgl_deepgnn.init.dgl_refused import REASONS

__all__ = ["ARMS", "PAGE", "RESULTS", "table"]

COMMAND = "python -m benchmarks.hooks.table"
ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "dgl_classes.json", ROOT / "docs" / "hooks.md"
START, END = "<!-- table -->", "<!-- end of table -->"
ARMS = ("stock", "closed form", "measured")
DEPTH, SEEDS = 32, (0, 1, 2)

RULES = {
    "AGNNConv": "a mean; beta stays",
    "APPNPConv": "a mean without weights; refused where the graph makes it none",
    "DenseGraphConv": "2 / λ², of the matrix divided by its own sums",
    "DenseSAGEConv": "2: a mean of node and neighbours",
    "DotGatConv": "2: attention is a mean",
    "EGATConv": "2: attention is a mean; edge features share among their three parts",
    "EdgeGATConv": "2, shared with the residual map; edge features 1 / depth",
    "EdgeWeightNorm": "nothing to draw",
    "GATConv": "2 / λ²: attention is a mean; with residual=True of new widths shared",
    "GATv2Conv": "2: attention is a mean; with residual=True of new widths shared",
    "GCN2Conv": "2 / β: what the identity part (1 - β)² leaves",
    "GINConv": "2 / λ² with the sum's λ for the first linear layer, 2 for the others",
    "GraphConv": "2 / λ²; with weight=False nothing, where the aggregation is a mean",
    "GatedGCNConv": "1 for the node and for its neighbours, whom gates average; the gates share 2",
    "HeteroGraphConv": "shared by the relations into a node type",
    "JumpingKnowledge": "nothing to draw; its LSTM stays",
    "RelGraphConv": "2 / λ², with the relational sum's growth, which random features find",
    "SAGEConv": "1 and 1 / λ² for node and neighbours; 'gcn': 2 / λ²",
    "SGConv": "2 / λ to the power 2k",
    "TAGConv": "2 over the mean of the hops' λ to the power 2j",
}
"""Fan-in times variance in closed form, by the class."""


def measure(name: str, kind: str, arm: str) -> float | str | None:
    """Geometric mean over the draws of the output's mean square, None if not finite; or the error.

    Measured, it is on other features than were given.
    """
    graph = graph_for(name, GRAPHS[kind]())
    logarithms = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = STACKS[name](DEPTH)
        given, fresh = torch.randn(2, graph.num_nodes(), WIDTH)
        try:
            if arm != "stock":
                critical_(model, graph, given if arm == "measured" else None)
        except DGLError as error:
            return error.reason if isinstance(error, UnknownModuleError) else str(error)
        with torch.no_grad():
            square = model(graph, fresh).double().square().mean().item()
        logarithms.append(math.log(square) if 0 < square < math.inf else math.nan)
    value = math.exp(sum(logarithms) / len(logarithms))
    return float(f"{value:.3g}") if math.isfinite(value) else None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown of the results."""
    versions: dict[str, list[str]] = {}
    for row in rows:
        versions.setdefault(row["dgl"], []).append(bare(row["name"]))
    first, *others = sorted(versions, key=lambda version: -len(versions[version]))
    also = "".join(f" ({', '.join(dict.fromkeys(versions[v]))}: {v})" for v in others)
    lines = [
        f"Made by `{COMMAND}` on DGL {first}{also}: mean square behind {DEPTH} layers of width "
        f"{WIDTH}, ReLU between them, on two random graphs (undirected / directed, both with "
        f"self-loops), geometric mean of {len(SEEDS)} draws; measured: on fresh features. One draw "
        "of such a narrow network scatters by a factor of 5 around a typical 0.3, and the first "
        "layers average unrelated features, so that 0.01 is still order one: what counts is that "
        "it does not go on. The last column is fan-in times variance in front of a ReLU, or why "
        "there is none.",
        "",
        "| layer | stock | closed form | measured | rule, or reason |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [" / ".join(dict.fromkeys(map(_cell, row[arm]))) for arm in ARMS]
        lines.append(f"| `{row['name']}` | {' | '.join(cells)} | {_explained(row)} |")
    for name, reason in NOT_MADE.items():
        lines.append(f"| `{name}` | - | - | - | {reason} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | str | None) -> str:
    if isinstance(value, str):
        return "refused"
    if value is None:
        return "not finite"
    return f"{value:.1g}" if value < 10 else f"{value:.0e}" if value >= 1000 else f"{value:.0f}"


def _explained(row: dict[str, Any]) -> str:
    name = bare(row["name"])
    if isinstance(row["closed form"][0], str):
        return REASONS.get(name) or _sentence(row["closed form"][0])
    return RULES[name]


def _sentence(reason: str) -> str:
    first = reason.split(". ")[0].split(": ", 1)
    return (first[1] if len(first) > 1 else first[0]).replace("|", "/")


def write_page(rows: list[dict[str, Any]]) -> None:
    """Put the table into its page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    write_text(PAGE, f"{before}{START}\n{table(rows)}{END}{rest.split(END)[1]}")


def main() -> None:
    """Measure what is asked for, and write the table of all that there is."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--layers", default="*", help="pattern of names, for example 'GAT*'")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    former = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else []
    rows = {row["name"]: row for row in former}
    for name in tqdm([name for name in HERE if fnmatch(name, arguments.layers)]):
        found = {arm: [measure(name, kind, arm) for kind in GRAPHS] for arm in ARMS}
        rows[name] = {"name": name, "dgl": dgl.__version__, **found}
    ordered = [rows[name] for name in STACKS if name in rows]
    write_json(RESULTS, {"command": COMMAND, "rows": ordered})
    write_page(ordered)


if __name__ == "__main__":
    main()
