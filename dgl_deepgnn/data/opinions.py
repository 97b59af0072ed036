"""A task that relations decide: opinions of papers that agree with some, and dispute others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import split_items
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import make_graph
from dgl_deepgnn.options import Count, Seed

__all__ = ["opinions"]

OPINIONS, PER_PAPER, FAITHFUL, SIGNAL = 3, 4, 0.9, 0.15
RELATIONS = ("agrees with", "disputes", "writes", "written by")


@register_dataset("opinions", safe=True, values={"num_papers": 20_000, "seed": None})
def opinions(num_papers: Count = 1500, seed: Seed = 0) -> TaskData:
    """Papers and authors; which of three opinions a paper holds.

    Every paper agrees with four others and disputes four. Nine of ten that it agrees with hold its
    own opinion, nine of ten that it disputes the next one; whoever sees the edges but not which is
    which has an average of the two. Authors, a fifth as many, hold an opinion that nine of ten
    of their papers share; they have no features. Features of a paper are noise and a little of its
    opinion. A tenth of the papers is for training, a tenth for validation.

    ``edata["feat"]`` are indicators of the relations: agrees with, disputes, writes, written by.
    Edges lead to the paper that agrees or disputes, from the other one. The node features are those
    of papers, and indicators of paper and author.

    Parameters
    ----------
    num_papers : int, optional
        At least 100.
    seed : int, optional
        Of everything.

    Raises
    ------
    DGLError
        If an option is out of range.
    """
    if num_papers < 100:
        raise DGLError(f"opinions: num_papers={num_papers}; needed: at least 100.")
    rng = np.random.default_rng(seed)
    opinion = rng.integers(OPINIONS, size=num_papers)
    view = rng.integers(OPINIONS, size=num_papers // 5)
    paper = np.repeat(np.arange(num_papers), PER_PAPER)

    def partner(of: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
        """One of the nodes with the opinion asked for, now and then one of any other."""
        asked = np.where(rng.random(len(of)) < FAITHFUL, of, rng.integers(OPINIONS, size=len(of)))
        found = np.empty(len(of), dtype=np.int64)
        for value in range(OPINIONS):
            some = np.flatnonzero(among == value)
            found[asked == value] = rng.choice(some, int((asked == value).sum()))
        return found

    agreed = partner(opinion[paper], opinion)
    disputed = partner((opinion[paper] + 1) % OPINIONS, opinion)
    author = num_papers + partner(opinion, view)
    papers = np.arange(num_papers)
    ends = [(agreed, paper), (disputed, paper), (author, papers), (papers, author)]
    src, dst = (np.concatenate(side) for side in zip(*ends, strict=True))
    nodes = num_papers + len(view)
    graph = make_graph((torch.from_numpy(src), torch.from_numpy(dst)), nodes)
    feat = np.zeros((nodes, 8 + 2), dtype=np.float32)
    feat[:num_papers, :8] = rng.normal(size=(num_papers, 8))
    feat[papers, opinion] += SIGNAL * 8**0.5
    feat[:num_papers, 8] = feat[num_papers:, 9] = 1
    graph.ndata["feat"] = torch.from_numpy(feat)
    relation = torch.arange(len(ends)).repeat_interleave(torch.tensor([len(s) for s, _ in ends]))
    graph.edata["feat"] = torch.nn.functional.one_hot(relation).float()
    tenth = num_papers // 10
    drawn = split_items(torch.from_numpy(opinion), (tenth, tenth, num_papers - 2 * tenth), seed)
    none = torch.zeros(len(view), dtype=torch.bool)
    split = {part: torch.cat([mask, none]) for part, mask in drawn.items()}
    labels = torch.from_numpy(np.concatenate([opinion, view]))
    info = {
        "citation": "generated here",
        "licence": "generated",
        "description": f"{num_papers} papers that agree or dispute, {len(view)} authors: opinions",
        "relations": list(RELATIONS),
    }
    return TaskData("opinions", [graph], "node", "multiclass", labels, [split], OPINIONS, info)
