"""What a model does to signal, gradient and node differences before it is trained."""

from dgl_deepgnn.diagnostics.diagnosis import QUANTITIES, Diagnosis, diagnose
from dgl_deepgnn.diagnostics.verdicts import Verdict

__all__ = ["QUANTITIES", "Diagnosis", "Verdict", "diagnose"]
