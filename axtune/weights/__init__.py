"""Tensors on disk: streamed reading and writing, adapters merged, bases quantised."""
