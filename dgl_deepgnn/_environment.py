"""Whether what the package needs can be imported here, and if not, why and what repairs it.

Imports nothing but the standard library, so that it works where nothing else does. DGL may be
absent; a DGL that is there and does not import is an error, lest results differ unnoticed.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["doctor", "is_ready", "problem"]

_DGL = "1.1.3" if sys.version_info < (3, 12) else "2.1.0"
REPAIR = f"{sys.executable} -m pip install 'dgl=={_DGL}' 'torch==2.13.0' packaging pandas"
GRAPHBOLT = "dgl.graphbolt"
CORE = ("torch", "numpy", "scipy")
"""What the layers need."""
PACKAGES = (
    "dgl",
    "torch",
    "packaging",
    "numpy",
    "scipy",
    "scikit-learn",
    "networkx",
    "requests",
    "pyyaml",
    "tqdm",
    "jinja2",
    "markdown-it-py",
    "pydantic",
    "safetensors",
    "pooch",
    "filelock",
    "matplotlib",
    "typer",
)
_MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "markdown-it-py": "markdown_it"}


class GraphBoltStandIn(ModuleType):
    """In place of ``dgl.graphbolt``, which cannot be imported beside this torch and torchdata.

    DGL 2 imports GraphBolt whether or not it is used, and stops where its library for exactly
    this torch, or a part of torchdata, is missing. Everything else in DGL works without it: its
    names are classes that have no instances.
    """

    def __init__(self) -> None:
        super().__init__(GRAPHBOLT, GraphBoltStandIn.__doc__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: object, **kwargs: object) -> None:
            raise ImportError(
                f"dgl.graphbolt.{name} is not to be had: {_why_no_graphbolt()}. "
                "The rest of DGL works."
            )

        return type(name, (), {"__new__": refuse, "__module__": GRAPHBOLT})


def stand_in_for_graphbolt() -> None:
    """Let DGL 2 import beside a torch, or torchdata, that its GraphBolt was not made for.

    Does nothing where GraphBolt has what it needs, DGL has no GraphBolt, or DGL is imported
    already. An import of DGL that failed before may be tried again.
    """
    if "dgl" not in sys.modules and _why_no_graphbolt():
        sys.modules[GRAPHBOLT] = GraphBoltStandIn()


def _why_no_graphbolt() -> str:
    """What GraphBolt needs and does not find; empty if there is nothing."""
    try:
        found = importlib.util.find_spec("dgl")
    except ValueError:  # somebody's own module without a spec
        return ""
    if found is None or found.origin is None:
        return ""
    folder = Path(found.origin).parent / "graphbolt"
    torch = _version("torch").partition("+")[0]
    if not folder.is_dir():
        return ""
    if not any(folder.glob(f"*graphbolt_pytorch_{torch}.*")):
        return f"GraphBolt of DGL {_version('dgl')} is not compiled for torch {torch}"
    base = folder / "base.py"
    if base.exists() and "torchdata.datapipes" in base.read_text("utf-8") and not _has_datapipes():
        return f"GraphBolt of DGL {_version('dgl')} needs torchdata before 0.10"
    return ""


def _has_datapipes() -> bool:
    """Whether there is a torchdata that still has its part datapipes."""
    try:
        found = importlib.util.find_spec("torchdata")
    except ValueError:
        return True
    places = [] if found is None else found.submodule_search_locations or []
    return any((Path(place) / "datapipes").is_dir() for place in places)


def _join_parts() -> None:
    """Parts that a failed import of DGL left behind are not attributes of the new one."""
    for name, module in sys.modules.copy().items():
        package, _, part = name.rpartition(".")
        parent = sys.modules.get(package) if package.partition(".")[0] == "dgl" else None
        if parent is not None and not hasattr(parent, part):
            setattr(parent, part, module)


def is_installed(package: str) -> bool:
    """Whether there is a package of that name to import."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # somebody's own module without a spec
        return True


