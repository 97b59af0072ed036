"""Whatever a file holds, reading it ends well or in one of our errors, and soon.

A case is a number: it seeds the mutations of a valid file, so that any case can be repeated
(``python -m tests.faults.torture --case "recipe text" 12345``).
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import publishing
from dgl_deepgnn.hub.config import load_model, read_config
from dgl_deepgnn.hub.index import Index
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.speedup.comparison import Trial
from dgl_deepgnn.training import RunFolder, Trainer
from dgl_deepgnn.training.run import Best, restore
from tests.faults.scene import NAME, Scene
from tests.faults.workers import Part

FROZEN = Path(__file__).parents[1] / "frozen" / "0.1" / "trained"
"""Without checksums: damage to them reaches what reads their content."""

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, -(2**63) - 1, 2**64, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-400, 1e308, float("inf"), float("nan"), "", " ", "x", "0", "1e9", "nan"),
    *("é\x00\x1b[31m", "../../etc/passwd", "/dev/zero", "python:os:system", "tu:x", "a" * 5000),
    *("resgcn", "karate", "per-depth:1", "harmonic:-1", "critical", "{0}", "%s", "\ud800"),
]
TOKENS = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\x00", b"\xff\xfe", b"- ", b"  ", b"\t"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000, b"0x1F", b"1_0"),
    *(b"[" * 50, b"[" * 3000, b'{"a":' * 2000, b"&a ", b"*a", b"<<: ", b"!!python/object:os.x "),
    *(
        b"2024-13-01",
        b"? ",
        b"| ",
        b"> ",
        b"# ",
        b"%YAML 1.1\n---\n",
        b"--- ",
        b"!!binary x",
        b"\\u00",
    ),
]


def mutate_value(random: random.Random, value: Any) -> Any:
    """A copy of nested dictionaries and lists with a few nodes changed."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        holder, key = random.choice(_nodes(value) or [({}, "x")])
        what = random.randrange(8)
        others = _nodes(value)
        if what == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        elif what == 1 and isinstance(holder, dict):
            holder[_text(random, str(key))] = holder.get(key)
        elif what == 2 and others and len(others) < 5000:
            other, name = random.choice(others)
            holder[key] = copy.deepcopy(other[name])
        elif what == 3 and isinstance(holder.get(key) if isinstance(holder, dict) else None, str):
            holder[key] = _text(random, holder[key])
        elif what == 4:
            holder[key] = _nest(random)
        elif what == 5 and isinstance(holder, list):
            holder.extend(holder[:1] * min(random.choice([1, 3, 1000]), 5000 // len(others)))
        else:
            holder[key] = random.choice(SCALARS)
    return value


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in nested dictionaries and lists."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = (
            holder
            if isinstance(holder, dict)
            else range(len(holder))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
        if len(found) > 5000:
            break
    return found


def _nest(random: random.Random) -> Any:
    value: Any = random.choice(SCALARS)
    for _ in range(random.choice([1, 2, 40])):
        value = random.choice(([value], {"x": value}, [value, 1]))
    return value


def _text(random: random.Random, text: str) -> str:
    place = random.randrange(len(text) + 1)
    return random.choice(
        (
            text[:place],
            text[:place] + random.choice("_x:./\0\né") + text[place:],
            text * 2,
            text.upper(),
        )
    )


def mutate_bytes(random: random.Random, content: bytes) -> bytes:
    """A copy with a few bits, bytes, tokens or stretches changed."""
    found = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        start = random.randrange(len(found) + 1)
        stop = min(len(found), start + random.choice([1, 1, 2, 8, 64]))
        what = random.randrange(7)
        if what == 0 and found:
            found[start % len(found)] ^= 1 << random.randrange(8)
        elif what == 1:
            del found[start:stop]
        elif what == 2:
            found[start:start] = found[start:stop]
        elif what == 3:
            found[start:stop] = random.randbytes(stop - start)
        elif what == 4 and random.random() < 0.3:
            del found[start:]
        elif what == 5:
            other = random.randrange(len(found) + 1)
            found[start:start] = found[other : other + 32]
        else:
            found[start:stop] = random.choice(TOKENS)
    return bytes(found)


def make_parts(scene: Scene, folder: Path, total: int, slices: int) -> list[Part]:
    """All kinds of files, with about `total` cases; each kind in `slices` parts."""
    shares: list[tuple[str, float, Callable[[Path], Callable[[int], object]]]] = [
        ("recipe text", 0.2, lambda place: _recipe_text(scene, place)),
        ("recipe values", 0.2, lambda place: _recipe_values),
        ("index", 0.25, lambda place: _index(scene)),
        ("config and weights", 0.15, lambda place: _config(scene, place)),
        ("run files", 0.15, lambda place: _run_files(scene, place)),
        ("speed-up files", 0.05, lambda place: _speedup_files(scene, place)),
    ]
    parts = []
    for name, share, make in shares:
        count = max(1, round(total * share / slices))
        for index in range(slices):
            place = folder / f"{name.replace(' ', '-')}-{index}"
            place.mkdir(parents=True)
            cases = range(index * count, (index + 1) * count)
            parts.append(Part(f"{name.replace(' ', '-')}", make(place), cases))
    return parts


MINIMAL = {
    "name": "x",
    "data": {"name": "karate", "options": {"features": "none"}},
    "model": {"name": "resgcn", "num_layers": 3, "t": "per-depth:2", "options": {"alpha": 0.1}},
    "optimizer": {"lr": 0.1, "weight_decay": 1e-4},
    "training": {"epochs": 2, "clusters": 4, "batch_size": 2},
    "seeds": [0, 1],
    "speedup": {"targets": [0.5], "seeds": [1]},
}


def _recipe_values(case: int) -> None:
    value = mutate_value(random.Random(f"values {case}"), MINIMAL)
    try:
        Recipe.model_validate(value).to_yaml()
    except ValidationError as error:
        raise UserError(str(error)) from None


def _recipe_text(scene: Scene, place: Path) -> Callable[[int], object]:
    text = yaml.safe_dump(MINIMAL, sort_keys=False).encode()
    file = place / "recipe.yaml"

    def attempt(case: int) -> None:
        draw = random.Random(f"text {case}")
        if draw.random() < 0.7:
            file.write_bytes(mutate_bytes(draw, text))
            load_recipe(file)
        else:
            override = mutate_bytes(draw, draw.choice([b"model.num_layers=3", b"seeds=[1, 2]"]))
            file.write_bytes(text)
            load_recipe(file, [override.decode("utf-8", "replace")])

    return attempt


def _mutated(draw: random.Random, content: bytes) -> bytes:
    """Of JSON: bytes or values."""
    if draw.random() < 0.4:
        return mutate_bytes(draw, content)
    return json.dumps(mutate_value(draw, json.loads(content))).encode()


def _index(scene: Scene) -> Callable[[int], object]:
    content = (scene.zoo / "index.json").read_bytes()

    def attempt(case: int) -> None:
        index = Index.parse(_mutated(random.Random(f"index {case}"), content), "here")
        for name in index.names():
            assert index.entry(name, "here").size >= 0
        Index.parse(index.dump().encode(), "here")

    return attempt


def _config(scene: Scene, place: Path) -> Callable[[int], object]:
    config, weights = place / "config.json", place / "model.safetensors"
    texts = [(scene.zoo / NAME / file.name).read_bytes() for file in (config, weights)]

    def attempt(case: int) -> None:
        draw = random.Random(f"config {case}")
        damaged = draw.random() < 0.8
        config.write_bytes(_mutated(draw, texts[0]) if damaged else texts[0])
        weights.write_bytes(texts[1] if damaged else mutate_bytes(draw, texts[1]))
        load_model(read_config(config), weights)

    return attempt


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and file.suffix not in (".png", ".csv", ".lock")
    )


def _run_files(scene: Scene, place: Path) -> Callable[[int], object]:
    """Of runs with and without checksums; with them, the change is seen before the content."""
    data = load_data("karate")
    runs = []
    for index, source in enumerate(
        [scene.run, scene.interrupted, FROZEN / "tiny.karate", FROZEN / "tiny.karate"]
    ):
        run = Path(shutil.copytree(source, place / f"run-{index}"))
        if index == 3:  # as if seed 1 were still trained
            (run / "seed-1" / "result.json").unlink()
            _write_old_checkpoint(scene, run)
        runs.append((run, [(file, file.read_bytes()) for file in _files(run)]))
    trainers: dict[str, Trainer] = {}

    def attempt(case: int) -> None:
        draw = random.Random(f"run {case}")
        run, files = draw.choice(runs)
        file, content = draw.choice(files)
        json_like = file.suffix == ".json"
        file.write_bytes(_mutated(draw, content) if json_like else mutate_bytes(draw, content))
        try:
            read_run(run, data, trainers)
        finally:
            file.write_bytes(content)

    return attempt


def read_run(path: Path, data: Any, trainers: dict[str, Trainer]) -> None:
    """Read all of a run, as resuming and publishing do."""
    folder = RunFolder.open(path, data, "training")
    for seed in folder.recipe.seeds[:3]:
        if folder.result(seed) is None:
            name = f"seed-{seed}/checkpoint.safetensors"
            key = folder.recipe.to_yaml()
            if key not in trainers and len(trainers) < 8:
                trainers[key] = Trainer(folder.recipe, data, 1)
            if key in trainers:
                restore(folder, name, trainers[key], Best())
                folder.metrics(seed, trainers[key].epoch)
        else:
            folder.metrics(seed)
            folder.load(f"seed-{seed}/model.safetensors")
    publishing._finished(folder)
    folder.load("model.safetensors")
    try:
        publishing._config(folder, data, "fp32", "x", folder.recipe.seeds[0])
    except ValidationError as error:  # `publish` puts it into words
        raise UserError(str(error)) from None


def _write_old_checkpoint(scene: Scene, run: Path) -> None:
    """A checkpoint without a checksum, of a run's recipe, as version 0.1 wrote it."""
    from dgl_deepgnn.files import save_tensors

    folder = RunFolder.open(run)
    trainer = Trainer(folder.recipe, load_data("karate"), 1)
    line = folder.metrics(1)[1]
    tensors, _ = trainer.state()
    weights = {f"best.{k}": v.clone() for k, v in trainer.model.state_dict().items()}
    metrics = {part: line[part] for part in ("train", "val", "test")}
    facts = {
        "counters": {"epoch": 2, "step": 2},
        "best": {"epoch": 2, "metrics": metrics},
        "seconds": 0.1,
    }
    save_tensors(run / "seed-1" / "checkpoint.safetensors", {**tensors, **weights}, facts)


def _speedup_files(scene: Scene, place: Path) -> Callable[[int], object]:
    records = []
    for index, source in enumerate([scene.speedup, FROZEN / "tiny.karate.speedup"]):
        record = Path(shutil.copytree(source, place / f"record-{index}"))
        records.append((record, [(file, file.read_bytes()) for file in _files(record)]))

    def attempt(case: int) -> None:
        draw = random.Random(f"record {case}")
        record, files = draw.choice(records)
        file, content = draw.choice(files)
        json_like = file.suffix == ".json"
        file.write_bytes(_mutated(draw, content) if json_like else mutate_bytes(draw, content))
        try:
            folder = RunFolder.open(record, kind="speed-up record")
            publishing._read_speedup(folder, record)
            for trial in (record / "trials").iterdir():
                folder.read(f"trials/{trial.name}", Trial)
        finally:
            file.write_bytes(content)

    return attempt
