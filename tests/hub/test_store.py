from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import pytest
from safetensors.torch import load_file, save_file

from dgl_deepgnn import files
from dgl_deepgnn.hub import ZooError, download, from_pretrained, list_pretrained, open_zoo, store

NAME = "tiny.karate"
WEIGHTS = f"/{NAME}/model.safetensors"
Handler = Any


def files_of(cache: Path) -> dict[str, bytes]:
    """What a cache holds; locks and the index, which is renewed on every use, apart."""
    return {
        str(file.relative_to(cache)): file.read_bytes()
        for file in cache.rglob("*")
        if file.is_file() and file.suffix != ".lock" and file.name != "index.json"
    }


# A folder


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "truncated"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "too long"),
        (lambda file: file.write_bytes(b"x" * file.stat().st_size), "SHA-256"),
        (lambda file: file.unlink(), "missing"),
    ],
)
def test_a_damaged_file_in_a_folder(damage: Callable[[Path], object], says: str, zoo: Path) -> None:
    damage(zoo / NAME / "model.safetensors")
    with pytest.raises(ZooError, match=rf"model.safetensors is.* {says}"):
        from_pretrained(NAME, zoo)


def test_places_that_are_no_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match="no such folder"):
        list_pretrained(zoo=tmp_path / "absent")
    with pytest.raises(ZooError, match="neither a folder nor"):
        list_pretrained(zoo="ftp://somewhere/zoo")
    with pytest.raises(ZooError, match="plain address"):
        list_pretrained(zoo="http://somewhere/zoo?x=1")
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "soon")
    with pytest.raises(ZooError, match="a number of seconds"):
        list_pretrained(zoo="http://somewhere/zoo")
    assert list_pretrained(zoo=tmp_path) == []
    with pytest.raises(ZooError, match=r"no model 'x'.*\(none\)"):
        from_pretrained("x", tmp_path)


