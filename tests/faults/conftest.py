"""A zoo of one small model whose publisher means harm, and the server that it is loaded from."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dgl_deepgnn.hub.index import FileFacts
from dgl_deepgnn.nn import create_model

NAME = "resgcn2.digits"
Change = Callable[[dict[str, Any]], object]


class Publisher:
    """Writes whatever it likes into its zoo, with an index that agrees."""

    def __init__(self, zoo: Path) -> None:
        self.zoo, self.folder = zoo, zoo / NAME
        self.folder.mkdir(parents=True)
        packaged = Path(str(files("dgl_deepgnn.zoo"))) / "resgcn64.digits"
        config = json.loads((packaged / "config.json").read_text())
        arguments = config["model"]["arguments"]
        arguments.update(hidden_feats=4, num_layers=2)
        config["name"] = config["recipe"]["name"] = NAME
        torch.manual_seed(0)
        model = create_model(config["model"]["name"], **arguments)
        save_file(model.state_dict(), self.folder / "model.safetensors")
        (self.folder / "config.json").write_text(json.dumps(config))
        metrics = {"weights": {"seed": 0, "test": {"accuracy": 0.1}}}
        (self.folder / "metrics.json").write_text(json.dumps(metrics))
        (self.folder / "README.md").write_text("A model.")
        index = json.loads((packaged.parent / "index.json").read_text())
        entry = index["models"]["resgcn64.digits"]
        self.index: dict[str, Any] = {"format": 1, "models": {NAME: entry}}
        self.publish()

    def publish(self) -> None:
        """Write the index, with sizes and hashes of the files as they are now."""
        entry = self.index["models"][NAME]
        entry["files"] = {
            file.name: FileFacts.of(file).model_dump() for file in self.folder.iterdir()
        }
        (self.zoo / "index.json").write_text(json.dumps(self.index))

    def edit(self, change: Change, file: str = "config.json") -> None:
        """Change a file of the model."""
        content = json.loads((self.folder / file).read_text())
        change(content)
        (self.folder / file).write_text(json.dumps(content))
        self.publish()

    def edit_index(self, change: Change) -> None:
        """Change the index entry."""
        change(self.index["models"][NAME])
        (self.zoo / "index.json").write_text(json.dumps(self.index))


class Handler(SimpleHTTPRequestHandler):
    """Serves the zoo, but for the paths where it misbehaves."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.faults.get(self.path, SimpleHTTPRequestHandler.do_GET)(self)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`faults` maps paths to what is done instead of answering properly."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.faults: dict[str, Callable[[Any], object]] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass  # the client hangs up


@contextmanager
def within(seconds: int = 600) -> Iterator[None]:
    """Break off what hangs; far more time than any machine needs."""

    def stop(*_: Any) -> None:
        pytest.fail(f"not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def limit() -> Callable[..., Any]:
    return within


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    with within():
        yield


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("DGL_DEEPGNN_ZOO", "DGL_DEEPGNN_OFFLINE", "DGL_DEEPGNN_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "zoo")


@pytest.fixture
def server(publisher: Publisher) -> Iterator[Server]:
    with Server(publisher.zoo) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.released.set()
        running.shutdown()
