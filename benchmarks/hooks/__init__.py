"""What `critical_` makes of models as DGL's users write them; see ``__main__.py``."""

import dgl_deepgnn  # noqa: F401 (first: some versions of DGL cannot be imported without it)
