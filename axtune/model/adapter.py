"""LoRA adapters: made from a recipe by PEFT's own names, saved so that any PEFT loads them.

PiSSA and OLoRA move a part of the base's weights into the adapter, so their raw adapter fits only
the residual base that they leave behind in memory. What axtune hands on is always a plain LoRA
against the original base (`Adapter.save`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from axtune.checkpoint.adapter_layers import modules_of, unmatched
from axtune.checkpoint.leftovers import scratch
from axtune.checkpoint.locate import ADAPTER_CONFIG
from axtune.checkpoint.record import require_as_written
from axtune.checkpoint.saved_adapter import (
    PREFIX,
    WEIGHTS,
    fits_nothing,
    incomplete,
    names_in_base,
    read_adapter_config,
    require_finite,
    unreadable_switches,
)
from axtune.config.faults import bad_value, first_line, key_named, refused, type_faults
from axtune.config.initialisation import initialisation
from axtune.config.recipe import LORA_DEFAULTS
from axtune.errors import AxtuneError
from axtune.model.finite import count_nonfinite
from axtune.model.sharding import share_of, whole

_UNREADABLE = "adapters made so cannot be merged, exported or trained further here; remove it."

# One summand of a layer's update: A (rank, in), and B (out, rank) with the scale in it; float32.
Term = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Adapter:
    """A model with its trainable adapter.

    Attributes:
        model: The base with the adapter in place.
        initial: The adapter's tensors before training, on the CPU, where its initialisation moved
            base weights into it; None otherwise.
        merged: The terms of an earlier adapter that was merged into the base first, by module.
    """

    model: PeftModel
    initial: dict[str, torch.Tensor] | None
    merged: dict[str, list[Term]] = dataclasses.field(default_factory=dict)

    def save(self, folder: Path, tensors: dict[str, torch.Tensor] | None = None) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``, for the original base.

        A moved initialisation is undone here: the trained model's weight is
        W - s B0 A0 + s B A, which is the original W plus a plain LoRA of twice the rank with
        A' = [A; A0] and B' = [B, -B0].

        Args:
            folder: An existing folder.
            tensors: Of `tensors_of`, where several processes had to gather them.
        """
        now = tensors_of(self.model) if tensors is None else tensors
        if self.merged:
            _save_sum(self.model, now, self.merged, folder)
            return
        if self.initial is None:
            save_raw(self.model, folder, now)
            return
        doubled = {}
        for key, tensor in now.items():
            if ".lora_A." in key:
                tensor = torch.cat([tensor, self.initial[key]], dim=0)  # (2r, in)
            elif ".lora_B." in key:
                tensor = torch.cat([tensor, -self.initial[key]], dim=1)  # (out, 2r)
            doubled[key] = tensor.contiguous()
        config = _plain_config(self.model)
        # Twice the rank at the same scale, which is alpha / r, or alpha / sqrt(r) with rsLoRA.
        factor = math.sqrt(2) if config.use_rslora else 2
        config.lora_alpha *= factor
        config.alpha_pattern = {name: factor * a for name, a in config.alpha_pattern.items()}
        config.r *= 2
        config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
        config.init_lora_weights = True
        _write(folder, config, doubled)


_MISMATCH = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\((.+?)\) from checkpoint, "
    r"the shape in current model is torch\.Size\((.+?)\)"
)


def _shapes_of(said: str) -> str:
    """What torch says of tensors that do not fit, in other words than those of its own classes."""
    return _MISMATCH.sub(r"size mismatch of \1: \2 in the adapter, \3 in the base", said)


