"""The part of a large graph that one of several machines trains on, by DistDGL."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.data.task_data import PARTS, Target
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import read_json
from dgl_deepgnn.graph import AnyGraph, require_dgl
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import layerwise_chunks
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.recipe import BatchingSection, DataSection, Recipe
from dgl_deepgnn.training.batches import Batch, Collator
from dgl_deepgnn.training.processes import Processes
from dgl_deepgnn.training.sampling import Cut
from dgl_deepgnn.wording import counted

__all__ = [
    "FACTS",
    "GRAPH",
    "Part",
    "PartBatches",
    "PartitionFacts",
    "check_part",
    "connected",
    "read_partition",
    "serve",
    "sha256",
]

FACTS = "partition.json"
GRAPH = "deepgnn"
"""DGL's name of the partitioned graph, of its file and of what lies in shared memory."""
MEMORY = "2GB"
"""Of the evaluation, if a recipe does not say."""


class PartitionFacts(BaseModel):
    """Of ``partition.json``, beside what DGL writes."""

    data: DataSection
    """Of the recipe that it was made for."""
    name: str
    target: Target
    num_outputs: int
    info: dict[str, Any]
    fingerprint: str
    norm: str
    """Of the aggregation whose values the edges bear."""
    machines: int
    clusters: int
    train_clusters: list[list[int]]
    """With nodes of the training part, of every machine in every split."""
    files: dict[str, str]
    """SHA-256 of every file that DGL reads."""


def read_partition(folder: Path, recipe: Recipe) -> PartitionFacts:
    """What a folder holds that ``dgl-deepgnn partition`` has written.

    Raises
    ------
    UserError
        If it is none, or of other data or clusters than the recipe's.
    """
    try:
        facts = PartitionFacts.model_validate(read_json(folder / FACTS, FACTS))
    except (OSError, ValidationError):
        raise UserError(
            f"{folder} is not a partition: `dgl-deepgnn partition RECIPE` makes one."
        ) from None
    batching = recipe.training.batching
    if facts.data != recipe.data:
        raise UserError(
            f"{folder} is a partition of {facts.data.name} {facts.data.options or ''}, the recipe "
            f"is for {recipe.data.name} {recipe.data.options or ''}."
        )
    if batching.kind != "clusters" or batching.parts != facts.clusters:
        raise UserError(
            f"{folder} is cut into {facts.clusters} clusters; training.batching of the recipe is "
            f"kind {batching.kind}, parts {batching.parts}. Make them the same, or a new partition."
        )
    if recipe.model.norm_layer == "batch" and facts.machines > 1:
        raise UserError(
            "model.norm_layer batch takes its statistics over a whole batch, of which each machine "
            "sees a part. Use norm_layer layer or none."
        )
    if (batching.size or 0) % facts.machines:
        raise UserError(
            f"training.batching.size {batching.size} (clusters a step) cannot be shared evenly "
            f"among {counted(facts.machines, 'machine')}: make it a multiple."
        )
    return facts


