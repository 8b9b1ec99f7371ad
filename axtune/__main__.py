"""`python -m axtune …` and `accelerate launch -m axtune RECIPE …`."""

from __future__ import annotations

import sys

from axtune.cli import main

if __name__ == "__main__":
    words = sys.argv[1:]
    is_recipe = bool(words) and words[0].endswith((".yaml", ".yml"))
    main(["train", *words] if is_recipe else words)
