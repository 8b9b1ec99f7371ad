"""Commands that take a recipe: train, plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from axtune.errors import AxtuneError
from axtune.loading import loading
from axtune.signals import end_with_launcher

if TYPE_CHECKING:
    from axtune.config.recipe import Recipe

app = typer.Typer()

Engine = Literal["ddp", "fsdp2"]


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
    from axtune.config.stages import has_stages, load_stages

    end_with_launcher()
    if has_stages(recipe):
        stages = load_stages(recipe, overrides or [])
        with loading():
            from axtune.stages import run_stages

        run_stages(stages)
        return
    loaded = load(recipe, overrides or [])
    with loading():
        from axtune.run import train as run_train

    with located(recipe, overrides or []):
        run_train(loaded)


@app.command(
    short_help="Say whether a recipe fits a GPU, and how long it takes.",
    epilog="Example: axtune plan recipes/sft_qlora.yaml --gpu 12GB",
)
def plan(
    recipe: Annotated[
        Optional[str],
        typer.Argument(
            help="recipe, such as recipes/sft_qlora.yaml; with --serve also a run, a checkpoint, "
            "or nothing"
        ),
    ] = None,
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
            min=16,
            help="plan for samples of this many tokens each instead of for the data; with --serve "
            "for conversations of as many (4,096)",
        ),
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=1, help="how many of these GPUs train together, a process each")
    ] = 1,
    engine: Annotated[
        Engine,
        typer.Option(
            help="of several GPUs: ddp, each with the whole model; fsdp2, each with a share of it"
        ),
    ] = "ddp",
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="say which export serves on which GPU, how long a context, and for how many; of "
            "the checkpoint that is named, else of both A.X Lights",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the plan as JSON")] = False,
) -> None:
    """Say whether a recipe fits a GPU, what makes it fit, and how long it takes.

    Exits with 1 when the recipe, or with --serve every export, fits none of the GPUs that --gpu
    names. Of a recipe of stages, it plans each stage.
    """
    if serve:
        if not _plan_serving(recipe, overrides or [], gpu or [], tokens or 4096, as_json=as_json):
            raise typer.Exit(1)
        return
    if recipe is None:
        raise AxtuneError("There is no recipe to plan.", "Name it: axtune plan RECIPE.")
    from axtune.config.loader import load
    from axtune.config.stages import has_stages, load_stages

    if has_stages(recipe):
        recipes = load_stages(recipe, overrides or []).recipes
    else:
        recipes = {"": load(recipe, overrides or [], check_paths=tokens is None)}
    together = {"processes": gpus, "sharded": engine == "fsdp2" and gpus > 1}
    if not _plan_training(recipes, gpu or [], tokens, together, as_json=as_json):
        raise typer.Exit(1)


def _plan_training(
    recipes: dict[str, Recipe],
    gpu: list[str],
    tokens: int | None,
    together: dict[str, Any],
    *,
    as_json: bool,
) -> bool:
    """Plan jobs, by the names of their stages; whether each fits one of the GPUs that are named.

    Args:
        recipes: The jobs.
        gpu: Names of cards.
        tokens: Of each sample, in place of the data's.
        together: How many processes share the work, as `PlanInputs` has it.
        as_json: Whether to print for machines.
    """
    from rich.console import Console

    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.plan.estimate import as_quantized, from_data, from_length
    from axtune.plan.gpus import SIZES, find_card
    from axtune.plan.memory import GPU
    from axtune.plan.report import judge, show, to_json
    from axtune.plan.search import Search

    named = [find_card(name) for name in gpu]
    sizes = [card for size in SIZES if (card := find_card(f"{size}GB")) not in named]
    console = Console(highlight=False)
    plans, fits = {}, True
    for stage, recipe in recipes.items():
        checkpoint = find(recipe.model, revision=recipe.revision, weights=False)
        quantized = as_quantized(recipe, checkpoint)
        if tokens is None:
            tokenizer = load_tokenizer(checkpoint, learning=True)
            known = from_data(quantized, checkpoint, tokenizer)
        else:
            known = from_length(quantized, checkpoint, tokens)
        search = Search(quantized, replace(known, **together), GPU)
        verdicts = judge(search, [*named, *sizes])
        fits = fits and (not named or any(verdict.fits for verdict in verdicts[: len(named)]))
        plans[stage] = to_json(search.plan, verdicts)
        if not as_json:
            if stage:
                console.rule(stage, align="left")
            show(console, search.plan, verdicts)
    if as_json:
        found = plans if "" not in plans else next(iter(plans.values()))
        print(json.dumps(found, ensure_ascii=False, indent=2))
    return fits


def _plan_serving(
    model: str | None, overrides: list[str], gpu: list[str], tokens: int, *, as_json: bool
) -> bool:
    """Say which export serves where; whether one does on one of the GPUs that are named."""
    from axtune.checkpoint.base import run_of
    from axtune.checkpoint.locate import find
    from axtune.config.loader import load
    from axtune.plan.gpus import SIZES, find_card
    from axtune.plan.serving import GROUP, LIGHTS, show, to_json

    if model and model.endswith((".yaml", ".yml")):
        model = load(model, overrides, check_paths=False).model
    elif overrides:
        raise AxtuneError(
            f"{overrides[0]} changes a recipe, and none is named.", "Name it, or leave this out."
        )
    elif model and (run := run_of(Path(model))):
        model = run.recipe.model
    cards = [find_card(name) for name in gpu] or [find_card(f"{size}GB") for size in SIZES[:4]]
    models, group = LIGHTS, GROUP
    if model:  # the sizes of the Lights are known without their files
        models = {model: (config := LIGHTS.get(model) or find(model, weights=False).config)}
        if "quantization_config" in config:
            from axtune.model.int4 import is_int4, stated_group  # torch, which nothing else needs

            group = stated_group(config) if is_int4(config) else group
    planned = to_json(models, cards, tokens, group)
    if as_json:
        print(json.dumps(planned, ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        show(Console(highlight=False), models, cards, tokens, group)
    return not gpu or any(one["context"] for one in planned)
