"""Parts of one large graph to train on, by DGL's samplers: Cluster-GCN, ShaDow and SAINT."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from torch import Tensor

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.files import write_bytes
from dgl_deepgnn.graph import AnyGraph, require_dgl
from dgl_deepgnn.recipe import BatchingSection
from dgl_deepgnn.wording import counted

__all__ = ["Cut", "cut", "metis", "subgraph_sampler", "without_chatter"]

LARGE = 10**6
"""Edges from which on a partition is kept on disk."""

Sampler = Callable[[int, Tensor], tuple[Tensor, Tensor, AnyGraph]]
"""From the number of a draw, and nodes: those of a subgraph, whether each counts, the subgraph."""


def subgraph_sampler(data: TaskData, batching: BatchingSection) -> Sampler:
    """What draws a subgraph, the same one for the same number.

    Raises
    ------
    DGLError
        If the data is not one graph with labels of nodes, or DGL is not there.
    """
    if len(data.graphs) != 1 or data.level != "node":
        raise DGLError(
            f"training.batching.kind {batching.kind} draws nodes of one large graph, but "
            f"{data.name} has {counted(len(data.graphs), 'graph')} and {data.level} labels. "
            "Use full, graphs (some of many graphs) or clusters (of one)."
        )
    dgl = require_dgl(f"training.batching.kind {batching.kind}")
    (graph,) = data.graphs
    if batching.kind == "shadow":
        sampler = dgl.dataloading.ShaDowKHopSampler(batching.fanouts or [10, 10])
    else:
        length = 4 if batching.walk_length is None else batching.walk_length
        size = batching.size or 1
        budget: Any = ("walk", (max(1, size // (length + 1)), length)) if length else ("node", size)
        sampler = dgl.dataloading.SAINTSampler(*budget)

    def sample(number: int, nodes: Tensor) -> tuple[Tensor, Tensor, AnyGraph]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            dgl.seed(number)
            if batching.kind == "saint":
                subgraph = sampler.sample(graph, nodes)
                inside = subgraph.ndata[dgl.NID]
                return inside, torch.ones(len(inside), dtype=torch.bool), subgraph
            # DGL puts the nodes that were asked for first.
            inside, _, subgraph = sampler.sample(graph, nodes)
            return inside, torch.arange(len(inside)) < len(nodes), subgraph

    return sample


@dataclass(frozen=True)
class Cut:
    """One graph in parts; what it has of nodes stays with the whole.

    Parameters
    ----------
    graphs : list of DGLGraph
        The parts, induced subgraphs, with their data of edges.
    nodes, edges : Tensor
        Which of the whole graph's they hold, part after part.
    """

    graphs: list[AnyGraph]
    nodes: Tensor
    edges: Tensor

    @classmethod
    def of(cls, graph: AnyGraph, part_of: Tensor, count: int) -> Cut:
        """Cut a graph by the number of the part of every node, shape (N,)."""
        dgl = require_dgl("A graph in parts")
        bare = graph.local_var()
        for key in list(bare.ndata):  # features may be in a file, and larger than the memory
            del bare.ndata[key]
        sizes = torch.bincount(part_of, minlength=count).tolist()
        nodes = torch.argsort(part_of, stable=True)
        graphs = [dgl.node_subgraph(bare, some) for some in nodes.split(sizes)]
        return cls(graphs, nodes, torch.cat([some.edata.pop(dgl.EID) for some in graphs]))


@lru_cache(maxsize=1)  # all seeds, and all arms of a speed-up record, train on one cut
def cut(data: TaskData, clusters: int) -> Cut:
    """Cut the one graph of a data set into induced subgraphs (METIS, as Cluster-GCN does).

    Raises
    ------
    DGLError
        If it is not one graph, or smaller than that, or DGL is not there.
    """
    if len(data.graphs) != 1 or data.level == "graph":
        raise DGLError(
            f"training.batching.kind clusters cuts one large graph into parts, but {data.name} has "
            f"{counted(len(data.graphs), 'graph')} and {data.level} labels. Use full, or graphs: "
            "some of them a step."
        )
    (graph,) = data.graphs
    if clusters > graph.num_nodes():
        raise DGLError(
            f"training.batching.parts is {clusters}, but the graph of {data.name} has only "
            f"{counted(graph.num_nodes(), 'node')}."
        )
    dgl = require_dgl("training.batching.kind clusters (METIS)")
    return Cut.of(graph, _partition(dgl, graph, clusters), clusters)


def _partition(dgl: Any, graph: AnyGraph, clusters: int) -> Tensor:
    """The cluster of every node; of a large graph it is computed once and kept on disk."""
    if graph.num_edges() < LARGE:
        return metis(dgl, graph, clusters)
    digest = hashlib.sha256(f"{clusters} {graph.num_nodes()} {dgl.__version__}".encode())
    for ends in graph.edges(order="eid"):
        digest.update(ends.cpu().numpy().astype("<i8").tobytes())
    cache = Path(os.environ.get("DGL_DEEPGNN_CACHE") or pooch.os_cache("dgl_deepgnn"))
    path = cache / "partitions" / f"{digest.hexdigest()[:32]}.npy"
    try:
        found = np.load(path, allow_pickle=False)
        if found.shape == (graph.num_nodes(),) and found.min() >= 0 and found.max() < clusters:
            return torch.from_numpy(found.astype(np.int64))
    except (OSError, ValueError, EOFError):  # not there, or damaged
        pass
    assignment = metis(dgl, graph, clusters)
    content = io.BytesIO()
    np.save(content, assignment.numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getbuffer())
    return assignment


def metis(dgl: Any, graph: AnyGraph, clusters: int) -> Tensor:
    """The part of every node, by METIS; the same every time."""
    with without_chatter():
        # METIS forbids self-loops. With them, or in k-way mode, DGL's METIS cuts the same graph
        # another way each time, and a resumed run would differ from an uninterrupted one.
        return dgl.metis_partition_assignment(
            dgl.remove_self_loop(graph), clusters, mode="recursive"
        )


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep what DGL tells of its steps off the screen: Python prints, C++ writes to file 2."""
    with redirect_stdout(io.StringIO()), open(os.devnull, "w") as nowhere:
        try:
            stderr = os.dup(2)
        except OSError:  # closed
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
