"""Tensors on disk: streamed reading and writing, adapters merged, bases quantised.

Stands on `model`; knows nothing of `training`.
"""
