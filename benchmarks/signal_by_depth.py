"""Signal and first-layer gradient by depth: DGL's layers before and after `critical_`, and ours.

Run ``python benchmarks/signal_by_depth.py``; it writes ``signal_by_depth.md`` and
``signal_by_depth.json`` beside itself. Cora is read through DGL (``DGL_DOWNLOAD_DIR``) and left
out where that is not set.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import dgl
import networkx as nx
import numpy as np
import torch
from dgl import DGLGraph
from torch import Tensor, nn

from dgl_deepgnn import create_model, spectral_radius
from dgl_deepgnn.init import critical_
from dgl_deepgnn.theory import FAMILIES, Family, Prediction, predict

WIDTH, DEPTHS = 256, (4, 16, 64)
RESIDUAL_WIDTH, RESIDUAL_DEPTHS, RESIDUAL_T = 128, (4, 16, 64, 256, 1024), "per-depth:1"
ARMS = ("DGL", "DGL + critical_", "ours, plain", "ours, residual")
CORA_NODES = 500


class Case(NamedTuple):
    """A graph with self-loops, the same without, and standardized features."""

    graph: DGLGraph
    plain: DGLGraph
    feat: Tensor


class DGLStack(nn.Module):
    """A stack of DGL's own layers, ReLU in between."""

    def __init__(self, family: Family, in_feats: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for fan_in, fan_out in pairwise([in_feats, *[WIDTH] * depth]):
            if family == "gcn":
                layer = dgl.nn.GraphConv(fan_in, fan_out)
            elif family == "graphsage":
                layer = dgl.nn.SAGEConv(fan_in, fan_out, "mean")
            else:
                mlp = (nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Linear(fan_out, fan_out))
                layer = dgl.nn.GINConv(nn.Sequential(*mlp), "sum")
            self.layers.append(layer)

    def forward(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """Features after the last layer."""
        for index, layer in enumerate(self.layers):
            feat = layer(graph, torch.relu(feat) if index else feat)
        return feat


def cases() -> dict[str, Case]:
    """Graphs of the benchmark."""
    generator = torch.Generator().manual_seed(12345)  # not that of any draw of weights
    graphs = {
        "random graph": [nx.fast_gnp_random_graph(128, 10 / 127, seed=0)],
        "grid": [nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 8))],
        "star": [nx.star_graph(63)],
        "batch of small graphs": [
            nx.connected_watts_strogatz_graph(n, 4, 0.3, seed=n) for n in range(8, 17)
        ],
    }
    result = {}
    for name, parts in graphs.items():
        plain = [dgl.from_networkx(part) for part in parts]
        loops = [dgl.add_self_loop(part) for part in plain]
        graph = dgl.batch(loops)
        feat = torch.randn(graph.num_nodes(), WIDTH, generator=generator)
        result[name] = Case(graph, dgl.batch(plain), feat)
    if "DGL_DOWNLOAD_DIR" in os.environ:
        result[f"Cora, {CORA_NODES} nodes"] = cora()
    return result


def cora() -> Case:
    """Neighbourhood of Cora's most cited paper, nearest papers first."""
    graph = dgl.data.CoraGraphDataset(verbose=False)[0]
    feat = graph.ndata["feat"]
    start = int(graph.in_degrees().argmax())
    nodes = torch.cat(list(dgl.bfs_nodes_generator(graph, start)))[:CORA_NODES]
    plain = dgl.remove_self_loop(dgl.node_subgraph(graph, nodes))
    feat = feat[nodes]
    feat = feat[:, feat.std(0) > 0]
    feat = (feat - feat.mean(0)) / feat.std(0)
    return Case(dgl.add_self_loop(plain), plain, feat)


