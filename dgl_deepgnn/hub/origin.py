"""What a published model knows of its data: to load it again, and to prepare graphs alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dgl_deepgnn.data import TaskData, load_data, prepare
from dgl_deepgnn.data.preparation import checked_features
from dgl_deepgnn.data.scaling import far_outside
from dgl_deepgnn.data.trust import load_config_data, plain_options
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.hub.config import AnyConfig, DataFacts, has_self_loops
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.operator.aggregation import AggregationOperator

__all__ = ["Origin", "check_fingerprint", "load_trained_data"]


def load_trained_data(
    name: str,
    facts: DataFacts,
    named: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> TaskData:
    """Data that a model was trained on.

    Parameters
    ----------
    name : str
        Of the model.
    facts : DataFacts
        Of its config; they name the data.
    named : str, optional
        What :func:`load_data` calls it here, where the config may not choose.
    options : mapping, optional
        Options of `named`, beside those in the config that are plain values.

    Raises
    ------
    ZooError
        If the config names data that is not for a downloaded file to choose, see docs/trust.md,
        or the data is not what the model was trained on.
    """
    if named is not None:
        data = load_data(named, **{**plain_options(named, facts.options), **(options or {})})
    else:
        try:
            data = load_config_data(facts.name, facts.options)
        except (DGLError, UserError) as error:
            raise ZooError(
                f"{name}: {error} If you have its data, give it yourself: `dgl-deepgnn "
                f"evaluate {name} --data file:PATH` (any name that a recipe takes; `refresh` takes "
                "it, too), or evaluate(name, data=...) in Python."
            ) from None
    check_fingerprint(name, facts, data)
    return data


def check_fingerprint(name: str, facts: DataFacts, data: TaskData) -> None:
    """Hold data to what a model was trained on.

    Raises
    ------
    ZooError
        If it is other data.
    """
    if data.fingerprint() != facts.fingerprint:
        raise ZooError(
            f"{name} was trained on other data than {data.name} gives here: the "
            "fingerprints differ, so the record says nothing about it."
        )


class Origin:
    """The data of a published model, attached to it by :func:`from_pretrained`.

    A model that reads features far outside the range that they had in training says nothing of
    it: it just scores badly. So the first call in evaluation mode checks the features, at the
    cost of one pass over them, and `prepare` checks every graph; one warning a model.

    Parameters
    ----------
    config : Config or SavedConfig
        Of the model.
    data : DataFacts
        Of the config.
    """

    def __init__(self, config: AnyConfig, data: DataFacts) -> None:
        self.config, self.data = config, data
        arguments = config.model.arguments
        self.widths = {"node": arguments["in_feats"]}
        if arguments.get("edge_feats"):
            self.widths["edge"] = arguments["edge_feats"]
        self._called = self._warned_of_features = self._warned_of_loops = False

    def load_data(self) -> TaskData:
        """Load the data that the model was trained on; see :func:`load_trained_data`."""
        return load_trained_data(self.config.name, self.data)

    def prepare(self, graph: AnyGraph, where: str = "The graph") -> AnyGraph:
        """Prepare a raw graph as in training; see :func:`dgl_deepgnn.data.prepare`."""
        facts = self.data
        record = {"preparation": facts.preparation, "features": facts.features}
        ready = prepare(graph, record, self.widths, where, facts.weighted)
        if facts.self_loops and not self._warned_of_loops and not has_self_loops([ready]):
            self._warned_of_loops = True
            warnings.warn(
                f"{where}: nodes lack self-loops, which all graphs had when {self.config.name} was "
                "trained. dgl.add_self_loop adds them.",
                stacklevel=3,
            )
        self._check(
            ready, f"{where} was prepared as in training: does it hold features of the same kind?"
        )
        return ready

    def check_prepared(self, graph: AnyGraph, where: str) -> AnyGraph:
        """Copy of a graph that is said to be prepared, if the model can read it."""
        return checked_features(graph, self.widths, where, self.data.weighted)

    def before_call(self, model: nn.Module, arguments: Any, options: Any) -> None:
        """Check the features of the first call in evaluation mode (a forward pre-hook)."""
        if self._called or model.training:
            return
        self._called = True
        graph, feat, weight = (
            options.get(name, arguments[place] if len(arguments) > place else None)
            for place, name in enumerate(("graph", "feat", "edge_weight"))
        )
        if self.data.weighted and weight is None and not isinstance(graph, AggregationOperator):
            warnings.warn(
                f"{self.config.name} was trained with edge weights, and is called without: give "
                'model(graph, feat, edge_weight=graph.edata["weight"]).',
                stacklevel=4,
            )
        self._check_features(
            "node",
            feat,
            "Scores will mean little. model.prepare(graph) treats a raw graph as in training, "
            "model.load_data() gives the data of the training.",
        )

    def _check(self, graph: AnyGraph, advice: str) -> None:
        self._check_features("node", graph.ndata["feat"], advice)
        if "edge" in self.widths:
            self._check_features("edge", graph.edata["feat"], advice)

    def _check_features(self, kind: str, feat: Any, advice: str) -> None:
        entry = self.data.features.get(kind, {})
        fits = isinstance(feat, Tensor) and feat.dim() == 2 and feat.shape[1] == self.widths[kind]
        if self._warned_of_features or not fits or "low" not in entry:  # 0.1 kept no range
            return
        difference = far_outside(feat, entry)
        if difference is not None:
            self._warned_of_features = True
            warnings.warn(f"{self.config.name}: {difference}. {advice}", stacklevel=4)
