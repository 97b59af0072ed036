"""References beside which the zoo's models are to be judged, in our protocol; see ``__main__.py``.

``python -m benchmarks.baselines --help`` says how a part is made.
"""

import dgl_deepgnn  # noqa: F401 (first: some versions of DGL cannot be imported without it)
