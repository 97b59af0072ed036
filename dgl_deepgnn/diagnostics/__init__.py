"""What a model does before it is trained, layer by layer, and in its first steps, by size."""

from dgl_deepgnn.diagnostics.depth_check import DepthCheck, Trend, depth_check
from dgl_deepgnn.diagnostics.diagnosis import QUANTITIES, Diagnosis, diagnose
from dgl_deepgnn.diagnostics.verdicts import Verdict

__all__ = [
    "QUANTITIES",
    "DepthCheck",
    "Diagnosis",
    "Trend",
    "Verdict",
    "depth_check",
    "diagnose",
]
