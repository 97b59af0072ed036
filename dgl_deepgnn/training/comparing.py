"""Runs side by side: what they scored, and in what their recipes differ."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import write_figure
from dgl_deepgnn.recipe import dotted
from dgl_deepgnn.training.folder import RunFolder, Summary
from dgl_deepgnn.training.run import summarize
from dgl_deepgnn.wording import counted, fixed, plotted

__all__ = ["ComparedRun", "RunComparison", "compare"]

SAID = ("name", "description", "speedup")
"""Of a recipe: what does not change a training."""
UNKNOWN = "metric"
"""Its name, while a run has scored nothing."""
WIDEST = 40
"""Letters of a cell of the table."""


@dataclass(frozen=True)
class ComparedRun:
    """A run, as far as it has got."""

    run: str
    """Its folder."""
    recipe: str
    metric: str
    """The main one of its task."""
    seeds: int
    """That are finished, of so many:"""
    of: int
    test: dict[str, Any] | None
    """Mean, standard deviation (of the sample) and number of values."""
    val: dict[str, Any]
    difference: dict[str, Any] | None
    """Of the test metric to the first run's: mean over the seeds that both have, its standard
    error, and their number; None for the first run, and where task or data are others."""
    blind: bool
    """Whether its test scores are not shown: `test` and `difference` are None."""
    parameters: int | None
    """None while no seed is finished."""
    epochs: float | None
    """Median over the seeds; so is the next."""
    seconds: float | None


@dataclass(frozen=True)
class RunComparison:
    """What `compare` has found."""

    runs: list[ComparedRun]
    differences: dict[str, list[Any]]
    """By key, such as ``model.num_layers``, the value in every run; keys that differ alone."""
    _folders: list[RunFolder]

    def to_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {"runs": [asdict(run) for run in self.runs], "differences": self.differences}

    def table(self) -> str:
        """Both tables, in words."""
        names = _short_names([run.run for run in self.runs])
        metrics = {run.metric for run in self.runs if run.metric != UNKNOWN} or {UNKNOWN}
        same = len(metrics) == 1
        metric = next(iter(metrics)) if same else UNKNOWN
        rows = [["run", f"test {metric}", "to the first", f"val {metric}", "seeds", "epochs", "s"]]
        for name, run in zip(names, self.runs, strict=True):
            rows.append(
                [
                    name,
                    _mean(run.test) + ("" if same else f" {run.metric}"),
                    _difference(run.difference),
                    _mean(run.val),
                    str(run.seeds) if run.seeds == run.of else f"{run.seeds} of {run.of}",
                    "-" if run.epochs is None else f"{run.epochs:.0f}",
                    "-" if run.seconds is None else f"{run.seconds:.3g}",
                ]
            )
        text = _aligned(rows)
        if self.differences:
            values = [[key, *map(_cell, cells)] for key, cells in self.differences.items()]
            text += "\n\n" + _aligned([["differs in", *names], *values])
        else:
            text += "\n\nThe recipes are the same, and so are data, versions and device."
        if self.differences.get("data"):
            text += "\n\nThe runs were made on different data: their scores cannot be compared."
        return text

    def plot(self, path: str | Path) -> None:
        """Draw training loss and validation metric by step: median and range over the seeds.

        Parameters
        ----------
        path : Path
            The PNG.
        """
        from matplotlib.figure import Figure  # only who plots pays for matplotlib

        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = _short_names([run.run for run in self.runs])
        for index, (name, run, folder) in enumerate(
            zip(names, self.runs, self._folders, strict=True)
        ):
            losses, scores = _curves(folder, run.metric)
            for axes, curves in ((left, losses), (right, scores)):
                _draw(axes, curves, plotted(name, WIDEST), f"C{index % 10}")
        left.set(xlabel="optimizer step", ylabel="training loss", yscale="log")
        metrics = dict.fromkeys(run.metric for run in self.runs)
        right.set(xlabel="optimizer step", ylabel="validation " + ", ".join(metrics))
        for axes in (left, right):
            axes.grid(alpha=0.3, which="both")
        if left.lines:
            left.legend(fontsize="small")
        write_figure(Path(path), figure, dpi=150)


def compare(runs: Sequence[str | Path], *, unblind: bool = False) -> RunComparison:
    """Compare run folders, finished or not: scores, and differences of recipe and environment.

    Parameters
    ----------
    runs : sequence of Path
        Two folders or more, written by :func:`train`.
    unblind : bool
        Whether test scores of runs that were trained blind are shown, too.

    Returns
    -------
    RunComparison
        ``table()``, ``plot(path)`` and ``to_dict()`` show it.

    Raises
    ------
    UserError
        If there are fewer than two, or one is not the folder of a training or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from dgl_deepgnn.recipe import load_recipe
    >>> from dgl_deepgnn.training.run import train
    >>> place, folders = Path(tempfile.mkdtemp()), []
    >>> for lr in (0.001, 0.01):
    ...     changes = ["training.epochs=1", "seeds=[0]", f"optimizer.lr={lr}"]
    ...     recipe = load_recipe("resgcn64.digits", ["model.num_layers=4", *changes])
    ...     folders.append(train(recipe, place / f"lr-{lr}", progress=False).path)
    >>> compare(folders).differences
    {'optimizer.lr': [0.001, 0.01]}
    """
    if len(runs) < 2:
        raise UserError(f"Comparing takes at least two runs; {counted(len(runs), 'run')} given.")
    folders = [RunFolder.open(Path(run), kind="training") for run in runs]
    results = [_results(folder) for folder in folders]
    compared: list[ComparedRun] = []
    for folder, found in zip(folders, results, strict=True):
        metric = _metric(folder, found)
        parameters = None
        if (folder.path / "summary.json").exists():
            parameters = folder.read("summary.json", Summary)["parameters"]
        hidden = not unblind and bool(folder.facts.get("blind"))
        comparable = (
            folder is not folders[0]
            and not (hidden or compared[0].blind)
            and (
                metric == compared[0].metric
                and folder.facts["fingerprint"] == folders[0].facts["fingerprint"]
            )
        )
        compared.append(
            ComparedRun(
                run=str(folder.path),
                recipe=folder.recipe.title,
                metric=metric,
                seeds=len(found),
                of=len(folder.recipe.seeds),
                blind=hidden,
                test=None
                if hidden
                else _summary([result["test"][metric] for result in found.values()]),
                val=_summary([result["val"][metric] for result in found.values()]),
                difference=_to_first(results[0], found, metric) if comparable else None,
                parameters=parameters,
                epochs=_median([result["epochs"] for result in found.values()]),
                seconds=_median([result["seconds"] for result in found.values()]),
            )
        )
    return RunComparison(compared, _differences(folders), folders)


def _results(folder: RunFolder) -> dict[int, dict[str, Any]]:
    """Results of the seeds that are finished."""
    found = {seed: folder.result(seed) for seed in folder.recipe.seeds}
    return {seed: result for seed, result in found.items() if result is not None}


def _metric(folder: RunFolder, results: dict[int, dict[str, Any]]) -> str:
    """Name of the main metric, which stands first behind the loss."""
    for result in results.values():
        metric = next((name for name in result["val"] if name != "loss"), None)
        if metric is None or any(
            metric not in r[p] for r in results.values() for p in ("val", "test")
        ):
            raise folder.damaged(f"seed-{result['seed']}/result.json", "it has no metric")
        return metric
    for seed in folder.recipe.seeds:  # none is finished, one may be under way
        for line in folder.metrics(seed):
            for name in line.get("val", {}):
                if name != "loss":
                    return name
    return UNKNOWN


def _summary(values: list[float]) -> dict[str, Any]:
    return summarize(values) if values else {"mean": None, "std": None, "n": 0}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _to_first(
    first: dict[int, dict[str, Any]], found: dict[int, dict[str, Any]], metric: str
) -> dict[str, Any] | None:
    """Difference of the means; a seed stands for the same split and draws in both runs."""
    seeds = [seed for seed in found if seed in first]
    if not seeds:
        return None
    parts = [found[seed]["test"][metric] - first[seed]["test"][metric] for seed in seeds]
    mean = summarize(parts)
    error = None if mean["std"] is None else mean["std"] / len(parts) ** 0.5
    return {"mean": mean["mean"], "standard_error": error, "n": len(parts)}


def _differences(folders: list[RunFolder]) -> dict[str, list[Any]]:
    """By dotted key, values of all runs, where they are not all the same."""
    contents = []
    for folder in folders:
        flat = dotted(folder.recipe.model_dump(mode="json", exclude=set(SAID)))
        facts = folder.facts
        flat["data"] = facts["fingerprint"][:12]
        flat |= {f"versions.{name}": version for name, version in facts["versions"].items()}
        flat |= {key: facts[key] for key in ("device", "threads")}
        flat["processes"] = facts.get("processes", 1)
        contents.append(flat)
    keys = list(dict.fromkeys(key for flat in contents for key in flat))
    values = {key: [flat.get(key) for flat in contents] for key in keys}
    return {key: some for key, some in values.items() if any(one != some[0] for one in some)}


def _short_names(paths: list[str]) -> list[str]:
    """Last parts of paths, as many as tell them apart."""
    for length in range(1, max(len(Path(path).parts) for path in paths) + 1):
        names = ["/".join(Path(path).parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return paths


def _mean(values: dict[str, Any] | None) -> str:
    if values is None:
        return "hidden"
    if not values["n"]:
        return "-"
    spread = "" if values["std"] is None else f" +- {fixed(values['std'], 4)}"
    return fixed(values["mean"], 4) + spread


def _difference(values: dict[str, Any] | None) -> str:
    if values is None:
        return "-"
    error = values["standard_error"]
    seeds = counted(values["n"], "seed")
    spread = seeds if error is None else f"se {fixed(error, 4)}, {seeds}"
    return f"{values['mean']:+.4f} ({spread})"


def _cell(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


Curve = tuple[list[int], list[float]]


def _curves(folder: RunFolder, metric: str) -> tuple[list[Curve], list[Curve]]:
    """Training loss by step and validation metric by step, of every seed that has begun."""
    losses, scores = [], []
    for seed in folder.recipe.seeds:
        lines = folder.metrics(seed)
        loss = [value for line in lines for value in line["step_losses"]]
        if loss:
            losses.append((list(range(1, len(loss) + 1)), loss))
        known = [(line["step"], line["val"][metric]) for line in lines if "val" in line]
        if known:
            scores.append(([step for step, _ in known], [value for _, value in known]))
    return losses, scores


def _draw(axes: Any, curves: list[Curve], label: str, color: str) -> None:
    """Median of the curves, as far as all of them go, with their range; then each by itself."""
    if not curves:
        return
    common = min(len(steps) for steps, _ in curves)
    steps = curves[0][0][:common]
    values = np.array([some[:common] for _, some in curves])
    marker = "o" if common < 3 else None
    axes.plot(steps, np.median(values, axis=0), color=color, label=label, marker=marker, lw=1.5)
    if len(curves) > 1:
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)
    for longer, some in curves:
        if len(longer) > common:
            axes.plot(longer[common - 1 :], some[common - 1 :], color=color, lw=0.6, alpha=0.6)