def load_adapter(
    model: PreTrainedModel,
    folder: Path,
    *,
    is_trainable: bool = False,
    low_cpu_mem_usage: bool = False,
) -> PeftModel:
    """Put a saved adapter on its base.

    Args:
        model: The base.
        folder: The adapter's.
        is_trainable: Whether it is to be trained further.
        low_cpu_mem_usage: Whether PEFT makes the adapter's layers without memory first.

    Raises:
        AxtuneError: When the folder holds no LoRA adapter that axtune reads, its numbers are not
            finite, one of its tensors finds no place in the base, or a layer none of its tensors.
    """
    require_as_written(folder)
    read_adapter_config(folder)
    file = folder / WEIGHTS
    try:
        with safe_open(file, framework="pt") as stored:
            plain = names_in_base(file, stored.keys())
            tensors = {name: stored.get_tensor(name) for name in plain}
    except (SafetensorError, OSError) as error:
        raise AxtuneError(
            f"{file} is not a safetensors file, or is incomplete ({first_line(error)[:-1]}).",
            "Copy the adapter again.",
        ) from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise AxtuneError(
                f"{file}: {name} is {tensor.dtype}; expected floating point.",
                "Save the adapter again without packing its numbers.",
            )
        require_finite(file, name, count_nonfinite(tensor))
    names = {f"{PREFIX}{plain[name]}": name for name in plain}
    with scratch() as renaming:
        place = folder
        if any(name != own for name, own in names.items()):  # PEFT would leave such tensors out
            place = renaming
            shutil.copyfile(folder / ADAPTER_CONFIG, place / ADAPTER_CONFIG)
            renamed = {name: tensors[own] for name, own in names.items()}
            save_file(renamed, place / WEIGHTS, metadata={"format": "pt"})
        try:
            config = LoraConfig.from_pretrained(str(place))
            config.task_type = "CAUSAL_LM"
            adapted = PeftModel.from_pretrained(
                model, str(place), config=config, is_trainable=is_trainable,
                low_cpu_mem_usage=low_cpu_mem_usage,
            )  # fmt: skip
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # other layers, other shapes: PEFT raises nearly anything
            raise AxtuneError(
                f"The adapter {folder} does not fit the base: {_shapes_of(first_line(error))}",
                "Give the base that it was trained on.",
            ) from error
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    embeddings = {f"{PREFIX}{name}" for name in ("model.embed_tokens.weight", "lm_head.weight")}
    embeddings |= {name.replace(".weight", ".base_layer.weight") for name in embeddings}
    if strangers := [own for name, own in names.items() if name not in {*wanted, *embeddings}]:
        raise fits_nothing(folder, strangers, str(model.name_or_path) or "the base")
    if unfilled := [name for name in wanted if name not in names]:
        raise incomplete(folder, unfilled)
    return adapted


def tensors_of(model: PeftModel) -> dict[str, torch.Tensor]:
    """An adapter's tensors, whole and on the CPU, by the names that PEFT saves them under.

    Of a sharded model all processes call this together.
    """
    # save_embedding_layers: unless told, PEFT asks the Hub whether the base's vocabulary changed.
    # TRL may keep a copy named "ref" next to the adapter that is trained, "default".
    named = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {key: whole(tensor.detach()).cpu() for key, tensor in named.items()}


