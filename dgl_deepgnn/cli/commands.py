"""The command line."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dgl_deepgnn.cli.zoo import AllowCode, add_commands, print_warning
from dgl_deepgnn.diagnostics import diagnose
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import make_folder, new_folder, write_json
from dgl_deepgnn.graph import batch
from dgl_deepgnn.recipe import Recipe, json_schema, list_recipes, load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.speedup.report import describe_speedup
from dgl_deepgnn.training import RunFolder, build_model, train
from dgl_deepgnn.training.comparing import compare
from dgl_deepgnn.training.machines import take_role
from dgl_deepgnn.training.processes import at_once, is_first, launched
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.wording import counted, printable

__all__ = ["app", "recipe_and_folder", "resumable", "run", "show"]

app = typer.Typer(
    name="dgl-deepgnn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

NO_MEMORY = ("allocate memory", "out of memory", "Storage size calculation overflowed")
"""How PyTorch says that there is not enough."""

RecipeName = Annotated[str, typer.Argument(help="A recipe's name, or the path of a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key, e.g. --set model.num_layers=256. Repeatable."),
]
EVERYDAY = "Keys of the recipe, in place of --set"
MACHINES = "On several machines, see docs/scaling.md"
Output = Annotated[
    Path | None,
    typer.Option(help="Folder to write, not there yet; by default a new one under runs/."),
]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ...")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print the result, and errors and warnings, alone.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def main_options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    # Answered in __main__, before anything that needs DGL is imported.
    """Train, measure and use deep graph neural networks."""
    if launched() > 1 and context.invoked_subcommand != "train":
        raise UserError(
            f"torchrun has started {launched()} processes, but only train shares its work among "
            f"several. Run {context.invoked_subcommand} by itself."
        )


def run() -> None:
    """Run the command line; wrong input ends in one paragraph and exit code 2."""
    with at_once():
        _run()


def _run() -> None:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_warning
            app()
    except (UserError, DGLError) as error:
        page = getattr(error, "page", "")
        more = f" (More: {page})" if page else ""
        print(f"Error: {printable(str(error))}{more}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", UserError.exit_code))
    except OSError as error:  # what the machine denies: room, permission, a name of that length
        what = error.strerror or type(error).__name__
        print(f"Error: {error.filename or 'writing'}: {what}.", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in NO_MEMORY):
            raise
        print(
            "Error: there is not enough memory for this. Make the network narrower or shallower "
            "(model.hidden_feats, model.num_layers), or train on parts (training.batching).",
            file=sys.stderr,
        )
        sys.exit(2)


@app.command("train")
def train_command(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or path.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="training.epochs", rich_help_panel=EVERYDAY)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="optimizer.lr", rich_help_panel=EVERYDAY)] = None,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="model.num_layers", rich_help_panel=EVERYDAY)
    ] = None,
    hidden_feats: Annotated[
        int | None, typer.Option(min=1, help="model.hidden_feats", rich_help_panel=EVERYDAY)
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="seeds, such as 0,1,2", rich_help_panel=EVERYDAY)
    ] = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue.")] = None,
    device: Device = "cpu",
    loggers: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            help="Send metrics to tensorboard, wandb, mlflow or trackio as well. Repeatable.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="The same as --logger tensorboard.")
    ] = False,
    blind: Annotated[
        bool,
        typer.Option("--blind", help="Keep the test scores from you while you choose settings."),
    ] = False,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="On several machines.", rich_help_panel=MACHINES)
    ] = False,
    partition: Annotated[
        Path | None,
        typer.Option(help="What `partition` has written.", rich_help_panel=MACHINES),
    ] = None,
    ip_config: Annotated[
        Path | None,
        typer.Option(help="File with an address a line.", rich_help_panel=MACHINES),
    ] = None,
    way: Annotated[
        str | None,
        typer.Option(
            "--launch",
            help="How to run a command line there: 'ssh {host}'.",
            rich_help_panel=MACHINES,
        ),
    ] = None,
    machine: Annotated[
        int | None,
        typer.Option(help="Start this one alone, here.", rich_help_panel=MACHINES),
    ] = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a recipe over its seeds and write a run folder."""
    everyday = {
        "training.epochs": epochs,
        "optimizer.lr": lr,
        "model.num_layers": num_layers,
        "model.hidden_feats": hidden_feats,
        "seeds": seeds and f"[{seeds}]",
    }
    overrides = list(overrides or [])
    if epochs and not any(text.startswith("training.steps=") for text in overrides):
        overrides.append("training.steps=null")
    overrides += [f"{key}={value}" for key, value in everyday.items() if value is not None]
    loaded, output = recipe_and_folder(recipe, overrides, output, resume)
    if not distributed and (partition or ip_config or way or machine is not None):
        raise UserError("--partition, --ip-config, --launch and --machine need --distributed.")
    if distributed:
        if partition is None or ip_config is None:
            raise UserError(
                "--distributed needs --partition (see `dgl-deepgnn partition`) and --ip-config."
            )
        more = f"train --distributed --partition {partition} --ip-config {ip_config}"
        with resumable(more, "epoch"):
            if not take_role(loaded, partition, ip_config, way, machine):
                return
    with resumable("train", "epoch"):
        folder = train(
            loaded,
            output,
            resume=resume is not None,
            device=device,
            loggers=loggers or (),
            tensorboard=tensorboard,
            blind=blind,
            progress=not quiet,
            allow_code=allow_code,
            partition=partition,
        )
    if is_first():
        show_training(folder, as_json)


