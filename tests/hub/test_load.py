from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dgl_deepgnn import ResGCN, ResGIN, create_model
from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.files import load_tensors
from dgl_deepgnn.hub import ZooError, from_pretrained, list_pretrained
from dgl_deepgnn.training import RunFolder, Trainer

NAME = "tiny.karate"


def test_names_by_pattern(zoo: Path) -> None:
    content = json.loads((zoo / "index.json").read_text())
    content["models"]["deep.karate"] = content["models"]["deep.cora"] = content["models"][NAME]
    (zoo / "index.json").write_text(json.dumps(content))
    assert list_pretrained(zoo=zoo) == ["deep.cora", "deep.karate", NAME]
    assert list_pretrained("*.karate", zoo) == ["deep.karate", NAME]
    assert list_pretrained("deep*.c*", zoo) == ["deep.cora"]


def test_scores_are_those_of_the_trained_model(run: Path, published: Path) -> None:
    data = load_data("karate")
    (graph,) = data.graphs
    best = json.loads((run / "summary.json").read_text())["best_seed"]
    trained = Trainer(RunFolder.open(run).recipe, data, best).model.eval()
    trained.load_state_dict(load_tensors(run / f"seed-{best}" / "model.safetensors")[0])
    model = from_pretrained(NAME, published)
    assert type(model) is ResGCN
    assert not model.training
    assert torch.equal(model(graph, graph.ndata["feat"]), trained(graph, graph.ndata["feat"]))


def test_the_config_is_attached(published: Path) -> None:
    model = from_pretrained(NAME, published)
    assert model.pretrained == json.loads((published / NAME / "config.json").read_text())
    assert ResGCN(2, 2, 2, 2).pretrained is None


def test_by_class_and_by_architecture(published: Path) -> None:
    expected = from_pretrained(NAME, published).state_dict()
    for model in (
        ResGCN.from_pretrained(NAME, published),
        create_model("resgcn", pretrained=NAME, zoo=published),
    ):
        assert all(torch.equal(expected[key], value) for key, value in model.state_dict().items())
    with pytest.raises(ZooError, match=r"a ResGCN, not a ResGIN: use ResGCN\.from_pretrained"):
        ResGIN.from_pretrained(NAME, published)
    with pytest.raises(ZooError, match="a ResGCN, not a ResGIN"):
        create_model("resgin", pretrained=NAME, zoo=published)
    with pytest.raises(DGLError, match="leave out num_layers"):
        create_model("resgcn", pretrained=NAME, zoo=published, num_layers=3)


def test_a_new_head_says_so_and_learns(published: Path) -> None:
    (graph,) = load_data("karate").graphs
    with pytest.warns(UserWarning, match=r"convs\.2\.\*.* reset to 5 outputs"):
        model = from_pretrained(NAME, published, out_feats=5)
    scores = model(graph, graph.ndata["feat"])
    assert scores.shape == (34, 5)
    scores.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.warns(UserWarning, match="reset"):  # also where the number stays the same
        again = ResGCN.from_pretrained(NAME, published, out_feats=1)
    old = from_pretrained(NAME, published)
    assert not torch.equal(again.convs[2].weight, old.convs[2].weight)
    assert torch.equal(again.convs[1].weight, old.convs[1].weight)


def test_a_wrong_input_width(published: Path) -> None:
    (graph,) = load_data("karate").graphs
    with pytest.raises(DGLError, match=r"shape \(34, 7\), .*in_feats=34"):
        from_pretrained(NAME, published)(graph, torch.ones(34, 7))


def test_an_unknown_name(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"no model 'tiny\.carate' in the zoo .*Did you mean"):
        from_pretrained("tiny.carate", published)
    shutil.copytree(published / NAME, tmp_path / NAME)  # without an index line: invisible
    with pytest.raises(ZooError, match="no model"):
        from_pretrained(NAME, tmp_path)
    with pytest.raises(ZooError, match="no model"):
        from_pretrained(f"../{published.name}/{NAME}", published)
