"""The door that a recipe's own first line opens: `accelerate launch recipes/sft_lora.yaml`."""

from __future__ import annotations

import sys


def main(recipe: str) -> None:
    """Run a recipe file that was started as a script; overrides are the arguments after it.

    Args:
        recipe: Path of the recipe, its ``__file__``.
    """
    from axtune.cli import main as cli_main

    cli_main(["train", recipe, *sys.argv[1:]])
