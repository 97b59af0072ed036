"""Training: one seed (`Trainer`), a whole recipe with its run folder (`train`)."""

from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.run import train
from dgl_deepgnn.training.trainer import DivergenceError, Trainer, build_model

__all__ = ["DivergenceError", "RunFolder", "Trainer", "build_model", "train"]
