"""Time, memory and depth beside DGL's and PyTorch Geometric's stacks: ``make benchmark``.

``python -m benchmarks.cost --help`` lists the sections that can be measured again one by one.
"""
