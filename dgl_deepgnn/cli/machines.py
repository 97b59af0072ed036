"""The command that prepares a training on several machines: partition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgl_deepgnn.cli.commands import AllowCode, Json, Overrides, RecipeName, app, show
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.training.partition import partition


@app.command("partition")
def partition_command(
    recipe: RecipeName,
    machines: Annotated[int, typer.Option("--parts", min=1, help="One for every machine.")],
    output: Annotated[Path, typer.Option("--out", help="Folder to write, not there yet.")],
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Cut a recipe's graph for training on several machines (DGL's distributed format)."""
    result = partition(
        load_recipe(recipe, overrides or []), machines, output, allow_code=allow_code
    )
    lines = [
        f"part {index}: {part['nodes']:,} nodes, {part['edges']:,} edges to them, of which "
        f"{part['edges_cut']:,} come from other parts"
        for index, part in enumerate(result["parts"])
    ]
    show("\n".join([*lines, f"Partition: {output}"]), result, as_json)
