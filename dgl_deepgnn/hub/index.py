"""The index of a zoo: which models it holds, with size and SHA-256 of every file."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pooch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import read_limited
from dgl_deepgnn.hub.errors import ZooError, explain
from dgl_deepgnn.registry import did_you_mean
from dgl_deepgnn.wording import quoted

__all__ = [
    "CONFIG",
    "FORMAT",
    "INDEX",
    "MAX_INDEX",
    "MAX_JSON",
    "METRICS",
    "WEIGHTS",
    "Entry",
    "FileFacts",
    "Index",
    "check_file",
    "parse_json",
    "read_json",
]

FORMAT = 1
"""Of index.json."""
INDEX = "index.json"
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"
MAX_INDEX = 4 * 2**20
MAX_JSON = 16 * 2**20
"""Bytes that an index, and another JSON file, may have."""
MAX_KEYS = 10_000
"""Keys of a JSON object, so that few are wrong at once: each takes its time to be explained."""
MAX_FILE = 2**36
"""Bytes that any file may have."""
MAX_FILES = 64
"""Files of a model."""


def check_component(text: str) -> str:
    """Refuse what is not the plain name of a file or folder: it becomes a part of a path.

    Examples
    --------
    >>> check_component("resgcn64.cora")
    'resgcn64.cora'
    >>> check_component("../secrets")
    Traceback (most recent call last):
    ...
    ValueError: the name '../secrets' leads out of its folder (..)
    """
    if ":" in text:
        raise ValueError(f"the name {text!r} changes the scheme or drive (:)")
    if text.startswith(("/", "\\", "~")):
        raise ValueError(f"the name {text!r} is an absolute path")
    if ".." in text:
        raise ValueError(f"the name {text!r} leads out of its folder (..)")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError(
            f"the name {text!r} is not allowed; names consist of letters, digits, '.', '_' and "
            "'-', and start with a letter or digit"
        )
    return text


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


def _check_words(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    return text


Component = Annotated[str, AfterValidator(check_component)]
Text = Annotated[str, Field(max_length=500), AfterValidator(_check_printable)]
Pair = Annotated[Text, AfterValidator(_check_words)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class FileFacts(_Strict):
    """Size in bytes and SHA-256 (hex) of a file."""

    size: int = Field(ge=0, le=MAX_FILE)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Facts of a file that exists."""
        return cls(size=path.stat().st_size, sha256=pooch.file_hash(str(path)))

    def match(self, path: Path) -> bool:
        """Whether there is such a file and these are its facts."""
        return path.is_file() and path.stat().st_size == self.size and FileFacts.of(path) == self


class Ratio(_Strict):
    """Speed-up: ratio of median steps, its 95 % interval, and whether it is only a bound."""

    ratio: float | None
    low: float | None
    high: float | None
    bound: Literal["lower", "upper"] | None

    @model_validator(mode="after")
    def _check(self) -> Ratio:
        if len({number is None for number in (self.ratio, self.low, self.high)}) > 1:
            raise ValueError("ratio, low and high are all numbers or all null")
        return self


