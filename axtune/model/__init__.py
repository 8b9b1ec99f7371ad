"""Models in memory: loading, adapters, offloading, attention and loss kernels."""