def reset(module: Any) -> None:
    """Draw anew as DGL does; its GINConv leaves that to the module inside."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
    else:
        for child in module.children():
            reset(child)


def measure(
    model: nn.Module,
    draw: Callable[[], object],
    inputs: tuple[Any, Tensor],
    draws: int,
    first: list[nn.Parameter] | None,
) -> dict[str, float]:
    """Mean square of the output, and squared gradient norm in the `first` layer's weights."""
    signal, gradient = [], []
    for seed in range(draws):
        torch.manual_seed(seed)
        draw()
        with torch.set_grad_enabled(first is not None):
            out = model(*inputs)
        signal.append(out.detach().double().square().mean().item())
        if first is not None:
            direction = torch.randn_like(out) / math.sqrt(out.numel())
            grads = torch.autograd.grad(out, first, direction)
            gradient.append(sum(grad.double().square().sum().item() for grad in grads))
    with np.errstate(invalid="ignore"):
        result = {"signal": float(np.mean(signal))}
        if first is not None:
            result["gradient"] = float(np.mean(gradient))
    return result


def run_arm(arm: str, family: Family, case: Case, depth: int, draws: int) -> dict[str, Any]:
    """One cell: an arm at a depth, and what the theory says."""
    in_feats = case.feat.shape[1]
    graph: Any = case.plain if family == "gin" else case.graph
    model: nn.Module
    theory: dict[str, Any] = {"t": 1.0, "residual": None}
    if arm.startswith("DGL"):
        stack = DGLStack(family, in_feats, depth)
        model, first_layer = stack, stack.layers[0]

        def draw() -> object:
            for layer in stack.layers:
                reset(layer)
            return critical_(stack, graph) if "critical_" in arm else None

        if family == "gin":  # DGL's layer has one scale for all graphs of a batch
            theory["spectral_radius"] = float(spectral_radius(case.graph, "none").max())
        if arm == "DGL":
            theory["init"] = "glorot"
    else:
        options = theory if arm == "ours, plain" else {}
        ours = create_model(
            f"res{family}",
            in_feats=in_feats,
            hidden_feats=WIDTH,
            out_feats=WIDTH,
            num_layers=depth,
            **options,
        )
        theory = options
        model, first_layer, draw = ours, ours.convs[0], ours.reset_parameters
        graph = ours.operator(case.graph)
    first = [p for p in first_layer.parameters() if p.dim() == 2]
    cell = measure(model, draw, (graph, case.feat), draws, first)
    if arm == "DGL" and family == "gin":
        return cell  # its linear layers start neither as Glorot's nor without biases
    prediction = predicted(case, family, depth, WIDTH, **theory)
    cell["signal_theory"] = float(prediction.signal[-1])
    if not (arm.startswith("DGL") and family == "gin"):
        # There lambda is divided out of the weights, not of what they are multiplied with.
        cell["gradient_theory"] = float(prediction.weight_gradient[0])
    return cell


@cache
def predicted(case: Case, family: Family, depth: int, width: int, **options: Any) -> Prediction:
    return predict(case.graph, case.feat, family, depth, hidden_feats=width, **options)


def run_residual(
    family: Family, residual: str, case: Case, depth: int, draws: int
) -> dict[str, float]:
    """Signal of a deep model of ours with residual connections."""
    width = RESIDUAL_WIDTH
    model = create_model(
        f"res{family}",
        in_feats=case.feat.shape[1],
        hidden_feats=width,
        out_feats=width,
        num_layers=depth,
        t=RESIDUAL_T,
        residual=residual,
    )
    inputs = (model.operator(case.graph), case.feat)
    cell = measure(model, model.reset_parameters, inputs, draws, None)
    theory = predicted(case, family, depth, width, t=RESIDUAL_T, residual=residual)
    return {**cell, "signal_theory": float(theory.signal[-1])}


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "overflow"
    return f"{value:.2g}"


