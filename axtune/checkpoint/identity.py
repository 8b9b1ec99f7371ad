"""What makes a run the run that it is: recipe, rows, base, numbers, versions of the libraries.

A checkpoint carries it, and training goes on from there only where all of it is unchanged; else the
steps before and after would be of two runs, and nobody would know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from axtune.config.initialisation import initialisation
from axtune.config.recipe import Recipe, best_figure, preference_of
from axtune.units import package_version

# What computes the steps; another patch of it computes the same.
_PACKAGES = ("torch", "transformers", "trl", "peft")

_KEYS = ("task", "model", "revision", "seed", "data", "lora", "quantization", "preference")

# Of ``evaluate``, where it chooses the best checkpoint; else it decides nothing.
_ASKED = ("best", "data", "limit", "max_new_tokens")

# How long a run is, what it shows and how its batch is cut may change; the batch may not.
_FREE_TRAINING = {
    "max_steps",
    "num_train_epochs",
    "report_to",
    "run_name",
    "disable_tqdm",
    "ddp_timeout",
    "log_level",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "load_best_model_at_end",
}
_FREE_PREFIXES = ("eval_", "save_", "logging_", "per_device_", "dataloader_num", "dataloader_pin",
                  "dataloader_pers", "dataloader_pre")  # fmt: skip
# Paths of the machine: folders may move, and what they hold is compared by its digests.
_PATHS = ("model", "path", "start_from", "privacy_kinds")


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe that decide what a step does, flat: ``lora.r: 16``."""
    dump = recipe.model_dump(mode="json")
    # Where it starts from stood with the preferences once, and manifests of then have it there.
    start = {key: dump[key] for key in ("start_from", "start_merged")}
    dump["preference"] = start | preference_of(recipe).model_dump(mode="json")
    facts = {key: dump[key] for key in _KEYS}
    facts["data"]["not_in"] = [Path(file).name for file in facts["data"]["not_in"] or ()]
    if best_figure(recipe):  # what was best before and after is told by the same questions
        facts["evaluate"] = {key: dump["evaluate"][key] for key in _ASKED}
        facts["evaluate"]["data"] = [Path(file).name for file in dump["evaluate"]["data"] or ()]
    facts["training"] = {
        key: value
        for key, value in dump["training"].items()
        if key not in _FREE_TRAINING and not key.startswith(_FREE_PREFIXES)
    }
    return dict(_flat("", facts))


def fork_facts(recipe: Recipe) -> dict[str, Any]:
    """The keys that decide whether the weights of one run fit another."""
    moved = recipe.start_merged or initialisation(recipe.lora).moves_base
    keys = ("lora", "model", "preference.start_", *(("seed",) if moved else ()))
    return {key: value for key, value in recipe_facts(recipe).items() if key.startswith(keys)}


def identity(
    recipe: Recipe,
    *,
    precision: str,
    batch: int,
    processes: int,
    rows: Mapping[str, Any],
    base: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """All of it, JSON.

    Args:
        recipe: The job.
        precision: As it was decided, where the recipe says auto.
        batch: Samples in an optimiser step.
        processes: That train; packs are made for so many.
        rows: Digests of the data's files.
        base: Digests of the base's files.
    """
    run = {"precision": precision, "effective batch": batch}
    if recipe.objective.packs and recipe.data.packing and processes > 1:
        run["processes that samples are packed for"] = processes
    return {
        "recipe": recipe_facts(recipe),
        "run": run,
        "rows": dict(rows),
        "base": dict(base),
        "versions": {name: _minor(package_version(name)) for name in _PACKAGES},
    }


def changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What differs, ``lora.r: 16 → 8``; of the sections that `now` has.

    Digests tell a reader nothing, so that of files only the names are given.
    """
    found = []
    for section, facts in now.items():
        known = before.get(section, {})
        for key in sorted({*known, *facts}):
            old, new = known.get(key), facts.get(key)
            if old == new:
                continue
            if section in ("rows", "base"):
                what = "is new" if old is None else "is gone" if new is None else "has changed"
                found.append(f"{'data' if section == 'rows' else 'model'}: {key} {what}")
            else:
                found.append(f"{key}: {_shown(old)} → {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _minor(version: str | None) -> str | None:
    return version and ".".join(version.split("+")[0].split(".")[:2])


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    key = name.rpartition(".")[2]
    if isinstance(value, dict) and value:
        for inner, item in value.items():
            yield from _flat(f"{name}.{inner}" if name else str(inner), item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{name}[{index}]", item)
    elif key in _PATHS and isinstance(value, str):
        yield name, Path(value).name
    elif value not in (None, {}, []):
        yield name, value
