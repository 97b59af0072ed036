"""The report, ``time_to_accuracy.md``, of the rows that there are."""

from __future__ import annotations

from benchmarks.cost.report import table
from benchmarks.time_to_accuracy.contenders import our_recipe
from benchmarks.time_to_accuracy.plan import LEAST_CAP, PATIENCE, RATES, SEEDS, TUNING_SEEDS
from benchmarks.time_to_accuracy.results import Results
from benchmarks.time_to_accuracy.standing import GOAL, Comparison, Standing, known, spread
from benchmarks.time_to_accuracy.tasks import OURS, TASKS, Peer, Task
from dgl_deepgnn.speedup.report import describe_ratio
from dgl_deepgnn.wording import counted

__all__ = ["COMMAND", "report"]

COMMAND = "python -m benchmarks.time_to_accuracy"
PLOT = "../docs/time_to_accuracy.png"

RULES = f"""\
How long a training takes until its validation score reaches a target for the first time, on the
clock, in one thread: ours beside what one would otherwise take. Targets were written down before
anything was run; no test score is computed.

- The clock starts before the model is built and counts training and validation, which follows every
  epoch; loading data and imports are not counted. Graphs are new in every run, so that everybody
  prepares them again.
- Everybody's learning rate is the best of {", ".join(f"{rate:g}" for rate in sorted(RATES))}: that
  with the least median time to the higher target on seeds {" and ".join(map(str, TUNING_SEEDS))},
  which are not reported (where none gets there: the most targets reached, then the lower target).
- Seeds {SEEDS[0]} to {SEEDS[-1]} are reported. Contenders take turns, seed by seed, in one process.
  A seed means the same split for all of them.
- A run ends at the higher target, or at a cap: {PATIENCE} times as long as the fastest, at least
  {LEAST_CAP:g} s (while tuning, the fastest run so far; afterwards the best median of tuning).
  `> X`: not reached within X s. Such runs are counted as longer than all others, never left out;
  a ratio with `>` is a lower bound.
- Ours are the packaged recipes, but for what their sections name, by the package's own trainer,
  without the decay of the learning rate towards an end that is not known here, and with the
  constant rate that was tuned as the others'.
- Peers have the settings that were published, the same by either library's layers, and a constant
  learning rate. The optimizer is PyTorch's fused Adam everywhere. PyTorch Geometric reads one large
  graph as a sparse matrix, its fastest form. GCNII's weights are drawn as its authors draw them,
  not as DGL's layer does by itself. Ours reads words as a sparse matrix; the others' layers and
  PyTorch's dropout want dense features."""


def report(machines: dict[str, dict[str, str]], results: Results) -> str:
    """Markdown of all rows; `machines`, by task, says what they were measured on."""
    standings = [Standing(results, name) for name in TASKS]
    begun = [standing for standing in standings if standing.begun]
    lines = [
        "# Time to accuracy",
        "",
        f"Made by `{COMMAND}`, which measures only what is not there yet; `--tasks NAME` makes a "
        "part, `--again PATTERN` repeats a contender's runs.",
        "",
        *_measured_on(machines),
        "",
        _completeness(standings),
        "",
        RULES,
        "",
        "## Summary",
        "",
        *_summary(begun),
    ]
    for standing in begun:
        lines += ["", *_section(standing)]
    for threads in sorted({row["threads"] for row in results} - {1}):
        more = [Standing(results, name, threads) for name in TASKS]
        lines += ["", f"## {counted(threads, 'thread')}", ""]
        lines += ["The same with the learning rates chosen in one thread.", ""]
        lines += _ratios([standing for standing in more if standing.begun])
    return "\n".join(lines) + "\n"


def _measured_on(machines: dict[str, dict[str, str]]) -> list[str]:
    tasks: dict[str, list[str]] = {}
    for task, machine in machines.items():
        facts = ", ".join(f"{name} {value}" for name, value in machine.items())
        tasks.setdefault(facts, []).append(task)
    return [
        f"- Measured on: {machine}" + (f" ({', '.join(of)})." if len(tasks) > 1 else ".")
        for machine, of in tasks.items()
    ]


def _completeness(standings: list[Standing]) -> str:
    parts = {
        "Complete": [s.name for s in standings if s.complete],
        "Begun, with fewer seeds": [s.name for s in standings if s.begun and not s.complete],
        "Not there yet": [s.name for s in standings if not s.begun],
    }
    return " ".join(f"{what}: {', '.join(names)}." for what, names in parts.items() if names)