class Entry(_Strict):
    """One model: its files, and what a listing shows."""

    files: dict[Component, FileFacts] = Field(max_length=MAX_FILES)
    architecture: Component
    depth: Count
    parameters: Count
    data: Text
    metric: Component
    mean: float
    std: float | None
    n: Count
    target_share: float
    """First target of the speed-up record, as a fraction of the chance-level loss."""
    speedup: dict[Pair, Ratio] = Field(max_length=MAX_FILES)
    """To that target, by pair of arms."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(facts.size for facts in self.files.values())


class Index(_Strict):
    """Content of ``index.json``."""

    format: int = FORMAT
    models: dict[Component, Entry] = {}

    @model_validator(mode="after")
    def _check(self) -> Index:
        if INDEX in self.models:
            raise ValueError(f"no model is called {INDEX}")
        return self

    @classmethod
    def parse(cls, content: bytes, where: str) -> Index:
        """Read an index.

        Parameters
        ----------
        content : bytes
            Of the file.
        where : str
            Its place, for messages.

        Raises
        ------
        ZooError
            If it is not JSON, of a newer format, has unknown keys or values of the wrong
            type, or a name or path that leads out of the zoo.
        """
        return parse_json(cls, content, where)

    def dump(self) -> str:
        """JSON text, models sorted by name."""
        content = self.model_dump(mode="json")
        content["models"] = dict(sorted(content["models"].items()))
        return json.dumps(content, indent=2) + "\n"

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell-style pattern."""
        return sorted(fnmatch.filter(self.models, pattern))

    def entry(self, name: str, where: str) -> Entry:
        """Entry of a model.

        Raises
        ------
        ZooError
            If there is none; the message proposes the nearest name.
        """
        if name not in self.models:
            raise ZooError(
                f"There is no model {name!r} in the zoo {where}. "
                f"{did_you_mean(name, self.names())} Another zoo is given with zoo=, --zoo or "
                "DGL_DEEPGNN_ZOO."
            )
        return self.models[name]


def parse_json(kind: Any, content: bytes, where: str) -> Any:
    """JSON of a versioned format, checked."""
    try:
        raw = json.loads(content)
        if _has_too_many_keys(raw):
            raise ZooError(f"{where} has an object of more than {MAX_KEYS:,} keys.")
    except ZooError:
        raise
    except RecursionError:
        raise ZooError(f"{where} is nested too deeply; it is not a file of a zoo.") from None
    except ValueError:
        start = content[:15].lstrip().lower()
        what = "an HTML page" if start.startswith((b"<!doctype", b"<html")) else "not JSON"
        raise ZooError(f"{where} is {what}. Is this the address of a zoo?") from None
    version = raw.get("format") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise ZooError(f"{where} names no format; it is not a file of a zoo.")
    newest = kind.model_fields["format"].default
    if version < 1:
        raise ZooError(f"{where} has format {quoted(version)}, which there never was.")
    if version > newest:
        raise ZooError(
            f"{where} has format {quoted(version)}, newer than this installation reads ({newest}). "
            "Upgrade it: pip install --upgrade dgl-deepgnn."
        )
    if kind is Index:
        _check_keys(raw, where)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ZooError(f"{where}: {explain(error)}.") from None


def _check_keys(raw: dict[str, Any], where: str) -> None:
    """Stop at the first unknown key of an entry: to explain them all takes its time."""
    models = raw.get("models")
    for name, entry in models.items() if isinstance(models, dict) else ():
        for key in entry if isinstance(entry, dict) else ():
            if key not in Entry.model_fields:
                raise ZooError(f"{where}: models.{name[:100]}.{key[:100]}: unknown key.")


def _has_too_many_keys(content: Any) -> bool:
    if isinstance(content, dict):
        return len(content) > MAX_KEYS or any(map(_has_too_many_keys, content.values()))
    return isinstance(content, list) and any(map(_has_too_many_keys, content))


def read_json(path: Path) -> Any:
    """JSON of a file that anybody may have written, its content not checked.

    Raises
    ------
    ZooError
        If it cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_limited(path, MAX_JSON))
    except (OSError, UserError) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError):
        raise ZooError(f"{path} is damaged: it is not JSON.") from None


def check_file(path: Path, facts: FileFacts) -> None:
    """Hold a file to the index.

    Raises
    ------
    ZooError
        If it is missing, truncated, too long or its hash differs.
    """
    if not path.is_file():
        raise ZooError(f"{path} is missing, though the index lists it. Publish the model anew.")
    size = path.stat().st_size
    if size != facts.size:
        what = "truncated" if size < facts.size else "too long"
        raise ZooError(f"{path} is {what}: {size} bytes, the index says {facts.size}.")
    if not facts.match(path):
        raise ZooError(f"{path} is damaged or was changed: its SHA-256 is not the index's.")