def sha256(path: Path) -> str:
    """Checksum of a file of a partition, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_part(folder: Path, machine: int) -> None:
    """Compare what a machine reads of a partition with its checksums.

    Raises
    ------
    UserError
        If a file is not what was written.
    """
    files = PartitionFacts.model_validate(read_json(folder / FACTS, FACTS)).files
    for name, digest in files.items():
        if "/" in name and not name.startswith(f"part{machine}/"):
            continue
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror}.") from None
        if found != digest:
            raise UserError(
                f"{folder / name} is damaged: its SHA-256 is not that in {FACTS}. Copy it again, "
                "or make a new partition."
            )


@contextmanager
def connected(folder: Path, recipe: Recipe) -> Iterator[Part]:
    """Connect to the graph servers, of this machine and the others, until the block has ended.

    Yields
    ------
    Part
        What this machine trains on.
    """
    facts = read_partition(folder, recipe)
    dgl = require_dgl("Training on several machines")
    if "DGL_IP_CONFIG" not in os.environ:
        raise UserError("There are no graph servers: start `dgl-deepgnn train --distributed`.")
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    with redirect_stdout(io.StringIO()):  # DGL tells of its connections
        dgl.distributed.initialize(os.environ["DGL_IP_CONFIG"])
        for sign, handler in handlers.items():  # DGL ends by an exception that nobody catches
            signal.signal(sign, handler)
        graph = dgl.distributed.DistGraph(GRAPH, part_config=str(folder / f"{GRAPH}.json"))
    yield Part.of(graph, facts)
    # After an error there is no farewell: it would wait for trainers that may be gone.
    with redirect_stdout(io.StringIO()):
        dgl.distributed.exit_client()


@dataclass(frozen=True, eq=False, kw_only=True)
class Part(TaskData):
    """Task data whose one graph is distributed, and what this machine has of it.

    Nodes are numbered as DGL's partition numbers them, machine by machine. Labels and splits are
    those of all nodes.

    Parameters
    ----------
    facts : PartitionFacts
        Of the partition.
    local : DGLGraph
        The graph of this machine's nodes and, behind them, the sources of edges to them.
    ids : Tensor
        Numbers of those nodes in the whole graph.
    edges : Tensor
        Numbers of its edges.
    cut : Cut
        This machine's clusters; nodes and edges as numbered in the whole.
    """

    facts: PartitionFacts
    local: AnyGraph
    ids: Tensor
    edges: Tensor
    cut: Cut
    _shared: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The data was checked before it was partitioned."""

    @classmethod
    def of(cls, graph: Any, facts: PartitionFacts) -> Part:
        """The part of a ``DistGraph`` that lies on this machine."""
        dgl = require_dgl("Training on several machines")
        held = graph.local_partition
        own = int(held.ndata["inner_node"].sum())
        src, dst = held.edges(order="eid")
        # DGL holds some edges to nodes of other machines as well.
        inside = (dst < own).nonzero().flatten()
        local = dgl.graph((src[inside], dst[inside]), num_nodes=held.num_nodes())
        ids, edges = held.ndata[dgl.NID].long(), held.edata[dgl.EID][inside].long()
        if "weight" in graph.edata:
            local.edata["weight"] = graph.edata["weight"][edges]
        inner = dgl.node_subgraph(local, torch.arange(own))
        count = facts.clusters // facts.machines
        cut = Cut.of(inner, graph.ndata["cluster"][ids[:own]], count)
        everything = torch.arange(graph.num_nodes())
        masks = {p: graph.ndata[f"{p}_mask"][everything].bool() for p in PARTS}
        splits = len(facts.train_clusters[0])
        masks = {part: mask.reshape(-1, splits) for part, mask in masks.items()}
        return cls(
            name=facts.name,
            graphs=[graph],
            level="node",
            target=facts.target,
            labels=graph.ndata["label"][everything],
            splits=[{p: mask[:, index] for p, mask in masks.items()} for index in range(splits)],
            num_outputs=facts.num_outputs,
            info=facts.info,
            facts=facts,
            local=local,
            ids=ids,
            edges=edges,
            cut=Cut(cut.graphs, ids[cut.nodes], edges[inner.edata[dgl.EID][cut.edges]]),
        )

    def fingerprint(self) -> str:
        """That of the data before it was partitioned."""
        return self.facts.fingerprint

    @property
    def own(self) -> int:
        """Nodes that belong to this machine: the first of the local ones."""
        return len(self.cut.nodes)

    def check(self, model: DeepGNN) -> None:
        """Raise `UserError` if the model aggregates otherwise than the partition was made for."""
        if model.inner_conv.norm != self.facts.norm:
            raise UserError(
                f"The partition was made for the aggregation {self.facts.norm}, the recipe's model "
                f"has {model.inner_conv.norm}: make a new partition."
            )

    def operator(self, model: DeepGNN) -> AggregationOperator:
        """Rows of the whole graph's operator: aggregation to this machine's nodes."""
        (graph,) = self.graphs
        t = model.inner_conv.t if model.constant_t else 1.0
        values = t * graph.edata["aggregation"][self.edges].double().numpy()
        src, dst = (end.numpy() for end in self.local.edges(order="eid"))
        shape = self.own, len(self.ids)
        matrix = sp.csr_matrix((values, (dst, src)), shape=shape)
        if t < 1:
            matrix = sp.csr_matrix(matrix + (1 - t) * sp.eye(*shape, format="csr"))
        return AggregationOperator(self.local, matrix, t, np.ones(1))

    def exchange(self, feat: Tensor) -> None:
        """Fill rows of the other machines' nodes with what those have computed."""
        dgl = require_dgl("Training on several machines")
        (graph,) = self.graphs
        width = feat.shape[1]
        if width not in self._shared:
            self._shared[width] = dgl.distributed.DistTensor(
                (graph.num_nodes(), width),
                torch.float32,
                f"features-{width}",
                part_policy=graph.get_node_partition_policy("_N"),
            )
        everywhere = self._shared[width]
        everywhere[self.ids[: self.own]] = feat[: self.own].float().cpu()
        graph.barrier()
        feat[self.own :] = everywhere[self.ids[self.own :]].to(feat)
        graph.barrier()  # nobody writes before all have read


