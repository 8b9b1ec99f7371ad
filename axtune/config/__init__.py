"""Recipes: the schema, the strict loader, what passes to the libraries, and the faults of a file.

First of the packages: it imports only `errors`, `units` and `quiet`, and no torch.
"""
