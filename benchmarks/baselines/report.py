"""The page, ``baselines.md``, of the rows that there are and of the zoo."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from benchmarks.baselines.comparison import LEVEL, Comparison, stand
from benchmarks.baselines.references import SEEDS, TASKS, TUNING_SEEDS, Candidate
from benchmarks.baselines.rows import Rows
from benchmarks.cost.report import table
from benchmarks.time_to_accuracy.report import describe
from dgl_deepgnn.wording import counted

__all__ = ["COMMAND", "report"]

COMMAND = "python -m benchmarks.baselines"

RULES = f"""\
Networks of DGL's own layers, and for tracks the interaction network made for them, trained in our
recipes' protocol beside the zoo's models:

- Data and splits are those of our recipes: on Cora, Citeseer and Pubmed the public split, on
  tracks and trackml the one there is, elsewhere ten splits or folds, of which seed s takes that of
  number s. Seeds {SEEDS[0]} to {SEEDS[-1]} are reported, those of our recipes (which have the first
  five on tracks and trackml).
- The epoch is chosen by the validation score (a tie by the validation loss), training ends when
  that has not got better for so many epochs, and the test part is evaluated once, at the chosen
  epoch. This is not what all authors do: GCNII's choose by validation loss, and GIN's take the
  epoch with the best mean accuracy on the test folds themselves, which no figure of this page does.
  An epoch is one pass over the data; GIN's authors have 50 batches in one.
- Settings are their authors'. What is chosen, is chosen by the validation score on seeds
  {" and ".join(map(str, TUNING_SEEDS))}, which are not reported and whose test part is not
  evaluated. Of ten folds these validate on folds 1 and 2, on which the reported seeds 1 and 2 are
  tested: in favour of the reference, if at all.
- The interaction network reads the segments of a collision from the inside to the outside, as its
  authors have them; ours passes messages both ways, and along self-loops.
- References read the features as their authors do: words are divided by their number in a row,
  where our recipes of Citeseer and Pubmed have another scale. GIN has five convolutions; its
  authors' code counts the input as one of five layers.
- Ours are read from the zoo's files. Not all of them were tuned without a look at the test scores:
  the descriptions of our recipes say how each was.
