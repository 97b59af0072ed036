"""The figure of a diagnosis, from plain data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dgl_deepgnn.diagnostics import QUANTITIES, Diagnosis, Verdict
from dgl_deepgnn.diagnostics.plot import draw

MEASURED = {name: np.random.default_rng(0).uniform(0.1, 1, (3, 5)) for name in QUANTITIES}
VERDICTS = [
    Verdict("critical initialization", "healthy", "All is well."),
    Verdict("residual aggregation", "oversmoothed", "word " * 200, near=True),
]


def test_draws_every_quantity_the_theory_and_training_mode() -> None:
    theory = {name: np.linspace(1, 2, 5) for name in QUANTITIES}
    training = np.full((3, 5), 7.0)
    figure = draw({**MEASURED, "training": training}, theory, VERDICTS)
    assert len(figure.axes) == len(QUANTITIES)
    for axis, name in zip(figure.axes, QUANTITIES, strict=True):
        lines = {line.get_label(): line.get_ydata() for line in axis.lines}
        np.testing.assert_allclose(
            lines["measured: mean of 3 draws"], MEASURED[name].mean(0), err_msg=name
        )
        np.testing.assert_array_equal(lines["theory"], theory[name])
        assert ("in training mode, with dropout" in lines) == (name == "mean_square")
    texts = [text.get_text() for text in figure.texts]
    assert "critical initialization: HEALTHY" in texts
    assert "residual aggregation: OVERSMOOTHED (near the threshold)" in texts


def test_long_messages_stay_on_the_page() -> None:
    figure = draw(MEASURED, None, VERDICTS)
    figure.canvas.draw()
    page = figure.bbox
    for text in figure.texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0, text
    boxes = sorted(
        (text.get_window_extent() for text in figure.texts[-4:]), key=lambda box: -box.y0
    )
    assert all(upper.y0 >= lower.y1 - 2 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize("path", [None, "diagnosis.png"])
def test_plot_returns_the_figure_and_writes_it_where_asked(
    path: str | None, tmp_path: Path
) -> None:
    layers = [*"abcd", "output"]
    result = Diagnosis(layers, MEASURED, None, VERDICTS, np.ones(3), 0.7)
    figure = result.plot(path and tmp_path / path)
    assert len(figure.axes) == 4
    written = list(tmp_path.iterdir())
    assert [file.name for file in written] == ([path] if path else [])
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written)
