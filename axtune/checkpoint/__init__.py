"""Checkpoints and run folders on disk: found, read, written whole or not at all. No torch."""
