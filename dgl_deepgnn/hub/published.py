"""The record of a published model: ``metrics.json`` and ``speedup.json``, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dgl_deepgnn.hub.errors import ZooError, explain
from dgl_deepgnn.hub.index import METRICS, read_json
from dgl_deepgnn.speedup.comparison import Comparison
from dgl_deepgnn.training.folder import Summary

__all__ = ["SPEEDUP", "read_record"]

SPEEDUP = "speedup.json"


class _Weights(BaseModel):
    model_config = ConfigDict(strict=True)

    seed: int
    test: dict[str, float]


class _Metrics(Summary):
    """Of ``metrics.json``: the run's summary, and what the published weights score."""

    weights: _Weights

    @model_validator(mode="after")
    def _check(self) -> _Metrics:
        parts = [self.weights.test]
        for result in self.seeds:
            parts += [result.val, result.test]
        if self.metric not in self.test or any(self.metric not in part for part in parts):
            raise ValueError(f"{self.metric} is missing in a part")
        if [result.seed for result in self.seeds].count(self.weights.seed) != 1:
            raise ValueError("the seed of the weights is not one of the seeds")
        return self


def read_record(folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of a model's ``metrics.json`` and ``speedup.json``.

    Parameters
    ----------
    folder : Path
        Of the model.
    seed : int
        Whose weights are published, as its config says.

    Raises
    ------
    ZooError
        If a key is missing, of another type, or does not agree with the others.
    """
    found = []
    for file, kind in ((METRICS, _Metrics), (SPEEDUP, Comparison)):
        content = read_json(folder / file)
        try:
            kind.model_validate(content)
        except ValidationError as error:
            raise ZooError(f"{folder / file}: {explain(error)}.") from None
        found.append(content)
    metrics, speedups = found
    if metrics["weights"]["seed"] != seed:
        raise ZooError(f"{folder / METRICS}: weights.seed is not that of config.json, {seed}.")
    return metrics, speedups
