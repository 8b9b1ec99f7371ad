"""Commands that take a recipe: train, plan."""

from __future__ import annotations

import json
from typing import Annotated, Optional

import typer

app = typer.Typer()


@app.command(
    short_help="Train what a recipe describes.",
    epilog="Example: axtune train recipes/sft_lora.yaml model=tiny-ax-4.0 lora.r=8",
)
def train(
    recipe: Annotated[str, typer.Argument(help="recipe, such as recipes/sft_lora.yaml")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key.path=value, such as lora.r=32")
    ] = None,
) -> None:
    """Train what a recipe describes; the same job as `accelerate launch RECIPE`."""
    from axtune.config.loader import load, located

    loaded = load(recipe, overrides or [])
    from axtune.run import train as run_train

    with located(recipe, overrides or []):
        run_train(loaded)


@app.command(
    short_help="Say whether a recipe fits a GPU, and how long it takes.",
    epilog="Example: axtune plan recipes/sft_qlora.yaml --gpu 12GB",
)
def plan(
    recipe: Annotated[str, typer.Argument(help="recipe, such as recipes/sft_qlora.yaml")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key.path=value, such as lora.r=32")
    ] = None,
    gpu: Annotated[
        Optional[list[str]],
        typer.Option(help='a GPU or its memory, such as "RTX 3060" or 12GB; may be repeated'),
    ] = None,
    tokens: Annotated[
        Optional[int],
        typer.Option(
            min=16, help="plan for samples of this many tokens each instead of for the data"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the plan as JSON")] = False,
) -> None:
    """Say whether a recipe fits a GPU, what makes it fit, and how long it takes.

    Exits with 1 when it fits none of the GPUs that --gpu names.
    """
    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.loader import load
    from axtune.plan.estimate import as_quantized, from_data, from_length
    from axtune.plan.gpus import SIZES, find_card
    from axtune.plan.memory import GPU
    from axtune.plan.report import judge, show, to_json
    from axtune.plan.search import Search

    named = [find_card(name) for name in gpu or ()]
    loaded = load(recipe, overrides or [], check_paths=tokens is None)
    checkpoint = find(loaded.model, revision=loaded.revision, weights=False)
    loaded = as_quantized(loaded, checkpoint)
    if tokens is None:
        known = from_data(loaded, checkpoint, load_tokenizer(checkpoint, learning=True))
    else:
        known = from_length(loaded, checkpoint, tokens)
    search = Search(loaded, known, GPU)
    sizes = [card for size in SIZES if (card := find_card(f"{size}GB")) not in named]
    verdicts = judge(search, [*named, *sizes])
    if as_json:
        print(json.dumps(to_json(search.plan, verdicts), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        show(Console(highlight=False), search.plan, verdicts)
    if named and not any(verdict.fits for verdict in verdicts[: len(named)]):
        raise typer.Exit(1)