def problem() -> str:
    """What the layers need and cannot import, why, and what repairs it; empty if all is well."""
    for package in CORE:
        reason = _why_not(package)
        if reason:
            return (
                f"dgl_deepgnn needs {package}, and {package} {_version(package)} does not import: "
                f"{reason}\nTo repair it, run:\n    {_install(package)}"
            )
    if not is_installed("dgl"):
        return ""
    stand_in_for_graphbolt()
    reason = _why_not("dgl")
    if not reason:
        _join_parts()
        return ""
    return (
        f"DGL {_version('dgl')} does not import beside torch {_version('torch')} on Python "
        f"{platform.python_version()}: {reason} {_explain(reason)}\nTo repair it, run:\n"
        f"    {REPAIR}\nor do without DGL (docs/install.md says what needs it):\n"
        f"    {sys.executable} -m pip uninstall dgl"
    )


def is_ready() -> bool:
    """Whether the layers import; where they do not, only the command line may go on, to report it.

    Raises
    ------
    ImportError
        With the reason and the repair, elsewhere.
    """
    found = problem()
    if found and not _is_command_line():
        raise ImportError(found)
    return not found


def doctor() -> tuple[str, bool]:
    """Report on the environment: versions, what imports, what does not, and the repair.

    Returns
    -------
    str
        The report.
    bool
        Whether everything imports.
    """
    from dgl_deepgnn import __version__  # defined after this module is imported

    system = f"{platform.system()} {platform.machine()}"
    lines = [f"dgl-deepgnn {__version__}, Python {platform.python_version()} on {system}"]
    healthy = True
    stand_in_for_graphbolt()
    for package in PACKAGES:
        if package == "dgl" and not is_installed("dgl"):
            lines.append("none dgl: the package works without it (docs/install.md says what not)")
            continue
        reason = _why_not(_MODULES.get(package, package))
        lines.append(f"{'ok  ' if not reason else 'FAIL'} {package} {_version(package)}")
        if reason:
            healthy = False
            lines.append(f"     {reason} {_explain(reason) if package == 'dgl' else ''}".rstrip())
            if package == "dgl":
                lines.append(f"     repair: {REPAIR}")
            else:
                lines.append(f"     repair: {_install(package)}")
        elif package == "dgl" and isinstance(sys.modules.get(GRAPHBOLT), GraphBoltStandIn):
            lines.append(f"     {_why_no_graphbolt()}: left out; the rest of DGL works.")
    if _why_not("torch") == "":
        torch = importlib.import_module("torch")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        lines.append(f"CUDA devices: {gpus}; CPU threads: {torch.get_num_threads()}")
    lines.append("Everything imports." if healthy else "Something does not import: see above.")
    return "\n".join(lines), healthy


def _is_command_line() -> bool:
    """Whether this process is ``dgl-deepgnn`` or ``python -m dgl_deepgnn``."""
    started = Path(sys.argv[0]).name
    # While `python -m` looks for its module, the module's name is in orig_argv only.
    return started == "dgl-deepgnn" or (started == "-m" and "dgl_deepgnn" in sys.orig_argv)


@cache  # parts that a failed import leaves behind can make a second one pass
def _why_not(module: str) -> str:
    """Reason why `module` does not import; empty if it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    # DGL's failures are of many kinds: FileNotFoundError, OSError, AttributeError, ...
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".") + "."
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _install(package: str) -> str:
    return f"{sys.executable} -m pip install {package}"


def _explain(reason: str) -> str:
    """What stands behind DGL's own words."""
    for package in ("packaging", "pandas"):
        if f"No module named '{package}'" in reason:
            return f"DGL imports the package '{package}' without declaring it."
    if any(word in reason for word in ("graphbolt", "torchdata", "setuptools", "pydantic")):
        return (
            "DGL 2 imports its part GraphBolt, which needs a library compiled for exactly this "
            "torch and the package torchdata before 0.10."
        )
    return "This combination of DGL and torch does not work together."
