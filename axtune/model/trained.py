"""A run, an adapter or a checkpoint that nobody has trained yet, loaded to give answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from axtune.checkpoint import locate
from axtune.checkpoint.base import find_base, run_of
from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint
from axtune.checkpoint.provenance import base_facts
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.errors import CheckpointError
from axtune.model.adapter import load_adapter
from axtune.model.load import choose_precision, load_model


def trained_checkpoint(name: str) -> tuple[Checkpoint, Run | None, Path | None]:
    """What a name stands for.

    Args:
        name: A run folder, an adapter's folder, or a model as `axtune.checkpoint.locate.find` takes
            it.

    Returns:
        What is loaded, the run, and the adapter that is put on it.

    Raises:
        AxtuneError: When the run, the adapter's base or the model cannot be found.
    """
    folder = Path(name)
    run = run_of(folder)
    if run:
        return locate.find(run.recipe.model, revision=run.recipe.revision), run, run.adapter
    if (folder / ADAPTER_CONFIG).is_file():
        return find_base(None, None, folder, served=True), None, folder
    try:
        return locate.find(name), None, None
    except CheckpointError:
        if folder.exists() or folder.parent == Path() or not folder.parent.is_dir():
            raise
        beside = [str(path) for path in sorted(folder.parent.iterdir()) if path.is_dir()]
        close = difflib.get_close_matches(name, beside, n=3) or beside[:3]
        raise CheckpointError(
            f"There is no {name}.",
            f"Did you mean {' or '.join(close)}?" if close else f"{folder.parent} has no folder.",
        ) from None


def load_trained(name: str, say: Callable[[str], None]) -> tuple[PreTrainedModel, AxTokenizer]:
    """Load a run's base with its adapter, in the precision and bits it was trained in.

    Args:
        name: As `trained_checkpoint` takes it.
        say: Called with what a user should know of the run.

    Raises:
        AxtuneError: When something cannot be found or loaded.
    """
    checkpoint, run, adapter = trained_checkpoint(name)
    tokenizer = load_tokenizer(checkpoint)
    if run is None:
        model = load_model(checkpoint, tokenizer, precision=choose_precision("auto"))
    else:
        recipe = run.recipe
        if _digests(base_facts(checkpoint, None)) != _digests(run.manifest["base"]):
            say(f"The files of {recipe.model} have changed since this run was trained on them.")
        if run.adapter.name != "adapter" and run.manifest.get("status") != "finished":
            say(f"The run has not finished; this is {run.adapter.name}.")
        model = load_model(
            checkpoint,
            tokenizer,
            precision=choose_precision(recipe.precision),
            attention=recipe.attention,
            quantization=recipe.quantization,
            documents=run.learned_documents,
        )
    return (load_adapter(model, adapter) if adapter else model).eval(), tokenizer


def stops_of(model: PreTrainedModel) -> frozenset[int]:
    """The tokens at which a model that was loaded here stops, as engines stop."""
    stated = model.generation_config.eos_token_id
    return frozenset(stated if isinstance(stated, list) else [stated])


def _digests(base: dict[str, Any]) -> list[dict[str, str]]:
    """Of the 16-bit base, and of the folder quantised from it that a run was trained on."""
    return [base["digests"], base.get("quantized", {}).get("digests", {})]
