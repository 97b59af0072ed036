from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgl_deepgnn import ResGCN
from dgl_deepgnn.hub import ZooError, from_pretrained
from dgl_deepgnn.hub.config import has_self_loops, load_model, read_config

NAME = "tiny.karate"
Reindex = Callable[..., None]


def edit_config(zoo: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = zoo / NAME / "config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def plan(level: str, values: list[int]) -> dict[str, Any]:
    """A preparation, as a config has it."""
    columns = {"field": "feat", "values": [values]}
    return {"level": level, "self_loops": True, "bidirected": True, "node": [columns], "edge": []}


def edit_weights(zoo: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = zoo / NAME / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(colour="red"), "colour: unknown key"),
        (lambda c: c["data"].update(colour="red"), r"data\.colour: unknown key"),
        (lambda c: c["recipe"]["training"].update(epoch=1), r"recipe\.training\.epoch: unknown"),
        (lambda c: c["model"]["arguments"].update(colour=1), r"model\.arguments\.colour: unknown"),
        (lambda c: c["model"]["arguments"].pop("in_feats"), "no model can be built"),
        (lambda c: c["model"]["arguments"].update(t=7.0), "no model can be built"),
        (lambda c: c["model"].update(name="resgnc"), "no model 'resgnc'.*If a plugin"),
        (lambda c: c["model"]["arguments"].update(num_layers=10**9), "holds only 6 tensors"),
        (lambda c: c["model"]["arguments"].update(hidden_feats=10**6), "no side is longer than 34"),
        (lambda c: c["model"]["arguments"].update(hidden_feats=5), "of shape .*asks for"),
        (lambda c: c.update(format=3), "format 3, newer"),
        (lambda c: c["data"]["features"]["node"].pop("rms"), r"features\.node\.rms: a number"),
        (lambda c: c["data"]["features"]["node"]["low"].pop(), r"node\.low: .*34 features"),
        (lambda c: c["data"]["features"]["node"].update(high="x"), r"node\.high: .*34 features"),
        (lambda c: c["data"].update(preparation=plan("edge", [0])), "not data.level, 'node'"),
        (lambda c: c["data"].update(preparation=plan("node", [1, 0])), "values must ascend"),
        (lambda c: c["data"].update(preparation=plan("node", [])), "values must ascend"),
        (lambda c: c["weights"].update(seed="0"), r"weights\.seed: .*valid integer"),
    ],
)
def test_configs_that_are_refused(
    change: Callable[[dict[str, Any]], object], says: str, zoo: Path, reindex: Reindex
) -> None:
    edit_config(zoo, change)
    reindex(zoo)
    with pytest.raises(ZooError, match=says):
        from_pretrained(NAME, zoo)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.update({"convs.1.bias": torch.zeros(5)}), r"'convs.1.bias'.*\(5,\).*\(4,\)"),
        (lambda t: t.update({"convs.1.bias": torch.zeros(4, dtype=torch.int64)}), "torch.int64"),
        (lambda t: t.pop("convs.1.bias"), "no tensor 'convs.1.bias'"),
        (lambda t: t.update(extra=torch.zeros(1)), "a tensor 'extra'"),
    ],
)
def test_weights_that_are_refused(
    change: Callable[[dict[str, Tensor]], object], says: str, zoo: Path, reindex: Reindex
) -> None:
    edit_weights(zoo, change)
    reindex(zoo)
    with pytest.raises(ZooError, match=says):
        from_pretrained(NAME, zoo)


def test_a_pickle_is_never_opened(zoo: Path, reindex: Reindex, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    for content in (pickle.dumps(Trap()), b"", b"\xff" * 100):
        (zoo / NAME / "model.safetensors").write_bytes(content)
        reindex(zoo)
        with pytest.raises(ZooError, match="not a safetensors file"):
            from_pretrained(NAME, zoo)
    assert not (tmp_path / "sprung").exists()


def test_loading_draws_no_random_numbers_and_gives_trainable_float32(published: Path) -> None:
    before = torch.get_rng_state()
    folder = published / NAME
    model = load_model(read_config(folder / "config.json"), folder / "model.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())


def test_self_loops() -> None:
    import dgl

    with_loops = dgl.graph(([0, 1, 0], [0, 1, 1]))
    assert has_self_loops([with_loops])
    assert not has_self_loops([with_loops, dgl.graph(([0, 1, 0], [0, 0, 1]))])


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("norm_layer", ["none", "batch"])
def test_a_new_head_leaves_the_body(
    head: str, norm_layer: str, published: Path, tmp_path: Path
) -> None:
    config = read_config(published / NAME / "config.json")
    torch.manual_seed(0)
    model = ResGCN(3, 16, 2, 4, head=head, norm_layer=norm_layer)
    config.model.arguments = model.config
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    tuned = load_model(config, tmp_path / "model.safetensors", out_feats=5)
    new, old = tuned.state_dict(), model.state_dict()
    prefix = "convs.3." if head == "node" else "head."
    assert tuned.config == {**model.config, "out_feats": 5}
    for name, value in new.items():
        if name.startswith(prefix):
            # The critical initialization: biases are zero, weights are drawn.
            assert value.std() > 0 if "weight" in name else not value.any()
        else:
            assert torch.equal(value, old[name]), name
