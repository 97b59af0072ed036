"""Recipes: what to train, as strict YAML."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import read_limited
from dgl_deepgnn.nn.body import MODELS, constructor_arguments
from dgl_deepgnn.nn.inference import memory_size
from dgl_deepgnn.operator.schedule import interpolation_schedule
from dgl_deepgnn.optim import OptimizerName
from dgl_deepgnn.options import checked_option
from dgl_deepgnn.registry import did_you_mean, load_plugins
from dgl_deepgnn.strict_yaml import StrictYAMLError, read_yaml
from dgl_deepgnn.wording import quoted

__all__ = [
    "Recipe",
    "RecipeError",
    "data_slug",
    "dotted",
    "json_schema",
    "list_recipes",
    "load_recipe",
    "make_recipe",
]

MAX_BYTES = 100_000
"""Of a recipe's file."""
MAX_CHANGE = 300
"""Letters of what `Recipe.changed` says of one key."""
MAX_CHAIN = 10
"""Recipes that extend each other."""
SCHEMA_COMMENT = "# yaml-language-server: $schema=schema.json\n"


class RecipeError(UserError):
    """A recipe that cannot be run; the message names the file, the key and what is allowed."""

    page = "docs/recipes.md"


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return text


Change = Annotated[str, Field(max_length=MAX_CHANGE), AfterValidator(_check_printable)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _not_a_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # YAML reads yes, no, on and off as truth values, which would pass for 1 and 0.
        switch = cls.model_fields[info.field_name or ""].annotation is bool
        if isinstance(value, bool) and not switch:
            raise ValueError(f"a truth value does not belong here, got {value}")
        return value


class DataSection(_Section):
    """What to train on."""

    name: str = Field(max_length=4096)
    """A data set's name, see docs/recipes.md."""
    options: dict[str, JsonValue] = {}
    """Arguments of its loader."""


class ModelSection(_Section):
    """The network; widths of input and output, and the head, come from the data."""

    name: str = "resgcn"
    """A registered model: resgcn, resgraphsage, resgin, or a plugin's."""
    hidden_feats: int = Field(64, ge=1, le=10**6)
    num_layers: int = Field(64, ge=1, le=10**5)
    t: float | str = "per-depth"
    """Residual aggregation: a number in (0, 1], `per-depth:c` or `harmonic:c`."""
    residual: Literal["plain", "scaled", "fixup", "initial"] | None = "fixup"
    init: Literal["critical", "he", "glorot"] = "critical"
    dropout: float = Field(0.0, ge=0, lt=1)
    norm_layer: Literal["none", "layer", "batch"] = "none"
    options: dict[str, JsonValue] = {}
    """Further arguments of the model's constructor: norm, alpha, readout, mlp_layers, ..."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        load_plugins()
        MODELS[name]  # raises, with the nearest names
        return name

    @field_validator("t", mode="before")
    @classmethod
    def _check_t(cls, t: Any) -> Any:
        try:
            interpolation_schedule(t, num_layers=1)
        except DGLError as error:
            raise ValueError(str(error)) from None
        return t

    @model_validator(mode="after")
    def _check_options(self) -> ModelSection:
        known = constructor_arguments(MODELS[self.name])
        given_elsewhere = {"in_feats", "out_feats", "head", "edge_feats", *type(self).model_fields}
        allowed = sorted(set(known) - given_elsewhere)
        for key, value in self.options.items():
            if key not in allowed:
                raise ValueError(f"{self.name} has no option {key!r}. {did_you_mean(key, allowed)}")
            try:
                self.options[key] = checked_option(known[key], value)
            except ValueError as error:
                raise ValueError(f"option {key!r}: {error}") from None
        return self

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments that do not depend on the data."""
        return {**self.model_dump(exclude={"name", "options"}), **self.options}


class WeightDecay(_Section):
    """Weight decay by parameter group."""

    branches: float = Field(0.0, ge=0)
    """Convolutions between the first and the last."""
    ends: float = Field(0.0, ge=0)
    """The first and the last convolution, and the head."""


class OptimizerSection(_Section):
    """How the weights are updated."""

    name: OptimizerName = "adam"
    lr: float = Field(3e-3, gt=0)
    transfer: bool = False
    """Whether `lr` is meant for width 32 and 16 residual branches, and each parameter's learning
    rate follows from it for the model's size, see docs/transfer.md."""
    weight_decay: WeightDecay = WeightDecay()
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient; null leaves it."""

    @model_validator(mode="before")
    @classmethod
    def _one_number_for_all(cls, value: Any) -> Any:
        # YAML 1.1 reads 1e-4 as a string; pydantic makes a number of it.
        if isinstance(value, Mapping) and isinstance(value.get("weight_decay"), int | float | str):
            decay = value["weight_decay"]
            return {**value, "weight_decay": {"branches": decay, "ends": decay}}
        return value


class ScheduleSection(_Section):
    """Learning rate over time."""

    name: Literal["none", "cosine"] = "none"
    """`cosine` falls from the full learning rate towards zero after the last step."""
    warmup_steps: int = Field(0, ge=0, lt=2**63)
    """Steps over which the learning rate rises linearly."""


class BatchingSection(_Section):
    """What one step of training sees. See docs/scaling.md."""

    kind: Literal["full", "graphs", "clusters", "shadow", "saint"] = "full"
    """All at once; some of many graphs; or parts of one large graph: some of its METIS clusters
    (Cluster-GCN), surroundings of some of its nodes (ShaDow), nodes of random walks (SAINT)."""
    size: int | None = Field(None, ge=1, lt=2**63)
    """Graphs, clusters, nodes that are learned from, or nodes that are walked over, per step."""
    parts: int | None = Field(None, ge=2, lt=2**31)
    """Of `clusters`: into how many the graph is cut."""
    fanouts: list[int] | None = Field(None, min_length=1, max_length=20)
    """Of `shadow`: neighbours that are drawn in each hop; by default two hops of 10."""
    walk_length: int | None = Field(None, ge=0, le=1000)
    """Of `saint`: steps of a walk, by default 4; 0 draws single nodes, by their degree."""
    workers: int = Field(0, ge=0, le=256)
    """Of `shadow` and `saint`: processes that draw the next steps meanwhile."""
    memory: str | None = Field(None, max_length=20)
    """Evaluate layer by layer within this memory, such as 2GB; null: in one forward pass."""

    @model_validator(mode="after")
    def _check(self) -> BatchingSection:
        needed = {"graphs": ["size"], "clusters": ["size", "parts"], "shadow": ["size"]}
        needed["saint"] = ["size"]
        optional = {"shadow": {"fanouts", "workers"}, "saint": {"walk_length", "workers"}}
        for key in ("size", "parts", "fanouts", "walk_length", "workers"):
            given = getattr(self, key) not in (None, 0) or (
                key == "walk_length" and self.walk_length == 0
            )
            if key in needed.get(self.kind, ()) and not given:
                raise ValueError(f"kind {self.kind} needs {key}")
            allowed = {*needed.get(self.kind, ()), *optional.get(self.kind, ())}
            if given and key not in allowed:
                raise ValueError(f"{key} does nothing with kind {self.kind}: remove it")
        if self.parts is not None and (self.size or 0) > self.parts:
            raise ValueError("size is larger than the number of clusters (parts)")
        if any(fanout < 1 for fanout in self.fanouts or ()):
            raise ValueError("fanouts are whole numbers of at least 1")
        return self

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, memory: str | None) -> str | None:
        if memory is not None:
            memory_size(memory)
        return memory


class TrainingSection(_Section):
    """How long, in which batches, and when to stop."""

    epochs: int | None = Field(None, ge=1, lt=2**63)
    steps: int | None = Field(None, ge=1, lt=2**63)
    """Instead of epochs."""
    batching: BatchingSection = BatchingSection()
    patience: int | None = Field(None, ge=1, lt=2**63)
    """Epochs without a better validation score after which training stops; null: never."""
    select_by: Literal["metric", "loss"] = "metric"
    """Which validation score says what epoch, and what seed, is best: the task's metric, or the
    loss, which is less coarse where validation items are few."""
    evaluate_every: int = Field(1, ge=1, lt=2**63)
    """Epochs between two validations."""
    class_weights: Literal["none", "balanced"] = "none"

    @model_validator(mode="after")
    def _check(self) -> TrainingSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, and set the other to null")
        return self

    @model_validator(mode="before")
    @classmethod
    def _older_keys(cls, value: Any) -> Any:
        """What version 0.1 called `batch_size` and `clusters`."""
        if not isinstance(value, Mapping) or not {"batch_size", "clusters"} & set(value):
            return value
        rest = {key: value[key] for key in value if key not in ("batch_size", "clusters")}
        batching = rest.get("batching", {})
        if not isinstance(batching, Mapping):
            return rest
        size, parts = value.get("batch_size"), value.get("clusters")
        if parts is not None and size is None and "size" not in batching:
            raise ValueError("clusters needs batch_size: how many parts a step takes")
        named = {"kind": "graphs", **batching} if size is not None else dict(batching)
        if named.get("kind") == "full":
            named["kind"] = "graphs"
        if size is not None:
            named["size"] = size
        if parts is not None:
            named |= {"kind": "clusters", "parts": parts}
        return {**rest, "batching": named}


class SpeedupSection(_Section):
    """The record of early-training speed-ups."""

    steps: int = Field(100, ge=3, le=10**6)
    """Budget of every run."""
    targets: list[float] = Field([0.5, 0.1], min_length=1, max_length=100)
    """Target training losses, as fractions of the loss of a uniform guess."""
    learning_rates: list[float] = Field(
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], min_length=1, max_length=100
    )
    """Grid from which every arm gets its own; widened where the best lies on its edge."""
    seeds: list[Seed] = Field([0, 1, 2, 3, 4], min_length=1, max_length=1000)
    selection_seeds: list[Seed] = Field([1000, 1001, 1002], min_length=1, max_length=100)
    """Seeds on which learning rates are chosen; none of them is reported."""

    @model_validator(mode="after")
    def _check(self) -> SpeedupSection:
        if set(self.selection_seeds) & set(self.seeds):
            raise ValueError("selection_seeds must not be among the reported seeds")
        for key in ("seeds", "selection_seeds", "targets", "learning_rates"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key} must differ")
        if any(not 0 < target < 1 for target in self.targets):
            raise ValueError("targets are fractions of the chance-level loss: between 0 and 1")
        if any(rate <= 0 for rate in self.learning_rates):
            raise ValueError("learning_rates must be positive")
        if len({f"{rate:.3g}" for rate in self.learning_rates}) < len(self.learning_rates):
            raise ValueError("learning_rates must differ in their first three digits")
        return self

    @model_validator(mode="before")
    @classmethod
    def _older_key(cls, value: Any) -> Any:
        """What versions to 0.2 called `selection_seed`, the only one.

        Their run folders hold every default: those are to be today's, so that they belong to the
        same recipe.
        """
        if not isinstance(value, Mapping) or "selection_seed" not in value:
            return value
        rest = {key: value[key] for key in value if key != "selection_seed"}
        if rest.get("learning_rates") == [1e-4, 1e-3, 1e-2]:
            del rest["learning_rates"]
        first = value["selection_seed"]
        if first == 1000:
            return rest
        return {"selection_seeds": [first], **rest}


class ParentSection(_Section):
    """The published model whose layers a training starts from, all but the head."""

    name: str = Field(max_length=4096)
    """Its name, as `from_pretrained` takes it."""
    zoo: str | None = Field(None, max_length=4096)
    """Where it is; null: the zoo that `from_pretrained` looks in."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Of its weights, so that the same recipe starts from the same model; null: whatever is
    there."""
    body_rate: float = Field(0.1, ge=0, le=1)
    """Learning rate of its layers over that of the head; 0 freezes them."""


class Recipe(_Section):
    """One training, complete: data, model, optimizer, length, seeds, speed-up record."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """`<architecture><depth>.<dataset>`; by default the file's name."""
    description: str = Field("", max_length=10_000)
    data: DataSection
    model: ModelSection
    parent: ParentSection | None = None
    """To fine-tune: see `dgl-deepgnn finetune`."""
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection
    seeds: list[Seed] = Field([0], min_length=1, max_length=1000)
    speedup: SpeedupSection = SpeedupSection()
    changed: list[Change] = Field([], max_length=1000, exclude=True)
    """What was set of the network, of which the name says nothing; see `load_recipe`."""

    @property
    def title(self) -> str:
        """Name under which results are reported.

        Examples
        --------
        >>> load_recipe("resgcn64.digits", ["model.num_layers=16"]).title
        'resgcn64.digits, changed: model.num_layers=16'
        """
        return f"{self.name}, changed: {', '.join(self.changed)}" if self.changed else self.name

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        return self

    def to_yaml(self) -> str:
        """YAML that loads to the same recipe, every default written out.

        Raises
        ------
        RecipeError
            If it would be longer, or nested deeper, than what is read: a recipe made in Python
            has no bounds of its own.
        """
        content = self.model_dump(mode="json")
        if self.changed:
            content["changed"] = self.changed
        text = yaml.safe_dump(content, sort_keys=False)
        try:
            if len(text.encode()) > MAX_BYTES:
                raise StrictYAMLError(f"written out, it has more than {MAX_BYTES:,} bytes")
            read_yaml(text)
        except StrictYAMLError as error:
            raise RecipeError(f"recipe {self.name}: {error}.") from None
        return text


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package.

    Examples
    --------
    >>> "resgcn64.digits" in list_recipes()
    True
    """
    folder = files("dgl_deepgnn.recipes")
    return sorted(f.name[: -len(".yaml")] for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Parameters
    ----------
    source : str or Path
        Name of a recipe that comes with the package, or the path of a YAML file. A recipe with
        the key ``extends`` (a name, or a path relative to the file) starts from that one.
    overrides : dict or list of str
        Values to set, by dotted key: ``{"model.num_layers": 256}`` or ``["model.num_layers=256"]``.
        Where they make another network but set no other name, `Recipe.changed` lists how.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    RecipeError
        If there is no such recipe, it is not valid YAML, a key is unknown, a value of the
        wrong type or out of range, or a combination is impossible.

    Examples
    --------
    >>> load_recipe("resgcn64.digits", ["model.num_layers=256"]).model.num_layers
    256
    >>> load_recipe("resgcn64.digits", ["model.num_layer=256"])
    Traceback (most recent call last):
    ...
    dgl_deepgnn.recipe.RecipeError: recipe resgcn64.digits: model.num_layer: unknown key. ...
    """
    content, name, where = _read(str(source), [])
    content.setdefault("name", name)
    return make_recipe(content, overrides, where)


def make_recipe(
    content: dict[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    where: str = "The recipe",
) -> Recipe:
    """Check a recipe that does not come from a file.

    Parameters
    ----------
    content : dict
        Sections by name.
    overrides
        As in :func:`load_recipe`.
    where : str
        What errors call it.

    Returns
    -------
    Recipe
        The checked recipe.

    Raises
    ------
    RecipeError
        As :func:`load_recipe`.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    if not isinstance(overrides, Mapping):
        overrides = dict(parse_override(text) for text in overrides)
    before = copy.deepcopy(content)
    for key, value in overrides.items():
        if key.partition(".")[0] == "changed":
            raise RecipeError(f"--set {key}: this says what was set, and is not set itself.")
        _set(content, key, value)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error)}") from None
    if overrides:
        recipe.changed = [] if "name" in overrides else _changed(before, recipe)
    return recipe


def json_schema() -> str:
    """JSON Schema of recipes, as ``recipes/schema.json`` holds it for editors."""
    schema = Recipe.model_json_schema()
    del schema["properties"]["changed"]  # not for people to write
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A recipe (name or path) to start from.",
    }
    sections = schema["$defs"]
    # One number stands for every group.
    decay = sections["OptimizerSection"]["properties"]["weight_decay"]
    groups = {"$ref": decay.pop("$ref")}
    decay["anyOf"] = [{"type": "number", "minimum": 0}, groups]
    # The file's name gives the name, and what is missing may come from `extends`.
    for part in (schema, *sections.values()):
        part.pop("required", None)
    return json.dumps(schema, indent=2) + "\n"


def _read(source: str, chain: list[str]) -> tuple[dict[str, Any], str, str]:
    """Content of a recipe with its `extends` merged in, its name, and where it was found."""
    path = Path(source)
    packaged = source in list_recipes()
    if packaged:
        text = files("dgl_deepgnn.recipes").joinpath(f"{source}.yaml").read_text("utf-8")
        name, where, place = source, f"recipe {source}", f"recipe {source}"
    elif path.suffix in (".yaml", ".yml") or os.path.exists(source):
        try:
            text = read_limited(path, MAX_BYTES).decode("utf-8")
        except (OSError, ValueError) as error:
            raise RecipeError(f"{source}: cannot be read as a recipe: {error}") from None
        name, where, place = path.stem, str(path), str(path.resolve())
    else:
        raise RecipeError(
            f"There is no recipe {source!r}. {did_you_mean(source, list_recipes())} "
            "A recipe of your own is given by its path, ending in .yaml."
        )
    if place in chain:
        circle = " -> ".join([*chain, place])
        raise RecipeError(f"{where}: recipes extend each other in a circle: {circle}.")
    if len(chain) >= MAX_CHAIN:
        raise RecipeError(f"{where}: more than {MAX_CHAIN} recipes extend each other.")
    try:
        content = read_yaml(text)
    except StrictYAMLError as error:
        raise RecipeError(f"{where}: {error}.") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: a recipe is a mapping of keys, such as data, model, training.")
    base = content.pop("extends", None)
    if base is None:
        return content, name, where
    if not isinstance(base, str):
        raise RecipeError(
            f"{where}: extends: expected a recipe's name or path, got {quoted(base)}."
        )
    beside = str(path.parent / base)
    parent = beside if not packaged and os.path.isfile(beside) else base
    merged, _, _ = _read(parent, [*chain, place])
    merged.pop("name", None)
    merged.pop("description", None)
    return _merge(merged, content), name, where


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def parse_override(text: str, flag: str = "--set") -> tuple[str, Any]:
    """Key and value of ``key=value``, the value read as YAML.

    Raises
    ------
    RecipeError
        If it is not of that form; the message names the flag that it was given by.

    Examples
    --------
    >>> parse_override("model.num_layers=256")
    ('model.num_layers', 256)
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"{flag} {text}: expected key=value, for example model.num_layers=256.")
    try:
        return key.strip(), read_yaml(value)
    except StrictYAMLError as error:
        raise RecipeError(f"{flag} {text}: {error}.") from None


def _changed(before: dict[str, Any], recipe: Recipe) -> list[str]:
    """What differs in the network from a recipe's content before it was overridden."""
    try:
        base = Recipe.model_validate({**before, "training": recipe.training.model_dump()})
    except ValidationError:  # it became a recipe only by what was set
        return recipe.changed
    old, new = (dotted(some.model.model_dump(mode="json"), "model.") for some in (base, recipe))
    changed = {entry.partition("=")[0]: entry for entry in base.changed}
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            text = yaml.safe_dump(new.get(key), default_flow_style=True).partition("\n")[0]
            changed[key] = f"{key}={text}"[:MAX_CHANGE]
    return list(changed.values())


def data_slug(name: str) -> str:
    """What a recipe's name calls a data set: the last word of a path or a family.

    Examples
    --------
    >>> data_slug("file:here/my graph.bin"), data_slug("tu:MUTAG")
    ('my-graph', 'MUTAG')
    """
    return re.sub(r"[^A-Za-z0-9_]+", "-", Path(name.rpartition(":")[2]).stem).strip("-") or "data"


def dotted(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, as ``--set`` names them.

    Examples
    --------
    >>> dotted({"model": {"t": 1.0, "options": {}}, "seeds": [0]})
    {'model.t': 1.0, 'seeds': [0]}
    """
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        values |= dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return values


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = content.setdefault(parent, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {key}={value}: {parent} has no keys of its own.")
        content = child
    content[last] = value


def _explain(error: ValidationError) -> str:
    """All problems, one a line: key, what was expected, the nearest valid name."""
    problems = []
    for detail in error.errors():
        location = [str(part) for part in detail["loc"]]
        key = ".".join(location) or "the recipe"
        kind, given = detail["type"], detail["input"]
        section: Any = Recipe
        for part in location[:-1]:
            fields = getattr(section, "model_fields", {})
            section = fields[part].annotation if part in fields else None
        if kind == "extra_forbidden":
            text = f"unknown key. {did_you_mean(location[-1], list(section.model_fields))}"
        elif kind == "missing":
            text = "this key is missing."
        elif kind == "value_error":
            text = detail["msg"].removeprefix("Value error, ")
            text += "" if text.endswith((".", "?")) else "."
        elif kind in ("model_type", "dict_type"):
            text = f"a mapping of keys belongs here, got {quoted(given)}."
        else:
            text = detail["msg"]
            if kind == "literal_error":
                field = section.model_fields[location[-1]]
                text += " or null" if type(None) in get_args(field.annotation) else ""
            text += f", got {quoted(given)}."
        problems.append(f"{key[-200:]}: {text[:1000]}")
    return "\n".join(problems[:20])
