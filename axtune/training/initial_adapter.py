"""Where a run begins: a fresh adapter, an earlier run's one trained on, or merged.

What a run hands on is always one plain LoRA against the original base. So the terms of an adapter
that was merged first are kept, and put in front of the new adapter's when it is saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PreTrainedModel

from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint
from axtune.checkpoint.provenance import original_digests
from axtune.checkpoint.run_dir import open_run, require_whole
from axtune.checkpoint.saved_adapter import read_adapter_config
from axtune.config.initialisation import initialisation
from axtune.config.paths import is_run
from axtune.config.recipe import LORA_DEFAULTS, Recipe
from axtune.errors import AxtuneError
from axtune.model.adapter import Adapter, Term, add_adapter, load_adapter, tensors_of, terms_of
from axtune.training.progress import Report
from axtune.units import typed


def start_adapter(
    model: PreTrainedModel, recipe: Recipe, checkpoint: Checkpoint, report: Report
) -> Adapter:
    """Put the adapter that a run trains on its base.

    Args:
        model: The base, changed in place.
        recipe: The job; its ``start_from`` says from where.
        checkpoint: Where the base's files are.
        report: Told when the earlier adapter's shape is not the recipe's.

    Raises:
        AxtuneError: When the earlier adapter cannot be read, was trained on another base, or
            cannot be merged.
        RecipeError: When PEFT refuses the ``lora`` section.
    """
    name = recipe.start_from
    if name is None:
        return add_adapter(model, recipe.lora, seed=recipe.seed)
    folder = _find(name, checkpoint)
    if recipe.start_merged:
        _refuse_unmergeable(model, folder, name, recipe)
        merged, terms = _merge(model, folder)
        return Adapter(add_adapter(merged, recipe.lora, seed=recipe.seed).model, None, terms)
    adapted = load_adapter(model, folder, is_trainable=True)
    config: Any = adapted.peft_config["default"]
    wanted = {"use_rslora": False, "use_dora": False, **LORA_DEFAULTS, **recipe.lora}
    shape = ("r", "lora_alpha", "use_rslora", "use_dora")
    if other := [key for key in shape if wanted[key] != getattr(config, key)]:
        given = ", ".join(f"{key} {getattr(config, key)}" for key in other)
        report.say(f"{name} is trained further as it is: {given}, whatever lora says.", "yellow")
    return Adapter(adapted, None)


def _find(path: str, checkpoint: Checkpoint) -> Path:
    """The adapter folder that a run folder holds, or that was given itself."""
    folder = Path(path)
    require_whole(folder)
    if is_run(folder):
        run = open_run(folder)
        if run.manifest["base"]["digests"] != original_digests(checkpoint):
            raise AxtuneError(
                f"{path} was trained on {run.manifest['base']['name']}, whose files are not those "
                f"of {checkpoint.name}.",
                "Set model to the base that it was trained on.",
            )
        folder = run.adapter
    if not (folder / ADAPTER_CONFIG).is_file():
        raise AxtuneError(
            f"start_from: {path} is neither a run folder nor an adapter folder.",
            "A run folder is what output_dir named; an adapter folder holds adapter_config.json.",
        )
    return folder


def _refuse_unmergeable(model: PreTrainedModel, folder: Path, name: str, recipe: Recipe) -> None:
    read_adapter_config(folder)
    config = LoraConfig.from_pretrained(str(folder))
    reason = ""
    if getattr(model, "is_loaded_in_4bit", False):
        reason = "a 4-bit base does not keep merged weights exactly"
    elif config.use_dora or recipe.lora.get("use_dora"):
        reason = "DoRA does not add up to one adapter with another"
    elif config.modules_to_save or config.bias != "none":
        reason = f"{name} trains more than LoRA weights"
    elif initialisation(recipe.lora).moves_base:
        reason = "lora.init_lora_weights changes the base as well"
    if reason:
        raise AxtuneError(
            f"start_merged: {reason}.",
            f"Merge it to a folder: axtune merge {typed(name)} --out DIR; then set model=DIR and "
            "start_from=null. Or train it further: start_merged=false.",
        )


def _merge(model: PreTrainedModel, folder: Path) -> tuple[PreTrainedModel, dict[str, list[Term]]]:
    """The base with an adapter in its weights, and that adapter's terms."""
    adapted = load_adapter(model, folder)
    terms = terms_of(adapted, tensors_of(adapted))
    with torch.no_grad():
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged, terms
