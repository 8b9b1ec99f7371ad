"""Base weights: a checkpoint's causal language model, in a recipe's precision and bits.

Nothing of the base is ever saved by axtune's training, so what is set here in memory (the ids that
end a turn and pad) changes no file.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)

from axtune.checkpoint.locate import INDEX, SINGLE, Checkpoint, read_json
from axtune.checkpoint.provenance import original_of
from axtune.checkpoint.record import checked
from axtune.checkpoint.schemas import ShardIndex
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import bad_value, first_line, key_named, refused
from axtune.config.recipe import Attention
from axtune.config.recipe_file import as_override
from axtune.errors import (
    AxtuneError,
    CheckpointError,
    MissingPackageError,
)
from axtune.model.cpu_bf16 import avoid_broken_kernels
from axtune.model.dtypes import PRECISIONS
from axtune.model.finite import count_nonfinite
from axtune.model.int4 import is_int4, plain_shapes, plain_state
from axtune.model.offload import HOSTED
from axtune.model.shapes import fit

# glibc's name for the size from which blocks are mapped one by one (malloc.h); ours, in bytes.
_M_MMAP_THRESHOLD, _MAPPED = -3, 256 << 10

Precision = Literal["bf16", "fp16", "fp32"]


def choose_precision(wanted: Literal["auto", "bf16", "fp16", "fp32"]) -> Precision:
    """The precision that this machine trains in.

    Args:
        wanted: `Recipe.precision`. ``auto`` is bf16 on a card that has it, fp16 on one that has
            not, and fp32 on a CPU, where bf16 is slower unless it has matrix units.

    Raises:
        AxtuneError: When the machine cannot compute in the precision that was asked for.
    """
    on_gpu = torch.cuda.is_available()
    # Cards before Ampere only emulate bf16, several times slower than their fp16.
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return "fp32" if not on_gpu else "bf16" if has_bf16 else "fp16"
    if wanted == "bf16" and not has_bf16:
        raise AxtuneError(
            f"{torch.cuda.get_device_name()} does not support bf16.",
            "Set precision=auto or precision=fp16.",
        )
    if wanted == "fp16" and not on_gpu:
        raise AxtuneError(
            "fp16 training needs a GPU: a CPU cannot scale its losses.", "Set precision=auto."
        )
    return wanted


def faster_on_this_cpu(quantization: dict[str, Any] | None, precision: Precision) -> list[str]:
    """The overrides that spare a CPU without bf16 instructions their emulation."""
    if torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2"):
        return []
    words = ["precision=fp32"] if precision == "bf16" else []
    if (quantization or {}).get("bnb_4bit_compute_dtype") == "bfloat16":
        words.append("quantization.bnb_4bit_compute_dtype=float32")
    return words


def load_model(
    checkpoint: Checkpoint,
    tokenizer: AxTokenizer,
    *,
    precision: Precision,
    attention: Attention = "auto",
    quantization: dict[str, Any] | None = None,
    documents: bool = False,
    sharded: bool = False,
) -> PreTrainedModel:
    """Load a checkpoint's weights onto this process's device.

    Args:
        checkpoint: Where the files are; found with its weights.
        tokenizer: The checkpoint's tokenizer, whose end of turn and padding the model takes over.
        precision: Of the weights (of those that stay unquantised, with `quantization`).
        attention: Attention kernels; ``auto`` is sdpa.
        quantization: ``BitsAndBytesConfig`` by its own names; None for plain weights, or for those
            of a folder that is quantised already. A folder in 4 bit for serving is unpacked.
        documents: Whether documents are learned, or were: it then stops at their end too, as the
            folders that are made of it do.
        sharded: Whether FSDP will leave each process a share of it: it stays in host memory, its
            4-bit weights stored as numbers of the run's dtype, which FSDP can share out.

    Returns:
        The model, in evaluation mode, its ``name_or_path`` the name that the user gave; of a
        quantised folder, the name of its original.

    Raises:
        CheckpointError: When weights are missing, of the wrong shape, unreadable, or not finite.
        MissingPackageError: When flash_attn or bitsandbytes is asked for and absent.
        RecipeError: When bitsandbytes refuses a value of `quantization`, or the checkpoint was
            quantised with others, or for another precision.
    """
    options: dict[str, Any] = {}
    served = is_int4(checkpoint.config)  # to be asked, since it cannot be trained
    made_from = None
    if served:
        quantization = None
    else:
        quantization = quantization_of(checkpoint, quantization, precision)
        made_from = original_of(checkpoint)
    if not torch.cuda.is_available():
        _give_back_what_is_freed()
    _require_fit(checkpoint)
    if quantization:
        _require_finite_files(checkpoint)  # 4-bit rounding hides what is not finite
    if quantization and not made_from:  # a quantised folder's settings are in its config.json
        stored = {"bnb_4bit_quant_storage": PRECISIONS[precision]} if sharded else {}
        options["quantization_config"] = bits_and_bytes(quantization | stored, precision)
    try:
        with checked(checkpoint.folder):
            shared: dict[str, Any] = {
                "dtype": PRECISIONS[precision],
                "attn_implementation": _attention(attention, precision),
                "device_map": {"": "cpu"} if sharded else _device_map(),
                "local_files_only": True,
                "output_loading_info": True,
            }
            loaded: Any = (
                _load_served(checkpoint, shared)
                if served
                else AutoModelForCausalLM.from_pretrained(
                    str(checkpoint.folder),
                    use_safetensors=True,
                    trust_remote_code=False,
                    **shared,
                    **options,
                )
            )
    except (AxtuneError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers, safetensors and torch each raise their own
        raise CheckpointError(
            f"The weights of {checkpoint.name} cannot be loaded: {first_line(error)}",
            "Copy the checkpoint again; axtune doctor examines it.",
        ) from error
    model: PreTrainedModel
    model, info = loaded
    # transformers fills absent tensors with random numbers and only logs it.
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{checkpoint.name} lacks {len(missing)} of its model's tensors, such as {missing[0]}.",
            "Weights and config.json do not belong together, or a shard is missing; copy it again.",
        )
    if not quantization:
        for tensor_name, parameter in model.named_parameters():
            _require_finite(checkpoint, tensor_name, parameter)
    if not torch.cuda.is_available():
        avoid_broken_kernels(model)
    if made_from:
        _give_dtype(model, PRECISIONS[precision])
    if sharded:
        _store_in(model, PRECISIONS[precision])
        # Else the trainer would take it for a model that is spread over devices already.
        vars(model).pop("hf_device_map", None)
    # 4.0 Light's config.json says eos 0, which never comes; what ends a turn is <|im_end|>.
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.end_of_turn_id
        config.pad_token_id = tokenizer.pad_id
    stated = checkpoint.generation_config.get("eos_token_id")
    if isinstance(stated, list) and tokenizer.end_of_turn_id in stated:
        model.generation_config.eos_token_id = stated  # of a folder that learned documents, too
    if documents:
        model.generation_config.eos_token_id = list(tokenizer.stop_ids)
    # What PEFT writes as base_model_name_or_path: the user's name, not this machine's cache path.
    name = made_from.name if made_from else checkpoint.name
    model.name_or_path = model.config.name_or_path = name
    return model


def _load_served(checkpoint: Checkpoint, options: dict[str, Any]) -> Any:
    """A folder in 4 bit, its weights unpacked on the way.

    transformers reads such folders through the package compressed-tensors, to the same weights.
    """
    state: dict[str, torch.Tensor] = {}
    for part in _weight_files(checkpoint):
        for name in part.keys():  # noqa: SIM118 - not a dictionary
            state[name] = part.get_tensor(name)
    plain = {key: v for key, v in checkpoint.config.items() if key != "quantization_config"}
    config = AutoConfig.for_model(plain.pop("model_type")).from_dict(plain)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    loaded = kind.from_pretrained(None, config=config, state_dict=plain_state(state), **options)
    if checkpoint.generation_config:
        loaded[0].generation_config = GenerationConfig.from_dict(checkpoint.generation_config)
    return loaded


def _require_fit(checkpoint: Checkpoint) -> None:
    """Refuse weights that do not make the model, before it is given memory.

    transformers fills absent tensors with random numbers and only logs it, after the memory for all
    that config.json declares was taken.
    """
    shapes = {
        name: tuple(part.get_slice(name).get_shape())
        for part in _weight_files(checkpoint)
        for name in part.keys()  # noqa: SIM118 - not a dictionary
    }
    if is_int4(checkpoint.config):
        shapes = plain_shapes(shapes)
    found = fit(checkpoint, shapes)
    quantised = bool(checkpoint.config.get("quantization_config"))  # packed: shapes of their own
    if found.fault and not (quantised and found.absent == ()):
        raise CheckpointError(
            f"{checkpoint.name}: {found.fault}.",
            "Weights and config.json do not belong together, or a shard is missing; copy it again.",
        )


def _require_finite_files(checkpoint: Checkpoint) -> None:
    for part in _weight_files(checkpoint):
        for name in part.keys():  # noqa: SIM118 - not a dictionary
            _require_finite(checkpoint, name, part.get_tensor(name))


def _require_finite(checkpoint: Checkpoint, name: str, tensor: torch.Tensor) -> None:
    if count := count_nonfinite(tensor):
        raise CheckpointError(
            f"{name} of {checkpoint.name} holds {count:,} numbers that are not finite.",
            "Its training diverged, or the file is damaged; use another checkpoint, or copy it "
            "again.",
        )


def _weight_files(checkpoint: Checkpoint) -> Iterator[Any]:
    """Its safetensors files, those that transformers reads, opened one after the other."""
    index = checkpoint.folder / INDEX
    names = {SINGLE}
    if index.is_file():
        names = set(read_json(index, ShardIndex)["weight_map"].values())
    for name in sorted(names):
        try:
            with safe_open(checkpoint.folder / name, framework="pt") as part:
                yield part
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"The weights of {checkpoint.name} cannot be loaded: {name}: {first_line(error)}",
                "Copy the checkpoint again; axtune doctor examines it.",
            ) from None


def _give_back_what_is_freed() -> None:
    """Make a freed tensor's memory free for the next one, where glibc would keep it.

    glibc maps large blocks one by one, which gives them back when they are freed, but takes "large"
    to begin at the largest one freed so far, up to 32 MB (mallopt(3)): after a model is loaded,
    nearly every tensor lies in its heap. There torch's aligned blocks leave holes, which glibc
    before 2.38 does not even fill with blocks of the same size
    (https://sourceware.org/bugzilla/show_bug.cgi?id=14581). A fixed threshold keeps them out.
    """
    with suppress(OSError, AttributeError):  # systems without glibc have allocators of their own
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _MAPPED)


def quantization_of(
    checkpoint: Checkpoint, wanted: dict[str, Any] | None, precision: Precision
) -> dict[str, Any] | None:
    """The quantisation that a checkpoint is loaded with.

    Args:
        checkpoint: 16-bit, or quantised by ``axtune quantize``.
        wanted: The recipe's section, or None.
        precision: Of the run.

    Returns:
        `wanted`, for 16-bit weights; else what the folder was made with.

    Raises:
        CheckpointError: When the folder is quantised and does not say from what.
        RecipeError: When it was made with other settings, or for another precision.
    """
    made_from = original_of(checkpoint)
    if made_from is None:
        return wanted
    if precision not in made_from.precisions:
        message = (
            f"{precision}, but {checkpoint.name} holds what a run in "
            f"{' or '.join(made_from.precisions)} loads. Set it to that, or set "
            f"{as_override('model', made_from.name)}, or make a folder for it (axtune quantize "
            "--precision)."
        )
        raise refused([bad_value("precision", message)])
    made = made_from.quantization
    asked, held = (bits_and_bytes(each, precision).to_dict() for each in (wanted or made, made))
    faults = [
        bad_value(
            f"quantization.{key}",
            f"{asked[key]}, but {checkpoint.name} was made with {value}. Leave the section out "
            f"(quantization=null), or set {as_override('model', made_from.name)}.",
        )
        for key, value in held.items()
        if asked[key] != value
    ]
    if faults:
        raise refused(faults)
    return made


def _give_dtype(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring a quantised folder's model into the precision of a run.

    transformers leaves a serialised weight in the dtype that it is stored in. The 4-bit ones stay
    as they are; what they are unpacked to is part of their state.
    """
    packed = {id(parameter) for parameter in _in_four_bit(model)}
    for parameter in model.parameters():
        if id(parameter) in packed:
            parameter.quant_state.dtype = dtype  # type: ignore[attr-defined]
        elif parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _store_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Let 4-bit weights pass for numbers of a dtype; their bytes stay what they are."""
    for parameter in _in_four_bit(model):
        if parameter.dtype != dtype:
            parameter.data = parameter.data.view(-1).view(torch.uint8).view(dtype)[:, None]
            parameter.quant_storage = dtype


def quantised_to(model: torch.nn.Module, device: torch.device) -> None:
    """Move the scales of 4-bit weights; whoever shares the weights out moves only these."""
    for parameter in _in_four_bit(model):
        parameter.quant_state.to(device)


def _in_four_bit(model: torch.nn.Module) -> Iterator[Any]:
    return (p for p in model.parameters() if type(p).__name__ == "Params4bit")


@dataclass(frozen=True)
class Size:
    """Parameters of a model.

    Attributes:
        total: All of them; a 4-bit weight counts as the parameters it stands for.
        trainable: Those that are trained.
        quantized_layers: Linear layers held in 4 bit.
    """

    total: int
    trainable: int
    quantized_layers: int


def measure(model: torch.nn.Module) -> Size:
    """Count the parameters of a model."""
    total = trainable = quantized = 0
    for parameter in model.parameters():
        # bitsandbytes packs two 4-bit weights into each byte of its storage type.
        packed = type(parameter).__name__ == "Params4bit"
        count = parameter.numel() * (2 * parameter.element_size() if packed else 1)
        total += count
        trainable += count if parameter.requires_grad else 0
        quantized += packed  # by weights: PEFT's layer around a Linear4bit bears the same name
    tables = (module.table for module in model.modules() if isinstance(module, HOSTED))
    total += sum(table.numel() for table in tables)
    return Size(total, trainable, quantized)


def _attention(wanted: str, precision: Precision) -> str:
    if wanted == "flex_attention" and not torch.cuda.is_available():
        raise AxtuneError("attention: flex_attention needs a GPU.", "Set attention=sdpa.")
    if wanted != "flash_attention_2":
        return "sdpa" if wanted == "auto" else wanted
    # transformers would look for a replacement on the Hub; axtune runs no code from there.
    if importlib.util.find_spec("flash_attn") is None:
        raise MissingPackageError(
            "attention: flash_attention_2 needs the package flash-attn, which is not installed.",
            "Run `pip install flash-attn --no-build-isolation`, or set attention=sdpa.",
        )
    if not torch.cuda.is_available() or precision == "fp32":
        raise AxtuneError(
            "attention: flash_attention_2 needs a GPU and a 16-bit precision.",
            "Set attention=sdpa.",
        )
    return wanted


def bits_and_bytes(values: dict[str, Any], precision: Precision) -> BitsAndBytesConfig:
    """transformers' configuration from a recipe's ``quantization`` section.

    Raises:
        MissingPackageError: When bitsandbytes is not installed.
        RecipeError: When it has no such option, or refuses a value.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackageError(
            "quantization needs the package bitsandbytes, which is not installed.",
            "Run `pip install bitsandbytes`, or train without quantization (quantization=null).",
        )
    compute = str(values.get("bnb_4bit_compute_dtype", "float32"))
    faults = []
    if not isinstance(getattr(torch, compute, None), torch.dtype):
        message = f"{compute} is not a torch dtype; expected bfloat16, float16 or float32."
        faults.append(bad_value("quantization.bnb_4bit_compute_dtype", message))
    if compute == "bfloat16" and precision == "fp16":
        message = "the GPU does not support bf16; use float16."
        faults.append(bad_value("quantization.bnb_4bit_compute_dtype", message))
    if values.get("bnb_4bit_quant_type", "fp4") not in ("nf4", "fp4"):
        faults.append(bad_value("quantization.bnb_4bit_quant_type", "expected nf4 or fp4."))
    if faults:
        raise refused(faults)
    try:
        return BitsAndBytesConfig(**values)
    except (TypeError, ValueError, AttributeError) as error:
        key = key_named(error, "quantization", values)
        raise refused([bad_value(key, first_line(error))]) from error


def _device_map() -> dict[str, int | str]:
    """Every layer on this process's own device; accelerate has made it the current one."""
    return {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
