"""What works where there is no DGL, and what says that it needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import dgl_deepgnn
from dgl_deepgnn import Graph, ResGCN, _environment, diagnose, from_pretrained, list_pretrained
from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.hub import evaluate, predict, publish
from dgl_deepgnn.init import critical_, lsuv_, virgo_
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import train

try:
    import dgl  # noqa: F401
except ImportError:
    pass
else:
    pytest.skip("DGL is here: `make test` runs this without it", allow_module_level=True)

RECIPE = {
    "name": "tiny.karate",
    "description": "A tiny model for tests.",
    "data": {"name": "karate"},
    "model": {"name": "resgcn", "hidden_feats": 4, "num_layers": 3},
    "training": {"epochs": 3},
    "seeds": [0, 1],
    "speedup": {"steps": 4, "learning_rates": [0.01], "seeds": [0, 1]},
}
NEEDS_DGL = "needs DGL, which is not installed here: pip install dgl"


def test_nothing_imports_dgl() -> None:
    assert sys.modules.get("dgl") is None
    assert not [name for name in sys.modules if name.startswith("dgl.")]
    assert dgl_deepgnn.errors.DGLError.__module__ == "dgl_deepgnn.errors"
    report, healthy = _environment.doctor()
    assert healthy
    assert "none dgl: the package works without it" in report


def test_first_example_of_the_readme() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    namespace: dict[str, object] = {}
    exec(readme.split("```python")[1].split("```")[0], namespace)
    assert namespace["scores"].shape == (1000, 4)  # type: ignore[attr-defined]


def test_from_a_recipe_to_a_zoo_and_back(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(RECIPE)
    train(recipe, tmp_path / "run", progress=False)
    measure_speedup(recipe, tmp_path / "run.speedup", progress=False)
    publish(tmp_path / "run", zoo=tmp_path / "zoo")
    assert list_pretrained(zoo=tmp_path / "zoo") == ["tiny.karate"]
    assert evaluate("tiny.karate", zoo=tmp_path / "zoo")["agrees"]
    data = load_data("karate")
    model = from_pretrained("tiny.karate", zoo=tmp_path / "zoo")
    assert model(data.graphs[0], data.graphs[0].ndata["feat"]).shape == (34, 1)


def test_a_model_of_the_zoo_that_was_trained_with_dgl() -> None:
    assert evaluate("resgcn64.digits")["agrees"]


def test_diagnosis_theory_and_initializers() -> None:
    torch.manual_seed(0)
    graph = Graph(torch.randint(30, (2, 90)), 30).add_self_loop()
    feat, model = torch.randn(30, 6), ResGCN(6, 64, 3, num_layers=12)
    result = diagnose(model, graph, feat, draws=2)
    assert result.theory is not None
    assert result.verdicts[0].status == "healthy"
    for network in (critical_(model, graph), lsuv_(model, graph, feat), virgo_(model, graph, feat)):
        assert network(graph, feat).isfinite().all()


@pytest.mark.parametrize("name", ["cora", "minesweeper", "tu:MUTAG", "PPIDataset", "ogb:ogbn-x"])
def test_data_sets_that_dgl_reads(name: str) -> None:
    with pytest.raises(DGLError, match=f"Data set '{name}' {NEEDS_DGL}"):
        load_data(name)


def test_files_that_dgl_reads(tmp_path: Path) -> None:
    for name in (f"csv:{tmp_path}", f"file:{tmp_path / 'graphs.bin'}"):
        with pytest.raises(DGLError, match=NEEDS_DGL):
            load_data(name)
    (tmp_path / "graphs.bin").touch()
    with pytest.raises(DGLError, match=f"Reading .*graphs.bin {NEEDS_DGL}"):
        predict("resgcn64.digits", tmp_path / "graphs.bin", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_clusters_need_metis(tmp_path: Path) -> None:
    training = {"steps": 2, "clusters": 2, "batch_size": 1}
    recipe = Recipe.model_validate({**RECIPE, "training": training})
    with pytest.raises(DGLError, match=f"training.batching.kind clusters .METIS. {NEEDS_DGL}"):
        train(recipe, tmp_path / "run", progress=False)
