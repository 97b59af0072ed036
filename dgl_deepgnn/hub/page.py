"""A zoo as web pages: a table to sort and search, and a page a model. No server, no requests."""

from __future__ import annotations

import base64
import hashlib
import math
import statistics
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from dgl_deepgnn.files import make_folder, read_limited, write_text
from dgl_deepgnn.hub.config import Config, read_config
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import CONFIG, METRICS, Entry
from dgl_deepgnn.hub.published import SPEEDUP, read_record
from dgl_deepgnn.hub.store import open_zoo
from dgl_deepgnn.speedup.report import describe_ratio
from dgl_deepgnn.wording import fixed

__all__ = ["write_pages"]

CARD = "README.md"
MAX_CARD, MAX_PICTURES = 2**17, 2**23
"""Bytes of a card that is shown, and of all its pictures."""
NO_CARD = "<p>There is no card, or it is too long.</p>"


def write_pages(folder: str | Path, zoo: str | Path | None = None, pattern: str = "*") -> Path:
    """Write a zoo's models as static pages, to be opened from disk or put on any server.

    The pages hold all that they show: they load nothing from anywhere, and what the cards say is
    shown as text and pictures, never run.

    Parameters
    ----------
    folder : Path
        Not there yet; it gets ``index.html`` and a page a model.
    zoo : str or Path, optional
        See :func:`open_zoo`.
    pattern : str
        Of the models' names.

    Returns
    -------
    Path
        ``index.html``.

    Raises
    ------
    ZooError
        If the zoo cannot be read, a file is damaged, or no model fits.
    UserError
        If the folder exists.
    """
    place = open_zoo(zoo)
    index = place.index()
    names = index.names(pattern)
    if not names:
        raise ZooError(f"{place.location} has no model {pattern}.")
    pages, rows = _environment(), []
    with make_folder(Path(folder)) as draft:
        (draft / "models").mkdir()  # so that a model may be called index
        for name in names:
            entry = index.models[name]
            pictures = _pictures(entry)
            card = [CARD] if CARD in entry.files and entry.files[CARD].size <= MAX_CARD else []
            # Each is listed, and is what the index says: nothing else is shown.
            model = place.fetch(name, [CONFIG, METRICS, SPEEDUP, *card, *pictures])
            config = read_config(model / CONFIG)
            rows.append(_row(name, entry, config))
            _, speedups = read_record(model, config.weights.seed)
            text = pages.get_template("model.html").render(
                name=name,
                card=_card(model, pictures) if card else Markup(NO_CARD),
                curve={arm: _median(facts["losses"]) for arm, facts in speedups["arms"].items()},
            )
            write_text(draft / "models" / f"{name}.html", text)
        columns = ["model", *dict.fromkeys(column for row in rows for column in row["cells"])]
        for row in rows:
            row["cells"] = {key: row["cells"].get(key, ("-", "")) for key in columns[1:]}
        text = pages.get_template("zoo.html").render(
            location=_shown(place.location), rows=rows, columns=columns
        )
        write_text(draft / "index.html", text)
    return Path(folder) / "index.html"


def _environment() -> Environment:
    loader = PackageLoader("dgl_deepgnn.hub", "pages")
    pages = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.policies["json.dumps_kwargs"] = {"sort_keys": False}  # arms in their order
    script = loader.get_source(pages, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The one script that the page may run.
    pages.globals.update(script=Markup(script), script_hash=f"sha256-{digest}")
    return pages


def _shown(location: str) -> str:
    """Name of a zoo that gives away no folder of this machine."""
    scheme, found, rest = location.partition("://")
    if found:  # without a user's name and password
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if location == str(files("dgl_deepgnn.zoo")):
        return "the zoo that comes with dgl-deepgnn"
    return f"the zoo {Path(location).resolve().name}"


def _row(name: str, entry: Entry, config: Config) -> dict[str, Any]:
    """What the table shows of a model: a text a cell, and what it is sorted by."""
    score = fixed(entry.mean, 4) + ("" if entry.std is None else f" ± {fixed(entry.std, 4)}")
    cells: dict[str, tuple[str, float | str]] = {
        "task": (task := f"{config.data.level}, {config.data.target}", task),
        "data": (entry.data, entry.data),
        "family": (entry.architecture, entry.architecture),
        "depth": (str(entry.depth), entry.depth),
        "metric": (entry.metric, entry.metric),
        "score": (score, entry.mean),
        "seeds": (str(entry.n), entry.n),
        "parameters": (f"{entry.parameters:,}", entry.parameters),
        "MB": (f"{entry.size / 1e6:.2f}", entry.size),
    }
    for pair, ratio in entry.speedup.items():
        text = describe_ratio(ratio.model_dump())
        cells[f"speed-up {pair}"] = (text, "" if ratio.ratio is None else ratio.ratio)
    return {
        "name": name,
        "task": task,
        "data": entry.data,
        "family": entry.architecture,
        "cells": cells,
    }


def _pictures(entry: Entry) -> list[str]:
    """Those that a card may show, as far as they are not too large together."""
    found, room = [], MAX_PICTURES
    for file, facts in entry.files.items():
        if file.endswith(".png") and facts.size <= room:
            found.append(file)
            room -= facts.size
    return found


def _card(model: Path, pictures: Iterable[str]) -> Markup:
    """The model card as HTML, its own pictures within, each once, and nothing from elsewhere."""
    left = set(pictures)
    text = read_limited(model / CARD, MAX_CARD).decode("utf-8", "replace")
    # Raw HTML stays text; the library lets no javascript: address through.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for part in token.children or []:
            if part.type == "image":
                file = str(part.attrGet("src"))
                if file in left:
                    left.remove(file)
                    content = base64.b64encode(read_limited(model / file, MAX_PICTURES)).decode()
                    part.attrSet("src", f"data:image/png;base64,{content}")
                else:
                    part.type, part.tag = "text", ""
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    return Markup(
        html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    )


def _median(losses: list[list[float | None]]) -> list[float | None]:
    """By step, over the seeds; None where one has none, or one that is not finite."""
    found: list[float | None] = []
    for values in zip(*losses, strict=False):
        known = [value for value in values if value is not None]
        middle = statistics.median(known) if len(known) == len(values) else math.nan
        found.append(middle if math.isfinite(middle) else None)
    return found
