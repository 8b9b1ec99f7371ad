"""Checkpoints and run folders on disk: found, read, written whole or not at all; tokenizers.

Stands on `config`; imports no torch.
"""
