"""Plugin for pytest: ``-p tests.without_dgl`` runs tests as on a machine without DGL."""

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before any test, or what a test needs, is imported."""
    assert "dgl" not in sys.modules
    sys.modules["dgl"] = None  # type: ignore[assignment]
