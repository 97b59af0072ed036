"""Every test, fixture and module draws from its own seed, in whatever order they run.

The order is that of the files and the global seed 0, unless `-p randomly` (pytest-randomly) is
given: then the tests are shuffled, and ``--randomly-seed`` is the global seed. ``make test-seeds``
runs the suite so, many times. Here rather than in tests/, since doctests draw, too.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from importlib.util import find_spec
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("drawn", deadline=None, database=None)


def pytest_configure(config: pytest.Config) -> None:
    """Let hypothesis draw other examples, too, where the global seed is another."""
    drawn = config.pluginmanager.hasplugin("randomly")
    settings.load_profile("drawn" if drawn else "fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is no DGL, leave out what needs it."""
    blocked = "dgl" in sys.modules and sys.modules["dgl"] is None
    if blocked or find_spec("dgl") is None:
        for item in items:
            if item.get_closest_marker("dgl"):
                item.add_marker(pytest.mark.skip(reason="needs DGL"))


def _seed(node: pytest.Collector | pytest.Item, name: str = "") -> None:
    seed = node.config.getoption("randomly_seed", 0)
    seed = (int(seed) + crc32(f"{node.nodeid} {name}".encode())) % 2**31  # DGL takes no more
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    dgl = sys.modules.get("dgl")
    if dgl is not None:
        dgl.seed(seed)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Draws of a module as it is imported."""
    _seed(collector)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Draws of a fixture that tests share: they must not be those of the test that comes first."""
    if fixturedef.scope != "function":
        _seed(request.node, fixturedef.argname)
    return (yield)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    _seed(request.node)
