"""What a person sees where DGL does not import: processes of their own, with a broken DGL."""

from __future__ import annotations

import configparser
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import dgl
import pytest

import dgl_deepgnn
from dgl_deepgnn import _environment

ROOT = Path(__file__).parents[1]
PIN = "dgl==1.1.3" if sys.version_info < (3, 12) else "dgl==2.1.0"

GRAPHBOLT = (
    "Cannot find DGL C++ graphbolt library at /site-packages/dgl/graphbolt/libgraphbolt_pytorch.so"
)
BROKEN = {
    "graphbolt": (
        f"raise FileNotFoundError({GRAPHBOLT!r})",
        GRAPHBOLT,
        "compiled for exactly this torch",
    ),
    "torchdata": (
        "import torchdata.datapipes_that_are_gone",
        "No module named 'torchdata",
        "compiled for exactly this torch",
    ),
    "packaging": (
        "raise ModuleNotFoundError(\"No module named 'packaging'\")",
        "No module named 'packaging'",
        "imports the package 'packaging' without declaring it",
    ),
    "something else": (
        "raise OSError('libcusparse.so.11: cannot open shared object file')",
        "libcusparse.so.11: cannot open",
        "does not work together",
    ),
}


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with `path` and the checkout in front of everything installed."""
    places = [str(place) for place in (path, ROOT) if place is not None]
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        timeout=120,
    )


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, str]:
    """A folder with a DGL 2.1.0 that does not import; its words; ours."""
    code, reason, explanation = BROKEN[request.param]
    (tmp_path / "dgl").mkdir()
    (tmp_path / "dgl" / "__init__.py").write_text(code)
    (tmp_path / "dgl-2.1.0.dist-info").mkdir()
    (tmp_path / "dgl-2.1.0.dist-info" / "METADATA").write_text("Name: dgl\nVersion: 2.1.0\n")
    return tmp_path, reason, explanation


def test_import_says_why_and_how_to_repair(broken: tuple[Path, str, str]) -> None:
    path, reason, explanation = broken
    result = python("-c", "import dgl_deepgnn", path=path)
    assert result.returncode == 1
    message = result.stderr[result.stderr.index("ImportError: DGL 2.1.0 does not import") :]
    assert f"torch {version('torch')} on Python {platform.python_version()}" in message
    assert reason in message
    assert explanation in message
    assert f"{sys.executable} -m pip install '{PIN}'" in message
    assert "During handling" not in result.stderr


def test_commands_end_in_one_paragraph(broken: tuple[Path, str, str]) -> None:
    path, reason, _ = broken
    script = path / "dgl-deepgnn"
    script.write_text("from dgl_deepgnn.__main__ import main\nmain()\n")
    for command in (["-m", "dgl_deepgnn"], [str(script)]):
        result = python(*command, "train", "resgcn64.digits", path=path)
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("DGL 2.1.0 does not import beside")
        assert reason in result.stderr
        assert f"-m pip install '{PIN}'" in result.stderr
        assert "Traceback" not in result.stderr
        assert "\n\n" not in result.stderr


def test_other_programs_get_the_error_however_they_start(tmp_path: Path) -> None:
    (tmp_path / "dgl.py").write_text("raise OSError('broken')")
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").write_text("import dgl_deepgnn")
    (tmp_path / "tool" / "__main__.py").write_text("")
    result = python("-m", "tool", path=tmp_path)
    assert result.returncode == 1
    assert "ImportError: DGL" in result.stderr
    assert "OSError: broken" in result.stderr


@pytest.mark.parametrize("start", ["module", "script"])
def test_doctor_reports_a_broken_dgl(tmp_path: Path, start: str) -> None:
    (tmp_path / "dgl.py").write_text(BROKEN["graphbolt"][0])
    script = tmp_path / "dgl-deepgnn"
    script.write_text("from dgl_deepgnn.__main__ import main\nmain()\n")
    command = ["-m", "dgl_deepgnn"] if start == "module" else [str(script)]
    result = python(*command, "doctor", path=tmp_path)
    assert result.returncode == 1
    assert result.stderr == ""
    assert "FAIL dgl" in result.stdout
    assert GRAPHBOLT in result.stdout
    assert f"repair: {sys.executable} -m pip install '{PIN}'" in result.stdout
    assert f"ok   torch {version('torch')}" in result.stdout
    assert result.stdout.endswith("Something does not import: see above.\n")


def test_doctor_needs_nothing_but_the_standard_library() -> None:
    result = python("-S", "-m", "dgl_deepgnn", "doctor")
    assert result.returncode == 1
    assert result.stderr == ""
    failed = re.findall(r"^FAIL (\S+) \(not installed\)$", result.stdout, flags=re.MULTILINE)
    assert failed == [package for package in _environment.PACKAGES if package != "dgl"]
    assert "none dgl: the package works without it" in result.stdout
    imported = python("-S", "-c", "import dgl_deepgnn")
    assert imported.returncode == 1
    assert "ImportError: dgl_deepgnn needs torch" in imported.stderr
    assert f"{sys.executable} -m pip install torch" in imported.stderr


@pytest.fixture
def dgl_two(tmp_path: Path) -> Path:
    """A folder with a DGL that, as DGL 2 does, stops where GraphBolt has no library."""
    folder, real = tmp_path / "dgl", Path(dgl.__file__).parent
    folder.mkdir()
    for entry in real.iterdir():
        if entry.name not in ("__init__.py", "__pycache__", "graphbolt"):
            (folder / entry.name).symlink_to(entry)
    code = (real / "__init__.py").read_text()
    (folder / "__init__.py").write_text(f"{code}\nfrom . import graphbolt\n")
    (folder / "graphbolt").mkdir()
    (folder / "graphbolt" / "__init__.py").write_text(BROKEN["graphbolt"][0])
    return tmp_path


def test_graphbolt_without_a_library_is_left_out(dgl_two: Path) -> None:
    code = """
