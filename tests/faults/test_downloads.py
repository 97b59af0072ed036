"""What a hostile zoo can do to who loads, evaluates or lists its models: nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from dgl.data import TUDataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dgl_deepgnn.cli.commands import run
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.hub import (
    ZooError,
    download,
    evaluate,
    from_pretrained,
    list_pretrained,
    predict,
)
from tests.faults.kills import slow_server

NAME = "resgcn2.digits"
WEIGHTS = f"/{NAME}/model.safetensors"
CONFIG = f"/{NAME}/config.json"


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def make_tu_cache(raw_dir: Path, name: str, mark: Path) -> None:
    """The cache that TUDataset would read for a name, with a trap in it."""

    class Nowhere(TUDataset):
        def _load(self) -> None:
            pass

    paths = Nowhere(name, raw_dir=str(raw_dir))
    Path(paths.info_path).parent.mkdir(parents=True)
    Path(paths.raw_path).mkdir(parents=True, exist_ok=True)
    dgl.save_graphs(paths.graph_path, [dgl.graph(([0], [1]))], {"labels": torch.zeros(1)})
    Path(paths.info_path).write_bytes(pickle.dumps(Trap(mark)))


# Code


@pytest.mark.parametrize("name", ["python:evil:load", "python:os:getcwd"])
def test_a_config_imports_nothing(name: str, publisher: Any, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('mark', 'w')\ndef load(): ...\n")
    publisher.edit(lambda config: config["data"].update(name=name))
    with pytest.raises(ZooError, match="--data"):
        evaluate(NAME, publisher.zoo)
    assert not (tmp_path / "mark").exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize("name", ["TUDataset", "dgl:TUDataset"])
def test_a_config_names_no_folder_to_unpickle(name: str, publisher: Any, tmp_path: Path) -> None:
    make_tu_cache(tmp_path / "theirs", "X", tmp_path / "mark")
    options = {"name": "X", "raw_dir": str(tmp_path / "theirs")}
    publisher.edit(lambda config: config["data"].update(name=name, options=options))
    with pytest.raises(ZooError, match="--data"):
        evaluate(NAME, publisher.zoo)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["DGLBuiltinDataset", "dgl:DGLBuiltinDataset"])
def test_a_config_fetches_no_archive(
    name: str, publisher: Any, server: Any, tmp_path: Path
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("tu_X.pkl", pickle.dumps(Trap(tmp_path / "mark")))
    (publisher.zoo / "x.zip").write_bytes(archive.getvalue())
    options = {"name": "x", "url": f"{server.address}/x.zip", "raw_dir": str(tmp_path / "theirs")}
    publisher.edit(lambda config: config["data"].update(name=name, options=options))
    with pytest.raises(ZooError, match="--data"):
        evaluate(NAME, server.address)
    assert "/x.zip" not in server.requests
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("name", ["../evil", "MUTAG", "..", "a/b", "a\0b", "-x", "x" * 200, "ü"])
def test_no_cache_of_the_tu_collection_is_unpickled(
    name: str, publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path / "downloads"))
    monkeypatch.setattr("requests.get", lambda *_, **__: pytest.fail("a download was tried"))
    if "\0" not in name and len(name) < 100:
        make_tu_cache(tmp_path / "downloads", name, tmp_path / "mark")
    publisher.edit(lambda config: config["data"].update(name=f"tu:{name}", options={}))
    with pytest.raises(ZooError):
        evaluate(NAME, publisher.zoo)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("file:/etc/passwd", {}),
        ("csv:/etc", {}),
        ("ogb:ogbn-../../x", {}),
        ("KarateClubDataset", {}),
        ("no-such-data", {}),
        ("\x1b]0;owned\x07", {}),
        ("", {}),
        ("trackml", {"path": "/etc/passwd"}),
        ("digits", {"colour": "red"}),
        ("digits", {"neighbors": 10**6}),
        ("digits", {"features": ["none"]}),
        ("csbm", {"num_nodes": 10**9}),
        ("csbm", {"feature_dim": 10**9}),
        ("csbm", {"num_classes": 10**5, "num_nodes": 10**6}),
        ("csbm", {"seed": -1}),
        ("csbm", {"signal": float("nan")}),
        ("tracks", {"events": 10**8}),
        ("tracks", {"particles": 10**8}),
        ("tracks", {"noise": 1e9}),
        ("long-range", {"graphs": 10**9}),
        ("long-range", {"num_nodes": 10**9}),
        ("ring-transfer", {"graphs": 10**5}),
        ("ring-transfer", {"num_nodes": 10**9}),
        ("ring-transfer", {"num_classes": 10**9}),
        ("eccentricity", {"graphs": 10**3}),
        ("eccentricity", {"side": 10**9}),
        ("eccentricity", {"hops": 10**9}),
        ("tu:MUTAG", {"folds": 10**9}),
        ("karate", {"self_loops": True}),
    ],
)
def test_data_that_a_config_may_not_ask_for(
    name: str, options: dict[str, Any], publisher: Any
) -> None:
    publisher.edit(lambda config: config["data"].update(name=name, options=options))
    with pytest.raises(ZooError, match="--data"):
        evaluate(NAME, publisher.zoo)


def test_the_unchanged_model_works(publisher: Any, server: Any) -> None:
    """What the other tests change is what stands in the way."""
    assert evaluate(NAME, server.address)["data"] == "digits"
    assert from_pretrained(NAME, publisher.zoo).num_layers == 2


# Numbers and shapes


def arguments(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["model"]["arguments"].update(changes)


def data(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["data"].update(changes)


def prepared(node: list[Any], **changes: Any) -> Callable[[dict[str, Any]], object]:
    record = {"level": "node", "self_loops": True, "bidirected": False, "node": node, "edge": []}
    return data(preparation={**record, **changes})


def as_gin(**changes: Any) -> Callable[[dict[str, Any]], object]:
    def change(config: dict[str, Any]) -> None:
        config["model"]["name"] = "resgin"
        config["model"]["arguments"].update({"mlp_layers": 2, "norm": "none", **changes})

    return change


@pytest.mark.parametrize(
    "change",
    [
        as_gin(mlp_layers=10**8),
        as_gin(mlp_layers=10**30),
        as_gin(mlp_layers="x"),
        as_gin(mlp_layers=1.5),
        arguments(num_layers=10**400),
        arguments(hidden_feats=10**30),
        arguments(hidden_feats=10**18, in_feats=10**18),
        arguments(in_feats=[64]),
        arguments(spectral_radius="x"),
        arguments(spectral_radius=float("nan")),
        arguments(spectral_radius=0.0),
        arguments(spectral_radius=-1.0),
        arguments(spectral_radius=1e-320),
        arguments(spectral_radius=1e-39),
        arguments(spectral_radius=1e39),
        arguments(spectral_radius=10**400),
        arguments(alpha={}),
        arguments(dropout=float("nan")),
        arguments(t=[1]),
        arguments(t="per-depth:" + "9" * 5000),
        arguments(norm="sideways"),
        arguments(edge_feats=-1),
        arguments(head="edge", edge_feats=10**12),
        data(level="graph"),
        data(level="edge"),
        data(level="galaxy"),
        data(features={"node": {}}),
        data(features={"node": {"transform": "explode"}}),
        data(features={"node": {"transform": "standardize"}}),
        data(features={"node": {"transform": "standardize", "mean": [0], "scale": [1]}}),
        data(features={"node": {"transform": "standardize", "mean": ["x"] * 64, "scale": [1]}}),
        data(features={"node": {"transform": "standardize", "mean": [0] * 64, "scale": [0] * 64}}),
        data(
            features={"node": {"transform": "standardize", "mean": [0] * 64, "scale": [1e-40] * 64}}
        ),
        data(
            features={
                "node": {"transform": "standardize", "mean": [10**39] * 64, "scale": [1] * 64}
            }
        ),
        data(features={"node": {"transform": "none", "low": "x"}}),
        data(features={"node": {"transform": "none", "low": [0] * 64, "high": [1] * 64}}),
        data(
            features={
                "node": {"transform": "none", "low": [10**400] * 64, "high": [1] * 64, "rms": 1}
            }
        ),
        data(preparation={"level": "galaxy"}),
        prepared([]),
        prepared([{"field": "feat", "values": [[10**30]]}]),
        prepared([{"field": "feat", "values": [[1, 0]]}]),
        prepared([{"field": None, "values": [list(range(10**5))]}]),
        prepared([{"field": "feat"}], edge=[{"field": "feat"}]),
        prepared([{"field": "feat"}], level="edge"),
        data(features={"moon": {"transform": "none"}}),
        data(features={}),
        data(splits=0),
        data(target="binary"),
    ],
    ids=lambda _: "case",  # their addresses differ from process to process
)
def test_a_config_that_makes_no_sense(change: Any, publisher: Any, tmp_path: Path) -> None:
    graph = dgl.graph(([0, 1], [0, 1]))
    graph.ndata["feat"] = torch.ones(2, 64)
    dgl.save_graphs("g.bin", [graph])
    publisher.edit(change)
    with pytest.raises(UserError):
        predict(NAME, "g.bin", "p.csv", publisher.zoo)
    with pytest.raises(ZooError):
        from_pretrained(NAME, publisher.zoo)
    assert not Path("p.csv").exists()


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_weights_that_are_not_finite(value: float, kind: Any, publisher: Any) -> None:
    file = publisher.folder / "model.safetensors"
    tensors = {name: tensor.to(kind) for name, tensor in load_file(file).items()}
    name = min(tensors)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file)
    publisher.publish()
    for options in ({}, {"out_feats": 3}):
        with pytest.raises(ZooError, match=rf"tensor '{name}' holds values that are not finite"):
            from_pretrained(NAME, publisher.zoo, **options)


def test_weights_beyond_the_range_of_float32(publisher: Any) -> None:
    file = publisher.folder / "model.safetensors"
    save_file({name: tensor.double() * 1e300 for name, tensor in load_file(file).items()}, file)
    publisher.publish()
    with pytest.raises(ZooError, match="not finite"):
        from_pretrained(NAME, publisher.zoo)


@pytest.mark.parametrize("memory", [None, "1MB"])
def test_scores_that_are_not_finite(memory: str | None, publisher: Any) -> None:
    file = publisher.folder / "model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)
    publisher.publish()
    graph = dgl.graph(([0, 1], [0, 1]))
    graph.ndata["feat"] = torch.zeros(2, 64)
    large = graph.clone()
    large.ndata["feat"] = torch.full((2, 64), 1e10)
    dgl.save_graphs("g.bin", [graph, large])
    with pytest.raises(UserError, match=r"g\.bin: graph 1: .*not finite.*Nothing was written"):
        predict(NAME, "g.bin", "p.csv", publisher.zoo, prepared=True, memory=memory)
    assert not Path("p.csv").exists() and not list(Path().glob(".p*"))


@pytest.mark.parametrize(
    "record",
    [
        {"transform": "standardize", "mean": [10**30] * 64, "scale": [10**30] * 64},
        {"transform": "rescale", "mean": [2**63] * 64, "scale": [1] * 64},
        {"transform": "none", "low": [-(10**30)] * 64, "high": [10**38] * 64, "rms": 10**38},
    ],
)
def test_whole_numbers_in_a_record_of_features(record: dict[str, Any], publisher: Any) -> None:
    """They end in a table, or in words: never in a traceback."""
    publisher.edit(data(features={"node": record}))
    graph = dgl.graph(([0, 1], [0, 1]))
    graph.ndata["feat"] = torch.ones(2, 64)
    dgl.save_graphs("g.bin", [graph])
    with warnings.catch_warnings(action="ignore"):
        assert predict(NAME, "g.bin", "p.csv", publisher.zoo) == 2


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "1",
        "null",
        '{"format": true}',
        '{"format": 1, "models": ' + deep(100_000) + "}",
        '{"format": 1, "models": {"x": ' + deep(500) + "}}",
        '{"format": ' + "9" * 10_000 + "}",
        '{"format": 1e999}',
        '{"format": 0}',
        '{"format": -1}',
        "\ufeff{}",
        '{"format": 1, "models": {"a": 1, "a": 2}}',
        "\\ud800",
        json.dumps({"format": 1, "models": {f"a{i}": 1 for i in range(200_000)}}),
        json.dumps({"format": 1, **{f"a{i}": 1 for i in range(200_000)}}),
    ],
    ids=lambda text: text[:30],
)
@pytest.mark.parametrize("file", ["index.json", "config.json", "metrics.json"])
def test_json_that_makes_no_sense(content: str, file: str, publisher: Any) -> None:
    place = publisher.zoo if file == "index.json" else publisher.folder
    (place / file).write_text(content)
    if file != "index.json":
        publisher.publish()
    with pytest.raises(ZooError):
        evaluate(NAME, publisher.zoo)


@pytest.mark.parametrize("accuracy", [10**400, "x", None, [], float("nan"), float("inf")])
def test_a_record_that_makes_no_sense(accuracy: Any, publisher: Any) -> None:
    publisher.edit(
        lambda metrics: metrics["weights"]["test"].update(accuracy=accuracy), "metrics.json"
    )
    with pytest.raises(ZooError):
        evaluate(NAME, publisher.zoo)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["files"]["config.json"].update(size=10**400),
        lambda entry: entry["files"]["config.json"].update(size=2**62),
        lambda entry: entry.update(depth=10**400),
        lambda entry: entry.update(parameters=-1),
        lambda entry: entry.update(mean=float("nan")),
        lambda entry: entry.update(data="x" * 10**6),
        lambda entry: entry.update(data="\x1b[2J"),
        lambda entry: entry.update(n=10**400),
        lambda entry: entry.update(target_share=float("inf")),
        lambda entry: entry["speedup"].update({"vs \x1b[2J": entry["speedup"]["vs stock"]}),
        lambda entry: entry["speedup"].update({"": entry["speedup"]["vs stock"]}),
        lambda entry: entry["speedup"].update({"  ": entry["speedup"]["vs stock"]}),
        lambda entry: entry.update({f"x{i}": 0 for i in range(9000)}),
        lambda entry: entry["speedup"]["vs stock"].update(low=None),
        lambda entry: entry["speedup"]["vs stock"].update(ratio=1e400),
        lambda entry: entry["files"].update(
            {f"file{i}": entry["files"]["config.json"] for i in range(10_000)}
        ),
    ],
    ids=lambda _: "case",  # their addresses differ from process to process
)
def test_an_index_that_makes_no_sense(
    change: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    publisher.edit_index(change)
    assert command(monkeypatch, "models", "--zoo", publisher.zoo) == 2
    assert command(monkeypatch, "models", "--zoo", publisher.zoo, "--json") == 2
    assert command(monkeypatch, "download", NAME, "--zoo", publisher.zoo) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_index_of_huge_numbers_is_listed_short(
    publisher: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def huge(entry: dict[str, Any]) -> None:
        entry.update(mean=1e308, std=1e308)
        entry["speedup"]["vs stock"] = {"ratio": 1e308, "low": 1e308, "high": 1e308, "bound": None}

    publisher.edit_index(huge)
    monkeypatch.setattr(sys, "exit", lambda code=0: pytest.fail(str(code)) if code else None)
    for words in ([], [NAME], ["--markdown"]):
        monkeypatch.setattr(sys, "argv", ["dgl-deepgnn", "models", *words, "--zoo", "zoo"])
        run()
        out = capsys.readouterr().out
        assert "1e+308" in out and max(map(len, out.splitlines())) < 250


def test_a_mistyped_name_among_many_long_ones(publisher: Any, limit: Any) -> None:
    entry = publisher.index["models"][NAME]
    names = [f"a{i:04}" + "ab" * 47 for i in range(2000)]
    publisher.index["models"] = {name: {**entry, "files": {}, "speedup": {}} for name in names}
    (publisher.zoo / "index.json").write_text(json.dumps(publisher.index))
    with limit(20), pytest.raises(ZooError) as caught:
        download("a1999" + "ba" * 47, publisher.zoo)
    assert len(str(caught.value)) < 1100
    with pytest.raises(ZooError, match=f"Did you mean '{names[7]}'"):
        download(names[7][:-1], publisher.zoo)


@pytest.mark.parametrize("host", ["a" * 300, "a" * 5000, ("a" * 60 + ".") * 20, "[" + "a" * 300])
def test_a_host_of_hundreds_of_letters(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "5")
    with pytest.raises(ZooError, match=r"no address of a server|cannot be reached") as caught:
        list_pretrained(zoo=f"http://{host}/zoo")
    assert len(str(caught.value)) < 400


def test_a_model_with_the_name_of_the_index(publisher: Any, server: Any) -> None:
    publisher.index["models"]["index.json"] = publisher.index["models"][NAME]
    publisher.publish()
    with pytest.raises(ZooError):
        download("index.json", server.address)
    with pytest.raises(ZooError):
        list_pretrained(zoo=server.address)


def test_an_index_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "index.json")
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "index.json").symlink_to("/dev/zero")
    for zoo in ("pipe", "zero"):
        with pytest.raises(ZooError, match=r"index\.json"):
            list_pretrained(zoo=zoo)


# Every other value, in every place


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\x1b[2J", "../x", "node", "file:x", "per-depth:1e308", 10**400, -1, 0]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Path of every value of a JSON document."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in inner:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


def call(what: Callable[..., object], *arguments: object) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # features are not those of the training
            what(*arguments)
    except UserError as error:
        assert str(error).isprintable()
    except DGLError:
        pass


@settings(
    max_examples=int(os.environ.get("FUZZ", "20")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.data())
def test_junk_anywhere_is_an_error_for_people(
    drawn: st.DataObject, publisher: Any, limit: Any, tmp_path: Path
) -> None:
    file = drawn.draw(st.sampled_from(["config.json", "metrics.json", "index.json"]))
    place = publisher.zoo if file == "index.json" else publisher.folder
    before = (place / file).read_text()
    content = json.loads(before)
    *parents, last = drawn.draw(st.sampled_from(places(content)))
    parent = content
    for key in parents:
        parent = parent[key]
    if drawn.draw(st.booleans()):
        parent[last] = drawn.draw(JUNK)
    else:
        del parent[last]
    graph = dgl.graph(([0, 1], [0, 1]))
    graph.ndata["feat"] = torch.ones(2, 64)
    dgl.save_graphs("g.bin", [graph])
    try:
        (place / file).write_text(json.dumps(content))
        if file != "index.json":
            publisher.publish()
        with limit():
            call(evaluate, NAME, publisher.zoo)
            call(from_pretrained, NAME, publisher.zoo)
            call(predict, NAME, "g.bin", tmp_path / f"{os.urandom(8).hex()}.csv", publisher.zoo)
    finally:
        (place / file).write_text(before)
        publisher.publish()


# Time


def test_a_compressed_answer_is_not_unpacked(server: Any) -> None:
    """A bomb in a bomb: a megabyte that stands for a terabyte."""
    once = gzip.compress(bytes(10**8))
    content = gzip.compress(once * 20)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: {len(content)}"
    server.faults["/index.json"] = answer(f"{head}\r\n\r\n".encode() + content)
    with pytest.raises(ZooError, match="compressed"):
        list_pretrained(zoo=server.address)


def drip(handler: Any) -> None:
    """A byte now and then, so that no single read times out."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"x")


