"""The pages of the documentation's site, and the reference that is made of the code.

``python docs/site.py FOLDER`` copies README, docs and benchmarks there as they lie here, so that
their links lead where they do here, and writes beside them: the Python reference (every public
name), the keys of a recipe (from its schema), the commands (from their help), and the zoo's pages.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from roles import formula
from typer.main import get_command

from dgl_deepgnn.cli import app
from dgl_deepgnn.hub import write_pages
from dgl_deepgnn.recipe import json_schema

ROOT = Path(__file__).parents[1]
MODULES = {
    "dgl_deepgnn": "Models, layers and the rest of every day",
    "dgl_deepgnn.nn": "Layers and models",
    "dgl_deepgnn.init": "Initialization",
    "dgl_deepgnn.init.activation": "Critical points of activations",
    "dgl_deepgnn.optim": "Learning rates that transfer",
    "dgl_deepgnn.diagnostics": "Diagnosis",
    "dgl_deepgnn.theory": "Predictions",
    "dgl_deepgnn.data": "Data",
    "dgl_deepgnn.recipe": "Recipes",
    "dgl_deepgnn.training": "Training",
    "dgl_deepgnn.training.comparing": "Comparing runs",
    "dgl_deepgnn.speedup": "Speed-up records",
    "dgl_deepgnn.hub": "The zoo",
    "dgl_deepgnn.export": "Export",
}


def copy_pages(folder: Path) -> None:
    """All pages under version control, with their pictures and what they link to."""
    kinds = ("*.md", "*.ipynb", "*.png", "*.json", "LICENSE")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *kinds],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for file in listed:
        if file.startswith(("zoo/", "tests/")):
            continue
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".md"):
            (folder / file).write_text(with_formulas((ROOT / file).read_text("utf-8")), "utf-8")
        else:
            shutil.copyfile(ROOT / file, folder / file)


def with_formulas(text: str) -> str:
    """TeX between dollars as MathML, which browsers show without a script; code stays as it is."""
    parts = re.split(r"(^```.*?^```|^    .*?$|`[^`\n]*`)", text, flags=re.DOTALL | re.MULTILINE)
    for place in range(0, len(parts), 2):
        part = re.sub(r"\$\$([^$]+)\$\$", lambda found: formula(found[1], True), parts[place])
        parts[place] = re.sub(r"\$([^$]+)\$", lambda found: formula(found[1]), part)
    return "".join(parts)


def python_reference() -> str:
    """Every public name once, where it is first offered, by mkdocstrings."""
    lines, seen = ["# Python", ""], set()
    for name, title in MODULES.items():
        module = importlib.import_module(name)
        lines += [f"## {title}", "", f"`{name}`", ""]
        for public in module.__all__:
            found = getattr(module, public)
            if id(found) in seen or not (inspect.isclass(found) or inspect.isroutine(found)):
                continue
            seen.add(id(found))
            own = found.__qualname__ == public  # else it is a method under another name
            lines += [f"::: {found.__module__ if own else name}.{public}", ""]
    return "\n".join(lines)


def recipe_reference() -> str:
    """Keys, types, defaults and what they mean, section by section."""
    schema = json.loads(json_schema())
    lines = ["# Keys of a recipe", "", schema.get("description", ""), ""]
    lines += _section(schema)
    for name, section in schema["$defs"].items():
        if "properties" not in section:
            continue
        title = name.removesuffix("Section")
        lines += ["", f"## {title}", "", section.get("description", ""), "", *_section(section)]
    return "\n".join(lines) + "\n"


def _section(section: dict[str, Any]) -> list[str]:
    rows = ["| key | values | default | |", "| --- | --- | --- | --- |"]
    for key, facts in section.get("properties", {}).items():
        nested = isinstance(facts.get("default"), dict)
        default = json.dumps(facts["default"]) if "default" in facts and not nested else "-"
        text = facts.get("description", "").replace("\n", " ").replace("|", "\\|")
        rows.append(f"| `{key}` | {_values(facts)} | {_code(default)} | {text} |")
    return rows


def _values(facts: dict[str, Any]) -> str:
    if "$ref" in facts:
        name = facts["$ref"].rpartition("/")[2].removesuffix("Section")
        return f"[{name}](#{name.lower()})"
    if "enum" in facts:
        return ", ".join(_code(json.dumps(value)) for value in facts["enum"])
    if "const" in facts:
        return _code(json.dumps(facts["const"]))
    if "anyOf" in facts:
        return " or ".join(map(_values, facts["anyOf"]))
    kind = facts.get("type", "any")
    if kind == "array":
        return f"list of {_values(facts['items'])}"
    bounds = [
        f"{sign} {facts[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if abs(facts.get(key, math.inf)) < 2**53
    ]
    return " ".join([str(kind), ", ".join(bounds)]).strip()


def _code(text: str) -> str:
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


def commands_reference() -> str:
    """What every command takes, from what `--help` is made of."""
    lines = ["# Commands", ""]
    todo = [("dgl-deepgnn", get_command(app))]
    while todo:
        name, command = todo.pop(0)
        lines += [f"## {name}", "", (command.help or "").strip(), ""]
        rows = []
        for parameter in command.params:
            text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            names = ", ".join(f"`{one}`" for one in parameter.opts)
            rows.append(f"| {names} | {text} |")
        if rows:
            lines += ["| | |", "| --- | --- |", *rows, ""]
        inner = getattr(command, "commands", {})
        todo = [(f"{name} {sub}", found) for sub, found in inner.items()] + todo
    return "\n".join(lines)


def main() -> None:
    """Write all into the folder that is named, anew."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    copy_pages(folder)
    reference = folder / "reference"
    reference.mkdir()
    for name, text in (
        ("python", python_reference()),
        ("recipe", recipe_reference()),
        ("commands", commands_reference()),
    ):
        (reference / f"{name}.md").write_text(text, "utf-8")
    write_pages(folder / "models", ROOT / "zoo")


if __name__ == "__main__":
    main()
