"""Dropout for deep networks on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgl_deepgnn.operator.sparse import with_values

__all__ = ["Dropout"]


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` that draws 16 random bits a feature.

    On a CPU, PyTorch's draws a number for every feature, one after another; this one cuts four out
    of each 64 bits. The probability is rounded to a multiple of 2**-16. Sparse features (CSR) stay
    sparse: only what is there can be dropped.

    Parameters
    ----------
    p : float
        Probability of a zero, 0 <= p < 1.

    Examples
    --------
    >>> dropped = Dropout(0.25)(torch.ones(4000))
    >>> dropped.unique()
    tensor([0.0000, 1.3333])
    """

    def forward(self, feat: Tensor) -> Tensor:
        """Drop features at random in training, and scale what is left."""
        if not self.training or self.p == 0:
            return feat
        if feat.layout == torch.sparse_csr:
            return with_values(feat, self(feat.values()))
        if feat.is_cuda:
            return super().forward(feat)
        lanes = 4  # of 16 bits in 64
        bits = torch.empty(-(-feat.numel() // lanes), dtype=torch.int64).random_(-(2**63), None)
        kept = max(1, round((1 - self.p) * 2**16))
        lane = bits.view(torch.int16)[: feat.numel()].view(feat.shape)
        return feat * (lane < kept - 2**15).to(feat.dtype).mul_(2**16 / kept)