def _summary(standings: list[Standing]) -> list[str]:
    if not standings:
        return ["Nothing has been measured yet."]
    found: dict[str, list[str]] = {}
    for standing in standings:
        for target in standing.task.targets:
            where = f"{standing.name} to {target:.2f}"
            found.setdefault(standing.compare(target).verdict, []).append(where)
    total = sum(map(len, found.values()))
    words = {
        "faster": "Faster, but by less",
        "undecided": "Neither faster nor slower beyond the noise of the seeds",
        "slower": "**Slower than the best peer**",
        "neither gets there": "Neither gets there",
    }
    said = (
        f"The aim, a best peer that takes at least {GOAL:g} times as long as ours, is reached at "
    )
    said += f"{len(found.get('reached', []))} of {counted(total, 'target')}"
    said += f" ({', '.join(found['reached'])})." if "reached" in found else "."
    for verdict, what in words.items():
        if verdict in found:
            said += f" {what}: {', '.join(found[verdict])}."
    return [said, "", *_ratios(standings), "", f"![Seconds to each target]({PLOT})"]


def _ratios(standings: list[Standing]) -> list[str]:
    header = ["task", "validation score", "ours, s", "best peer", "its time, s"]
    header += ["times ours", "in processor time"]
    rows = []
    for standing in standings:
        for target in standing.task.targets:
            found: Comparison = standing.compare(target)
            times = [
                spread(standing.values(name, target, "seconds"), standing.cap)
                for name in (OURS, found.peer)
            ]
            ratios = [describe_ratio(found.seconds), describe_ratio(found.cpu)]
            row = [standing.name, known(standing.task, target), times[0], found.peer, times[1]]
            rows.append([*row, *ratios])
    return table(header, rows)


def _section(standing: Standing) -> list[str]:
    task = standing.task
    targets = [known(task, target) for target in task.targets]
    header = ["network", "learning rate", *(f"s to {target}" for target in targets)]
    header += [*(f"epochs to {target:.2f}" for target in task.targets), "ms an epoch", "seeds"]
    rows = []
    for name in task.contenders:
        row = [name, f"{standing.rates[name]:g}" + ("*" if standing.at_an_edge(name) else "")]
        row += [spread(standing.values(name, t, "seconds"), standing.cap) for t in task.targets]
        for target in task.targets:
            row.append(spread(*standing.epochs(name, target), 0))
        rows.append([*row, f"{standing.milliseconds(name):.0f}", str(len(standing.rows[name]))])
    lines = [
        f"## {standing.name}",
        "",
        f"Ours: {describe_ours(task)}. Peers: {task.source}: "
        + "; ".join(f"{peer.name}: {describe(peer)}" for peer in task.peers)
        + f". Cap: {standing.cap:g} s. Load of the machine as the runs began: "
        f"{standing.load:.1f}.",
        "",
        *table(header, rows),
    ]
    if any(map(standing.at_an_edge, task.contenders)):
        lines += ["", "\\*: at an end of the grid."]
    return lines


def describe_ours(task: Task) -> str:
    """Our arm in words, from its recipe."""
    recipe = our_recipe(task, 1.0)
    model = recipe.model
    what = f"`{task.recipe}`, {model.num_layers} layers of width {model.hidden_feats}"
    what += f", dropout {model.dropout:g}"
    if model.norm_layer != "none":
        what += f", {model.norm_layer} normalization"
    if recipe.training.batching.size:
        what += f", batches of {recipe.training.batching.size}"
    if recipe.schedule.warmup_steps:
        what += f", warm-up of {counted(recipe.schedule.warmup_steps, 'step')}"
    for key, value in task.changes.items():
        if key == "model.dropout":
            continue  # said above
        what += f", on {value}" if key == "data.name" else f", `{key}` {value}"
    return what


def describe(peer: Peer) -> str:
    """A peer's settings in words."""
    what = f"{counted(peer.layers, 'layer')} of width {peer.width}, dropout {peer.dropout:g}"
    what += "".join(f", {key.rstrip('_')} {value:g}" for key, value in peer.options.items())
    if peer.weight_decay or peer.end_decay:
        what += f", weight decay {peer.weight_decay:g} (convolutions) and {peer.end_decay:g}"
    if peer.batch_size:
        what += f", batches of {peer.batch_size}"
    return what