def test_the_environment_chooses_the_zoo(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_ZOO", str(zoo))
    assert list_pretrained() == [NAME]


# An address


def test_a_download_is_the_folder_and_is_made_once(server: Any, zoo: Path) -> None:
    folder = download(NAME, server.address + "/")
    for file in (zoo / NAME).iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    count = len(server.requests)
    assert download(NAME, server.address) == folder
    assert server.requests[count:] == ["/index.json"]


def test_a_download_prints_no_log(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (handler,) = pooch.get_logger().handlers
    monkeypatch.setattr(handler, "stream", io.StringIO())
    level = pooch.get_logger().level
    download(NAME, server.address)
    assert handler.stream.getvalue() == ""
    assert pooch.get_logger().level == level


def test_a_model_needs_only_config_and_weights(server: Any) -> None:
    from_pretrained(NAME, server.address)
    assert sorted(server.requests) == ["/index.json", f"/{NAME}/config.json", WEIGHTS]


def not_found(handler: Handler) -> None:
    handler.send_error(404)


def html(handler: Handler) -> None:
    send(handler, b"<html>please log in</html>", "text/html; charset=utf-8")


def redirect(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://elsewhere.example/file")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def stall(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.server.released.wait(20)


def stall_before_headers(handler: Handler) -> None:
    handler.server.released.wait(20)


def break_off(handler: Handler) -> None:
    content = content_of(handler)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def hang_up(handler: Handler) -> None:
    handler.connection.close()


def truncated(handler: Handler) -> None:
    send(handler, content_of(handler)[:-10])


def truncated_without_length(handler: Handler) -> None:
    send(handler, content_of(handler)[:-10], announce=False)


def oversized(handler: Handler) -> None:
    send(handler, content_of(handler) + b"more")


def endless(handler: Handler) -> None:
    """No length is announced, and the stream ends only when the client hangs up."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        handler.server.released.set()


def wrong_hash(handler: Handler) -> None:
    send(handler, b"x" * len(content_of(handler)))


def content_of(handler: Handler) -> bytes:
    return (Path(handler.directory) / handler.path.lstrip("/")).read_bytes()


def send(handler: Handler, content: bytes, kind: str = "", announce: bool = True) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind or "application/octet-stream")
    if announce:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


FAULTS = [
    (not_found, "answers 404"),
    (html, "HTML page"),
    (redirect, "redirects to http://elsewhere.example/file"),
    (stall, "stalled"),
    (stall_before_headers, "stalled"),
    (break_off, "broke off"),
    (hang_up, "cannot be reached|broke off"),
    (truncated, "truncated: the server announces"),
    (truncated_without_length, "truncated"),
    (oversized, "too long: .*announces"),
    (endless, "too long"),
    (wrong_hash, "SHA-256"),
]


@pytest.mark.parametrize(
    ("fault", "says"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_server_that_misbehaves(
    fault: Callable[[Handler], None],
    says: str,
    server: Any,
    zoo: Path,
    reindex: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if says == "stalled":
        monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "0.2")
    server.faults[WEIGHTS] = fault
    with pytest.raises(ZooError, match=f"{WEIGHTS}: .*({says})"):
        download(NAME, server.address)
    assert files_of(tmp_path / "cache") == {}
    # The same with an older version in the cache, which must stay usable.
    server.faults.clear()
    monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "20")
    download(NAME, server.address)
    before = files_of(tmp_path / "cache")
    weights = zoo / NAME / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    (zoo / NAME / "README.md").write_text("new")
    reindex(zoo)
    server.faults[WEIGHTS] = fault
    if says == "stalled":
        monkeypatch.setenv("DGL_DEEPGNN_TIMEOUT", "0.2")
    with pytest.raises(ZooError, match=says):
        download(NAME, server.address)
    assert files_of(tmp_path / "cache") == before
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    from_pretrained(NAME, server.address)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (not_found, "answers 404"),
        (html, "HTML page"),
        (redirect, "redirects"),
        (break_off, "broke off"),
        (truncated, "not JSON"),
        (endless, "too long"),
    ],
)
def test_an_index_that_does_not_arrive(
    fault: Callable[[Handler], None],
    says: str,
    server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    list_pretrained(zoo=server.address)
    (index,) = (tmp_path / "cache").rglob("index.json")
    before = index.read_bytes()
    server.faults["/index.json"] = fault
    with pytest.raises(ZooError, match=f"index.json.*{says}"):
        list_pretrained(zoo=server.address)
    assert index.read_bytes() == before
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    assert list_pretrained(zoo=server.address) == [NAME]


def test_a_download_that_breaks_off_once_is_tried_again(server: Any) -> None:
    def once(handler: Handler) -> None:
        del server.faults[WEIGHTS]
        break_off(handler)

    server.faults[WEIGHTS] = once
    from_pretrained(NAME, server.address)
    assert server.requests.count(WEIGHTS) == 2


def test_a_refusal_is_not_tried_again(server: Any) -> None:
    server.faults[WEIGHTS] = not_found
    with pytest.raises(ZooError):
        from_pretrained(NAME, server.address)
    assert server.requests.count(WEIGHTS) == 1


def test_no_server(tmp_path: Path, server: Any) -> None:
    server.server_close()
    with pytest.raises(ZooError, match=r"cannot be reached.*DGL_DEEPGNN_OFFLINE"):
        list_pretrained(zoo=server.address)


def test_damage_in_the_cache_is_mended(server: Any) -> None:
    folder = download(NAME, server.address)
    good = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(good[:-1] + b"x")
    from_pretrained(NAME, server.address)
    assert (folder / "model.safetensors").read_bytes() == good


def test_offline_uses_the_cache_and_nothing_else(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    with pytest.raises(ZooError, match=r"Offline.*never used"):
        list_pretrained(zoo=server.address)
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "0")
    list_pretrained(zoo=server.address)
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    with pytest.raises(ZooError, match=f"Offline.*{NAME} is not in the cache"):
        from_pretrained(NAME, server.address)
    monkeypatch.delenv("DGL_DEEPGNN_OFFLINE")
    from_pretrained(NAME, server.address)
    count = len(server.requests)
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    from_pretrained(NAME, server.address)
    with pytest.raises(ZooError, match=r"README\.md is missing"):
        download(NAME, server.address)
    assert len(server.requests) == count


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_behind_the_last_file(
    before: bool,
    server: Any,
    zoo: Path,
    reindex: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before its index line is kept; an older model was there, or none."""
    if before:
        download(NAME, server.address)
    (zoo / NAME / "README.md").write_text("Another card.\n")
    reindex(zoo)

    def killed(path: Path, content: str) -> None:
        leftover = path.with_name(f".{path.name}.{files._HERE}-999999999-0.tmp")
        leftover.write_text(content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "write_text", killed)
        download(NAME, server.address)
    assert list(Path(os.environ["DGL_DEEPGNN_CACHE"]).rglob("*.tmp"))
    folder = download(NAME, server.address)
    assert not list(Path(os.environ["DGL_DEEPGNN_CACHE"]).rglob("*.tmp"))
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    assert download(NAME, server.address) == folder
    assert (folder / "README.md").read_text() == "Another card.\n"


def test_two_processes_at_once(server: Any, zoo: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from dgl_deepgnn.hub import download\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"print(download({NAME!r}, {server.address!r}))\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        folder = Path(out.strip())
        assert folder.is_relative_to(tmp_path / "cache")
        for file in (zoo / NAME).iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes()
    assert server.requests.count(WEIGHTS) == 1  # the second one found it in the cache


def test_nothing_is_read_before_it_is_asked_for() -> None:
    assert open_zoo("http://127.0.0.1:9/").location == "http://127.0.0.1:9"
