"""Published models; read with importlib.resources."""
