"""What `critical_` makes of models as DGL's users write them; see ``__main__.py``."""
