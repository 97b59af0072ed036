"""What was aimed at, and what the results say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.cost.contenders import BOUNDS, OURS
from benchmarks.cost.forms import OPERATOR
from benchmarks.cost.growth import NAMES, slope
from benchmarks.cost.steps import GRID

__all__ = ["Target", "targets", "where"]

DGL = {"GCN": "DGL GraphConv", "GraphSAGE": "DGL SAGEConv", "GIN": "DGL GINConv"}
FASTEST = "fastest bare products"
SMALL = {"DGL GraphConv": 0.6, "PyG GCNConv": 0.6, FASTEST: 1.25}
BIG = {"DGL GraphConv": 0.9, "PyG GCNConv": 0.2, FASTEST: 1.15}
"""A training step of ResGCN takes at most so many times that of the others."""
EXPONENT = 1.1
FORMS = 1.05
"""To remember operators by graph, in place of the user, takes at most so much of a call."""


class Target(NamedTuple):
    """A measured number that must not exceed its limit."""

    what: str
    place: str
    limit: float
    measured: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it does not."""
        return self.measured <= self.limit


def targets(results: dict[str, Any]) -> list[Target]:
    """Every target that the measured sections speak of."""
    sections = results["sections"]
    found = [
        target
        for section in GRID
        for cell in sections.get(section, [])
        for target in _of_steps(cell)
    ]
    if "memory" in sections:
        found += _of_memory(sections["memory"])
    if "checkpoint" in sections:
        found += _of_checkpoint(sections["checkpoint"])
    if "import" in sections:
        added = sections["import"]["dgl_deepgnn"]["median"]
        found.append(Target("`import dgl_deepgnn` after `import dgl`", "", 0.3, added, " s"))
    for cell in sections.get("forms", []):
        for task, word in (("train", "training step"), ("infer", "inference")):
            ratio = cell[task]["`DGLGraph`"]["median"] / cell[task][OPERATOR]["median"]
            what = f"{word}, ResGCN on a `DGLGraph` / on its operator"
            found.append(Target(what, where(cell), FORMS, ratio))
    for axis, points in sections.get("growth", {}).items():
        for quantity, word in (("seconds", "time"), ("bytes", "memory")):
            exponent = slope(points, quantity, next(iter(NAMES)))
            what = f"{word} of a ResGCN grows linearly: exponent"
            found.append(Target(what, f"against {axis}", EXPONENT, exponent))
    return found


def where(cell: dict[str, Any]) -> str:
    """Place of a cell in the tables."""
    size = "Cora's size" if cell["size"] == "Cora" else f"{cell['size']} nodes"
    text = f"{size}, {cell['layers']} layers"
    if "threads" not in cell:
        return text
    return f"{text}, " + ("one thread" if cell["threads"] == 1 else f"{cell['threads']} threads")


def _of_steps(cell: dict[str, Any]) -> Iterator[Target]:
    place = where(cell)
    bounds = [cell["train"][name] for name in BOUNDS if name in cell["train"]]
    train = {**cell["train"], FASTEST: min(bounds, key=lambda times: times["median"])}
    small = cell["size"] == "Cora"
    if not small or cell["layers"] == 64:
        for other, limit in (SMALL if small else BIG).items():
            if other in train:
                yield _ratio(train, "ResGCN", other, place, limit, "training step")
    for ours in OURS.values():
        if f"{ours}, plain" in train:
            yield _ratio(train, ours, f"{ours}, plain", place, 1.1, "training step")
    for task, word in (("train", "training step"), ("infer", "inference")):
        for family in ("GraphSAGE", "GIN"):
            if OURS[family] in train:
                yield _ratio(cell[task], OURS[family], DGL[family], place, 1.0, word)


def _ratio(
    times: dict[str, Any], ours: str, other: str, place: str, limit: float, word: str
) -> Target:
    measured = times[ours]["median"] / times[other]["median"]
    return Target(f"{word}, {ours} / {other}", place, limit, measured)


def _of_memory(cells: list[dict[str, Any]]) -> Iterator[Target]:
    for cell in cells:
        for family, ours in OURS.items():
            taken, other = cell["bytes"], DGL[family]
            if ours in taken:
                measured = taken[ours] / taken[other]
                yield Target(f"peak memory, {ours} / {other}", where(cell), 1.0, measured)


def _of_checkpoint(section: dict[str, Any]) -> Iterator[Target]:
    place = f"20k nodes, {section['layers']} layers"
    taken = section["memory"]["process"] / 1e9
    yield Target("ResGCN with `checkpoint=True`, the whole process", place, 2.0, taken, " GB")
    times = section["train"]
    ratio = times["checkpoint"]["median"] / times["kept"]["median"]
    place = f"20k nodes, {section['timed_layers']} layers"
    yield Target("training step with `checkpoint=True` / without", place, 1.4, ratio)
