"""Plugin for pytest: ``-p tests.without_dgl`` runs tests as on a machine without DGL."""

import sys

sys.modules["dgl"] = None  # type: ignore[assignment]
