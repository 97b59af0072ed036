"""The commands for what carries over from small networks to large ones: tune, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dgl_deepgnn.cli.commands import (
    Device,
    Json,
    Output,
    Overrides,
    app,
    recipe_and_folder,
    resumable,
)
from dgl_deepgnn.training.tuning import tune
from dgl_deepgnn.wording import counted


@app.command("tune")
def tune_command(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or path.")] = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to continue.")] = None,
    layers: Annotated[int, typer.Option(min=1, help="Depth of the small network.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Width of the small network.")] = 32,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every learning rate.")] = 3,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Find a recipe's learning rate on a small network, for the recipe's size."""
    loaded, output = recipe_and_folder(recipe, overrides, output, resume)
    with resumable("tune", "training of a round"):
        folder, result = tune(
            loaded,
            output,
            num_layers=layers,
            hidden_feats=width,
            seeds=seeds,
            resume=resume is not None,
            device=device,
        )
    _print(
        _describe_tuning(result, folder),
        {"folder": str(folder), "tuned": str(folder / "tuned.yaml"), **result},
        as_json,
    )


def _describe_tuning(result: dict[str, Any], folder: Path) -> str:
    """Rounds as a table, the rate, and what to do with it."""
    rounds = result["rounds"]
    header = [f"after {counted(part['epochs'], 'epoch')}" for part in rounds]
    lines = [f"{'lr':>8}" + "".join(f"{name:>18}" for name in header)]
    for rate in sorted(rounds[0]["val_loss"], key=float):
        cells = []
        for part in rounds:
            loss = part["val_loss"].get(rate, "")
            cells.append(loss if loss == "" else "diverged" if loss is None else f"{loss:.4f}")
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


def _print(text: str, content: Any, as_json: bool) -> None:
    print(json.dumps(content, indent=2) if as_json else text)
