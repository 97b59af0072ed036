"""The plot of the training loss, read back from what matplotlib drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dgl_deepgnn.training.plot import plot_losses


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_one_line_a_seed(tmp_path: Path, drawn: list[Figure]) -> None:
    losses = {0: [2.0, 1.0, 0.5, 0.25], 7: [2.1, 1.9]}
    plot_losses(tmp_path / "loss.png", "a title", losses)
    (axes,) = drawn[0].axes
    assert axes.get_title() == "a title"
    assert axes.get_xlabel() == "optimizer step" and axes.get_ylabel() == "training loss"
    assert axes.get_yscale() == "log"
    for (seed, values), line in zip(losses.items(), axes.lines, strict=True):
        assert line.get_label() == f"seed {seed}"
        assert line.get_xdata().tolist() == list(range(1, len(values) + 1))
        assert line.get_ydata().tolist() == values
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["seed 0", "seed 7"]
    image = np.asarray(Image.open(tmp_path / "loss.png").convert("L"))
    assert min(image.shape) > 400 and image.std() > 5


@pytest.mark.parametrize("values", [[1.0], [1.0, 0.0], []])
def test_few_losses(tmp_path: Path, drawn: list[Figure], values: list[float]) -> None:
    plot_losses(tmp_path / "loss.png", "title", {0: values})
    assert Image.open(tmp_path / "loss.png").size[0] > 400
    if len(values) == 1:  # a line of one point would not be seen
        assert drawn[0].axes[0].lines[0].get_marker() not in ("None", "", None)
