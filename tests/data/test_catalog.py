from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from dgl_deepgnn.data import TaskData, list_datasets, load_data, register_dataset
from dgl_deepgnn.data.catalog import DATASETS
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.registry import UnknownNameError


@pytest.fixture
def registered():
    """Names a test registers are taken out again."""
    before = set(DATASETS)
    yield
    for name in set(DATASETS) - before:
        del DATASETS._entries[name]


def test_every_required_name_is_listed():
    needed = {
        "digits",
        "digits-grid",
        "tracks",
        "karate",
        "csbm",
        "long-range",
        "ring-transfer",
        "eccentricity",
        "opinions",
        "cora",
        "citeseer",
    }
    needed |= {"pubmed", "minesweeper", "roman-empire", "amazon-ratings", "tolokers", "questions"}
    needed |= {"trackml", "tu:NAME", "csv:PATH", "file:PATH", "ogb:NAME", "dgl:CLASS"}
    assert needed <= set(list_datasets())
    assert list_datasets("digits*") == ["digits", "digits-grid"]


def test_unknown_name_proposes_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        load_data("digts")
    for path in ("graphs.bin", "./graphs", "data\\graphs.bin", "C:\\graphs.bin"):
        with pytest.raises(UnknownNameError, match=re.escape(f"'file:{path}' for what dgl.save")):
            load_data(path)
    for name in ("nowhere:x", "nowhere:x.bin"):
        with pytest.raises(UnknownNameError, match=f"no data set '{name}'. Allowed"):
            load_data(name)


def test_unknown_option_lists_the_allowed_ones():
    with pytest.raises(DGLError, match=r"Did you mean 'neighbors'.*neighbors, features"):
        load_data("digits", neighbour=4)
    with pytest.raises(
        DGLError, match="Its options: folds, seed, self_loops, edge_feats, features"
    ):
        load_data("tu:MUTAG", name="x")
    with pytest.raises(DGLError, match="Its options: split, seed, self_loops, features"):
        load_data("cora", selfloops=True)
    with pytest.raises(DGLError, match="Allowed: none, row-normalize, standardize, rescale"):
        load_data("karate", features="whiten")


def test_the_name_and_options_are_kept():
    task = load_data("csbm", num_nodes=60, homophily=0.5)
    assert task.name == "csbm"
    assert task.info["options"] == {"num_nodes": 60, "homophily": 0.5}


def test_feature_option_overrides_the_default():
    def mean_square(**options):
        return float(load_data("digits", **options).graphs[0].ndata["feat"].square().mean())

    assert mean_square() == pytest.approx(1, abs=1e-5)
    rows = load_data("digits", features="row-normalize").graphs[0].ndata["feat"].sum(dim=1)
    assert torch.allclose(rows, torch.ones_like(rows))
    raw = load_data("digits", features="none").graphs[0].ndata["feat"]
    assert float(raw.max()) == 1 and float(raw.min()) == 0


def test_own_loader(registered):
    @register_dataset("half-karate")
    def half(scale: float = 1.0) -> TaskData:
        return load_data("karate")

    assert load_data("half-karate", scale=2.0).name == "half-karate"
    with pytest.raises(ValueError, match="registered already"):
        register_dataset("half-karate")(half)


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "digits-grid",
        "karate",
        "csbm",
        "tracks",
        "long-range",
        "ring-transfer",
        "eccentricity",
        "opinions",
    ],
)
def test_embedded_data_are_the_same_twice(name):
    first, second = load_data(name), load_data(name)
    assert first.fingerprint() == second.fingerprint()
    assert {"citation", "licence", "description"} <= set(first.info)


@pytest.mark.parametrize("value", ["abc", 1.5, None, [3]])
def test_option_of_the_wrong_type_is_named(value: object) -> None:
    with pytest.raises(DGLError, match=r"'digits': option 'neighbors': .*integer.*got"):
        load_data("digits", neighbors=value)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("ring-transfer", "4322683f4a400888d584fac93344b6a459b6a1f290a2420329517892db663321"),
        ("eccentricity", "4879d9121155ca8abe73b7f401338f17de714491e8ced59b6addff5d72aeec11"),
    ],
)
def test_generated_data_are_the_same_everywhere(name: str, fingerprint: str) -> None:
    assert load_data(name).fingerprint() == fingerprint


SEEDED = ("csbm", "tracks", "long-range", "ring-transfer", "eccentricity", "tu:MUTAG")


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("value", [-1, 2**32])
def test_a_seed_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(DGLError, match=rf"{name}.: option 'seed': .*(greater|less).*got {value}"):
        load_data(name, seed=value)


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(value: bool) -> None:
    with pytest.raises(DGLError, match=rf"'digits': option 'neighbors': a truth.*got {value}"):
        load_data("digits", neighbors=value)
    with pytest.raises(DGLError, match="option 'homophily': a truth value"):
        load_data("csbm", homophily=value)


def test_a_truth_value_where_one_is_asked_for(registered) -> None:
    @register_dataset("maybe-karate")
    def maybe(switch: bool | None = None, anything: Any = 1) -> TaskData:
        assert switch is True and anything is False
        return load_data("karate")

    load_data("maybe-karate", switch=True, anything=False)


def test_option_written_as_text_is_converted() -> None:
    # YAML reads 1e-1 as text.
    assert (
        load_data("csbm", signal="1e-1").fingerprint()
        == load_data("csbm", signal=0.1).fingerprint()
    )


def test_a_loaders_own_exception_names_it():
    @register_dataset("broken")
    def broken(share: float = 0.0):
        return 1 / share

    with pytest.raises(DGLError, match=r"'broken' .*test_catalog\.py, line \d+\) raised "):
        load_data("broken")
    with pytest.raises(DGLError, match=r"ZeroDivisionError: .*division by zero"):
        load_data("broken")
