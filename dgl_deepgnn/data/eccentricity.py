"""How far can one get within so many hops of a road network? After City-Networks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Le

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.refinement import depth_bounds
from dgl_deepgnn.data.road_network import eccentricities, road_network
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import deal_graphs, deal_parts, undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import as_graph
from dgl_deepgnn.options import Seed

__all__ = ["eccentricity"]

MAX_JUNCTIONS = 10**5  # of all networks together


@register_dataset(
    "eccentricity",
    safe=True,
    values={"hops": 50, "graphs": 100, "side": 20, "num_classes": 50, "seed": None},
)
def eccentricity(
    hops: Annotated[int, Le(1000)] = 16,
    graphs: Annotated[int, Le(10_000)] = 20,
    side: Annotated[int, Le(100)] = 10,
    num_classes: Annotated[int, Le(1000)] = 10,
    seed: Seed = 0,
) -> TaskData:
    """Road networks; the label is the class of a node's eccentricity within `hops` hops.

    After City-Networks (Liang et al., arXiv:2503.09008), on networks that are generated:
    `road_network` says how, `eccentricities` what is computed. As there, it is the distance, by the
    lengths of the edges, of the farthest node within `hops` hops, in classes of about equal size;
    their bounds are quantiles of the training networks alone. The distance differs in one thing:
    its paths have at most `hops` edges, so that it is all of it within reach of `hops` layers.

    Features are local, the mean length of a node's edges as there, and its degree as a one-hot
    vector; edges have none. There are no coordinates, which City-Networks has: with them, every
    node is one of its kind, and no bound would tell anything. Edges go both ways, with
    self-loops. Networks are dealt out, 60 % train, 20 % val, 20 % test, so that the task is
    inductive; City-Networks is transductive.

    ``info["bounds"]`` maps numbers of layers, as strings, to the best accuracy on the test networks
    that any message-passing network of so many layers can have; see `depth_bounds`. By default it
    is about 0.26 for none, 0.65 for 4 and 0.93 for 6. From about 9 layers on it is 1 and says
    nothing more: colour refinement has by then told nearly all nodes apart, although labels still
    depend on edges up to `hops` hops away.

    Parameters
    ----------
    hops : int, optional
        Reach of the eccentricity, at least 1.
    graphs : int, optional
        Number of networks, at least 5.
    side : int, optional
        Junctions on each side of a network, 3 to 100: about ``8 side**2`` nodes; of all networks
        together at most 100,000 junctions.
    num_classes : int, optional
        At least 2, and few enough for the eccentricities, which are whole numbers.
    seed : int, optional
        Seed of the networks.

    Raises
    ------
    DGLError
        If an option is out of range.

    Examples
    --------
    >>> task = eccentricity(hops=4, graphs=5, side=4, num_classes=3)
    >>> task.info["bounds"]["0"] < task.info["bounds"]["4"]
    True
    """
    if hops < 1 or graphs < 5 or side < 3 or num_classes < 2:
        raise DGLError(
            f"eccentricity: hops={hops}, graphs={graphs}, side={side}, num_classes={num_classes}; "
            "needed: hops >= 1, graphs >= 5, side >= 3 and num_classes >= 2."
        )
    if graphs * side**2 > MAX_JUNCTIONS:
        raise DGLError(
            f"eccentricity: graphs={graphs} times side={side} squared is more than "
            f"{MAX_JUNCTIONS:,} junctions."
        )
    rng = np.random.default_rng(seed)
    networks = [road_network(side, rng) for _ in range(graphs)]
    reached = [eccentricities(network, hops) for network in networks]
    parts = deal_parts(graphs)
    trained = np.sort(np.concatenate(reached[: parts.count("train")]))
    # Values that occur, not between them: the same on every machine.
    bounds = trained[np.arange(1, num_classes) * len(trained) // num_classes]
    if len(np.unique(np.append(trained[0], bounds))) < num_classes:
        raise DGLError(
            f"eccentricity: num_classes={num_classes} is too many for the eccentricities within "
            f"hops={hops}, {trained[0]} to {trained[-1]}: some classes would be empty. Take fewer "
            "classes or more hops."
        )
    classes = [np.searchsorted(bounds, values, side="right") for values in reached]

    made, colours = [], []
    for network in networks:
        degree = np.diff(network.indptr)
        length = np.asarray(network.sum(axis=1)).ravel()
        colours.append(degree + 5 * length)  # degrees are 1 to 4
        graph = undirected(as_graph(network))
        columns = np.column_stack([length / degree, degree[:, None] == np.arange(1, 5)])
        graph.ndata["feat"] = torch.from_numpy(columns.astype(np.float32))
        made.append(graph)
    test = slice(parts.index("test"), None)
    limits = depth_bounds(networks[test], colours[test], classes[test], hops)
    info = {
        "citation": "generated here, after Liang et al., Towards Quantifying Long-Range "
        "Interactions in Graph Machine Learning: a Large Graph Dataset and a Measurement, "
        "arXiv:2503.09008; the bound rests on Xu et al., How Powerful are Graph Neural Networks?, "
        "ICLR 2019",
        "licence": "generated",
        "description": f"{graphs} road networks; label: the class of the distance that one can "
        f"get within {hops} hops",
        "feature_names": ["mean length", *(f"degree {i}" for i in range(1, 5))],
        "class_bounds": bounds.tolist(),
        "bounds": {str(layers): limit for layers, limit in enumerate(limits)},
    }
    labels = torch.from_numpy(np.concatenate(classes).astype(np.int64))
    splits = [deal_graphs([network.shape[0] for network in networks], parts)]
    return TaskData("eccentricity", made, "node", "multiclass", labels, splits, num_classes, info)
