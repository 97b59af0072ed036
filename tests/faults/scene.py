"""What is attacked: a tiny recipe, its finished and its interrupted run, its record, its zoo."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dgl_deepgnn import __main__
from dgl_deepgnn.files import write_json
from dgl_deepgnn.hub import publish
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, train
from dgl_deepgnn.training.checking import check_recipe
from dgl_deepgnn.training.tuning import tune

torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
NAME = "tiny.karate"
RECIPE: dict[str, Any] = {
    "name": NAME,
    "data": {"name": "karate"},
    "model": {"hidden_feats": 4, "num_layers": 3, "dropout": 0.2},
    "schedule": {"name": "cosine", "warmup_steps": 3},
    "training": {"epochs": 12, "evaluate_every": 2},
    "seeds": [0, 1],
    "speedup": {"steps": 6, "learning_rates": [0.01], "seeds": [0, 1]},
}


class Scene:
    """The folders, all in one.

    ::

        recipe.yaml   run/   run.speedup/
        tuning/        a tuning of it   checked/   its depth check
        zoo/           the run, published; in older/ with another licence
        interrupted/   seed 0 is done, seed 1 in its ninth epoch
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe, self.run, self.speedup = (
            folder / name for name in ("recipe.yaml", "run", "run.speedup")
        )
        self.interrupted, self.zoo = folder / "interrupted", folder / "zoo"
        self.older = folder / "older"
        self.tuning, self.checked = folder / "tuning", folder / "checked"

    def make(self) -> Scene:
        """Write them, in another process: whoever has trained may not be forked any more."""
        self.folder.mkdir(parents=True, exist_ok=True)
        assert wait(fork(self._make, self.folder / "log")) == 0, (self.folder / "log").read_text()
        return self

    def _make(self) -> None:
        recipe = Recipe.model_validate(RECIPE)
        self.recipe.write_text(recipe.to_yaml())
        train(recipe, self.run, progress=False)
        measure_speedup(recipe, self.speedup, progress=False)
        tune(recipe, self.tuning, num_layers=2, hidden_feats=2, seeds=1, progress=False)
        result = check_recipe(recipe, [2, 3], [2, 3], steps=1, seeds=2)
        self.checked.mkdir()
        result.plot(self.checked / "check.png")
        write_json(self.checked / "check.json", result.to_dict())
        publish(self.run, zoo=self.zoo)
        publish(self.run, zoo=self.older, licence="MIT")
        append = RunFolder.append_metrics

        def interrupted(folder: RunFolder, seed: int, line: Any) -> None:
            append(folder, seed, line)
            if (seed, line["epoch"]) == (1, 9):
                raise KeyboardInterrupt

        RunFolder.append_metrics = interrupted  # type: ignore[method-assign]
        try:
            train(recipe, self.interrupted, progress=False)
        except KeyboardInterrupt:
            pass
        finally:
            RunFolder.append_metrics = append  # type: ignore[method-assign]


def command(*arguments: object) -> Callable[[], None]:
    """What ``dgl-deepgnn ARGUMENTS`` does, for :func:`fork`."""

    def work() -> None:
        sys.argv = ["dgl-deepgnn", *map(str, arguments)]
        __main__.main()

    return work


def fork(work: Callable[[], object], log: Path) -> int:
    """Start a process that has imported everything already; what it prints goes to `log`."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int) -> int:
    """Exit code; of a killed process the signal's number, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
