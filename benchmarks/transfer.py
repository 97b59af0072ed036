"""Training loss against learning rate over depth and width, with and without `optimizer.transfer`.

    python -m benchmarks.transfer [--data digits] [--families resgcn resgin] [--sizes 8x32 128x32]
        [--optimizer adam] [--steps 25] [--seeds 3]

measures what is not measured yet, each training written as soon as it is done into
``benchmarks/transfer/``, so that it can be stopped at any time and run in parts. Learning rates are
a factor of the fourth root of 10 apart around the best one. Then, or alone with ``--report``, the
tables and plots of all that is there are written anew into ``docs/transfer.md``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import append_row, read_rows
from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.files import write_figure, write_json, write_text
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup.record import chance_loss
from dgl_deepgnn.training.trainer import DivergenceError, Step, Trainer
from dgl_deepgnn.training.tuning import tune

RESULTS = Path(__file__).parent / "transfer"
PAGE = Path(__file__).parent.parent / "docs" / "transfer.md"
START, END = "<!-- benchmarks.transfer: begin -->", "<!-- benchmarks.transfer: end -->"

SIZES = ["8x32", "32x32", "128x32", "512x32", "8x16", "8x64", "8x256"]
RATIO = 10**0.25
CAP = 2.0
"""A loss above so many times that of a uniform guess counts as this: the curve of a divergence."""
DATA: dict[str, list[str]] = {
    "digits": ["data.options={features: none}"],
    "digits-grid": ["training.batch_size=100"],
    "cora": [],
}
FIRST = {"adam": range(-11, -4, 2), "adamw": range(-11, -4, 2), "sgd": range(-5, 2, 2)}
"""Where the search for the best learning rate starts: powers of RATIO, first every other one."""

TUNED = ["model.num_layers=128", "training.epochs=30"]
INTRODUCTION = """\
Mean training loss of the first steps, in units of that of a uniform guess (capped at 2), against
the learning rate; `residual="fixup"`, `t="per-depth:8"`, everything else as in resgcn64.digits.
*One rate* is the same learning rate for all parameters, *rule* the one above. The best rate is
where a parabola through the lowest of the learning rates, a factor 1.78 apart, and its neighbours
has its minimum; the shift is the largest best rate over the smallest. The last two losses say what
it costs to keep the first size's rate at the last size. Written by `python -m benchmarks.transfer`,
which takes further sizes (`--sizes 1024x32 8x512`), data sets (`--data digits-grid`, `--data cora`)
and optimizers; the table holds what has been run.
"""

Key = tuple[str, str, str, int]
"""Data, family, optimizer, steps: what one file holds."""
Curve = dict[int, dict[int, float]]
"""Score by power of RATIO and seed."""


class Measurements:
    """The trainings of one file, read back and appended to."""

    def __init__(self, key: Key) -> None:
        self.key = key
        data, family, optimizer, steps = key
        self.file = RESULTS / f"{data}.{family}.{optimizer}.{steps}-steps.jsonl"
        self.scores: dict[tuple[bool, str], Curve] = defaultdict(lambda: defaultdict(dict))
        for line in read_rows(self.file):
            self._enter(line)

    def _enter(self, line: dict[str, Any]) -> None:
        losses = [*line["losses"], *[CAP] * (self.key[3] - len(line["losses"]))]
        score = float(np.mean([min(loss, CAP) for loss in losses]))
        self.scores[line["transfer"], line["size"]][line["power"]][line["seed"]] = score

    def measure(self, data: TaskData, transfer: bool, size: str, power: int, seed: int) -> None:
        """Train once, if that is not done yet; losses are in units of that of a uniform guess."""
        if seed in self.scores[transfer, size][power]:
            return
        name, family, optimizer, steps = self.key
        layers, width = map(int, size.split("x"))
        recipe = load_recipe(
            "resgcn64.digits",
            [
                f"data.name={name}",
                *DATA.get(name, []),
                f"model.name={family}",
                f"model.num_layers={layers}",
                f"model.hidden_feats={width}",
                "model.t=per-depth:8",
                f"optimizer.name={optimizer}",
                f"optimizer.lr={RATIO**power!r}",
                f"optimizer.transfer={str(transfer).lower()}",
                "training.epochs=null",
                f"training.steps={steps}",
            ],
        )
        trainer = Trainer(recipe, data, seed)
        chance = chance_loss(data, trainer.loss)
        done: list[Step] = []
        try:
            while trainer.step < steps:
                done += trainer.run_epoch()
        except DivergenceError as error:
            done += error.steps
        line = {
            "transfer": transfer,
            "size": size,
            "power": power,
            "seed": seed,
            "losses": [round(step.loss / chance, 4) for step in done],
        }
        RESULTS.mkdir(exist_ok=True)
        append_row(self.file, line)
        self._enter(line)


def measure_curve(
    found: Measurements, data: TaskData, transfer: bool, size: str, seeds: range
) -> None:
    """Every other learning rate first, then those around the best one, until it lies inside."""
    powers = set(FIRST[found.key[2]])
    while True:
        for power in sorted(powers):
            for seed in seeds:
                found.measure(data, transfer, size, power, seed)
        means = mean_by_power({p: found.scores[transfer, size][p] for p in powers})
        best = min(means, key=lambda power: means[power])
        wanted = {best - 2, best - 1, best + 1, best + 2}
        if wanted <= powers:
            return
        powers |= wanted


def mean_by_power(curve: Curve) -> dict[int, float]:
    return {power: float(np.mean(list(seeds.values()))) for power, seeds in sorted(curve.items())}


def best_rate(curve: Curve) -> float:
    """Where a parabola through the lowest point and its neighbours has its minimum."""
    means = mean_by_power(curve)
    best = min(means, key=lambda power: means[power])
    left, here, right = (means.get(best + step, math.nan) for step in (-1, 0, 1))
    curvature = left - 2 * here + right
    shift = (left - right) / (2 * curvature) if curvature > 0 else 0.0
    return RATIO ** (best + shift)


def loss_at(curve: Curve, rate: float) -> float:
    """Score at a learning rate, between the measured ones by a line."""
    means = mean_by_power(curve)
    return float(np.interp(math.log(rate, RATIO), list(means), list(means.values())))


def of_seed(curve: Curve, seed: int) -> Curve:
    return {power: {seed: seeds[seed]} for power, seeds in curve.items() if seed in seeds}


# --- the small network's rate beside one found at full size ---


def compare_tuning() -> None:
    """Tune `TUNED` on a small network and at its own size, and keep what both found."""
    recipe = load_recipe("resgcn64.digits", TUNED)
    results = {}
    for layers, width in ((8, 32), (recipe.model.num_layers, recipe.model.hidden_feats)):
        folder = Path("runs") / f"transfer-tuning-{layers}x{width}"
        resume = folder.exists()
        _, results[f"{layers}x{width}"] = tune(
            recipe, folder, num_layers=layers, hidden_feats=width, resume=resume
        )
    write_json(RESULTS / "tuning.json", results)


def tuning_lines() -> list[str]:
    file = RESULTS / "tuning.json"
    if not file.exists():
        return []
    small, large = json.loads(file.read_text()).items()
    rounds = large[1]["rounds"]
    rates = sorted(rounds[0]["val_loss"], key=float)
    lines = [
        "### Tuned small and tuned large",
        "",
        f"resgcn64.digits with `{' '.join(TUNED)}`, `tune` at {small[0]} and at the recipe's own "
        f"size {large[0]} (`python -m benchmarks.transfer --tuning`). Found at {small[0]}: "
        f"**{small[1]['lr']:g}**; at {large[0]}: **{large[1]['lr']:g}**. The budgets: "
        f"{small[1]['budget']} And {large[1]['budget']}",
        "",
        f"Lowest validation loss at {large[0]}, mean over {len(large[1]['seeds'])} seeds, of every "
        "rate that reached the round (in bold, the rate from the small network):",
        "",
        "| rate | " + " | ".join(f"{part['epochs']} epochs" for part in rounds) + " |",
        "| --- " * (len(rounds) + 1) + "|",
    ]
    for rate in rates:
        losses = [part["val_loss"].get(rate, "") for part in rounds]
        cells = ["diverged" if x is None else x if x == "" else f"{x:.4f}" for x in losses]
        name = f"**{rate}**" if float(rate) == small[1]["lr"] else rate
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


# --- the page ---


def sweeps(sizes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Sizes that differ in depth alone, and in width alone."""
    pairs = sorted(tuple(map(int, size.split("x"))) for size in sizes)
    depths = [f"{layers}x{width}" for layers, width in pairs if width == 32]
    widths = [f"{layers}x{width}" for layers, width in pairs if layers == 8]
    if len(depths) > 1:
        yield "depth", depths
    if len(widths) > 1:
        yield "width", widths


