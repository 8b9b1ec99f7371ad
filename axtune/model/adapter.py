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
from safetensors.torch import save_file
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

    def save(self, folder: Path) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``, for the original base.

        A moved initialisation is undone here: the trained model's weight is
        W - s B0 A0 + s B A, which is the original W plus a plain LoRA of twice the rank with
        A' = [A; A0] and B' = [B, -B0].

        Args:
            folder: An existing folder.
        """
        if self.merged:
            _save_sum(self.model, self.merged, folder)
            return
        if self.initial is None:
            save_raw(self.model, folder)
            return
        tensors = {}
        for key, tensor in get_peft_model_state_dict(
            self.model, save_embedding_layers=False
        ).items():
            now = tensor.detach().cpu()
            if ".lora_A." in key:
                now = torch.cat([now, self.initial[key]], dim=0)  # (2r, in)
            elif ".lora_B." in key:
                now = torch.cat([now, -self.initial[key]], dim=1)  # (out, 2r)
            tensors[key] = now.contiguous()
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = copy.deepcopy(self.model.peft_config["default"])
        assert isinstance(config, LoraConfig)
        # Twice the rank at the same scale, which is alpha / r, or alpha / sqrt(r) with rsLoRA.
        factor = math.sqrt(2) if config.use_rslora else 2
        config.lora_alpha *= factor
        config.alpha_pattern = {name: factor * a for name, a in config.alpha_pattern.items()}
        config.r *= 2
        config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
        config.init_lora_weights = True
        config.inference_mode = True
        config.save_pretrained(str(folder))


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


def save_raw(
    model: PeftModel, folder: Path, state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter as it is in memory: what training resumes from.

    Args:
        model: The base with its adapter.
        folder: An existing folder.
        state_dict: The model's tensors, where they had to be gathered from several processes.
    """
    # save_embedding_layers: unless told, PEFT asks the Hub whether the base's vocabulary changed.
    # TRL may keep a copy named "ref" next to the adapter that is trained.
    model.save_pretrained(
        str(folder),
        state_dict=state_dict,
        save_embedding_layers=False,
        selected_adapters=["default"],
    )
    (folder / "README.md").unlink()  # PEFT's empty form of a model card


def terms_of(model: PeftModel) -> dict[str, list[Term]]:
    """The update of each layer that an adapter adds to the base, as one term by module name."""
    terms = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer) and "default" in getattr(module, "lora_A", {}):
            a = module.lora_A["default"].weight.detach().float().cpu()
            b = module.lora_B["default"].weight.detach().float().cpu()
            terms[name] = [(a.clone(), b * module.scaling["default"])]
    return terms


def _save_sum(model: PeftModel, merged: dict[str, list[Term]], folder: Path) -> None:
    """Write the merged terms and the trained ones as one plain LoRA: [A'; A] and [B', B].

    The scales are in B already, so alpha is the rank.
    """
    trained = terms_of(model)
    prefix, tensors, ranks = "base_model.model.", {}, {}
    for name in sorted(merged.keys() | trained.keys()):
        terms = merged.get(name, []) + trained.get(name, [])
        a, b = torch.cat([a for a, _ in terms]), torch.cat([b for _, b in terms], dim=1)
        ranks[name] = len(a)
        tensors[f"{prefix}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{prefix}{name}.lora_B.weight"] = b.contiguous()
    whole = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors |= {  # modules that are trained whole
        key: tensor.detach().cpu().contiguous()
        for key, tensor in whole.items()
        if ".lora_" not in key
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config["default"])
    assert isinstance(config, LoraConfig)
    config.r = config.lora_alpha = max(ranks.values())
    config.rank_pattern = {name: rank for name, rank in ranks.items() if rank != config.r}
    config.alpha_pattern = dict(config.rank_pattern)
    last = {name.rpartition(".")[2] for name in ranks}
    named = {name for name, _ in model.get_base_model().named_modules()}
    chosen = {name for name in named if name.rpartition(".")[2] in last}
    config.target_modules = last if chosen == set(ranks) else set(ranks)
    config.use_rslora, config.init_lora_weights, config.inference_mode = False, True, True
    config.save_pretrained(str(folder))


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
        tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        initial = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
    return Adapter(adapted, initial)