import dgl_deepgnn, dgl, torch
from dgl import graphbolt
assert not isinstance(dgl.graph(([0], [1])), graphbolt.FusedCSCSamplingGraph)
graph = dgl.rand_graph(9, 30).add_self_loop()
print(dgl_deepgnn.ResGCN(2, 4, 3, num_layers=2)(graph, torch.ones(9, 2)).shape)
graphbolt.ItemSet(3)
"""
    result = python("-c", code, path=dgl_two)
    assert result.stdout == "torch.Size([9, 3])\n", result.stderr
    assert "ImportError: dgl.graphbolt.ItemSet is not to be had" in result.stderr
    report = python("-m", "dgl_deepgnn", "doctor", path=dgl_two)
    assert report.returncode == 0, report.stderr
    assert "left out; the rest of DGL works" in report.stdout


def test_graphbolt_with_a_library_stays(dgl_two: Path) -> None:
    torch = version("torch").partition("+")[0]
    (dgl_two / "dgl" / "graphbolt" / f"libgraphbolt_pytorch_{torch}.so").touch()
    result = python("-c", "import dgl_deepgnn", path=dgl_two)
    assert GRAPHBOLT in result.stderr  # it was DGL's own part that was imported


@pytest.mark.parametrize("datapipes", [False, True])
def test_graphbolt_is_left_out_where_torchdata_is_too_new(dgl_two: Path, datapipes: bool) -> None:
    torch = version("torch").partition("+")[0]
    folder = dgl_two / "dgl" / "graphbolt"
    (folder / f"libgraphbolt_pytorch_{torch}.so").touch()
    (folder / "base.py").write_text("from torchdata.datapipes.iter import IterDataPipe\n")
    (folder / "__init__.py").write_text("from .base import *\n")
    (dgl_two / "torchdata").mkdir()
    (dgl_two / "torchdata" / "__init__.py").touch()
    if datapipes:
        (dgl_two / "torchdata" / "datapipes").mkdir()
        (dgl_two / "torchdata" / "datapipes" / "iter.py").write_text("IterDataPipe = 1\n")
    report = python("-m", "dgl_deepgnn", "doctor", path=dgl_two)
    assert report.returncode == 0, report.stdout
    said = "needs torchdata before 0.10: left out; the rest of DGL works."
    assert (said in report.stdout) is not datapipes


def test_dgl_that_failed_before_imports_then(dgl_two: Path) -> None:
    code = """
try:
    import torch, dgl
except FileNotFoundError:
    import dgl_deepgnn
    import dgl
graph = dgl.rand_graph(5, 9).add_self_loop()
print(dgl.nn.GraphConv(2, 3)(graph, torch.ones(5, 2)).shape)
"""
    result = python("-c", code, path=dgl_two)
    assert result.stdout == "torch.Size([5, 3])\n", result.stderr


def test_doctor_where_all_is_well() -> None:
    report, healthy = _environment.doctor()
    assert healthy
    assert "FAIL" not in report
    assert "repair" not in report
    assert f"Python {platform.python_version()}" in report
    for package in _environment.PACKAGES:
        assert f"ok   {package} {version(package)}\n" in report
    assert _environment.problem() == ""


def test_import_is_light() -> None:
    """Beyond DGL itself, importing loads SciPy only, and calls nobody."""
    code = """
import sys, importlib.util
found = importlib.util.spec_from_file_location("environment", sys.argv[1])
environment = importlib.util.module_from_spec(found)
found.loader.exec_module(environment)
environment.stand_in_for_graphbolt()
import dgl
before = set(sys.modules)
calls = []
watched = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.mkdir", "os.system")
sys.addaudithook(lambda event, _: calls.append(event) if event in watched else None)
import dgl_deepgnn
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
print(sorted(n for n in sys.modules if n.startswith("dgl_deepgnn.") and n.count(".") == 1))
print(calls)
"""
    result = python("-c", code, str(ROOT / "dgl_deepgnn" / "_environment.py"))
    assert result.returncode == 0, result.stderr
    loaded, ours, calls = result.stdout.splitlines()
    for package in ("matplotlib", "pooch", "typer", "sklearn", "pydantic", "yaml", "safetensors"):
        assert repr(package) not in loaded
    for module in ("cli", "data", "hub", "recipe", "training", "speedup", "diagnostics"):
        assert f"'dgl_deepgnn.{module}'" not in ours
    assert calls == "[]"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def test_wheel_has_every_subpackage() -> None:
    options = setup_cfg()["options"]
    folders = dict(line.split(" = ") for line in options["package_dir"].split("\n") if line)
    packages = {folders.pop(name, name.replace(".", "/")) for name in options["packages"].split()}
    assert not folders
    found = {
        str(file.parent.relative_to(ROOT))
        for top in ("dgl_deepgnn", "recipes", "zoo")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert packages == found


def test_doctor_knows_every_dependency_and_the_pinned_versions() -> None:
    lines = setup_cfg()["options"]["install_requires"].split("\n")
    required = {re.split(r"[ <>=!;]", line)[0] for line in lines if line and line[0] != "#"}
    required -= {"pandas"}  # of DGL 2.1 alone
    assert set(_environment.PACKAGES) == required
    pins = set(re.findall(r"^[^;\n]+", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert set(re.findall(r"'(.*?)'", _environment.REPAIR)) <= pins


def test_public_names_exist() -> None:
    assert all(hasattr(dgl_deepgnn, name) for name in dgl_deepgnn.__all__)
    assert dgl_deepgnn.__all__ == sorted(dgl_deepgnn.__all__)
