"""A million nodes: seconds, memory and growth of every stage; clusters beside DGL's and PyG's.

``python -m benchmarks.scale --help`` lists the sections that can be measured again one by one.
"""