@app.command("speedup")
def speedup_command(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name or path.")] = None,
    overrides: Overrides = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to continue.")] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="All eight combinations of the principles.")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="Also train every arm to the end, for its test score.")
    ] = False,
    device: Device = "cpu",
    allow_code: AllowCode = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Record the early-training speed-up of a recipe over stock layers and usual practice."""
    loaded, output = recipe_and_folder(recipe, overrides, output, resume)
    with resumable("speedup", "trial"):
        path, result = measure_speedup(
            loaded,
            output,
            ablation=ablation,
            final=final,
            resume=resume is not None,
            device=device,
            progress=not quiet,
            allow_code=allow_code,
        )
    text = f"{describe_speedup(result)}\nTable and plot: {path}"
    show(text, {"folder": str(path), **result}, as_json)


@app.command("compare")
def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    plot: Annotated[Path | None, typer.Option(help="PNG to draw, not there yet.")] = None,
    unblind: Annotated[
        bool, typer.Option("--unblind", help="Show test scores of runs trained --blind, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare runs: scores, in what their recipes differ, and a plot."""
    if plot is not None and plot.exists():
        raise UserError(f"{plot} exists; --plot names a new file.")
    result = compare(runs, unblind=unblind)
    if plot is not None:
        result.plot(plot)
    show(result.table(), result.to_dict(), as_json)


@app.command("diagnose")
def diagnose_command(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Output = None,
    draws: Annotated[int, typer.Option(min=1, help="Random initializations.")] = 10,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Measure a recipe's network at initialization: signal, gradient, correlation by layer."""
    loaded = load_recipe(recipe, overrides or [])
    data = load_task(loaded, allow_code)
    model = build_model(loaded.model, data)
    graph = batch(data.graphs)
    feat, edge_feat = graph.ndata["feat"], graph.edata.get("feat")
    weight = graph.edata["weight"] if data.weighted else None
    operator = model.operator(graph, weight)
    result = diagnose(
        model,
        graph,
        feat,
        edge_weight=weight,
        forward=lambda model: model(operator, feat, edge_feat=edge_feat),
        draws=draws,
    )
    path = output or new_folder(Path("runs"), f"{loaded.name}.diagnosis")
    with make_folder(path) as draft:
        result.plot(draft / "diagnosis.png")
        write_json(draft / "diagnosis.json", {"recipe": loaded.title, **result.to_dict()})
    text = f"{loaded.title}\n\n{result.table()}\nPlot and figures: {path}"
    content = {"folder": str(path), "recipe": loaded.title, **result.to_dict()}
    show(text, content, as_json)


recipes = typer.Typer(help="List and show recipes.", invoke_without_command=True)
app.add_typer(recipes, name="recipes")


@recipes.callback()
def recipes_default(context: typer.Context) -> None:
    """List recipes, or show one."""
    if context.invoked_subcommand is None:
        recipes_list()


@recipes.command("list")
def recipes_list(as_json: Json = False) -> None:
    """List the recipes that come with the package."""
    found = [(name, load_recipe(name).description.strip()) for name in list_recipes()]
    width = max(len(name) for name, _ in found)
    show("\n".join(f"{name:{width}}  {text}" for name, text in found), dict(found), as_json)


@recipes.command("show")
def recipes_show(recipe: RecipeName, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print a recipe with every default written out."""
    loaded = load_recipe(recipe, overrides or [])
    show(loaded.to_yaml().rstrip(), loaded.model_dump(mode="json"), as_json)


@recipes.command("schema")
def recipes_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    print(json_schema(), end="")


add_commands(app)


@app.command()
def doctor() -> None:
    """Print versions, what imports and what does not, and the repair."""
    # Answered in __main__, before anything that needs DGL is imported.


def recipe_and_folder(
    recipe: str | None, overrides: list[str] | None, output: Path | None, resume: Path | None
) -> tuple[Recipe, Path | None]:
    """What to train and where, of a new run or of one to continue."""
    if resume is not None:
        if recipe or overrides or output:
            raise UserError("--resume takes the recipe from the folder: give nothing else.")
        return RunFolder.open(resume).recipe, resume
    if recipe is None:
        raise UserError("Which recipe? `dgl-deepgnn recipes list` lists them.")
    return load_recipe(recipe, overrides or []), output


@contextmanager
def resumable(command: str, unit: str) -> Iterator[None]:
    """Turn Ctrl-C into a message that says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Every finished {unit} is kept: continue with "
            f"`dgl-deepgnn {command} --resume FOLDER`, the folder named above.",
            file=sys.stderr,
        )
        sys.exit(130)


def show_training(folder: RunFolder, as_json: bool) -> None:
    """Print what a training has led to; of a blind one validation alone."""
    summary = folder.read("summary.json")
    if folder.facts.get("blind"):
        del summary["test"]
        summary["seeds"] = [
            {key: value for key, value in result.items() if key != "test"}
            for result in summary["seeds"]
        ]
    show(_describe_training(folder.path, summary), {"folder": str(folder.path), **summary}, as_json)


def show(text: str, content: Any, as_json: bool) -> None:
    """Print what a command has found."""
    print(json.dumps(content, indent=2) if as_json else printable(text))


def _describe_training(path: Path, summary: dict[str, Any]) -> str:
    part = "test" if "test" in summary else "val"
    test = summary["test"][summary["metric"]] if part == "test" else summary["val"]
    spread = "" if test["std"] is None else f" +- {test['std']:.4f}"
    return (
        f"{summary['recipe']}: {part} {summary['metric']} {test['mean']:.4f}{spread} "
        f"({counted(test['n'], 'seed')}), {summary['parameters']:,} parameters\n"
        f"Weights, metrics and plot: {path}"
    )
