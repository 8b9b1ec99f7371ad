"""`python -m axtune …` and `accelerate launch -m axtune RECIPE …`."""

from __future__ import annotations

import sys

from axtune.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    is_recipe = bool(arguments) and arguments[0].endswith((".yaml", ".yml"))
    main(["train", *arguments] if is_recipe else arguments)
