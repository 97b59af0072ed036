"""Mean square behind deep networks whose messages depend on edge features, or on relations.

Run ``python -m benchmarks.edges``; it writes ``edges.md`` beside itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import dgl
import torch
from torch import Tensor, nn

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE, ResRGCN
from dgl_deepgnn.files import write_text

COMMAND = "python -m benchmarks.edges"
DEPTHS, WIDTH, NODES, EDGE_FEATS, SEEDS = (4, 16, 64), 128, 500, 8, 5


class Stack(nn.Module):
    """Layers of DGL's, as they come, with a ReLU in front of each but the first."""

    def __init__(self, depth: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(depth))
        self.embed = nn.Linear(EDGE_FEATS, WIDTH)

    def forward(self, graph: dgl.DGLGraph, h: Tensor, edge_feat: Tensor) -> Tensor:
        """Features behind the last layer."""
        relational = isinstance(self.layers[0], dgl.nn.RelGraphConv)
        edges = edge_feat.argmax(dim=1) if relational else self.embed(edge_feat)
        for index, layer in enumerate(self.layers):
            h = layer(graph, torch.relu(h) if index else h, edges)
        return h


def networks() -> dict[str, tuple[bool, Callable[[int], nn.Module]]]:
    """By name: whether it reads relations, and how it is made."""

    def ours(kind: type[nn.Module], **options: object) -> Callable[[int], nn.Module]:
        sizes = {"in_feats": WIDTH, "hidden_feats": WIDTH, "out_feats": WIDTH}
        plain = {"t": 1.0, "residual": None, "edge_feats": EDGE_FEATS}
        return lambda depth: kind(num_layers=depth, **sizes, **plain, **options)

    return {
        "`dgl.nn.GINEConv`": (
            False,
            lambda depth: Stack(depth, lambda: dgl.nn.GINEConv(nn.Linear(WIDTH, WIDTH))),
        ),
        "`ResGCN`": (False, ours(ResGCN, edge_messages=True)),
        "`ResGraphSAGE`": (False, ours(ResGraphSAGE, edge_messages=True)),
        "`ResGIN`": (False, ours(ResGIN, edge_messages=True)),
        "`dgl.nn.RelGraphConv`": (
            True,
            lambda depth: Stack(depth, lambda: dgl.nn.RelGraphConv(WIDTH, WIDTH, EDGE_FEATS)),
        ),
        "`ResRGCN`": (True, ours(ResRGCN)),
        "`ResRGCN`, 2 bases": (True, ours(ResRGCN, num_bases=2)),
    }


@torch.no_grad()
def mean_square(make: Callable[[int], nn.Module], depth: int, relational: bool) -> float:
    """Of the output, its geometric mean over the seeds."""
    total = 0.0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        src, dst = torch.randint(NODES, (2, 5 * NODES))  # DGL's random graphs have a seed apart
        graph = dgl.graph((src, dst), num_nodes=NODES).remove_self_loop().add_self_loop()
        feat = torch.randn(NODES, WIDTH)
        edge_feat = torch.randn(graph.num_edges(), EDGE_FEATS)
        if relational:
            relation = torch.randint(EDGE_FEATS, (graph.num_edges(),))
            edge_feat = torch.nn.functional.one_hot(relation, EDGE_FEATS).float()
        out = make(depth)(graph, feat, edge_feat=edge_feat)
        total += math.log(out.double().square().mean().item())
    return math.exp(total / SEEDS)


def main() -> None:
    """Measure, and write the table."""
    argparse.ArgumentParser(prog=COMMAND, description=__doc__).parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Edge features and relations in the convolutions",
        "",
        f"Made by `{COMMAND}`: mean square of the output at the start, behind layers of width "
        f"{WIDTH} without residual connections, on random graphs of {NODES} nodes and {5 * NODES} "
        f"edges, with {EDGE_FEATS} edge features (standard normal) or as many relations; geometric "
        f"mean of {SEEDS} seeds.",
        "",
        "| layer or model | " + " | ".join(f"{depth} layers" for depth in DEPTHS) + " |",
        "|---|" + "---|" * len(DEPTHS),
    ]
    for name, (relational, make) in networks().items():
        cells = [f"{mean_square(make, depth, relational):.2g}" for depth in DEPTHS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    write_text(Path(__file__).with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
