"""Models in memory: loading, adapters, offloading, attention and loss kernels.

Stands on `plan`; the first package that imports torch.
"""
