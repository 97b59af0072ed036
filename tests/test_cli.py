"""The command line: results on stdout, one paragraph and exit code 2 for wrong input."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import dgl
import pytest
import torch
import yaml

import dgl_deepgnn
from dgl_deepgnn import ResGCN, __main__, diagnose, load_data
from dgl_deepgnn.cli import commands as cli
from dgl_deepgnn.data.trust import load_recipe_data
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.recipe import json_schema, list_recipes, load_recipe
from dgl_deepgnn.training import RunFolder

SMALL = {
    "data": {"name": "karate"},
    "model": {"num_layers": 3, "hidden_feats": 8},
    "training": {"epochs": 3},
    "seeds": [0, 1],
    "speedup": {"steps": 4, "seeds": [0, 1], "learning_rates": [0.001, 0.01, 0.1]},
}


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Function that runs ``dgl-deepgnn ARGUMENTS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["dgl-deepgnn", *map(str, arguments)])
        capsys.readouterr()
        try:
            __main__.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "own" / "small.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(SMALL))
    return file


# --- results ---


def test_train(command: Any, small: Path, tmp_path: Path) -> None:
    result = command("train", small)
    assert result.code == 0
    assert "small: test roc_auc 0." in result.out and "(2 seeds)" in result.out
    assert "runs/small" in result.out
    assert "Run folder: runs/small" in result.err
    summary = json.loads((tmp_path / "runs" / "small" / "summary.json").read_text())
    assert f"{summary['test']['roc_auc']['mean']:.4f} +- " in result.out
    assert f"{summary['parameters']:,} parameters" in result.out
    assert command("train", small).code == 0
    assert (tmp_path / "runs" / "small-2" / "summary.json").is_file()


def test_everyday_keys_are_overrides(command: Any, small: Path, tmp_path: Path) -> None:
    asked = ["--epochs", 2, "--lr", 0.02, "--num-layers", 5, "--hidden-feats", 6, "--seeds", "3,4"]
    done = command("train", small, "--output", tmp_path / "run", *asked)
    assert done.code == 0, done.err
    made = RunFolder.open(tmp_path / "run").recipe
    assert (made.training.epochs, made.optimizer.lr, made.seeds) == (2, 0.02, [3, 4])
    assert (made.model.num_layers, made.model.hidden_feats) == (5, 6)
    # They replace steps, and what --set says.
    content = {**SMALL, "training": {"steps": 7}}
    small.write_text(yaml.safe_dump(content))
    more = ["--set", "seeds=[9]", "--seeds", "0", "--epochs", 1]
    assert command("train", small, "--output", tmp_path / "other", *more).code == 0
    made = RunFolder.open(tmp_path / "other").recipe
    assert (made.training.epochs, made.training.steps, made.seeds) == (1, None, [0])
    for wrong, problem in (
        (["--seeds", "x"], "seeds.0: Input should be a valid integer"),
        (["--lr", "-1"], "optimizer.lr: Input should be greater than 0"),
        (["--resume", tmp_path / "run", "--epochs", "9"], "give nothing else"),
    ):
        refused = command("train", *([] if "--resume" in wrong else [small]), *wrong)
        assert refused.code == 2 and problem in refused.err


def test_diagnose_expects_what_weights_do(command: Any, tmp_path: Path) -> None:
    """The theory beside the measurement is that of the weighted graph."""
    graph = dgl.rand_graph(60, 600)
    graph.ndata["feat"], graph.ndata["label"] = torch.randn(60, 8), torch.arange(60) % 2
    graph.edata["w"] = torch.rand(600) ** 4
    dgl.save_graphs(str(tmp_path / "g.bin"), [graph])
    found = {}
    for options in ({}, {"edge_weight": "w"}):
        content = {**SMALL, "data": {"name": f"file:{tmp_path / 'g.bin'}", "options": options}}
        content["model"] = {"num_layers": 6, "hidden_feats": 64, "residual": None, "t": 1.0}
        (tmp_path / "it.yaml").write_text(yaml.safe_dump(content))
        result = json.loads(command("diagnose", tmp_path / "it.yaml", "--json").out)
        found[bool(options)] = result
    data = load_data(f"file:{tmp_path / 'g.bin'}", edge_weight="w")
    (ready,) = data.graphs
    model = ResGCN(8, 64, 2, 6, t=1.0, residual=None)
    expected = diagnose(model, ready, ready.ndata["feat"], edge_weight=ready.edata["weight"])
    theory = json.loads(json.dumps(expected.to_dict()))["theory"]
    assert found[True]["theory"]["dirichlet"] == pytest.approx(theory["dirichlet"], rel=1e-5)
    plain, weighted = (found[key]["theory"]["dirichlet"][1] for key in (False, True))
    assert abs(weighted - plain) > 0.02 * plain


def test_the_shell_completes() -> None:
    asked = {"COMP_WORDS": "dgl-deepgnn comp", "COMP_CWORD": "1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("dgl-deepgnn")],
        env={**os.environ, "_DGL_DEEPGNN_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["compare"], done.stderr


def test_train_as_json_with_overrides(command: Any, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out 数"
    result = command(
        *("train", small, "--set", "model.num_layers=5", "--set", "seeds=[3]"),
        *("--output", folder, "--json"),
    )
    assert result.code == 0
    content = json.loads(result.out)
    assert content.pop("folder") == str(folder)
    assert content == RunFolder.open(folder).read("summary.json")
    assert content["best_seed"] == 3
    assert load_recipe(folder / "recipe.yaml").model.num_layers == 5
    again = command("train", "--resume", folder, "--json")
    assert again.code == 0 and json.loads(again.out)["test"] == content["test"]


def test_json_is_all_there_is_on_stdout(command: Any, small: Path) -> None:
    # METIS writes its timings to stdout.
    clusters = ("--set", "training.clusters=2", "--set", "training.batch_size=1")
    json.loads(command("train", small, *clusters, "--json").out)


def test_speedup(command: Any, small: Path, tmp_path: Path) -> None:
    result = command("speedup", small)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split()[:2] == ["arm", "lr"]
    arms = ["stock", "usual practice", "batch normalization", "principled"]
    arms += ["principled + batch normalization"]
    assert [line.split("  ")[0] for line in lines[1:6]] == arms
    assert "Table and plot: runs/small.speedup" in result.out
    folder = tmp_path / "runs" / "small.speedup"
    for name in ("speedup.json", "speedup.csv", "speedup.png", "recipe.yaml"):
        assert (folder / name).stat().st_size > 0
    trials = sorted((folder / "trials").iterdir())
    before = [file.stat().st_mtime_ns for file in trials]

    again = command("speedup", "--resume", folder, "--json")
    assert again.code == 0
    content = json.loads(again.out)
    assert content.pop("folder") == str(folder)
    assert content == RunFolder.open(folder).read("speedup.json")
    assert [file.stat().st_mtime_ns for file in sorted((folder / "trials").iterdir())] == before

    ablation = command("speedup", "--resume", folder, "--ablation", "--json")
    assert ablation.code == 0 and len(json.loads(ablation.out)["arms"]) == 11


@pytest.mark.parametrize("name", ["train", "speedup"])
def test_ctrl_c(
    command: Any, small: Path, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    calls = []

    def interrupted(self: Any, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    original = cli.train.__globals__["Trainer"]._train_on
    with monkeypatch.context() as patch:
        patch.setattr(cli.train.__globals__["Trainer"], "_train_on", interrupted)
        result = command(name, small, "--output", "folder")
    assert result.code == 130 and result.out == ""
    assert f"dgl-deepgnn {name} --resume FOLDER" in result.err
    assert "older: folder" in result.err and "Traceback" not in result.err
    assert command(name, "--resume", "folder").code == 0


def test_recipes(command: Any, small: Path) -> None:
    listed = command("recipes", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list_recipes()
    assert command("recipes").out == listed.out
    as_json = json.loads(command("recipes", "list", "--json").out)
    assert as_json["resgcn64.digits"] == load_recipe("resgcn64.digits").description.strip()

    overrides = ("--set", "model.num_layers=7")
    shown = command("recipes", "show", small, *overrides)
    recipe = load_recipe(small, ["model.num_layers=7"])
    plain = recipe.model_dump(mode="json")
    assert yaml.safe_load(shown.out) == {**plain, "changed": ["model.num_layers=7"]}
    shown = command("recipes", "show", small, *overrides, "--json")
    assert json.loads(shown.out) == plain

    assert command("recipes", "schema").out == json_schema()


def test_version(command: Any) -> None:
    result = command("--version")
    assert result == (0, f"dgl-deepgnn {dgl_deepgnn.__version__}\n", "")
    assert "--version" in command("--help").out


def test_doctor(command: Any) -> None:
    result = command("doctor")
    assert result.code == 0 and dgl.__version__ in result.out


# --- wrong input ---


def graphs_of_two_widths(folder: Path) -> Path:
    graphs = []
    for width in (3, 4):
        graph = dgl.graph(([0, 1, 2], [1, 2, 0]))
        graph.ndata["feat"] = torch.ones(3, width)
        graph.ndata["label"] = torch.tensor([0, 1, 0])
        graphs.append(graph)
    dgl.save_graphs(str(folder / "graphs.bin"), graphs)
    return folder / "graphs.bin"


WRONG = [
    (("train", "resgcn64.digts"), "no recipe 'resgcn64.digts'. Did you mean 'resgcn64.digits'"),
    (("train", "SMALL", "--set", "modle.num_layers=3"), "modle: unknown key. Did you mean 'model'"),
    (("train", "SMALL", "--set", "model.num_layers=-3"), "model.num_layers: .*got -3"),
    (("train", "SMALL", "--set", "model.name=resgcm"), "no model 'resgcm'. Did you mean 'resgcn'"),
    (("train", "SMALL", "--set", "data.name=karat"), "no data set 'karat'. Did you mean 'karate'"),
    (("train", "SMALL", "--set", "data.options.x=1"), "no option 'x'"),
    (("train", "SMALL", "--set", "data.name=file:WIDTHS"), "graph 1 have 4 columns"),
    (("train", "SMALL", "--set", "oops"), "expected key=value"),
    (("train", "SMALL", "--set", "name=a/b"), "name: .*pattern"),
    (("train", "SMALL", "--device", "cuda:42"), "--device cuda:42: there is no such CUDA device"),
    (("train", "SMALL", "--device", "tpu"), "--device tpu: not a device"),
    (("train", "SMALL", "--output", "own"), "own exists, and what is there is never overwritten"),
    (("train", "SMALL", "--output", "own/small.yaml/x"), "cannot be made .*Not a directory"),
    (("train", "SMALL", "--output", "/proc/run"), "cannot be made"),
    (("train", "SMALL", "--set", "optimizer.lr=1e30"), "not finite after step 1 of small, seed 0"),
    (("train", "SMALL", "--set", "training.clusters=2"), "clusters needs batch_size"),
    (("train", "--resume", "own"), "own is not a run folder"),
    (("train", "--resume", "own/small.yaml"), "is not a run folder"),
    (("train", "--resume", "nowhere"), "nowhere is not a run folder"),
    (("train", "SMALL", "--resume", "own"), "give nothing else"),
    (("train",), "Which recipe"),
    (("train", ""), "no recipe ''"),
    (("train", "own"), "own: cannot be read as a recipe: .*directory"),
    (("speedup",), "Which recipe"),
    (("speedup", "resgcn"), "no recipe 'resgcn'"),
    (("speedup", "--resume", "nowhere"), "nowhere is not a run folder"),
    (("speedup", "SMALL", "--set", "speedup.seeds=[0, 0]"), "speedup: seeds must differ"),
    (("speedup", "SMALL", "--device", "cuda:42"), "no such CUDA device"),
    (("speedup", "SMALL", "--output", "own"), "never overwritten"),
    (("recipes", "show", "x"), "no recipe 'x'"),
    (("models", "resgcn64.digts"), "no model 'resgcn64.digts'.* Did you mean 'resgcn64.digits'"),
    (("predict", "resgcn64.digits", "--graph", "own", "--output", "x.csv"), "own is a folder"),
    (
        ("predict", "resgcn64.digits", "--graph", "SMALL", "--output", "x.csv"),
        r"small.yaml was not written by dgl.save_graphs: Invalid DGL files\.\n",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_input(
    command: Any, small: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    import re

    arguments = tuple(
        argument.replace("SMALL", str(small)).replace(
            "WIDTHS", str(graphs_of_two_widths(tmp_path)) if "WIDTHS" in argument else ""
        )
        for argument in arguments
    )
    result = command(*arguments)
    assert result.code == 2
    assert result.out == ""
    *_, paragraph = result.err.split("Error: ")
    assert re.search(message, paragraph), result.err
    assert "Traceback" not in result.err
    assert "\n\n" not in paragraph and paragraph.endswith("\n")
    made = {path.name for path in tmp_path.iterdir()} - {"own", "graphs.bin"}
    assert made <= ({"runs"} if "lr=1e30" in arguments[-1] else set())


def test_typos_in_options_and_commands(command: Any) -> None:
    for arguments in (("trian", "x"), ("train", "x", "--outptu", "y"), ("recipes", "lst")):
        result = command(*arguments)
        assert result.code == 2 and "Traceback" not in result.err and result.err


def test_what_the_machine_denies_is_no_error_of_the_program(
    command: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/small")

    monkeypatch.setattr(cli, "train", full)
    result = command("train", small)
    assert result == (2, "", "Error: runs/small: No space left on device.\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EFBIG, "File too large", "runs/x"), "runs/x: File too large"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "y"), "y: File name too long"),
        (OSError(errno.EIO, "Input/output error"), "writing: Input/output error"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."), "not enough memory"),
        (RuntimeError("Storage size calculation overflowed with sizes=[]"), "not enough memory"),
    ],
)
def test_limits_of_the_machine_are_one_paragraph(
    error: Exception, says: str, command: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "train", limited)
    result = command("train", small)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Error: ") and says in result.err
    assert result.err.count("\n") == 1


def test_an_error_of_the_program_keeps_its_traceback(
    command: Any, small: Path, monkeypatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "train", broken)
    with pytest.raises(ZeroDivisionError):
        command("train", small)


def test_as_a_process_from_another_folder(tmp_path: Path) -> None:
    """What a shell sees: exit code 2, one paragraph on stderr."""
    process = subprocess.run(
        [sys.executable, "-m", "dgl_deepgnn", "train", "resgcn64.digits", "--set", "seeds=[-1]"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith("Error: recipe resgcn64.digits: seeds.0: ")
    assert process.stderr.endswith("(More: docs/recipes.md)\n")
    assert len(process.stderr.splitlines()) == 1


def test_errors_name_pages_that_there_are() -> None:
    def all_below(kind: type[BaseException]) -> set[type[BaseException]]:
        return {kind}.union(*map(all_below, kind.__subclasses__()))

    pages = {getattr(kind, "page", "") for kind in all_below(UserError) | all_below(DGLError)}
    assert pages >= {"docs/recipes.md", "docs/zoo.md", "docs/hooks.md", "docs/reliability.md"}
    assert all((Path(__file__).parents[1] / page).is_file() for page in pages if page)
    with pytest.raises(UserError) as raised:
        load_recipe_data("python:mine:load", {})
    assert raised.value.page == "docs/trust.md"


def test_init(command: Any, tmp_path: Path) -> None:
    result = command("init", "--data", "digits", "--option", "neighbors=6")
    assert result.code == 0
    assert "Train: dgl-deepgnn train resgraphsage16.digits.yaml" in result.out
    recipe = load_recipe(tmp_path / "resgraphsage16.digits.yaml")
    assert recipe.data.options == {"neighbors": 6}
    again = command("init", "--data", "digits")
    assert again.code == 2 and "never overwritten" in again.err
    wrong = command("init", "--data", "digits", "--output", "mine.txt")
    assert wrong.code == 2 and "ends in .yaml" in wrong.err
    shown = command("init", "--data", "tracks", "--output", "mine.yaml", "--json")
    content = json.loads(shown.out)
    assert content["recipe"] == "mine.yaml" and "messages read them" in str(content["reasons"])
    trained = command("train", "mine.yaml", "--epochs", 1, "--num-layers", 2, "--seeds", 0)
    assert trained.code == 0
