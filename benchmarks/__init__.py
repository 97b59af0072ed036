"""Measurements: each module or package here writes its results and a page of tables beside it."""
