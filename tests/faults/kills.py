"""Commands killed at any moment of their lives, and started again.

Each process is forked from one that has imported everything, and killed (SIGKILL) after a time
drawn over the whole length of an undisturbed one. What was finished before the kill has to be
there afterwards, bit by bit; the command, started again until it ends, has to end in the same
bits as an undisturbed one.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import download
from dgl_deepgnn.hub.config import read_config
from dgl_deepgnn.hub.store import open_zoo
from dgl_deepgnn.training import RunFolder
from tests.faults.damage import records
from tests.faults.scene import NAME, Scene, command, fork, wait

PATIENCE = 600
"""Seconds after which a command that should have ended counts as hanging."""


class Life:
    """One command on one folder, from nothing to its end."""

    def __init__(self, scene: Scene, place: Path) -> None:
        self.scene, self.place = scene, place

    def clear(self) -> None:
        """Before the first start."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)

    def command(self) -> tuple[object, ...]:
        """What to start, at first or after a kill."""
        raise NotImplementedError

    def finished(self) -> dict[str, bytes]:
        """Files that no later kill may take or change; raises if anything cannot be read."""
        raise NotImplementedError

    def check(self) -> None:
        """Hold the end to that of an undisturbed life."""
        raise NotImplementedError


class Train(Life):
    """``dgl-deepgnn train``."""

    def command(self) -> tuple[object, ...]:
        run = self.place / "run"
        if run.exists():
            return ("train", "--resume", run)
        return ("train", self.scene.recipe, "--output", run)

    def finished(self) -> dict[str, bytes]:
        run, found = self.place / "run", {}
        if run.exists():
            folder = RunFolder.open(run)
            for seed in folder.recipe.seeds:
                if folder.result(seed):
                    folder.load(f"seed-{seed}/model.safetensors")
                    for name in (f"seed-{seed}/result.json", f"seed-{seed}/model.safetensors"):
                        found[name] = (run / name).read_bytes()
                elif (run / f"seed-{seed}/checkpoint.safetensors").exists():
                    _, facts = folder.load(f"seed-{seed}/checkpoint.safetensors")
                    folder.metrics(seed, facts["counters"]["epoch"])
        return found

    def check(self) -> None:
        folder, whole = RunFolder.open(self.place / "run"), RunFolder.open(self.scene.run)
        for name in ("model.safetensors", "seed-0/model.safetensors", "seed-1/model.safetensors"):
            assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes(), name
        assert records(folder.read("summary.json")) == records(whole.read("summary.json"))
        for seed in (0, 1):
            assert records(folder.metrics(seed)) == records(whole.metrics(seed))
        assert _names(folder.path) == _names(whole.path)
        assert _names(self.place) == {"run"}


class Speedup(Life):
    """``dgl-deepgnn speedup``."""

    def command(self) -> tuple[object, ...]:
        record = self.place / "record"
        if record.exists():
            return ("speedup", "--resume", record)
        return ("speedup", self.scene.recipe, "--output", record)

    def finished(self) -> dict[str, bytes]:
        record, found = self.place / "record", {}
        if record.exists():
            folder = RunFolder.open(record)
            for file in (record / "trials").glob("[!.]*"):
                folder.read(f"trials/{file.name}")
                found[file.name] = file.read_bytes()
        return found

    def check(self) -> None:
        folder, whole = (RunFolder.open(p) for p in (self.place / "record", self.scene.speedup))
        assert records(folder.read("speedup.json")) == records(whole.read("speedup.json"))
        assert _names(folder.path) == _names(whole.path)
        assert _names(folder.path / "trials") == _names(whole.path / "trials")


class Tune(Life):
    """``dgl-deepgnn tune``."""

    def command(self) -> tuple[object, ...]:
        tuning = self.place / "tuning"
        if tuning.exists():
            return ("tune", "--resume", tuning)
        size = ("--layers", 2, "--width", 2, "--seeds", 1)
        return ("tune", self.scene.recipe, *size, "--output", tuning)

    def finished(self) -> dict[str, bytes]:
        tuning, found = self.place / "tuning", {}
        if tuning.exists():
            folder = RunFolder.open(tuning)
            for file in (tuning / "trials").glob("[!.]*"):
                # A trial goes on in the next round: what it has seen stays.
                _, facts = folder.load(f"trials/{file.name}")
                for epoch, loss in facts["val_loss"].items():
                    found[f"{file.name} {epoch}"] = repr(loss).encode()
        return found

    def check(self) -> None:
        ours, whole = self.place / "tuning", self.scene.tuning
        for name in ("tuning.json", "tuned.yaml", "run.json"):
            assert (ours / name).read_bytes() == (whole / name).read_bytes(), name
        assert _names(ours) == _names(whole)
        _same_files(ours / "trials", whole / "trials")
        assert _names(ours / "trials") == _names(whole / "trials")
        assert _names(self.place) == {"tuning"}