def complete(found: Measurements) -> list[str]:
    """Sizes whose best rate is inside what was measured, in both arms, on three seeds or more."""
    sizes = {size for _, size in found.scores}
    return [size for size in sizes if all(_bracketed(found.scores[t, size]) for t in (False, True))]


def _bracketed(curve: Curve) -> bool:
    if not curve or min(map(len, curve.values())) < 3:
        return False
    means = mean_by_power(curve)
    best = min(means, key=lambda power: means[power])
    return {best - 1, best + 1} <= set(means)


def rows(found: Measurements) -> Iterator[list[str]]:
    """Best rates along depth and width, today's and the rule's."""
    _, family, _, _ = found.key
    for axis, sizes in sweeps(complete(found)):
        curves = {t: [found.scores[t, size] for size in sizes] for t in (False, True)}
        seeds = sorted(set.intersection(*(set(s) for c in curves[True] for s in c.values())))
        for transfer, name in ((False, "one rate"), (True, "rule")):
            some = curves[transfer]
            rates = [best_rate(curve) for curve in some]
            shifts = [shift([of_seed(curve, seed) for curve in some]) for seed in seeds]
            first, last = some[0], some[-1]
            yield [
                family,
                f"{axis}: {', '.join(sizes)}",
                name,
                " ".join(f"{rate:.4f}" for rate in rates),
                f"{shift(some):.1f} ({min(shifts):.1f} to {max(shifts):.1f})",
                f"{loss_at(last, best_rate(last)):.3f}",
                f"{loss_at(last, best_rate(first)):.3f}",
                str(len(seeds)),
            ]


