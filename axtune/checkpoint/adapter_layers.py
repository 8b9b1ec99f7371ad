"""Which layers of a base the configuration of a LoRA means, and which tensors it has for them.

PEFT's rules (tuners_utils.check_target_module_exists, utils.other._set_trainable), without PEFT and
without the model: from names and shapes alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

_ALL_LINEAR = "all-linear"
_TOKENS = ".token_adapter.trainable_tokens_delta"
_FEW = 12  # so many names of layers are listed


def modules_of(names: Iterable[str]) -> list[str]:
    """The modules of a model, those that only hold others too, by the names of its tensors."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")[:-1]
        found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return list(found)


def targeted(config: Mapping[str, Any], base: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The modules that get a LoRA.

    Args:
        config: ``target_modules`` and its kin, by PEFT's names.
        base: Shapes of the base's tensors, by name.
    """
    layers = [name.removesuffix(".weight") for name, shape in base.items() if len(shape) > 1]
    wanted = config.get("target_modules")
    if isinstance(wanted, str) and wanted.lower() == _ALL_LINEAR:
        outer = {name.removesuffix(".weight") for name in (EMBEDDING, HEAD)}
        return [name for name in layers if name not in outer and not _is_excluded(config, name)]
    return [name for name in layers if not _is_excluded(config, name) and _is_meant(config, name)]


def differing_tensors(
    config: Mapping[str, Any], names: Iterable[str], base: Mapping[str, tuple[int, ...]]
) -> tuple[list[str], list[str]]:
    """Where a configuration and the tensors beside it are of different adapters.

    Args:
        config: Of ``adapter_config.json``.
        names: The adapter's tensors, as `axtune.checkpoint.saved_adapter.names_in_base` names them.
        base: Shapes of the base's tensors, by name; a tied head among them.

    Returns:
        The tensors that it declares and that are not there, and those that it does not declare.
    """
    found = {name.replace(".base_layer.", ".") for name in names}
    declared = set(_declared(config, base))
    # What a configuration does not tell (PEFT's save_embedding_layers), and what is looked at with
    # the numbers: DoRA's magnitudes and the rows of single tokens.
    free = {EMBEDDING, HEAD}
    free |= {name for name in found if ".lora_magnitude_vector" in name or name.endswith(_TOKENS)}
    missing = declared - found
    if config.get("ensure_weight_tying"):  # of two that are tied, a file has one or both
        tied = tuple(name.removesuffix("weight") for name in (EMBEDDING, HEAD))
        free |= {name for name in found if name.startswith(tied)}
        missing = {name for name in missing if not name.startswith(tied)}
    if config.get("trainable_token_indices") and not any(map(_is_tokens, found)):
        missing.add(EMBEDDING.removesuffix(".weight") + _TOKENS)
    return sorted(missing), sorted(found - declared - free)


def unmatched(config: Mapping[str, Any], modules: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that fit no layer, which PEFT leaves out in silence where others fit.

    Args:
        config: The recipe's ``lora`` section, by PEFT's names.
        modules: Of the model.

    Yields:
        The key, and what is wrong with it: of each key its first name alone.
    """
    known = list(modules)
    above = {name.rpartition(".")[0] for name in known}
    last = {name.rpartition(".")[2] for name in known if name not in above}
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        names = config.get(key) or []
        if isinstance(names, str):
            if names.lower() != _ALL_LINEAR and not any(re.fullmatch(names, one) for one in known):
                yield key, f"{names} fits no layer of the model; {_near(names, last)}"
            continue
        whole = key != "modules_to_save"  # whose names PEFT takes as ends of names
        for name in names:
            if not any(ends_with(one, name) if whole else one.endswith(name) for one in known):
                yield key, f"{name} fits no layer of the model; {_near(name, last)}"
                break
    for key in ("rank_pattern", "alpha_pattern"):
        for name in config.get(key) or {}:
            if not any(of_pattern(name, one) for one in known):
                yield key, f"{name} fits no layer of the model; {_near(name, last)}"
                break
    yield from _beyond(config, known)


def ends_with(module: str, name: str) -> bool:
    """Whether a name means a module: it is the module's, or the last parts of it."""
    return module == name or module.endswith(f".{name}")


def of_pattern(key: str, module: str) -> bool:
    """Whether a key of ``rank_pattern`` and its like means a module (PEFT's get_pattern_key)."""
    return re.match(rf"(.*\.)?({key})$", module) is not None


def _beyond(config: Mapping[str, Any], modules: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Numbers of layers, and names of what holds them, that there are not."""
    chosen = config.get("layers_to_transform")
    if chosen is None:
        return
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:
        if not any(_layer(name, [pattern]) is not None for name in modules):
            yield "layers_pattern", f"{pattern} holds no layers of the model; such as layers."
            return
    there = {_layer(name, patterns) for name in modules} - {None}
    numbers = [chosen] if isinstance(chosen, int) else chosen
    if lacking := [number for number in numbers if number not in there]:
        message = f"there is no layer {lacking[0]}; expected 0 to {len(there) - 1}."
        yield "layers_to_transform", message


def _near(name: str, known: Iterable[str]) -> str:
    """The names of layers that are most like one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name.rpartition(".")[2], names, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"it has {', '.join(names[:_FEW])}{' and others' if len(names) > _FEW else ''}."


def _declared(config: Mapping[str, Any], base: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The tensors of an adapter, by the base's names."""
    layers = targeted(config, base)
    embedding = EMBEDDING.removesuffix(".weight")
    for layer in layers:
        if layer == embedding:
            yield from (f"{layer}.lora_embedding_A", f"{layer}.lora_embedding_B")
            continue
        yield from (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight")
        if config.get("lora_bias"):
            yield f"{layer}.lora_B.bias"
    if (bias := config.get("bias")) in ("all", "lora_only"):
        trained = set(layers)
        for name in base:
            if name.endswith(".bias") and (bias == "all" or name.removesuffix(".bias") in trained):
                yield name
    saved = tuple(config.get("modules_to_save") or ())
    for name in base:
        above = name.split(".")[:-1]
        if any(".".join(above[:end]).endswith(saved) for end in range(1, len(above) + 1)):
            yield name


def _is_excluded(config: Mapping[str, Any], module: str) -> bool:
    excluded = config.get("exclude_modules") or []
    if isinstance(excluded, str):
        if re.fullmatch(excluded, module):
            return True
    elif any(ends_with(module, name) for name in excluded):
        return True
    saved = config.get("modules_to_save") or []
    return any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", module) for name in saved)


def _is_meant(config: Mapping[str, Any], module: str) -> bool:
    wanted = config.get("target_modules") or []
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    if module in wanted:
        return True
    if not any(ends_with(module, name) for name in wanted):
        return False
    chosen = config.get("layers_to_transform")
    if chosen is None or chosen == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    number = _layer(module, [patterns] if isinstance(patterns, str) else patterns)
    return number == chosen if isinstance(chosen, int) else number in chosen


def _layer(module: str, patterns: Iterable[str]) -> int | None:
    """The number of the layer that a module is in: the first number behind one of the names."""
    for pattern in patterns:
        if found := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module):
            return int(found[1])
    return None


def _is_tokens(name: str) -> bool:
    return name.endswith(_TOKENS)
