"""What axtune reads of a checkpoint's JSON files, with its types and bounds.

Checkpoints come from strangers, and are edited by hand. Each file is read at one place
(`axtune.checkpoint.locate.read_json`), and what a later step would stumble over is refused there,
with the key's name. Keys that no record names may hold anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

# Far above any model of today; what lies behind them would be built for hours before it fails.
_LONGEST_PATTERN, _MOST_REPETITIONS = 2000, 6

_Size = Annotated[int, Field(ge=1, le=1 << 24)]
_Layers = Annotated[int, Field(ge=1, le=2048)]
_Rank = Annotated[int, Field(ge=1, le=1 << 16)]
_Layer = Annotated[int, Field(ge=0, le=2048)]
_Token = Annotated[int, Field(ge=0, le=1 << 32)]
_Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]


def _file_name(value: str) -> str:
    fits = len(value.encode(errors="replace")) <= 255  # as file systems have it
    if Path(value).name != value or "\0" in value or not value.endswith(".safetensors") or not fits:
        raise PydanticCustomError(
            "file_name", "Input should be the name of a .safetensors file in the same folder"
        )
    return value


_ShardName = Annotated[str, AfterValidator(_file_name)]


def _pattern(value: str) -> str:
    if len(value) > _LONGEST_PATTERN:
        raise PydanticCustomError("pattern", "Input should be a shorter regular expression")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        raise PydanticCustomError("pattern", "Input should be a regular expression") from None
    if _backtracks(value):
        raise PydanticCustomError(
            "pattern", "Input should be a regular expression without a repetition inside another"
        )
    return value


def _backtracks(pattern: str) -> bool:
    """Whether matching can take years: a repetition is repeated, or there are very many."""
    text = re.sub(r"\[.*?\]", "c", re.sub(r"\\.", "c", pattern))
    if len(re.findall(r"[*+{]", text)) > _MOST_REPETITIONS:
        return True
    while group := re.search(r"\(([^()]*)\)([*+{]?)", text):
        varies = re.search(r"[*+{|]", group[1])
        if varies and group[2]:
            return True
        text = text.replace(group[0], "c*" if varies or group[2] else "c", 1)
    return False


_Pattern = Annotated[str, AfterValidator(_pattern)]


class Record(BaseModel):
    """A JSON file, as far as axtune reads it."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Rope(Record):
    rope_type: str | None = None
    type: str | None = None
    rope_theta: _Positive | None = None
    factor: _Positive | None = None
    original_max_position_embeddings: _Size | None = None


class ModelConfig(Record):
    """``config.json``."""

    model_type: str
    architectures: list[str] | None = None
    hidden_size: _Size | None = None
    intermediate_size: _Size | None = None
    num_hidden_layers: _Layers | None = None
    num_attention_heads: _Size | None = None
    num_key_value_heads: _Size | None = None
    head_dim: _Size | None = None
    vocab_size: _Size | None = None
    max_position_embeddings: _Size | None = None
    rms_norm_eps: Annotated[float, Field(ge=0, le=1)] | None = None
    rope_theta: _Positive | None = None
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    hidden_act: str | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    bos_token_id: _Token | list[_Token] | None = None
    eos_token_id: _Token | list[_Token] | None = None
    pad_token_id: _Token | None = None
    dtype: str | None = None
    torch_dtype: str | None = None
    quantization_config: dict[str, Any] | None = None


class GenerationConfig(Record):
    """``generation_config.json``."""

    bos_token_id: _Token | list[_Token] | None = None
    eos_token_id: _Token | list[_Token] | None = None
    pad_token_id: _Token | None = None


class ShardIndex(Record):
    """``model.safetensors.index.json``: the file of each tensor."""

    weight_map: dict[str, _ShardName]


class AdapterConfig(Record):
    """``adapter_config.json`` of a LoRA."""

    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    r: _Rank
    lora_alpha: _Positive  # of 0 it adds nothing, below 0 the contrary of what it learned
    lora_dropout: Annotated[float, Field(ge=0, le=1)] | None = None
    target_modules: list[str] | _Pattern | None = None
    exclude_modules: list[str] | _Pattern | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[_Pattern, _Rank] | None = None
    alpha_pattern: dict[_Pattern, _Positive] | None = None
    layers_to_transform: _Layer | list[_Layer] | None = None
    layers_pattern: _Pattern | list[_Pattern] | None = None
    trainable_token_indices: list[_Token] | dict[_Pattern, list[_Token]] | None = None
    bias: Literal["none", "all", "lora_only"] | None = None
    init_lora_weights: bool | str | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    ensure_weight_tying: bool | None = None


class QuantizationRecord(Record):
    """``axtune.json`` of a quantised folder; unlike the others it is axtune's own, and complete."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    commit: str | None
    digests: dict[str, str]
    quantization: dict[str, Any]
    precisions: list[Literal["bf16", "fp16", "fp32"]]
    device: str
    versions: dict[str, str | None]


class StagesRecord(Record):
    """``stages.json`` of a folder that holds the runs of stages (`axtune.stages`)."""

    begun: dict[str, str]
    done: dict[str, dict[str, Any]]


class _TrainedFrom(Record):
    name: str | None = None
    digests: dict[str, str] | None = None


class _DataRead(Record):
    digests: dict[str, str] | None = None


class _Plan(Record):
    steps: int | None = None


class RunManifest(Record):
    """``manifest.json`` of a run folder."""

    status: str | None = None
    task: str | None = None
    base: _TrainedFrom | None = None
    precision: str | None = None
    data: dict[str, _DataRead | None] | None = None
    counts: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    measured: dict[str, Any] | None = None
    plan: _Plan | None = None
    versions: dict[str, Any] | None = None
    wall_seconds: float | None = None
    adapter_sha256: str | None = None


def fault_of(value: dict[str, Any], record: type[Record]) -> str | None:
    """What keeps a file's content from being used: the key and the reason; None when nothing does.

    Args:
        value: What the JSON file holds.
        record: What it must hold.
    """
    try:
        record.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"][:2])[:100]
        reason = str(first["msg"])
        if first["type"] == "model_type":  # pydantic names the record's class
            reason = "Input should be a valid dictionary"
        reason = "it is missing" if first["type"] == "missing" else reason[0].lower() + reason[1:]
        return f"{key}: {reason}"
    return None
