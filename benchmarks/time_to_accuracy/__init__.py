"""Seconds to a validation score beside DGL's and PyTorch Geometric's networks; see ``__main__.py``.

``python -m benchmarks.time_to_accuracy --help`` says how a part is measured again.
"""

import dgl_deepgnn  # noqa: F401 (first: some versions of DGL cannot be imported without it)
