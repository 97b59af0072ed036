"""The processes that share one training, started by ``torchrun``, and what they tell each other."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dgl_deepgnn.errors import UserError

__all__ = ["ONE", "LostError", "Processes", "at_once", "is_first", "join", "launched"]

PATIENCE = timedelta(hours=12)
"""How long one waits for the others: the first evaluates and writes while they do. A process that
ends closes its connections, which is noticed at once."""
LOST = ("onnection", "ocket", "NCCL", "imed out")
"""How gloo and NCCL say that another process does not answer."""


@dataclass(frozen=True)
class Processes:
    """One process of those that train together; the first one, of rank 0, evaluates and writes."""

    rank: int = 0
    size: int = 1

    def device(self, device: torch.device) -> torch.device:
        """Where this process trains: each on a GPU of its own, unless one is named."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
        return device

    def share(self, value: Any = None) -> Any:
        """What the first process gives, in all of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, of a tensor on the CPU or on the GPU that they train on."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Rows of all processes, one after the other; each gives as many as it has."""
        if self.size == 1:
            return values
        rows = torch.zeros(self.size, dtype=torch.int64, device=values.device)
        rows[self.rank] = len(values)
        most = int(self.sum(rows).max())
        padded = values.new_zeros(most, *values.shape[1:])
        padded[: len(values)] = values
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return torch.cat([some[:count] for some, count in zip(found, rows.tolist(), strict=True)])

    def replicate(self, model: nn.Module) -> nn.Module:
        """The model, whose gradient is from now on the mean over the processes."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )

    def reseed(self, *numbers: int) -> None:
        """Give PyTorch's global generator a state of this process, the same after a resume."""
        if self.size > 1:
            digest = hashlib.sha256(" ".join(map(str, (*numbers, self.rank))).encode())
            torch.manual_seed(int.from_bytes(digest.digest()[:8], "little") >> 1)


ONE = Processes()


def launched() -> int:
    """Number of processes that ``torchrun`` has started together, this one included."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def is_first() -> bool:
    """Whether this process is the one that evaluates, writes and reports."""
    return launched() == 1 or os.environ["RANK"] == "0"


@contextmanager
def join() -> Iterator[Processes]:
    """Join the other processes, if ``torchrun`` has started several or a group is there already.

    Raises
    ------
    UserError
        If another process ends before the block does.
    """
    made = launched() > 1 and not dist.is_initialized()
    if made:
        # Tensors on the CPU go by gloo, those on GPUs by NCCL.
        both = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo", timeout=PATIENCE)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        yield ONE
        return
    processes = Processes(dist.get_rank(), dist.get_world_size())
    try:
        with _ended_by_others(processes):
            yield processes
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        raise _lost(processes) from None
    finally:
        if made:
            dist.destroy_process_group()


@contextmanager
def at_once() -> Iterator[None]:
    """End a process that ``torchrun`` has started where the block ends, without a farewell.

    DistributedDataParallel keeps gloo's threads after its group is destroyed and nothing of it is
    left in Python. One that lets go of a tensor while the interpreter ends aborts the process
    ("terminate called without an active exception"), whose work is done.
    """
    code: Any = 0
    try:
        yield
    except SystemExit as end:
        if launched() == 1:
            raise
        code = end.code
    if launched() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


@contextmanager
def _ended_by_others(processes: Processes) -> Iterator[None]:
    """``torchrun`` ends all processes when one has ended: say so, rather than just be gone."""

    def end(*_: Any) -> None:
        raise _lost(processes)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class LostError(UserError):
    """Another process of the training has ended, which is the cause."""

    exit_code = 3


def _lost(processes: Processes) -> LostError:
    return LostError(
        f"Process {processes.rank} of {processes.size} stops: another one has ended (see what it "
        "said). The last finished epoch is kept: start all of them again, as before, with "
        "`train --resume` and the run folder."
    )
