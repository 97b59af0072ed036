"""The references' scores in the cards of the zoo's models."""

from __future__ import annotations

from pathlib import Path

from benchmarks.baselines.comparison import ZOO, stand
from benchmarks.baselines.references import SEEDS, TASKS, Task
from benchmarks.baselines.rows import Rows
from dgl_deepgnn.hub import refresh
from dgl_deepgnn.hub.config import ReferenceFacts
from dgl_deepgnn.wording import counted

__all__ = ["references_of", "write_cards"]


def references_of(rows: Rows, name: str, task: Task) -> list[ReferenceFacts]:
    """Scores of the references of a task that are complete."""
    found = []
    for one in stand(rows, name, task):
        if len(one.scores) == len(SEEDS):
            peer = one.candidate.peer
            size = f"{counted(peer.layers, 'layer')} of width {peer.width}"
            found.append(
                ReferenceFacts(
                    name=f"{one.reference.name}: {size}",
                    scores=[round(one.scores[seed] / 100, 6) for seed in SEEDS],
                    source=one.reference.source,
                )
            )
    return found


def write_cards(rows: Rows, zoo: Path = ZOO) -> None:
    """Write the cards anew of the models that have references."""
    for name, task in TASKS.items():
        if task.ours is not None and (references := references_of(rows, name, task)):
            refresh(task.ours, zoo, references=references)
            print(f"{task.ours}: {', '.join(reference.name for reference in references)}")
