"""Every file of a run, of a record and of a zoo cut short, with flipped bits, and swapped.

A case ends well if reading it all gives exactly what it gave before, or one of our errors.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dgl_deepgnn.hub import download, from_pretrained, publish
from dgl_deepgnn.hub.index import METRICS
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, train
from tests.faults.scene import NAME, Scene
from tests.faults.workers import Part

Case = tuple[str, ...]
"""What is done, to which file, and where or with which other one."""


def cases_of(folder: Path, share: float = 1.0, flips: int = 200, seed: int = 0) -> list[Case]:
    """All damage that is done to the files of a folder, or a share of it."""
    files = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }
    draw, cases = random.Random(seed), list[Case]()
    for name, size in files.items():
        lengths = {0, 1, size // 3, size // 2, size - 2, size - 1, size - size % 4096}
        cases += [("cut", name, str(length)) for length in sorted(lengths) if 0 <= length < size]
        bits = range(8 * size)
        cases += [("flip", name, str(bit)) for bit in draw.sample(bits, min(flips, len(bits)))]
    names = list(files)
    cases += [("swap", a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return draw.sample(cases, math.ceil(share * len(cases)))


def attack(folder: Path, case: Case, read: Callable[[], object]) -> None:
    """Damage a folder, read it, and mend it."""
    what, name, more = case
    file = folder / name
    kept = {file: file.read_bytes()}
    if what == "swap":
        other = folder / more
        kept[other] = other.read_bytes()
        file.write_bytes(kept[other])
        other.write_bytes(kept[file])
    else:
        content = bytearray(kept[file])
        if what == "cut":
            del content[int(more) :]
        else:
            content[int(more) // 8] ^= 1 << int(more) % 8
        file.write_bytes(content)
    try:
        read()
    finally:
        for path, content_before in kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content_before)


def make_parts(scene: Scene, folder: Path, share: float, slices: int) -> list[Part]:
    """A share of all cases; each kind in `slices` parts, so that they can be spread."""
    parts = []
    for name, source, make in (
        ("finished-run", scene.run, _publish),
        ("interrupted-run", scene.interrupted, _resume),
        ("speed-up-record", scene.speedup, _compare),
        ("zoo", scene.zoo, _load),
    ):
        cases = cases_of(source, share)
        for index in range(slices):
            place = folder / f"{name}-{index}"
            copy = Path(shutil.copytree(source, place / "copy"))
            read = make(scene, copy, place)
            parts.append(Part(name, _Attack(copy, read), cases[index::slices]))
    return parts


class _Attack:
    def __init__(self, folder: Path, read: Callable[[], object]) -> None:
        self.folder, self.read = folder, read

    def __call__(self, case: Case) -> None:
        attack(self.folder, case, self.read)


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Hold weights to others, bit by bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), f"{name} differs"


def records(value: Any) -> Any:
    """Nested records without what depends on the time: seconds, their ratios, and the day."""
    if isinstance(value, dict):
        timed = ("seconds", "step_seconds", "wall_clock", "date")
        return {key: records(entry) for key, entry in value.items() if key not in timed}
    return [records(entry) for entry in value] if isinstance(value, list) else value


def _publish(scene: Scene, run: Path, place: Path) -> Callable[[], object]:
    expected = scene.zoo / NAME

    def read() -> None:
        shutil.rmtree(place / "zoo", ignore_errors=True)
        entry = publish(run, scene.speedup, place / "zoo")
        for file in expected.iterdir():
            assert (entry / file.name).read_bytes() == file.read_bytes(), file.name

    return read


def _resume(scene: Scene, run: Path, place: Path) -> Callable[[], object]:
    whole = RunFolder.open(scene.run)
    weights = whole.load("model.safetensors")[0]
    summary = records(whole.read("summary.json"))

    def read() -> None:
        shutil.rmtree(place / "again", ignore_errors=True)
        again = Path(shutil.copytree(run, place / "again"))
        folder = train(again / "recipe.yaml", again, resume=True, progress=False)
        same(folder.load("model.safetensors")[0], weights)
        assert records(folder.read("summary.json")) == summary

    return read


def _compare(scene: Scene, record: Path, place: Path) -> Callable[[], object]:
    whole = RunFolder.open(scene.speedup).read("speedup.json")

    def read() -> None:
        recipe = RunFolder.open(record).recipe
        _, found = measure_speedup(recipe, record, resume=True, progress=False)
        assert records(found) == records(whole)
        # A damaged trial would be an error; what is made of the trials has been made anew.
        assert RunFolder.open(record).read("speedup.json") == found

    return read


def _load(scene: Scene, zoo: Path, place: Path) -> Callable[[], object]:
    weights = from_pretrained(NAME, scene.zoo).state_dict()
    files = {file.name: file.read_bytes() for file in (scene.zoo / NAME).iterdir()}
    assert METRICS in files

    def read() -> None:
        same(from_pretrained(NAME, zoo).state_dict(), weights)
        folder = download(NAME, zoo)
        for name, content in files.items():
            assert (folder / name).read_bytes() == content, name

    return read
