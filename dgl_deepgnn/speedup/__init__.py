"""Early-training speed-up: arms x seeds, each arm with its own best learning rate."""

from dgl_deepgnn.speedup.arms import arms_of
from dgl_deepgnn.speedup.comparison import compare_steps, steps_to_target
from dgl_deepgnn.speedup.record import measure_speedup
from dgl_deepgnn.speedup.report import describe_ratio, describe_speedup

__all__ = [
    "arms_of",
    "compare_steps",
    "describe_ratio",
    "describe_speedup",
    "measure_speedup",
    "steps_to_target",
]