def drip_chunks(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"1\r\nx\r\n")


def drip_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"x")


def drip_status(handler: Any) -> None:
    while not handler.server.released.wait(0.05):
        handler.wfile.write(b"H")


@pytest.mark.parametrize("fault", [drip, drip_chunks, drip_headers, drip_status])
@pytest.mark.parametrize("path", ["/index.json", WEIGHTS, CONFIG])
def test_a_server_that_drips(
    fault: Any, path: str, publisher: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "0.4")
    with (publisher.folder / path.rpartition("/")[2]).open("a") as file:
        file.write(" " * 100_000)
    publisher.publish()
    server.faults[path] = fault
    with pytest.raises(ZooError, match=f"{path}: .*stalled"):
        from_pretrained(NAME, server.address)


@pytest.mark.parametrize("seconds", ["inf", "-inf", "nan", "0", "-1", "1e-400", "1e300", "x", "٣"])
def test_a_timeout_that_is_none(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", seconds)
    with pytest.raises(ZooError, match=f"DGL_DEEPGNN_TIMEOUT={seconds}: .*seconds"):
        list_pretrained(zoo="http://127.0.0.1:9")


# The terminal

OWNED = "\x1b]0;owned\x07\x9b2J\u202e\r"


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line; its exit code."""
    monkeypatch.setattr(sys, "argv", ["dgl-deepgnn", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        run()
    return caught.value.code or 0  # type: ignore[return-value]


def answer(raw: bytes) -> Callable[[Any], object]:
    return lambda handler: handler.wfile.write(raw)


RAW = OWNED.encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 404 " + RAW + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://x/" + RAW + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: " + b"x" * 10_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + RAW + b"\r\n" + RAW + b": x\r\nbroken" + RAW + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1" + RAW + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + RAW + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + RAW,
        RAW + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + RAW,
        b'HTTP/1.1 200 OK\r\n\r\n{"format": 1, "' + RAW.replace(b"\r", b"") + b'": 2}',
        b'HTTP/1.1 200 OK\r\n\r\n{"format": 1, "\\u001b[2J\\u009b2J\\n": 2}',
        b'HTTP/1.1 200 OK\r\n\r\n{"format": 1, "models": {"\\u001b[2J": 2}}',
    ],
)
@pytest.mark.parametrize("path", ["/index.json", WEIGHTS])
def test_what_a_server_says_is_printed_harmlessly(
    raw: bytes, path: str, server: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.faults[path] = answer(raw)
    assert command(monkeypatch, "evaluate", NAME, "--zoo", server.address) == 2
    out, err = capfd.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    assert "Traceback" not in err
    assert len(err) < 3000


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: c["data"].update(name=OWNED)),
        ("config.json", lambda c: c["data"].update(options={OWNED: 1})),
        ("config.json", lambda c: c["data"].update(options={"neighbors": OWNED})),
        ("config.json", lambda c: c["model"].update(name=OWNED)),
        ("config.json", lambda c: c["model"]["arguments"].update({OWNED: 1})),
        ("config.json", lambda c: c["model"]["arguments"].update(t=OWNED)),
        ("config.json", lambda c: c.update({OWNED: 1})),
        ("config.json", lambda c: c["recipe"].update(name=OWNED)),
        ("config.json", lambda c: c["recipe"]["model"].update(init=OWNED)),
        ("metrics.json", lambda c: c["weights"]["test"].update(accuracy=OWNED)),
    ],
)
def test_what_a_model_says_is_printed_harmlessly(
    file: str, change: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    publisher.edit(change, file)
    assert command(monkeypatch, "evaluate", NAME, "--zoo", publisher.zoo) == 2
    out, err = capfd.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    with pytest.raises(ZooError) as caught:  # without the command line, too
        evaluate(NAME, publisher.zoo)
    assert str(caught.value).isprintable()


# Together


def test_several_processes_download_one_model_at_once(publisher: Any, tmp_path: Path) -> None:
    """Each ends with the whole model, whoever was first."""
    program = (
        "import sys; from dgl_deepgnn.hub import from_pretrained, download; "
        "from_pretrained(*sys.argv[1:]); print(download(*sys.argv[1:]))"
    )
    (publisher.folder / "large.bin").write_bytes(bytes(300_000))
    publisher.publish()
    with slow_server(publisher.zoo) as address:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, NAME, address],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for process in processes:
            out, err = process.communicate()
            assert process.returncode == 0, err
            for file in publisher.folder.iterdir():
                assert (Path(out.strip()) / file.name).read_bytes() == file.read_bytes()
    left = [path.name for path in (tmp_path / "cache").rglob("*")]
    assert not any(name.startswith(".download") or name.endswith(".tmp") for name in left)
