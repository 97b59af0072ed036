"""What carries over to larger networks, tune and check, and to your data, init and finetune."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from dgl_deepgnn.cli.commands import (
    AllowCode,
    Device,
    Json,
    Output,
    Overrides,
    Quiet,
    RecipeName,
    app,
    recipe_and_folder,
    resumable,
    show,
    show_training,
)
from dgl_deepgnn.cli.zoo import DataOptions, Name, Zoo, data_options
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import make_folder, new_folder, require_new, write_json, write_text
from dgl_deepgnn.hub import finetune
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.training.checking import check_recipe
from dgl_deepgnn.training.proposing import propose_recipe
from dgl_deepgnn.training.tuning import tune
from dgl_deepgnn.wording import counted

SMALL = (8, 32, 3)
"""Layers, width and seeds of the small network by default."""


@app.command("tune")
def tune_command(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or path.")] = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to continue.")] = None,
    layers: Annotated[int, typer.Option(min=1, help="Depth of the small network.")] = SMALL[0],
    width: Annotated[int, typer.Option(min=1, help="Width of the small network.")] = SMALL[1],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every learning rate.")] = SMALL[2],
    device: Device = "cpu",
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find a recipe's learning rate on a small network, for the recipe's size."""
    loaded, output = recipe_and_folder(recipe, overrides, output, resume)
    if resume is not None and (layers, width, seeds) != SMALL:
        raise UserError("--resume takes --layers, --width and --seeds from the folder: omit them.")
    with resumable("tune", "training of a round"):
        folder, result = tune(
            loaded,
            output,
            num_layers=layers,
            hidden_feats=width,
            seeds=seeds,
            resume=resume is not None,
            device=device,
            progress=not quiet,
            allow_code=allow_code,
        )
    show(
        _describe_tuning(result, folder),
        {"folder": str(folder), "tuned": str(folder / "tuned.yaml"), **result},
        as_json,
    )


@app.command("check")
def check_command(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    depths: Annotated[str, typer.Option(help="Depths, at the first width.")] = "8,32,128",
    widths: Annotated[str, typer.Option(help="Widths, at the first depth.")] = "16,64,256",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Random draws of every size.")] = 4,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Compare a recipe's first steps over depth and width: does its learning rate carry over?"""
    loaded = load_recipe(recipe, overrides or [])
    if output is not None:
        require_new(output)
    result = check_recipe(
        loaded,
        _sizes("depths", depths),
        _sizes("widths", widths),
        steps=steps,
        seeds=seeds,
        allow_code=allow_code,
    )
    path = output or new_folder(Path("runs"), f"{loaded.name}.check")
    with make_folder(path) as draft:
        result.plot(draft / "check.png")
        write_json(draft / "check.json", result.to_dict())
    text = f"{result.table()}\nPlot and figures: {path}"
    show(text, {"folder": str(path), **result.to_dict()}, as_json)


def _sizes(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--{name} {text}: expected whole numbers with commas between them, such as 8,32,128."
        ) from None


Data = Annotated[
    str, typer.Option(help="What to train on: file:graphs.bin, csv:FOLDER, tu:NAME, ... Trusted.")
]


@app.command("init")
def init_command(
    data: Data,
    options: DataOptions = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, not there yet; by default named after the data."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a first recipe for your data, and say why it is as it is."""
    if output is not None and output.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output {output}: a recipe's name ends in .yaml.")
    if output is not None and not output.parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}. Make it first.")
    proposal = propose_recipe(data, data_options(options, data))
    path = output or Path(f"{proposal.name}.yaml")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is never overwritten. Give another --output.")
    text = proposal.to_yaml()
    write_text(path, text)
    show(
        f"{text}\nWritten: {path}\nTrain: dgl-deepgnn train {shlex.quote(str(path))}",
        {"recipe": str(path), "facts": proposal.facts, "reasons": proposal.reasons},
        as_json,
    )


@app.command("finetune")
def finetune_command(
    name: Name,
    data: Data,
    options: DataOptions = None,
    zoo: Zoo = None,
    body_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Learning rate of the model's layers over that of the new head."
        ),
    ] = 0.1,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Leave the layers' weights as they are: --body-rate 0.")
    ] = False,
    overrides: Overrides = None,
    output: Output = None,
    device: Device = "cpu",
    blind: Annotated[bool, typer.Option("--blind", help="Keep the test scores from you.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a new head on a published model's layers, and those with it, on your data."""
    with resumable("train", "epoch"):
        folder = finetune(
            name,
            data,
            output,
            zoo=zoo,
            options=data_options(options, data),
            body_rate=0.0 if freeze else body_rate,
            overrides=overrides or (),
            device=device,
            progress=not quiet,
            blind=blind,
        )
    show_training(folder, as_json)


def _describe_tuning(result: dict[str, Any], folder: Path) -> str:
    """Rounds as a table, the rate, and what to do with it."""
    rounds = result["rounds"]
    header = [f"after {counted(part['epochs'], 'epoch')}" for part in rounds]
    lines = [f"{'lr':>8}" + "".join(f"{name:>18}" for name in header)]
    for rate in sorted(rounds[0]["val_loss"], key=float):
        cells = []
        for part in rounds:
            loss = part["val_loss"].get(rate, "")
            if loss is None:
                loss = "diverged"
            elif loss != "":
                loss = f"{loss:.4f}" if loss < 1e4 else f"{loss:.1e}"
            cells.append(loss)
        lines.append(f"{rate:>8}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(
        [
            "Lowest validation loss, mean over the seeds:",
            *lines,
            f"Best: lr {result['lr']:g} with optimizer.transfer, found on "
            f"{counted(result['num_layers'], 'layer')} of width {result['hidden_feats']}.",
            f"Train with it: dgl-deepgnn train {folder / 'tuned.yaml'}",
        ]
    )
