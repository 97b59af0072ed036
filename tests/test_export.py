"""Exported programs give the model's scores, on graphs that they were not exported with."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from dgl_deepgnn import (
    Graph,
    ResGCN,
    ResGIN,
    ResGraphSAGE,
    from_pretrained,
    load_data,
    spectral_radius,
)
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.export import export_onnx, export_program
from dgl_deepgnn.graph import batch
from dgl_deepgnn.nn import DeepGNN


def random_graph(num_nodes: int, seed: int, directed: bool = False) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(num_nodes, (2, 3 * num_nodes), generator=generator)
    if not directed:
        ends = torch.cat([ends, ends.flip(0)], dim=1)
    return Graph(ends, num_nodes).add_self_loop()


def redrawn(model: DeepGNN) -> DeepGNN:
    """Branches start at zero: a model as if trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def inputs(graph: Graph, model: DeepGNN, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    feat = torch.randn(graph.num_nodes(), model.in_feats, generator=generator)
    width = model.config["edge_feats"]
    edge_feat = [torch.randn(graph.num_edges(), width, generator=generator)] if width else []
    return [torch.stack(graph.edges()), feat, *edge_feat]


def assert_close(found: Tensor, expected: Tensor, accuracy: float = 1e-5) -> None:
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=accuracy * scale)


MODELS: dict[str, Any] = {
    "gcn": lambda: ResGCN(4, 8, 3, num_layers=4, residual="initial"),
    "gin": lambda: ResGIN(4, 8, 3, num_layers=4, head="graph", readout="max"),
    "graphsage": lambda: ResGraphSAGE(
        4, 8, 3, num_layers=4, t="harmonic:2", head="edge", edge_feats=2, norm_layer="layer"
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_onnx_and_torch_export_agree_with_the_model(kind: str, tmp_path: Path) -> None:
    model = redrawn(MODELS[kind]())
    example = random_graph(9, 0)
    arguments = inputs(example, model, 2)
    program = export_program(model, example, *arguments[1:])
    file = export_onnx(model, tmp_path / "model.onnx", example, *arguments[1:])
    session = onnxruntime.InferenceSession(str(file))
    assert list(tmp_path.iterdir()) == [file]
    for graph, accuracy in (
        (example, 1e-5),
        (random_graph(23, 3), 1e-5),
        (random_graph(12, 4, directed=True), 1e-4),  # the power iteration is slower there
    ):
        given = inputs(graph, model, 5)
        edge_feat = given[2] if len(given) == 3 else None
        with torch.no_grad():
            expected = model(graph, given[1], edge_feat=edge_feat)
        assert_close(program.module()(*given), expected, accuracy)
        names = [entry.name for entry in session.get_inputs()]
        assert names == ["edge_index", "feat", "edge_feat"][: len(given)]
        feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        (scores,) = session.run(["scores"], feed)
        assert_close(torch.from_numpy(scores), expected, accuracy)


def test_a_published_model() -> None:
    data, model = load_data("digits"), from_pretrained("resgcn64.digits")
    graph = data.graphs[0]
    feat = graph.ndata["feat"]
    program = export_program(model, graph, feat)
    with torch.no_grad():
        expected = model(graph, feat)
    assert_close(program.module()(torch.stack(graph.edges()), feat), expected)


def test_a_given_spectral_radius() -> None:
    """A long path, on which the power iteration of the program would take too long."""
    nodes = torch.arange(400)
    path = Graph(torch.stack([nodes[:-1], nodes[1:]]), 400)
    both = Graph(torch.cat([torch.stack(path.edges()), torch.stack(path.edges()).flip(0)], 1), 400)
    model = redrawn(ResGIN(4, 8, 3, num_layers=6))
    (_, feat) = inputs(both, model, 0)
    with pytest.raises(DGLError, match=r"50 steps of power iteration.*Give spectral_radius="):
        export_program(model, both, feat)
    radius = spectral_radius(both).item()
    program = export_program(model, both, feat, spectral_radius=radius)
    with torch.no_grad():
        assert_close(program.module()(torch.stack(both.edges()), feat), model(both, feat))


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph = ResGCN(4, 8, 3, num_layers=3), random_graph(9, 0)
    (_, feat) = inputs(graph, model, 0)
    with pytest.raises(DGLError, match="one homogeneous graph"):
        export_program(model, batch([graph, graph]), torch.cat([feat, feat]))
    with pytest.raises(DGLError, match="in_feats=4"):
        export_program(model, graph, feat[:, :2])
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match="there exists"):
        export_onnx(model, tmp_path / "there", graph, feat)
    with pytest.raises(UserError, match="no folder"):
        export_onnx(model, tmp_path / "no" / "model.onnx", graph, feat)
    importing = builtins.__import__

    def without_onnx(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(f"No module named {name!r}", name=name)
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'dgl-deepgnn\[export\]'"):
        export_onnx(model, tmp_path / "model.onnx", graph, feat)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]


def test_compiled_model_is_called_with_a_graph() -> None:
    torch._dynamo.reset()
    model, graph = redrawn(ResGCN(4, 8, 3, num_layers=4)), random_graph(9, 0)
    (_, feat) = inputs(graph, model, 0)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        found = torch.autograd.grad(compiled(graph, feat).square().sum(), model.parameters())
        expected = torch.autograd.grad(model(graph, feat).square().sum(), model.parameters())
        torch.testing.assert_close(found, expected)
