"""Repositories of models read through olah, a server of the Hub's API that others wrote.

It wants other versions of packages than we do, so it runs in an environment of its own:
`make test-hub`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

OLAH = os.environ.get("OLAH")
"""Its command line."""
NAME = "tiny.karate"

pytestmark = pytest.mark.skipif(not OLAH, reason="wants a server of its own: make test-hub")


def commit(folder: Path, message: str) -> None:
    """Put what the folder holds into its git repository."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    start = [] if (folder / ".git").exists() else [["init", "-q", "-b", "main"]]
    for command in (*start, ["add", "-A"], [*who, "commit", "-qm", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture
def run_in_python(
    tmp_path: Path, pushed: dict[str, bytes], published: Path
) -> Iterator[Callable[[str], str]]:
    """Two repositories, a model and a zoo, and how to run code that finds them on the server."""
    model = tmp_path / "mirror" / "models" / "me" / "tiny"
    model.mkdir(parents=True)
    for file, content in pushed.items():
        (model / file).write_bytes(content)
    commit(model, "a model")
    subprocess.run(["git", "tag", "v1"], cwd=model, check=True)
    (model / "metrics.json").write_text("{}\n")
    commit(model, "not what entry.json says")
    zoo = Path(shutil.copytree(published, model.parent / "zoo"))
    commit(zoo, "a zoo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{tmp_path / "repos"}"\n'
        f'mirrors-path = ["{tmp_path / "mirror"}"]\n[accessibility]\noffline = true\n'
    )
    address = f"http://127.0.0.1:{port}"
    assert OLAH is not None
    server = subprocess.Popen(
        [OLAH, "-c", "olah.toml", "--port", str(port), "--repos-path", str(tmp_path / "repos")],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    places = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **places},
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    try:
        for _ in range(300):
            try:
                requests.get(address, timeout=5)
                break
            except requests.ConnectionError:
                assert server.poll() is None, "olah did not start"
                time.sleep(0.1)
        yield run
    finally:
        server.terminate()
        server.wait(30)


def test_models_and_zoos_are_read(run_in_python: Callable[[str], str]) -> None:
    imports = "from dgl_deepgnn import from_pretrained, hub\n"
    for code, expected in (
        ("print(type(from_pretrained('me/tiny@v1')).__name__)", "ResGCN"),
        ("print(type(from_pretrained('me/tiny', revision='main')).__name__)", "ResGCN"),
        ("print(hub.evaluate('me/tiny@v1')['agrees'])", "True"),
        ("print(len(list(hub.download('me/tiny@v1').iterdir())))", "8"),
        ("hub.download('me/tiny')", "metrics.json is truncated"),
        ("print(hub.list_pretrained(zoo='hf://me/zoo'))", f"['{NAME}']"),
        (f"print(hub.evaluate('{NAME}', 'hf://me/zoo')['agrees'])", "True"),
        ("from_pretrained('me/none')", "There is no repository hf://me/none"),
    ):
        assert expected in run_in_python(imports + code), code
    assert "ResGCN" in run_in_python(
        imports + "print(type(from_pretrained('me/tiny', local_files_only=True)).__name__)"
    )
