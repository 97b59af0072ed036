"""The commands of the zoo: publish, models, download, evaluate, predict."""

from __future__ import annotations

import json
import sys
import textwrap
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dgl_deepgnn import hub
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub.index import Entry, Ratio
from dgl_deepgnn.recipe import parse_override
from dgl_deepgnn.speedup.report import describe_ratio
from dgl_deepgnn.wording import counted, fixed, printable

__all__ = ["AllowCode", "add_commands", "models_list", "models_table", "print_warning"]

NAME_WIDTH = 26
"""Of the names in a list: what 80 columns leave."""

Name = Annotated[
    str,
    typer.Argument(
        help="A model's name, see `dgl-deepgnn models`; or user/repo of the Hugging Face Hub."
    ),
]
Zoo = Annotated[
    str | None,
    typer.Option(
        help="The zoo: a folder, an http(s) address or hf://user/repo. By default "
        "DGL_DEEPGNN_ZOO, else the zoo that comes with the package."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Compute layer by layer in chunks, within this memory, such as 2GB; by default in "
        "one forward pass."
    ),
]
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


Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Speedup = Annotated[
    Path | None, typer.Option(help="Folder of its speed-up record; by default RUN.speedup.")
]
StoredAs = Annotated[Dtype, typer.Option(help="How the weights are stored.")]
Licence = Annotated[str, typer.Option(help="Of the weights, as an SPDX identifier.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    for name, command in (
        ("publish", publish_command),
        ("push", push_command),
        ("refresh", refresh_command),
        ("models", models_command),
        ("download", download_command),
        ("evaluate", evaluate_command),
        ("predict", predict_command),
    ):
        app.command(name)(command)


def publish_command(
    run: Run,
    speedup: Speedup = None,
    zoo: Zoo = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the model of that name.")
    ] = False,
    dtype: StoredAs = Dtype.fp32,
    licence: Licence = "Apache-2.0",
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


def push_command(
    run: Run,
    repo: Annotated[str, typer.Argument(help="user/repo, made if need be.")],
    speedup: Speedup = None,
    dtype: StoredAs = Dtype.fp32,
    licence: Licence = "Apache-2.0",
    private: Annotated[
        bool | None, typer.Option(help="Whether a new repository is private.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="To write to, made if need be; by default main.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Turn a run and its speed-up record into a repository of the Hugging Face Hub.

    Who you are, `hf auth login` or the variable HF_TOKEN says.
    """
    address = hub.push(
        run,
        repo,
        speedup=speedup,
        dtype=dtype.value,
        licence=licence,
        allow_code=allow_code,
        private=private,
        branch=branch,
        create_pr=create_pr,
    )
    _print(f"Pushed: {address}", {"address": address}, as_json)


OwnData = Annotated[
    str | None,
    typer.Option(
        help="The model's data, where its config may not name it: file:graphs.bin, "
        "csv:FOLDER, dgl:CLASS, ... What is given here is trusted, even to run code."
    ),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of that data, e.g. --option seed=1. Repeatable."),
]


def data_options(options: list[str] | None, data: str | None) -> dict[str, Any]:
    """Values of --option, which belong to data that --data names."""
    if options and data is None:
        raise UserError("--option belongs to data that --data names.")
    return dict(parse_override(text, "--option") for text in options or [])


def refresh_command(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    zoo: Zoo = None,
    speedup: Annotated[
        Path | None, typer.Option(help="Folder of a new speed-up record to take in.")
    ] = None,
    data: OwnData = None,
    options: DataOptions = None,
    as_json: Json = False,
) -> None:
    """Write a published model's config and card anew; weights and results stay.

    For models of version 0.1: it adds the record of how raw graphs are prepared.
    """
    folder = hub.refresh(name, zoo, data=data, options=data_options(options, data), speedup=speedup)
    _print(f"Refreshed: {folder}", {"folder": str(folder)}, as_json)


def models_command(
    pattern: Annotated[str, typer.Argument(help="For example 'resgcn*.cora'.")] = "*",
    zoo: Zoo = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, as in README.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write them as web pages into this new folder instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the published models."""
    if html is not None:
        page = hub.write_pages(html, zoo, pattern)
        _print(f"Open {page}", {"page": str(page)}, as_json)
        return
    place = hub.open_zoo(zoo)
    index = place.index()
    if index.models and not set("*?[") & set(pattern):
        index.entry(pattern, place.location)  # an unknown name raises, with the nearest one
    entries = {name: index.models[name] for name in index.names(pattern)}
    if as_json:
        content = {name: entry.model_dump(mode="json") for name, entry in entries.items()}
        _print("", content, as_json)
        return
    if markdown and entries:
        text = models_table(entries)
    elif list(entries) == [pattern]:
        lines = _facts(pattern, entries[pattern]).items()
        text = "\n".join(f"{key:26}  {value}" for key, value in lines)
    elif entries:
        text = models_list(entries)
    elif index.models:
        text = f"{place.location}: no such model."
    else:
        text = f"The zoo {place.location} is empty."
    _print(text, None, as_json)


def download_command(name: Name, zoo: Zoo = None, as_json: Json = False) -> None:
    """Put a model's files into the cache, checked, and print where they are."""
    folder = hub.download(name, zoo)
    _print(str(folder), {"folder": str(folder)}, as_json)


def evaluate_command(
    name: Name,
    zoo: Zoo = None,
    data: OwnData = None,
    options: DataOptions = None,
    device: Device = "cpu",
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Compute a model's metric anew and compare it with the record; exit code 1 if it differs."""
    result = hub.evaluate(
        name,
        zoo,
        data=data,
        options=data_options(options, data),
        device=device,
        memory=memory,
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
    output: Annotated[Path, typer.Option(help="CSV, or FILE.parquet, to write.")],
    zoo: Zoo = None,
    prepared: Annotated[
        bool,
        typer.Option("--prepared", help="Take the graphs as they are: they are prepared already."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
    device: Device = "cpu",
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Predict for every node, edge or graph of a file of raw graphs, and write a table."""
    with warnings.catch_warnings():
        warnings.showwarning = print_warning
        rows = hub.predict(
            name,
            graph,
            output,
            zoo,
            prepared=prepared,
            force=force,
            device=device,
            memory=memory,
        )
    _print(
        f"{counted(rows, 'prediction')}: {output}", {"rows": rows, "output": str(output)}, as_json
    )


def models_table(entries: dict[str, Entry]) -> str:
    """Markdown table of models: result, depth, size, speed-up."""
    facts = [_facts(name, entry) for name, entry in entries.items()]
    header = list(dict.fromkeys(key for row in facts for key in row))
    cells = [[row.get(key, "-") for key in header] for row in facts]
    rows = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def models_list(entries: dict[str, Entry]) -> str:
    """The same for a terminal of 80 columns, without intervals; a long name has its own line."""
    pairs = list(dict.fromkeys(pair for entry in entries.values() for pair in entry.speedup))[:2]
    rows = [["model", "metric", "mean", "std", "MB", *pairs]]
    for name, entry in entries.items():
        row = [name, entry.metric, fixed(entry.mean, 4)]
        row += ["-" if entry.std is None else fixed(entry.std, 4), f"{entry.size / 1e6:.2f}"]
        row += [_short(entry.speedup.get(pair)) for pair in pairs]
        rows.append(row)
    # A heading stands on as many lines as it needs beside its column.
    heads = [textwrap.wrap(cell, max(len(cell.split()[0]), 8)) for cell in rows[0]]
    most = max(map(len, heads))
    filled = [[""] * (most - len(head)) + head for head in heads]
    rows[:1] = map(list, zip(*filled, strict=True))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = min(widths[0], NAME_WIDTH)
    lines = []
    for name, *cells in rows:
        values = "  ".join(c.ljust(w) for c, w in zip(cells, widths[1:], strict=True))
        if len(name) > widths[0]:
            lines.append(name)
            name = ""
        lines.append(f"{name:{widths[0]}}  {values}".rstrip())
    lines.append("\nRight: speed-ups to the first target. `dgl-deepgnn models NAME` says more.")
    return "\n".join(lines)


def _facts(name: str, entry: Entry) -> dict[str, str]:
    """What a listing says of a model, in words."""
    return {
        "model": name,
        "test metric": entry.metric,
        "mean": fixed(entry.mean, 4),
        "std": "-" if entry.std is None else fixed(entry.std, 4),
        "seeds": str(entry.n),
        "depth": str(entry.depth),
        "parameters": f"{entry.parameters:,}",
        "size": f"{entry.size / 1e6:.2f} MB",
        **{
            f"speed-up {pair}": describe_ratio(ratio.model_dump())
            for pair, ratio in entry.speedup.items()
        },
    }


def _short(ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None:
        return "-"
    return describe_ratio(ratio.model_dump()).partition(" (")[0]


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line for people; for ``warnings.showwarning``."""
    print(f"Warning: {printable(str(message))}", file=sys.stderr)


def _print(text: str, content: Any, as_json: bool) -> None:
    print(json.dumps(content, indent=2) if as_json else printable(text))
