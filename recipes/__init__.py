"""Recipes that come with the package; read with importlib.resources."""