def worse(found: Measurements) -> str:
    """Where the rule's best loss is above that of one rate for all."""
    cases = []
    for size in sorted(complete(found), key=lambda size: [int(part) for part in size.split("x")]):
        one, rule = (min(mean_by_power(found.scores[t, size]).values()) for t in (False, True))
        if rule > one:
            cases.append(f"{size} ({rule:.3f} for {one:.3f})")
    if not cases:
        return "At no size is the rule's lowest loss above that of one rate."
    return f"The rule's lowest loss is above that of one rate, tuned there, at {', '.join(cases)}."


def shift(curves: list[Curve]) -> float:
    """Largest best rate over the smallest one."""
    rates = [best_rate(curve) for curve in curves]
    return max(rates) / min(rates)


def plot(found: Measurements, path: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    parts = list(sweeps(complete(found)))
    figure = Figure(figsize=(10, 3.6 * len(parts)), layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False, sharey="row", sharex=True)
    for panels, (axis, sizes) in zip(grid, parts, strict=True):
        for panel, transfer in zip(panels, (False, True), strict=True):
            for index, size in enumerate(sizes):
                curve = found.scores[transfer, size]
                means = mean_by_power(curve)
                color = colormaps["viridis"](0.9 * index / (len(sizes) - 1))
                x = [RATIO**power for power in means]
                low, high = (
                    [reduce(curve[power].values()) for power in means] for reduce in (min, max)
                )
                panel.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
                panel.plot(x, list(means.values()), color=color, marker="o", ms=3, label=size)
                panel.axvline(best_rate(curve), color=color, ls=":", lw=1)
            panel.set_xscale("log")
            panel.set_title(
                f"{axis}: {'the rule' if transfer else 'one rate for all'}", fontsize=10
            )
            panel.grid(color="0.9")
            panel.legend(fontsize=8, title="layers x width", title_fontsize=8)
        panels[0].set_ylabel("mean loss / chance", fontsize=9)
    for panel in grid[-1]:
        panel.set_xlabel("learning rate", fontsize=9)
    data, family, optimizer, steps = found.key
    figure.suptitle(
        f"{family} on {data}, {optimizer}: loss of the first {steps} steps", fontsize=11
    )
    write_figure(path, figure, dpi=110)


def report() -> None:
    """Write summary, plots and the page's tables from all that is there."""
    header = ["network", "sizes (layers x width)", "", "best rates", "shift (of single seeds)"]
    header += ["loss at the last size", "with the first size's rate", "seeds"]
    lines = [START, "", "## Measured", "", INTRODUCTION]
    summary = []
    for file in sorted(RESULTS.glob("*.jsonl")):
        data, family, optimizer, steps = file.stem.split(".")
        found = Measurements((data, family, optimizer, int(steps.removesuffix("-steps"))))
        some = list(rows(found))
        if not some:
            continue
        picture = file.with_suffix(".png")
        plot(found, picture)
        summary += [dict(zip([*header[:2], "arm", *header[3:]], row, strict=True)) for row in some]
        lines += [f"### {family} on {data}, {optimizer}, {found.key[3]} steps", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *some)]
        lines += [
            "",
            worse(found),
            "",
            f"![Loss against learning rate](../benchmarks/transfer/{picture.name})",
            "",
        ]
    lines += [*tuning_lines(), END]
    write_json(RESULTS / "summary.json", summary)
    page = PAGE.read_text()
    before, rest = page.split(START)
    write_text(PAGE, before + "\n".join(lines) + rest.split(END)[1])
    print(f"{PAGE}: {len(summary)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--families", nargs="+", default=["resgcn", "resgin", "resgraphsage"])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="layers x width, e.g. 8x32")
    parser.add_argument("--optimizer", default="adam", choices=list(FIRST))
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuning", action="store_true", help="compare tune small with tune large")
    parser.add_argument("--report", action="store_true", help="only write the page anew")
    arguments = parser.parse_args()
    if arguments.tuning:
        compare_tuning()
    elif not arguments.report:
        settings = [f"data.name={arguments.data}", *DATA.get(arguments.data, [])]
        options = load_recipe("resgcn64.digits", settings).data.options
        data = load_data(arguments.data, **options)
        for family in arguments.families:
            found = Measurements((arguments.data, family, arguments.optimizer, arguments.steps))
            for size in arguments.sizes:
                for transfer in (False, True):
                    measure_curve(found, data, transfer, size, range(arguments.seeds))
                    best = best_rate(found.scores[transfer, size])
                    print(
                        family, size, "rule" if transfer else "one rate", f"{best:.4g}", flush=True
                    )
    report()


if __name__ == "__main__":
    main()