def save_raw(model: PeftModel, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write the adapter as it is in memory: what training resumes from.

    Args:
        model: The base with its adapter.
        folder: An existing folder.
        tensors: Of `tensors_of`.
    """
    _write(folder, _plain_config(model), {key: one.contiguous() for key, one in tensors.items()})


def load_raw(model: PeftModel, folder: Path) -> None:
    """Give an adapter the numbers that `save_raw` wrote of one of its shape.

    Args:
        model: The base with its adapter, sharded or not.
        folder: That holds them; every process reads it.

    Raises:
        ValueError: When they are of another adapter.
        OSError, SafetensorError: When they cannot be read.
    """
    given = load_file(folder / WEIGHTS)
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    if other := sorted(given.keys() ^ held.keys()):
        raise ValueError(f"{other[0]} is in one of them only.")
    with torch.no_grad():
        for name, tensor in held.items():  # these share the parameters' memory
            if tensor.shape != given[name].shape:
                was, now = list(given[name].shape), list(tensor.shape)
                raise ValueError(f"{name} has the shape {was}, and {now} here.")
            tensor.copy_(share_of(given[name], tensor))


def _plain_config(model: PeftModel) -> LoraConfig:
    """An adapter's configuration as it is saved."""
    config = copy.deepcopy(model.peft_config["default"])
    assert isinstance(config, LoraConfig)
    config.inference_mode = True
    return config


def _write(folder: Path, config: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def terms_of(model: PeftModel, tensors: dict[str, torch.Tensor]) -> dict[str, list[Term]]:
    """The update of each layer that an adapter adds to the base, as one term by module name.

    Args:
        model: The base with its adapter.
        tensors: Of `tensors_of`.
    """
    terms = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer) and "default" in getattr(module, "lora_A", {}):
            a, b = (tensors[f"{PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
            terms[name] = [(a.clone(), b * module.scaling["default"])]
    return terms


def _save_sum(
    model: PeftModel,
    now: dict[str, torch.Tensor],
    merged: dict[str, list[Term]],
    folder: Path,
) -> None:
    """Write the merged terms and the trained ones as one plain LoRA: [A'; A] and [B', B].

    The scales are in B already, so alpha is the rank.
    """
    trained = terms_of(model, now)
    tensors, ranks = {}, {}
    for name in sorted(merged.keys() | trained.keys()):
        terms = merged.get(name, []) + trained.get(name, [])
        a, b = torch.cat([a for a, _ in terms]), torch.cat([b for _, b in terms], dim=1)
        ranks[name] = len(a)
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
    # Modules that are trained whole.
    tensors |= {key: one.contiguous() for key, one in now.items() if ".lora_" not in key}
    config = _plain_config(model)
    config.r = config.lora_alpha = max(ranks.values())
    config.rank_pattern = {name: rank for name, rank in ranks.items() if rank != config.r}
    config.alpha_pattern = dict(config.rank_pattern)
    last = {name.rpartition(".")[2] for name in ranks}
    named = {name for name, _ in model.get_base_model().named_modules()}
    chosen = {name for name in named if name.rpartition(".")[2] in last}
    config.target_modules = last if chosen == set(ranks) else set(ranks)
    config.use_rslora, config.init_lora_weights = False, True
    _write(folder, config, tensors)


def lora_config(values: dict[str, Any]) -> LoraConfig:
    """PEFT's configuration from a recipe's ``lora`` section.

    Raises:
        RecipeError: When a value is not of its type, or PEFT refuses it.
    """
    merged = {**LORA_DEFAULTS, **values}
    faults = type_faults("lora", LoraConfig, merged)
    start = initialisation(merged)
    if start.needs_preparation:
        message = (
            f"{start.name} needs a pass over data before training, which axtune does not do; "
            "set true."
        )
        faults.append(bad_value("lora.init_lora_weights", message))
    if faults:
        raise refused(faults)
    try:
        return LoraConfig(task_type="CAUSAL_LM", **merged)
    except (TypeError, ValueError, ImportError) as error:
        key = key_named(error, "lora", merged)
        raise refused([bad_value(key, first_line(error))]) from error


def add_adapter(model: PreTrainedModel, values: dict[str, Any], *, seed: int) -> Adapter:
    """Put a fresh adapter on a base; its weights are float32 whatever the base's are.

    Args:
        model: The base, changed in place.
        values: The recipe's ``lora`` section.
        seed: Of the random half of the adapter.

    Raises:
        RecipeError: When the base has no layers of the names given, or PEFT refuses otherwise.
    """
    config = lora_config(values)
    start = initialisation({"init_lora_weights": config.init_lora_weights})
    if start.moves_base and getattr(model, "is_loaded_in_4bit", False):
        message = (
            f"{start.name} changes base weights, which a 4-bit base does not keep exactly. "
            "Use init_lora_weights: true, or train without quantization."
        )
        raise refused([bad_value("lora.init_lora_weights", message)])
    if unreadable := unreadable_switches(config.to_dict()):
        faults = [bad_value(f"lora.{name}", _UNREADABLE) for name in unreadable]
        raise refused(faults)
    modules = modules_of(name for name, _ in model.named_parameters(remove_duplicate=False))
    if faults := [
        bad_value(f"lora.{key}", message)
        for key, message in unmatched({**LORA_DEFAULTS, **values}, modules)
    ]:
        raise refused(faults)
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, config)
    except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError) as error:
        key = key_named(error, "lora", {**LORA_DEFAULTS, **values})
        raise refused([bad_value(key, first_line(error))]) from error
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # The loss multiplies with lm_head.weight itself, so such an adapter would never be trained.
        message = "lm_head cannot have a LoRA here; train it whole with modules_to_save: [lm_head]."
        raise refused([bad_value("lora.target_modules", message)])
    initial = None
    if start.moves_base:
        initial = {key: tensor.clone() for key, tensor in tensors_of(adapted).items()}
    return Adapter(adapted, initial)
