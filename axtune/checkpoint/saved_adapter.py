"""A LoRA adapter's folder as PEFT saves it: its configuration, and the names of its tensors.

Whoever loads, merges or exports an adapter reads it here, so that all refuse the same ones. The
format is PEFT's (https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from axtune.checkpoint.locate import ADAPTER_CONFIG, PICKLES, read_json, refuse_remote_code
from axtune.checkpoint.schemas import AdapterConfig
from axtune.config.initialisation import initialisation
from axtune.errors import AxtuneError

WEIGHTS = "adapter_model.safetensors"

PREFIX = "base_model.model."  # what PEFT puts before the base's names

_MLX_WEIGHTS = "adapters.safetensors"

# Switches of LoraConfig (PEFT 0.21) that change what the tensors mean, or that import a module by
# the name given (megatron); nothing here implements them.
_UNKNOWN_SWITCHES = (
    "alora_invocation_tokens",
    "arrow_config",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)

# Those that PEFT has, and that are read or change nothing once an adapter is trained.
_KNOWN_SWITCHES = (
    "use_rslora",
    "use_dora",
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "runtime_config",
)

# What stands between the names of modules when a model was wrapped by torch.compile, activation
# checkpointing, FSDP or Lightning as its tensors were saved.
_WRAPPERS = (
    "_orig_mod",
    "_checkpoint_wrapped_module",
    "_fsdp_wrapped_module",
    "_forward_module",
)
_PARALLEL = "module."  # DataParallel and DDP, in front of all

# PEFT's module dictionaries have the adapter's name in them; its save_pretrained takes it out.
_NAMED = re.compile(
    r"(?P<part>\.lora_[AB]|\.lora_magnitude_vector)\.(?P<name>[^.]+)(?=\.(weight|bias)$)"
    r"|(?P<bare>\.lora_embedding_[AB]|\.trainable_tokens_delta)\.(?P<named>[^.]+)$"
    r"|(?P<whole>\.modules_to_save)\.(?P<saved>[^.]+)(?=\.)"
)

# The decoder's own parts; an adapter that was trained on it without its head begins with them.
_DECODER = re.compile(r"^(layers\.\d+|embed_tokens|norm)\.")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's ``adapter_config.json``.

    Raises:
        AxtuneError: When the folder is not that of a LoRA adapter, lacks its weights, or the
            adapter uses what axtune cannot read.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        what = "is not an adapter: it lacks" if folder.is_dir() else "does not exist; expected"
        raise AxtuneError(
            f"{folder} {what} {ADAPTER_CONFIG}.", "Give a run folder, or a folder that PEFT saved."
        )
    config = read_json(file)
    kind = config.get("peft_type")
    if kind is None and ((folder / _MLX_WEIGHTS).is_file() or "lora_parameters" in config):
        raise AxtuneError(
            f"{folder} is an adapter in mlx's format ({_MLX_WEIGHTS}); expected PEFT's.",
            "Fuse it with mlx_lm.fuse --dequantize, or train it again with axtune.",
        )
    if kind != "LORA":
        raise AxtuneError(
            f"{folder} is a {str(kind)[:40]} adapter; expected LORA.",
            "Merge it with PEFT's merge_and_unload."
            if isinstance(kind, str)
            else "Give a folder that PEFT saved; its adapter_config.json names a peft_type.",
        )
    refuse_remote_code(folder, str(folder))
    if unknown := unreadable_switches(config):
        raise AxtuneError(
            f"The adapter {folder} uses {', '.join(unknown)}, which axtune cannot read.",
            "Merge it with PEFT's merge_and_unload.",
        )
    read_json(file, AdapterConfig)
    start = initialisation(config)
    if start.moves_base:
        raise AxtuneError(
            f"The adapter {folder} was initialised with {start.name}, which changed its base in "
            "memory; on the original base, it would be wrong.",
            "Use the adapter/ that axtune wrote at the end of the run, or convert it with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=…).",
        )
    if not (folder / WEIGHTS).is_file():
        pickled = [each.name for each in sorted(folder.iterdir()) if each.suffix in PICKLES]
        raise AxtuneError(
            f"{folder} lacks {WEIGHTS}.",
            f"Adapters in pickle files ({pickled[0]}) are not read, since they can run code; save "
            "it again with PEFT, which writes safetensors."
            if pickled
            else "Copy the adapter again, or train it again.",
        )
    return config


def unreadable_switches(config: Mapping[str, Any]) -> list[str]:
    """Switches that are set and that axtune does not know; those of a later PEFT among them.

    Args:
        config: Of a LoRA, by PEFT's names.
    """
    return [
        name
        for name, value in config.items()
        if value
        and name not in _KNOWN_SWITCHES
        and (name in _UNKNOWN_SWITCHES or name.startswith("use_") or name.endswith("_config"))
    ]


def names_in_base(file: Path, names: Iterable[str]) -> dict[str, str]:
    """What an adapter's tensors are called without PEFT's prefix, by their names in the file.

    A tensor that was saved from inside a wrapper has the wrapper's name in its own: the prefixes of
    DDP and torch.compile, the adapter's name, the missing ``model.`` of a decoder trained without
    its head. Each is taken back; what fits nothing afterwards is for the caller to refuse.

    Args:
        file: Theirs, for the message.
        names: As the file has them.

    Raises:
        AxtuneError: When two tensors would have one name: the file holds several adapters.
    """
    found = {name: _name_in_base(name) for name in names}
    counts = Counter(found.values())
    if twice := [name for name, plain in found.items() if counts[plain] > 1]:
        raise AxtuneError(
            f"{file} holds more than one adapter: {' and '.join(twice[:2])} are of one layer.",
            "Save the adapter alone: save_pretrained(selected_adapters=[…]).",
        )
    return found


def _name_in_base(name: str) -> str:
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    plain = plain.removeprefix(_PARALLEL).removeprefix(PREFIX).removeprefix(_PARALLEL)
    plain = _NAMED.sub(lambda match: match["part"] or match["bare"] or "", plain)
    return f"model.{plain}" if _DECODER.match(plain) else plain


def fits_nothing(folder: Path, names: Iterable[str], base: str) -> AxtuneError:
    """The error for tensors of an adapter that no tensor of the base takes.

    Args:
        folder: The adapter's.
        names: Theirs in the file; at least one.
        base: The base's name.
    """
    first, *more = names
    return AxtuneError(
        f"{folder / WEIGHTS} holds {first[:200]}"
        + (f" and {len(more)} more tensors" if more else "")
        + f", which {base} has no place for.",
        f"PEFT's names are of the form {PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight. Save "
        "the adapter again with save_pretrained of its PeftModel, or give the base that it was "
        "trained on.",
    )


def incomplete(folder: Path, names: Sequence[str]) -> AxtuneError:
    """The error for tensors that an adapter's configuration declares and its file lacks.

    Args:
        folder: The adapter's.
        names: Theirs; at least one.
    """
    return AxtuneError(
        f"{folder / WEIGHTS} lacks {len(names)} of the tensors that {ADAPTER_CONFIG} declares, "
        f"{names[0]} first.",
        "Configuration and weights are of different adapters, or the file is incomplete; copy "
        "the adapter again.",
    )


def require_finite(file: Path, name: str, count: int) -> None:
    """Refuse an adapter whose training diverged.

    Args:
        file: Its weights.
        name: Of a tensor in them.
        count: How many of the tensor's numbers are not finite.

    Raises:
        AxtuneError: When that is any.
    """
    if count:
        raise AxtuneError(
            f"{file}: {name} holds numbers that are not finite ({count:,}).",
            "Its training diverged; use an earlier checkpoint, or train with a lower "
            "learning_rate.",
        )