class Check(Life):
    """``dgl-deepgnn check``: its folder is there whole, or not at all."""

    def command(self) -> tuple[object, ...]:
        shutil.rmtree(self.place / "check", ignore_errors=True)
        sizes = ("--depths", "2,3", "--widths", "2,3", "--steps", 1, "--seeds", 2)
        return ("check", self.scene.recipe, *sizes, "--output", self.place / "check")

    def finished(self) -> dict[str, bytes]:
        if (self.place / "check").exists():
            self.check()
        return {}

    def check(self) -> None:
        _same_files(self.place / "check", self.scene.checked)
        assert _names(self.place / "check") == _names(self.scene.checked)
        assert _names(self.place) == {"check"}


class Publish(Life):
    """``dgl-deepgnn publish --replace``, over an entry with another licence."""

    def clear(self) -> None:
        super().clear()
        shutil.copytree(self.scene.older, self.place / "zoo")

    def command(self) -> tuple[object, ...]:
        where = ("--speedup", self.scene.speedup, "--zoo", self.place / "zoo")
        return ("publish", self.scene.run, *where, "--replace")

    def finished(self) -> dict[str, bytes]:
        zoo = self.place / "zoo"
        entry = download(NAME, zoo)  # the old one or the new one, whole
        old = read_config(entry / "config.json").licence == "MIT"
        _same_files(entry, (self.scene.older if old else self.scene.zoo) / NAME)
        return {}

    def check(self) -> None:
        _same_files(self.place / "zoo" / NAME, self.scene.zoo / NAME)
        assert _names(self.place / "zoo") == {NAME, "index.json"}


class Download(Life):
    """``dgl-deepgnn download`` from a slow server on the loopback."""

    def __init__(self, scene: Scene, place: Path, address: str) -> None:
        super().__init__(scene, place)
        self.address = address

    def command(self) -> tuple[object, ...]:
        os.environ["DGL_DEEPGNN_CACHE"] = str(self.place)
        return ("download", NAME, "--zoo", self.address)

    def finished(self) -> dict[str, bytes]:
        os.environ.update(DGL_DEEPGNN_CACHE=str(self.place), DGL_DEEPGNN_OFFLINE="1")
        try:
            folder = open_zoo(self.address).fetch(NAME)
        except UserError:  # not there yet, and says so
            return {}
        finally:
            del os.environ["DGL_DEEPGNN_OFFLINE"]
        # What a killed process was writing is no file yet, and goes.
        whole = [file for file in folder.iterdir() if not file.name.endswith(".tmp")]
        return {file.name: file.read_bytes() for file in whole}

    def check(self) -> None:
        found = self.finished()
        for file in (self.scene.zoo / NAME).iterdir():
            assert found[file.name] == file.read_bytes(), file.name
        left = {path.name for path in self.place.rglob("*") if path.name.startswith(".download")}
        assert not left and not list(self.place.rglob("*.tmp"))


def _same_files(folder: Path, expected: Path) -> None:
    for file in expected.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


class Chain:
    """A life with kills, the moments of which a case (a number) draws."""

    def __init__(self, life: Life, log: Path) -> None:
        self.life, self.log, self.length = life, log, 0.0
        self._kills = mmap.mmap(-1, 8)  # counted in another process

    @property
    def kills(self) -> int:
        """How many there have been."""
        return struct.unpack("q", self._kills[:])[0]

    def __call__(self, case: int) -> None:
        draw, life = random.Random(case), self.life
        if not self.length:  # of an undisturbed life, on this machine as it is now
            life.clear()
            self._finish()
        life.clear()
        kept: dict[str, bytes] = {}
        for _ in range(draw.choice([1, 1, 2, 3])):
            code = self._start(draw.uniform(0, 1.05 * self.length))
            now = life.finished()
            lost = [name for name, content in kept.items() if now.get(name) != content]
            assert not lost, f"lost or changed: {lost}"
            kept = now
            if code == 0:
                break
            assert code == -signal.SIGKILL, (code, self.log.read_text()[-500:])
            self._kills[:] = struct.pack("q", self.kills + 1)
        else:
            self._finish()
        now = life.finished()
        assert all(now[name] == content for name, content in kept.items())
        life.check()

    def _finish(self) -> None:
        start = time.monotonic()
        code = self._start(PATIENCE)
        assert code == 0, (code, self.log.read_text()[-500:])
        # A resumed life is shorter than a whole one: the first counts.
        self.length = self.length or time.monotonic() - start

    def _start(self, seconds: float) -> int:
        """Start the command, kill it after so many seconds; its exit code."""
        process = fork(command(*self.life.command()), self.log)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(min(0.002, max(0.0, end - time.monotonic())))
        os.kill(process, signal.SIGKILL)
        return wait(process)


@contextmanager
def slow_server(folder: Path) -> Iterator[str]:
    """Address of a server, in a process of its own, that takes its time."""

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            while chunk := source.read(2**14):
                outputfile.write(chunk)
                time.sleep(0.01)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # its clients are killed

    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    process = fork(server.serve_forever, folder.parent / "server.log")
    server.server_close()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        os.kill(process, signal.SIGKILL)
        wait(process)
