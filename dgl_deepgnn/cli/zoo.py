"""The commands of the zoo: publish, models, download, evaluate, predict."""

from __future__ import annotations

import json
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgl_deepgnn import hub
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub.index import Entry
from dgl_deepgnn.recipe import parse_override
from dgl_deepgnn.speedup.report import describe_ratio
from dgl_deepgnn.wording import counted, printable

__all__ = ["AllowCode", "add_commands", "models_table", "print_warning"]

Name = Annotated[str, typer.Argument(help="A model's name, see `dgl-deepgnn models`.")]
Zoo = Annotated[
    str | None,
    typer.Option(
        help="The zoo: a folder or an http(s) address. By default DGL_DEEPGNN_ZOO, else the "
        "zoo that comes with the package."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code", help="Let the recipe's data run code (python:...): it is trusted."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Dtype(StrEnum):
    """How weights are stored."""

    fp32 = "fp32"
    fp16 = "fp16"


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for name, command in (
        ("publish", publish_command),
        ("refresh", refresh_command),
        ("models", models_command),
        ("download", download_command),
        ("evaluate", evaluate_command),
        ("predict", predict_command),
    ):
        app.command(name)(command)


def publish_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    speedup: Annotated[
        Path | None, typer.Option(help="Folder of its speed-up record; by default RUN.speedup.")
    ] = None,
    zoo: Zoo = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the model of that name.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option(help="How the weights are stored.")] = Dtype.fp32,
    licence: Annotated[
        str, typer.Option(help="Of the weights, as an SPDX identifier.")
    ] = "Apache-2.0",
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Turn a run and its speed-up record into a model of a zoo."""
    folder = hub.publish(
        run,
        speedup,
        zoo,
        replace=replace,
        dtype=dtype.value,
        licence=licence,
        allow_code=allow_code,
    )
    _print(f"Published: {folder}", {"folder": str(folder)}, as_json)


def refresh_command(name: Name, zoo: Zoo = None, as_json: Json = False) -> None:
    """Write a published model's config and card anew; weights and results stay.

    For models of version 0.1: it adds the record of how raw graphs are prepared.
    """
    folder = hub.refresh(name, zoo)
    _print(f"Refreshed: {folder}", {"folder": str(folder)}, as_json)


def models_command(
    pattern: Annotated[str, typer.Argument(help="For example 'resgcn*.cora'.")] = "*",
    zoo: Zoo = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, as in README.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the published models."""
    place = hub.open_zoo(zoo)
    index = place.index()
    if index.models and not set("*?[") & set(pattern):
        index.entry(pattern, place.location)  # an unknown name raises, with the nearest one
    entries = {name: index.models[name] for name in index.names(pattern)}
    content = {name: entry.model_dump(mode="json") for name, entry in entries.items()}
    if entries:
        text = models_table(entries, markdown)
    elif index.models:
        text = f"{place.location}: no such model."
    else:
        text = f"The zoo {place.location} is empty."
    _print(text, content, as_json)


def download_command(name: Name, zoo: Zoo = None, as_json: Json = False) -> None:
    """Put a model's files into the cache, checked, and print where they are."""
    folder = hub.download(name, zoo)
    _print(str(folder), {"folder": str(folder)}, as_json)


def evaluate_command(
    name: Name,
    zoo: Zoo = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="The model's data, where its config may not name it: file:graphs.bin, "
            "csv:FOLDER, dgl:CLASS, ... What is given here is trusted, even to run code."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", help="Option of that data, e.g. --option seed=1. Repeatable."),
    ] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compute a model's metric anew and compare it with the record; exit code 1 if it differs."""
    if options and data is None:
        raise UserError("--option belongs to data that --data names.")
    result = hub.evaluate(
        name,
        zoo,
        data=data,
        options=dict(parse_override(text, "--option") for text in options or []),
        device=device,
    )
    verdict = "agrees with" if result["agrees"] else "DIFFERS from"
    text = (
        f"{name} on {result['data']}, test part of seed {result['seed']}: {result['metric']} "
        f"{result['recomputed']:.6g} {verdict} the record, {result['recorded']:.6g}."
    )
    _print(text, result, as_json)
    if not result["agrees"]:
        raise typer.Exit(1)


def predict_command(
    name: Name,
    graph: Annotated[Path, typer.Option(help="File written by dgl.save_graphs.")],
    output: Annotated[Path, typer.Option(help="CSV to write.")],
    zoo: Zoo = None,
    prepared: Annotated[
        bool,
        typer.Option("--prepared", help="Take the graphs as they are: they are prepared already."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the CSV.")] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Predict for every node, edge or graph of a file of raw graphs, and write a CSV."""
    with warnings.catch_warnings():
        warnings.showwarning = print_warning
        rows = hub.predict(name, graph, output, zoo, prepared=prepared, force=force, device=device)
    _print(
        f"{counted(rows, 'prediction')}: {output}", {"rows": rows, "output": str(output)}, as_json
    )


def models_table(entries: dict[str, Entry], markdown: bool = False) -> str:
    """Table of models: result, depth, size, speed-up."""
    pairs = list(dict.fromkeys(pair for entry in entries.values() for pair in entry.speedup))
    header = ["model", "test metric", "mean", "std", "seeds", "depth", "parameters", "size"]
    rows = [[*header, *[f"speed-up {pair}" for pair in pairs]]]
    for name, entry in entries.items():
        row = [name, entry.metric, f"{entry.mean:.4f}"]
        row += ["-" if entry.std is None else f"{entry.std:.4f}", str(entry.n)]
        row += [str(entry.depth), f"{entry.parameters:,}", f"{entry.size / 1e6:.2f} MB"]
        for pair in pairs:
            ratio = entry.speedup.get(pair)
            row.append("-" if ratio is None else describe_ratio(ratio.model_dump()))
        rows.append(row)
    if markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line for people; for ``warnings.showwarning``."""
    print(f"Warning: {printable(str(message))}", file=sys.stderr)


def _print(text: str, content: Any, as_json: bool) -> None:
    print(json.dumps(content, indent=2) if as_json else printable(text))