def report(results: dict[str, Any]) -> str:
    """Markdown of the results."""
    lines = [
        "# Signal and gradient by depth",
        "",
        f"Made by `python benchmarks/signal_by_depth.py --draws {results['draws']}` in "
        f"{results['minutes']:.0f} minutes. Means over {results['draws']} random initializations. "
        "The input has mean square 1. In brackets: what "
        "[the theory](../docs/theory.md) predicts.",
        "",
        f"## DGL's layers before and after `critical_`, and ours (width {WIDTH})",
        "",
        "Mean square of the output, and squared norm of the gradient in the first layer's weights "
        "for a gradient of norm 1 at the output. *DGL*: its layers as they come (GIN: with an MLP "
        "of two linear layers). *ours, plain*: the same architecture, `t=1, residual=None`. "
        "*ours, residual*: the defaults, `t='per-depth'` and `residual='fixup'`. *64/16*: what 48 "
        "more layers change.",
    ]
    for name, families in results["arms"].items():
        lines += ["", f"### {name}", ""]
        heads = [f"{what} {depth}" for what in ("signal", "gradient") for depth in DEPTHS]
        heads[3:3], heads[7:7] = ["64/16"], ["64/16"]
        lines.append(f"| family | model | {' | '.join(heads)} |")
        lines.append("|---" * (len(heads) + 2) + "|")
        for family, arms in families.items():
            for arm, cells in arms.items():
                row = []
                for what in ("signal", "gradient"):
                    for depth in DEPTHS:
                        cell = cells[str(depth)]
                        theory = cell.get(f"{what}_theory")
                        bracket = "" if theory is None else f" ({number(theory)})"
                        row.append(f"{number(cell[what])}{bracket}")
                    deep, shallow = cells["64"][what], cells["16"][what]
                    row.append(number(deep / shallow if math.isfinite(deep) else deep))
                lines.append(f"| {family} | {arm} | {' | '.join(row)} |")
    lines += [
        "",
        "With a fixed aggregation the nodes become alike, so gradients in independent directions "
        "at the nodes cancel: the first layer's gradient falls by up to the number of nodes, the "
        "slower the graph mixes the later (grid, Cora). That is what the second principle is for; "
        "no weight scale cures it.",
        "",
        "With a sum aggregation DGL's layer has one weight scale for all graphs of a batch, so "
        "`critical_` keeps the graph of the largest spectral radius critical and the others lose "
        "signal with depth; ours divides by each graph's own.",
        "",
        f"## Ours with residual connections (width {RESIDUAL_WIDTH})",
        "",
        f"Mean square of the output, means over {max(1, results['draws'] // 5)} initializations, "
        f"with `t='{RESIDUAL_T}'`. (The default, `'per-depth'`, is four times as much aggregation: "
        "at depth 4 all of it, with the loss of the tables above.)",
        "",
        f"| graph | family | residual | {' | '.join(map(str, RESIDUAL_DEPTHS))} |",
        "|---" * (len(RESIDUAL_DEPTHS) + 3) + "|",
    ]
    for name, families in results["residual"].items():
        for family, kinds in families.items():
            for kind, cells in kinds.items():
                row = [
                    f"{number(cell['signal'])} ({number(cell['signal_theory'])})"
                    for cell in cells.values()
                ]
                lines.append(f"| {name} | {family} | {kind} | {' | '.join(row)} |")
    if results["left_out"]:
        lines += ["", f"Left out: {results['left_out']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=50, help="random initializations a cell")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    arguments = parser.parse_args()
    start, draws, graphs = time.perf_counter(), arguments.draws, cases()
    results: dict[str, Any] = {
        "draws": draws,
        "left_out": ""
        if "DGL_DOWNLOAD_DIR" in os.environ
        else "Cora, for want of DGL_DOWNLOAD_DIR",
        "arms": {},
        "residual": {},
    }
    for name, case in graphs.items():
        results["arms"][name] = {
            family: {
                arm: {str(depth): run_arm(arm, family, case, depth, draws) for depth in DEPTHS}
                for arm in ARMS
            }
            for family in FAMILIES
        }
        if not name.startswith("Cora"):
            results["residual"][name] = {
                family: {
                    kind: {
                        # Residual connections keep draws alike, so that fewer will do.
                        str(depth): run_residual(family, kind, case, depth, max(1, draws // 5))
                        for depth in RESIDUAL_DEPTHS
                    }
                    for kind in ("fixup", "scaled")
                }
                for family in FAMILIES
            }
        results["minutes"] = (time.perf_counter() - start) / 60
        print(f"{name}: done after {results['minutes']:.1f} minutes", flush=True)
    text = report(results)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    print(text)


if __name__ == "__main__":
    main()
