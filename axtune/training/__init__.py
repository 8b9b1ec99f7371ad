"""Training: TRL's trainers for each task, and what a person sees of a run.

Stands on `model`; knows nothing of `weights`, `export` and `verify`.
"""
