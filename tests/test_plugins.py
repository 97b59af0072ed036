"""Third-party packages that add models by the entry-point group ``dgl_deepgnn.plugins``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgl_deepgnn import list_models
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.registry import load_plugins

ROOT = Path(__file__).parents[1]

PLUGIN = """
import torch
from torch import nn
from dgl_deepgnn import ResGCN, register_model
from dgl_deepgnn.init import LinearMap, register_initializer

@register_model("toy-gcn")
class ToyGCN(ResGCN):
    pass

class Kernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(30, 20))

@register_initializer(Kernel)
def describe(module, context):
    return [[LinearMap(module, module.kernel, fan_in=30, fan_out=20)]]
"""

PROGRAM = """
import sys
import dgl_deepgnn
assert "toy" not in sys.modules, "importing the package must not import plugins"
assert dgl_deepgnn.list_models("toy*") == ["toy-gcn"]
model = dgl_deepgnn.create_model(
    "toy-gcn", in_feats=3, hidden_feats=4, out_feats=2, num_layers=3
)
assert type(model).__name__ == "ToyGCN"
from dgl_deepgnn.init import critical_
from toy import Kernel
assert critical_(Kernel()).kernel.any()
print("loaded")
"""


def install(path: Path, name: str, code: str) -> None:
    """What pip leaves behind of a distribution with one module and one entry point."""
    (path / f"{name}.py").write_text(code)
    info = path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dgl_deepgnn.plugins]\n{name}-models = {name}\n")


def test_plugin_is_loaded_when_names_are_looked_up(tmp_path: Path) -> None:
    install(tmp_path, "toy", PLUGIN)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "loaded\n"


def test_plugin_that_does_not_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "lame", "import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins.cache_clear()
    message = (
        r"plugin 'lame-models' \(lame\) failed to import: No module named "
        r"'a_package_that_is_not_there'.*Repair or uninstall"
    )
    for _ in range(2):  # it stays an error, also at the second look
        with pytest.raises(UserError, match=message):
            list_models()
