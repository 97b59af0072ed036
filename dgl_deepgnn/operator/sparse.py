"""Sparse matrices (CSR) in PyTorch: how they are made, and their product with features."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

__all__ = ["SparseMatrix", "SparseProduct", "both_ways", "to_sparse", "with_values"]


class SparseMatrix:
    """Constant sparse matrix (CSR) on one device.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        What to copy.
    device : torch.device
        Where to.
    dtype : torch.dtype
        Type of the values.
    """

    def __init__(self, matrix: sp.csr_matrix, device: torch.device, dtype: torch.dtype) -> None:
        few = max(matrix.nnz, *matrix.shape) < 2**31
        ends, indices = (
            torch.from_numpy(part.astype(np.int32 if few else np.int64)).to(device)
            for part in (matrix.indptr, matrix.indices)
        )
        self._parts = indices, ends, torch.from_numpy(matrix.data).to(device, dtype)
        self._csr = _quietly(
            torch.sparse_csr_tensor, ends, indices, self._parts[2], size=matrix.shape
        )

    def __matmul__(self, feat: Tensor) -> Tensor:
        if feat.is_cuda:
            return self._csr @ feat
        # The embedding bag has no double precision, and refuses rows of no width now and then.
        if feat.dtype == torch.float64 or feat.shape[1] == 0:
            return torch.sparse.mm(self._csr, feat, "sum")
        # A weighted sum of rows is an embedding bag, PyTorch's fastest kernel for it on a
        # CPU: see the bare products in benchmarks/README.md.
        indices, ends, values = self._parts
        # What torch.nn.functional.embedding_bag calls: mode 0 is the sum, the last offset an end.
        return torch.embedding_bag(feat, indices, ends, False, 0, False, values, True)[0]


class SparseProduct(torch.autograd.Function):
    """``matrix @ feat`` whose gradient multiplies by the transpose, also in CSR."""

    @staticmethod
    def forward(ctx: Any, feat: Tensor, matrix: SparseMatrix, transpose: SparseMatrix) -> Tensor:
        """Multiply."""
        ctx.matrices = matrix, transpose
        return matrix @ feat

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradient in the features."""
        matrix, transpose = ctx.matrices
        return SparseProduct.apply(grads[0].contiguous(), transpose, matrix), None, None


def both_ways(
    matrix: sp.csr_matrix,
    device: torch.device,
    dtype: torch.dtype,
    transpose: sp.csr_matrix | None = None,
) -> tuple[SparseMatrix, SparseMatrix]:
    """A matrix and its transpose, for :class:`SparseProduct`."""
    transpose = matrix.T.tocsr() if transpose is None else transpose
    return SparseMatrix(matrix, device, dtype), SparseMatrix(transpose, device, dtype)


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