- An interval is Student's at {LEVEL:.0%}: of the differences split by split where there are ten
  splits, else of two independent sets of seeds. Folds share training data, and seeds on one split
  share its test nodes: what another split would change is in none of these intervals, which are
  therefore too narrow rather than too wide. With this many comparisons, expect one in twenty to
  leave its interval by chance."""


def report(rows: Rows) -> str:
    """Markdown of all that there is."""
    found = {name: stand(rows, name, task) for name, task in TASKS.items()}
    flat = [comparison for some in found.values() for comparison in some]
    lines = [
        "# The zoo's models beside references",
        "",
        f"Made by `{COMMAND}`, which trains only what is not there yet; `--tasks NAME`, "
        "`--references PATTERN` and `--seeds SEED ...` make a part, `--tasks` alone writes the "
        "page anew, which is to be done when a model of the zoo has changed.",
        "",
        RULES,
        "",
        "## Scores",
        "",
        "Test accuracy in per cent, on Minesweeper, Tolokers, tracks and trackml ROC AUC: mean ± "
        "standard deviation (number of seeds).",
        "",
        *_scores(flat),
        "",
        *_verdicts(flat),
        "",
        "## Published figures",
        "",
        "In their authors' protocols, which differ from ours as said.",
        "",
        *_published(),
        "",
        "## Settings and cost",
        "",
        f"{_minutes(row['cpu'] for row in rows)} of one processor for all trainings, tuning "
        f"included, made with {_versions(rows)}.",
        "",
        *_settings(flat),
        "",
        "## What is left out",
        "",
        *_left_out(found),
    ]
    return "\n".join(lines) + "\n"


def _scores(found: list[Comparison]) -> list[str]:
    header = ["task", "reference", "layers x width", "test", "ours", "layers x width", "test"]
    header += ["ours less reference"]
    lines = []
    for one in found:
        peer, ours = one.candidate.peer, one.ours
        line = [one.task, one.reference.name, f"{peer.layers} x {peer.width}", _spread(one.scores)]
        if ours is None:
            line += ["none yet", "-", "-", "-"]
        else:
            line += [f"`{ours.name}`", f"{ours.layers} x {ours.width}", _spread(ours.scores)]
            line.append(_apart(one))
        lines.append(line)
    return table(header, lines)


def _verdicts(found: list[Comparison]) -> list[str]:
    words = {
        "lower": "**Ours loses**, its score is lower beyond the interval",
        "higher": "Ours is higher beyond the interval",
        "undecided": "Neither is better beyond the interval",
    }
    said: dict[str, list[str]] = {}
    for one in found:
        if one.difference is not None:
            where = f"{one.task} beside {one.reference.name}"
            said.setdefault(one.difference.verdict, []).append(where)
    lines = [
        f"- {words[verdict]}: {'; '.join(said[verdict])}." for verdict in words if verdict in said
    ]
    above = []
    for one in found:
        for published in one.reference.published:
            score = float(published.score.split()[0])
            if one.ours is not None and score > statistics.fmean(one.ours.scores.values()):
                above.append(f"{one.task}, {one.reference.name} of {published.source}")
    if above:
        lines.append(
            f"- Published figures above ours, whatever the protocol: {'; '.join(above)}. Where the "
            "rerun of the same network is below its published figure, too, part of that is the "
            "protocol."
        )
    return lines


def _published() -> list[str]:
    lines = [
        [name, reference.name, published.score, published.source, published.note]
        for name, task in TASKS.items()
        for reference in task.references
        for published in reference.published
    ]
    return table(["task", "reference", "score", "source", "protocol"], lines)


def _settings(found: list[Comparison]) -> list[str]:
    header = ["task", "reference", "settings", "of how many", "epochs at most", "patience"]
    header += ["validated every", "chosen epoch, median", "processor minutes a seed", "source"]
    lines = []
    for one in found:
        reference = one.reference
        lines.append(
            [
                one.task,
                reference.name,
                _describe(one.candidate)
                + (f", halved every {reference.halving} epochs" if reference.halving else ""),
                str(len(reference.candidates)),
                str(reference.epochs),
                str(reference.patience),
                str(reference.every),
                f"{statistics.median(row['epoch'] for row in one.rows):g}",
                f"{statistics.fmean(row['cpu'] for row in one.rows) / 60:.1f}",
                reference.source,
            ]
        )
    return table(header, lines)


def _left_out(found: dict[str, list[Comparison]]) -> list[str]:
    """What is missing, and what it would take where that is known."""
    lines = []
    for name, some in found.items():
        begun = {one.reference.name: one for one in some}
        for reference in TASKS[name].references:
            one = begun.get(reference.name)
            if one is None:
                lines.append(f"- {name}, {reference.name}: not there yet.")
            elif len(one.rows) < len(SEEDS):
                missing = len(SEEDS) - len(one.rows)
                cost = statistics.fmean(row["cpu"] for row in one.rows)
                lines.append(
                    f"- {name}, {reference.name}: {counted(missing, 'seed')} of {len(SEEDS)}; "
                    f"about {_minutes([missing * cost])} more."
                )
    return lines or ["Nothing."]


def _describe(candidate: Candidate) -> str:
    return f"{describe(candidate.peer)}, learning rate {candidate.rate:g}"


def _spread(scores: Mapping[int, float]) -> str:
    values = list(scores.values())
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread} ({len(values)})"


def _apart(one: Comparison) -> str:
    if one.difference is None:
        return "-"
    mean, low, high = one.difference.mean, one.difference.low, one.difference.high
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _minutes(seconds: Iterable[float]) -> str:
    return counted(round(sum(seconds) / 60), "minute")


def _versions(rows: Rows) -> str:
    found = sorted({", ".join(f"{k} {v}" for k, v in row["versions"].items()) for row in rows})
    return "; ".join(found) or "nothing yet"
