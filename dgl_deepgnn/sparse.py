"""Sparse matrices (CSR) in PyTorch: how they are made, and their product with features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

__all__ = ["SparseProduct", "from_scipy", "to_sparse", "with_values"]


class SparseProduct(torch.autograd.Function):
    """``matrix @ feat`` whose gradient multiplies by the transpose, also in CSR."""

    @staticmethod
    def forward(ctx: Any, feat: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        """Multiply."""
        ctx.matrices = matrix, transpose
        return matrix @ feat if feat.is_cuda else torch.sparse.mm(matrix, feat, "sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradient in the features."""
        matrix, transpose = ctx.matrices
        return SparseProduct.apply(grads[0].contiguous(), transpose, matrix), None, None


def from_scipy(matrix: sp.csr_matrix, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copy a SciPy matrix to a device."""
    return _quietly(
        torch.sparse_csr_tensor,
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data),
        size=matrix.shape,
        dtype=dtype,
        device=device,
    )


def to_sparse(feat: Tensor) -> Tensor:
    """CSR form of a dense matrix.

    Examples
    --------
    >>> to_sparse(torch.eye(3)).values()
    tensor([1., 1., 1.])
    """
    return _quietly(feat.to_sparse_csr)


def with_values(feat: Tensor, values: Tensor) -> Tensor:
    """Matrix with other values in the places of a sparse one."""
    return _quietly(
        torch.sparse_csr_tensor, feat.crow_indices(), feat.col_indices(), values, feat.shape
    )


def _quietly(make: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Call what makes a CSR tensor; PyTorch announces at the first that its support is in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make(*args, **kwargs)
