"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dgl_deepgnn.errors import UserError

__all__ = ["load_tensors", "read_limited", "save_tensors", "write_json", "write_text"]


def read_limited(path: Path, most: int) -> bytes:
    """Content of a file of somebody else: a plain one, of at most so many bytes.

    Raises
    ------
    OSError
        If it cannot be opened.
    UserError
        If it is a folder, device or pipe, or larger.
    """
    # A pipe would be waited for without O_NONBLOCK, which plain files do not heed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{path} is not a plain file.")
        content = file.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path} is larger than the {most:,} bytes that are read.")
    return content


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write text, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Any) -> None:
    """Write tensors as safetensors, whole or not at all; `facts` (JSON) goes into the header."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, {"facts": json.dumps(facts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Read what :func:`save_tensors` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("facts", "null"))