class PartBatches:
    """Batches of this machine's clusters, a machine's share of `batching.size` in each.

    Parameters
    ----------
    part : Part
        What this machine has.
    split : int
        Which split.
    model : DeepGNN
        Makes the aggregation operators.
    batching : BatchingSection
        Of kind clusters.
    device : torch.device
        Where the tensors go.
    processes : Processes
        One of every machine.
    """

    def __init__(
        self,
        part: Part,
        split: int,
        model: DeepGNN,
        batching: BatchingSection,
        device: torch.device,
        processes: Processes,
    ) -> None:
        part.check(model)
        self._size = max(1, (batching.size or 1) // part.facts.machines)
        self._collator = Collator(part, split, model, device, part.cut)
        # Of the machine that has most of them: all make as many steps.
        most = max(counts[split] for counts in part.facts.train_clusters)
        self.steps_per_epoch = -(-most // self._size)
        self.evaluation = [Evaluation(part, split, processes, device)]

    def training(self, generator: torch.Generator) -> Iterator[Batch]:
        """Batches of one epoch, shuffled by `generator`."""
        clusters = self._collator.to_train_on
        order = torch.randperm(len(clusters), generator=generator)
        some = clusters[order].split(self._size) if len(clusters) else ()
        for step in range(self.steps_per_epoch):
            if step < len(some):
                yield self._collator.batch(some[step])
            else:
                yield self._collator.batch(torch.tensor([0])).uncounted()


class Evaluation:
    """All nodes with a part in a split, scored by all machines together, each its own.

    Parameters
    ----------
    part : Part
        What this machine has.
    split : int
        Which split.
    processes : Processes
        Those of all machines.
    device : torch.device
        Where to compute.
    """

    def __init__(self, part: Part, split: int, processes: Processes, device: torch.device) -> None:
        self._part, self._processes, self._device = part, processes, device
        masks = part.splits[split]
        counts = torch.stack([masks[name] for name in PARTS]).any(dim=0)
        self.masks = {name: mask[counts].to(device) for name, mask in masks.items()}
        self.labels = part.labels[counts].to(device)
        self._own_count = counts[part.ids[: part.own]]
        self._operator: AggregationOperator | None = None

    def scores(self, model: DeepGNN, memory: str | int | None = None) -> Tensor:
        """Scores of those nodes, layer by layer; every machine has to ask for them."""
        part = self._part
        if self._operator is None:
            self._operator = part.operator(model)
        feat = part.graphs[0].ndata["feat"][part.ids].to(self._device)
        chunks = layerwise_chunks(
            model, self._operator, feat, memory=memory or MEMORY, exchange=part.exchange
        )
        return self._processes.gather(torch.cat(list(chunks))[self._own_count.to(self._device)])


def serve() -> NoReturn:
    """Serve the graph of this machine to all, until the trainers have ended."""
    dgl = require_dgl("Training on several machines")
    dgl.distributed.initialize(os.environ["DGL_IP_CONFIG"])
    sys.exit()  # DGL has done so
