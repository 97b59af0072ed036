"""How far one draw of a deep network is from the mean of all, Gaussian and orthogonal.

Run ``python -m benchmarks.one_draw``; it writes ``one_draw.md`` beside itself.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path

import dgl
import numpy as np
import torch
from torch import Tensor, nn

from dgl_deepgnn.data import load_data
from dgl_deepgnn.files import write_text
from dgl_deepgnn.init import critical_

COMMAND = "python -m benchmarks.one_draw"
DEPTHS, WIDTHS = (8, 32, 64), (32, 64, 256)


class Plain(nn.Module):
    """GraphConv and ReLU in turn."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dgl.nn.GraphConv(width, width) for _ in range(depth))

    def forward(self, graph: dgl.DGLGraph, feat: Tensor) -> Tensor:
        """Features behind the last layer."""
        for layer in self.layers:
            feat = layer(graph, torch.relu(feat))
        return feat


@torch.no_grad()
def spread(depth: int, width: int, orthogonal: bool, draws: int) -> float:
    """Standard deviation over the draws of the logarithm of the output's mean square.

    The features are the same for all nodes, which aggregation makes of any: so only the weights
    are drawn.
    """
    graph = load_data("karate").graphs[0]
    root = graph.in_degrees().float().sqrt()[:, None]  # what this normalization leaves as it is
    model, logarithms = Plain(depth, width), []
    for seed in range(draws):
        torch.manual_seed(seed)
        critical_(model, graph, orthogonal=orthogonal)
        feat = root * torch.randn(1, width)
        ratio = model(graph, feat).double().square().mean() / feat.double().square().mean()
        logarithms.append(math.log(ratio))
    return float(np.std(logarithms, ddof=1))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--draws", type=int, default=100)
    draws = parser.parse_args().draws
    warnings.simplefilter("ignore")  # of just this spread
    torch.set_num_threads(1)
    lines = [
        "# One draw of a deep network",
        "",
        f"Made by `{COMMAND}`: {draws} draws by `critical_(model, graph)` of stacks of GraphConv "
        "and ReLU on the karate club's graph: standard deviation of the logarithm of the output's "
        f"mean square (itself known to {1 / math.sqrt(2 * draws):.0%}), beside the laws "
        "sqrt(5 depth / width) of Gaussian weights and sqrt(3 depth / width) of orthogonal ones: "
        "the length that a matrix gives to its input does not scatter then, only the share of it "
        "that ReLU lets pass.",
        "",
        "| depth | width | law | Gaussian | law | orthogonal | orthogonal / Gaussian |",
        "|---|---|---|---|---|---|---|",
    ]
    shares = []
    for depth in DEPTHS:
        for width in WIDTHS:
            gaussian, orthogonal = (spread(depth, width, kind, draws) for kind in (False, True))
            shares.append(orthogonal / gaussian)
            laws = [math.sqrt(factor * depth / width) for factor in (5, 3)]
            lines.append(
                f"| {depth} | {width} | {laws[0]:.2f} | {gaussian:.2f} | {laws[1]:.2f} "
                f"| {orthogonal:.2f} | {shares[-1]:.2f} |"
            )
            print(lines[-1], flush=True)
    mean, error = np.mean(shares), np.std(shares, ddof=1) / math.sqrt(len(shares))
    lines += [
        "",
        f"An orthogonal draw has {mean:.2f} +- {error:.2f} of the spread of a Gaussian one, in the "
        f"mean over the rows; by the laws {math.sqrt(3 / 5):.2f}.",
    ]
    write_text(Path(__file__).with_suffix(".md"), "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
