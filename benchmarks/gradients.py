"""What it costs two processes to send each other their gradients, which wait for the whole step.

Run ``python -m benchmarks.gradients``; it starts two processes by torchrun, on one machine, and
writes ``gradients.md`` beside itself.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import dgl
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE
from dgl_deepgnn.files import write_text
from dgl_deepgnn.training.processes import join

COMMAND = "python -m benchmarks.gradients"
NODES, DEGREE, IN_FEATS, CLASSES, ROUNDS = 4000, 8, 64, 10, 21
CASES = [
    (kind, depth, width)
    for kind in (ResGCN, ResGraphSAGE, ResGIN)
    for depth, width in ((16, 64), (64, 64), (64, 128))
]


def measure(kind: Any, depth: int, width: int) -> tuple[float, float, int]:
    """Seconds of a step in which gradients are sent, and in which not, medians; their bytes."""
    torch.manual_seed(0)
    ends = torch.randint(NODES, (2, DEGREE * NODES))
    graph = dgl.add_self_loop(dgl.remove_self_loop(dgl.graph(tuple(ends), num_nodes=NODES)))
    feat, labels = torch.randn(NODES, IN_FEATS), torch.randint(CLASSES, (NODES,))
    with join() as processes:
        model = kind(IN_FEATS, width, CLASSES, depth)
        operator = model.operator(graph)
        replica = processes.replicate(model)
        assert isinstance(replica, DistributedDataParallel)

        def step(way: AbstractContextManager[Any]) -> float:
            processes.share()  # all begin together
            start = time.perf_counter()
            with way:
                F.cross_entropy(replica(operator, feat), labels).backward()
            return time.perf_counter() - start

        ways: dict[str, Callable[[], AbstractContextManager[Any]]]
        ways = {"sent": nullcontext, "kept": replica.no_sync}
        taken: dict[str, list[float]] = {"sent": [], "kept": []}
        shuffle = random.Random(0).shuffle  # the same in both processes
        for round_ in range(ROUNDS + 2):
            names = list(ways)
            shuffle(names)
            for name in names:
                seconds = step(ways[name]())
                if round_ > 1:
                    taken[name].append(seconds)
        size = sum(p.numel() * p.element_size() for p in model.parameters())
    return statistics.median(taken["sent"]), statistics.median(taken["kept"]), size


def worker() -> None:
    """What each of the two processes does; the first one writes."""
    torch.set_num_threads(1)
    with join() as processes:
        lines = [
            "# Sending gradients",
            "",
            f"Made by `{COMMAND}`: forward and backward pass of two processes on one machine, one "
            f"thread each (gloo, loopback), with their gradients averaged by PyTorch's "
            f"DistributedDataParallel and without, interleaved, medians of {ROUNDS}; each on a "
            f"graph of {NODES:,} nodes and {DEGREE * NODES:,} edges.",
            "",
            "| model | layers | width | gradients, MB | step, ms | without sending | share of it |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind, depth, width in CASES:
            sent, kept, size = measure(kind, depth, width)
            lines.append(
                f"| {kind.__name__} | {depth} | {width} | {size / 1e6:.1f} | {1000 * sent:.0f} | "
                f"{1000 * kept:.0f} | {max(0.0, 1 - kept / sent):.1%} |"
            )
        lines += [
            "",
            "ResGCN's layers are one fused step, whose gradients are there together at its end; "
            "those of the other two are sent while earlier layers are still computed.",
        ]
        if processes.rank == 0:
            write_text(Path(__file__).with_suffix(".md"), "\n".join(lines) + "\n")
            print("\n".join(lines))


def main() -> None:
    """Start the two processes."""
    argparse.ArgumentParser(prog=COMMAND, description=__doc__).parse_args()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    module = "from benchmarks.gradients import worker; worker()"
    script = [sys.executable, "-c", module]
    subprocess.run([*torchrun, "--nproc-per-node", "2", "--no-python", *script], check=True)


if __name__ == "__main__":
    main()
