"""Files are there whole or not at all, and hold what was put in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from dgl_deepgnn.files import load_tensors, save_tensors, write_json, write_text


class Crash(BaseException):
    pass


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})

    def crash(*args: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, where, crash)
        with pytest.raises(Crash):
            write_json(file, {"new": 2})
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_json(file, {"new": 2})
    assert json.loads(file.read_text()) == {"new": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "数", "é\n")
    assert (tmp_path / "数").read_bytes() == b"\xc3\xa9\n"


def test_tensors_round_trip(tmp_path: Path) -> None:
    tensors = {
        "random": torch.get_rng_state(),
        "bool": torch.tensor([True, False]),
        "long": torch.arange(3),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "transposed": torch.randn(3, 4).T,
        "slice": torch.randn(10)[::3],
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    facts = {"counters": {"epoch": 3}, "text": "é", "nothing": None}
    file = tmp_path / "t.safetensors"
    save_tensors(file, tensors, facts)
    loaded, read = load_tensors(file)
    assert read == facts
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].nan_to_num(), tensor.nan_to_num())
        assert not loaded[name].requires_grad


def test_no_facts(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "t.safetensors")
    assert load_tensors(tmp_path / "t.safetensors") == ({"a": torch.ones(1)}, None)
