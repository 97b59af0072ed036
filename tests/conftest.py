"""DGL 2 may need the stand-in that dgl_deepgnn brings: import it before any test imports DGL."""

import dgl_deepgnn  # noqa: F401
