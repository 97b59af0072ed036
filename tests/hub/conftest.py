"""A tiny run, the zoo made of it, a web server that can misbehave, and a Hugging Face Hub."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from dgl_deepgnn.hub import publish, push
from dgl_deepgnn.hub.index import FileFacts
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import train
from tests.hub.hugging_face import TOKEN, Hub

RECIPE: dict[str, Any] = {
    "name": "tiny.karate",
    "description": "A tiny model for tests.",
    "data": {"name": "karate"},
    "model": {"name": "resgcn", "hidden_feats": 4, "num_layers": 3},
    "training": {"epochs": 3},
    "seeds": [0, 1],
    "speedup": {"steps": 4, "learning_rates": [0.01], "seeds": [0, 1]},
}


def make_run(parent: Path, **changes: Any) -> Path:
    """A finished run with its speed-up record beside it."""
    recipe = Recipe.model_validate({**RECIPE, **changes})
    train(recipe, parent / "run", progress=False)
    measure_speedup(recipe, parent / "run.speedup", progress=False)
    return parent / "run"


def reindex_entry(zoo: Path, name: str = "tiny.karate") -> None:
    """Bring the index up to date with files that a test has changed: a hostile publisher."""
    content = json.loads((zoo / "index.json").read_text())
    for file, facts in content["models"][name]["files"].items():
        facts.update(FileFacts.of(zoo / name / file).model_dump())
    (zoo / "index.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return lambda **changes: make_run(tmp_path_factory.mktemp("runs"), **changes)


@pytest.fixture(scope="session")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    zoo = tmp_path_factory.mktemp("zoo")
    publish(run, zoo=zoo)
    return zoo


@pytest.fixture
def zoo(published: Path, tmp_path: Path) -> Path:
    """A zoo with one model, for a test to change."""
    return Path(shutil.copytree(published, tmp_path / "zoo"))


@pytest.fixture
def reindex() -> Callable[..., None]:
    return reindex_entry


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "20")
    for name in ("DGL_DEEPGNN_ZOO", "DGL_DEEPGNN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


Fault = Callable[["_Handler"], None]


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        fault = self.server.faults.get(self.path)
        if fault is None:
            super().do_GET()
        else:
            fault(self)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves a folder; `faults` maps paths to what to do instead of answering properly."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.faults: dict[str, Fault] = {}
        self.requests: list[str] = []
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass  # the client hangs up in many tests


@pytest.fixture
def server(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # pooch's pauses between attempts
    with Server(zoo) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.released.set()
        running.shutdown()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub, as far as a program on this machine can play it."""
    with Hub() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            running.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield running
        running.shutdown()


@pytest.fixture
def pushed(hub: Hub, run: Path) -> dict[str, bytes]:
    """Files of the main branch of a repository that `push` has made."""
    push(run, "me/tiny", token=TOKEN)
    repo = hub.repos["me/tiny"]
    return repo.commits[repo.refs["main"]]
