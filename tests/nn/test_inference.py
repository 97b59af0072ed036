"""Layer by layer in chunks gives what one forward pass gives, in bounded memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgl_deepgnn import Graph, ResGCN, ResGIN, ResGraphSAGE
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import batch
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import layerwise_chunks, layerwise_inference, memory_size
from dgl_deepgnn.operator.sparse import to_sparse

NODES, IN, OUT = 3000, 7, 3


@pytest.fixture(scope="module")
def graph() -> Graph:
    draw = torch.Generator().manual_seed(1)
    ends = torch.randint(NODES, (2, 9000), generator=draw)
    ends[1, :2000] = 5  # one node with very many neighbours
    return Graph((ends[0], ends[1]), NODES).add_self_loop()


@pytest.fixture(scope="module")
def feat() -> Tensor:
    return torch.randn(NODES, IN, generator=torch.Generator().manual_seed(2))


def draw_all(model: DeepGNN) -> DeepGNN:
    """Give everything a value that can be seen: zero branches, biases, running statistics."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                fan_in = tensor.shape[-1] if tensor.dim() == 2 else 1
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw)).mul_(fan_in**-0.5)
                if tensor.dim() == 2:
                    tensor.mul_(torch.randn(tensor.shape, generator=draw))
    return model


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("residual", [None, "plain", "scaled", "fixup", "initial"])
@pytest.mark.parametrize("kind", [ResGCN, ResGraphSAGE, ResGIN])
def test_it_is_the_forward_pass(
    kind: Any, residual: Any, head: str, graph: Graph, feat: Tensor
) -> None:
    variants: list[dict[str, Any]] = [
        {"t": "per-depth:2", "norm_layer": "layer", "num_layers": 5},
        {"t": "harmonic:1", "norm_layer": "batch", "num_layers": 4},
        {"t": 1.0, "num_layers": 1, "spectral_radius": 2.0},
        {"t": 1.0, "num_layers": 2, "readout": "max", "dropout": 0.5},
    ]
    for options in variants:
        edge_feats = 2 if head == "edge" else 0
        made = kind(IN, 9, OUT, residual=residual, head=head, edge_feats=edge_feats, **options)
        model = draw_all(made).eval()
        edge_feat = torch.randn(graph.num_edges(), 2) if edge_feats else None
        chunks = list(layerwise_chunks(model, graph, feat, edge_feat=edge_feat, memory="1MB"))
        assert len(chunks) > 1 or head == "graph"
        with torch.no_grad():
            expected = model(graph, feat, edge_feat=edge_feat)
        assert (torch.cat(chunks) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_batches_weights_and_sparse_features(feat: Tensor) -> None:
    parts = [Graph((range(n), [*range(1, n), 0])).add_self_loop() for n in (500, 1, 2499)]
    graphs = batch(parts)
    model = draw_all(ResGIN(IN, 16, OUT, num_layers=6, head="graph", readout="sum")).eval()
    weight = torch.rand(graphs.num_edges())
    sparse = to_sparse(feat.relu())
    for given in (feat, sparse):
        found = layerwise_inference(model, graphs, given, weight, memory="1MB")
        with torch.no_grad():
            expected = model(graphs, given, weight)
        assert found.shape == (3, OUT)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_double_precision_is_kept(graph: Graph, feat: Tensor) -> None:
    model = draw_all(ResGCN(IN, 8, OUT, num_layers=20).double())
    found = layerwise_inference(model, graph, feat.double(), memory="1MB")
    assert model.training
    expected = model.eval()(graph, feat.double())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)


def test_what_does_not_go_is_refused(graph: Graph, feat: Tensor) -> None:
    class Own(ResGCN):
        def features(self, operator: Any, feat: Tensor) -> Tensor:
            return super().features(operator, 2 * feat)

    with pytest.raises(DGLError, match="Own has a features of its own"):
        layerwise_inference(Own(IN, 4, OUT, num_layers=2), graph, feat)
    model = ResGCN(IN, 4, OUT, num_layers=2)
    with pytest.raises(DGLError, match="in_feats=7"):
        layerwise_inference(model, graph, feat[:, :3])
    with pytest.raises(DGLError, match="2999 rows of features for 3000 nodes"):
        layerwise_inference(model, graph, feat[1:])
    with pytest.raises(DGLError, match="Edge features are missing"):
        edge = ResGCN(IN, 4, OUT, num_layers=2, head="edge", edge_feats=1)
        layerwise_inference(edge, graph, feat)
    for size in ("much", "-2GB", "10kB", 0, "nan"):
        with pytest.raises(UserError, match="not a size of at least 1MB, such as"):
            memory_size(size)


def test_no_room_is_said_before_it_is_used(
    graph: Graph, feat: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    model = ResGCN(IN, 64, OUT, num_layers=2)
    with pytest.raises(OSError, match="No space left"):
        layerwise_inference(model, graph, feat, memory="1MB", folder=tmp_path)
    assert not list(tmp_path.iterdir())


MEASURED = """
import sys, torch
from dgl_deepgnn import Graph, ResGCN
from dgl_deepgnn.nn.inference import layerwise_inference
torch.manual_seed(0)
nodes, width = 60_000, 128
graph = Graph(torch.randint(nodes, (2, 2 * nodes)), nodes).add_self_loop()
model = ResGCN(4, width, 2, num_layers=4).eval()
operator, feat = model.operator(graph), torch.randn(nodes, 4)
operator.to("cpu")
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024
import threading, time
peak, stop = 0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, anonymous()); time.sleep(0.001)
before = anonymous()
thread = threading.Thread(target=watch); thread.start()
with torch.no_grad():
    if sys.argv[1:]:
        layerwise_inference(model, operator, feat, memory=sys.argv[1])
    else:
        model(operator, feat)
stop = True; thread.join()
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_below_the_limit() -> None:
    """Features of a layer are 31 MB here, and one forward pass holds several."""

    def used(*arguments: str) -> int:
        command = [sys.executable, "-c", MEASURED, *arguments]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert used() > 60e6
    assert used("20MB") < 25e6
