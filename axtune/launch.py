"""The door that a recipe's own first line opens: `accelerate launch recipes/sft_lora.yaml`."""

from __future__ import annotations

import sys

from axtune.signals import words_of_accelerate


def main(recipe: str) -> None:
    """Run a recipe file that was started as a script; overrides are the arguments after it.

    Args:
        recipe: Path of the recipe, its ``__file__``.
    """
    from axtune.cli import main as cli_main

    try:
        cli_main(["train", recipe, *sys.argv[1:]])
    except SystemExit as end:
        if end.code == 1 and _launcher_will_say_so():
            print(
                "The traceback below is accelerate's; accelerate launch --quiet leaves it out.",
                file=sys.stderr,
            )
        raise


def _launcher_will_say_so() -> bool:
    """Whether accelerate started this process alone, and raises an error of its own when it fails.

    It does so for every status but 0, and with ``--quiet`` not.
    """
    words = words_of_accelerate()
    return bool(words) and not {"-q", "--quiet"} & set(words)
