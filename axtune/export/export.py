"""A checkpoint in the form that another program wants: Hugging Face, vLLM, llama.cpp, an adapter.

From a run in one pass: adapter, layout and dtype are all applied while the base streams by.

transformers 5 replaces the pre-tokenizer of every ``model_type: qwen2``, and vLLM loads tokenizers
with transformers. The same weights in Llama layout (``attention_bias: true``, Qwen2's biases of q,
k and v kept, one of zeros for o) compute the same logits to the last bit and keep their tokenizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from axtune.checkpoint.atomic import refuse_existing, staged
from axtune.checkpoint.base import run_of
from axtune.checkpoint.families import LAYOUTS
from axtune.checkpoint.locate import ADAPTER_CONFIG
from axtune.checkpoint.record import write_record
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.export.adapter import export_adapter
from axtune.export.calibration import RoundingOptions
from axtune.export.four_bit import FourBitOptions, in_four_bit
from axtune.export.gguf import (
    EIGHT_BIT,
    Numbers,
    complete_config,
    gguf_file,
    llama_server,
    matrix_dtypes,
    serving_gguf,
)
from axtune.export.k_quants import K_QUANTS, k_quants
from axtune.export.ollama import modelfile
from axtune.export.serving import Exported, room, serving, verify_command, vllm_command
from axtune.model.dtypes import stated_dtype, with_dtype
from axtune.plan.serving import Form as ServedForm
from axtune.plan.serving import KQuant
from axtune.quiet import quiet_libraries
from axtune.units import shard_bytes
from axtune.weights.folder import (
    CheckpointPlan,
    FolderPlan,
    copy_licences,
    served_card,
    write_folder,
)
from axtune.weights.merge import Into, plan
from axtune.weights.output_tensor import OutputTensor, resharded
from axtune.weights.stream_writer import write_files

Form = Literal["hf", "vllm", "gguf", "adapter"]
Layout = Literal["own", "llama"]

# What a GGUF file's numbers are to `axtune.plan.serving`; nothing is said of float32.
_SERVED_FORMS: dict[str, ServedForm] = {
    "bfloat16": "bf16",
    "float16": "bf16",
    "q8_0": "q8_0",
    "q4_k_m": "q4_k_m",
    "q5_k_m": "q5_k_m",
    "q6_k": "q6_k",
}

# What a Qwen2 config says and a Llama config does not.
_QWEN2_KEYS = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")


def export(
    source: str | Path,
    out: str | Path,
    *,
    to: Form = "hf",
    base: str | None = None,
    layout: Layout | None = None,
    dtype: Numbers | KQuant | None = None,
    max_shard_size: str | None = None,
    into: Into = "16bit",
    four_bit: FourBitOptions | None = None,
    k_quant: RoundingOptions | None = None,
) -> Exported:
    """Export a checkpoint, or a run merged on the way.

    Args:
        source: A checkpoint as `axtune.checkpoint.locate.find` takes it, a run's folder, or an
            adapter's.
        out: The folder to produce; it appears whole or not at all.
        to: ``hf`` for transformers; ``vllm`` for a plain ``vllm serve``; ``gguf`` for llama.cpp and
            Ollama; ``adapter`` for vLLM's ``--enable-lora`` over an exported base.
        base: The base of a run or adapter, where it is not the one that it names.
        layout: ``own`` architecture or ``llama``; None is ``llama`` for vllm and ``own`` for hf.
        dtype: Of the weights; None keeps the checkpoint's. ``q8_0`` and the K-quants are for gguf
            alone.
        max_shard_size: Such as ``5GB`` or ``500MB``; None keeps the checkpoint's files.
        into: As `axtune.weights.merge.merge` takes it, for a run.
        four_bit: Round the linear layers to 4 bit, for ``vllm``; None keeps them.
        k_quant: How to round to a K-quant, where `dtype` is one; None as they are by default.

    Returns:
        What was written, and how to serve it.

    Raises:
        AxtuneError: As `axtune.weights.merge.merge`; also when the layout or vLLM cannot hold the
            model.
    """
    target = Path(out)
    refuse_existing(target)
    adapted = run_of(Path(source)) is not None or (Path(source) / ADAPTER_CONFIG).is_file()
    if to == "adapter":
        if layout or dtype or max_shard_size or into != "16bit":
            raise AxtuneError(
                "An adapter is exported as it is: it has no layout, dtype or shards, and is not "
                "merged into anything.",
                "Leave --layout, --dtype, --max-shard-size and --into out.",
            )
        return export_adapter(Path(source), target, base)
    if to == "gguf" and (layout or max_shard_size):
        raise AxtuneError(
            "A GGUF is one file in the model's own architecture: it has no layout and no shards.",
            "Leave --layout and --max-shard-size out.",
        )
    if to != "gguf" and dtype in ("q8_0", *K_QUANTS):
        raise AxtuneError(f"{dtype} is for GGUF files, not for {to}.", "Give --to gguf as well.")
    if k_quant and dtype not in K_QUANTS:
        raise AxtuneError(
            f"Only K-quants are rounded by rows, and {dtype or 'no --dtype'} is none.",
            f"Give --dtype {', '.join(K_QUANTS)}.",
        )
    if four_bit:
        _refuse_for_four_bit(to, layout, dtype, max_shard_size)
    if not adapted and into != "16bit":
        raise AxtuneError(
            f"{source} is not a run; --into says how to merge one.", "Leave --into out."
        )
    sources = [source] if adapted else []
    planned = plan(sources, base if adapted else str(source), into=into)
    if to == "gguf":
        return _export_gguf(planned, target, dtype, k_quant or RoundingOptions())
    own = str(planned.config.get("model_type"))
    if to == "vllm" and layout == "own" and own in LAYOUTS and LAYOUTS[own].replaces_pre_tokenizer:
        raise AxtuneError(
            f"In the {own.capitalize()} layout, vLLM's transformers loads a tokenizer that splits "
            "every digit.",
            "Leave --layout out, or export it for transformers: --to hf.",
        )
    limit = shard_bytes(max_shard_size) if max_shard_size else None
    if (layout or ("llama" if to == "vllm" else "own")) == "llama":
        planned = _in_llama_layout(planned)
    if four_bit and not dtype and stated_dtype(planned.config) == "float32":
        dtype = "bfloat16"  # of the scales: engines multiply in 16 bit
    if dtype:
        planned = _in_dtype(planned, dtype)
    if limit:
        pieces = [piece for shard in planned.shards.values() for piece in shard]
        planned = dataclasses.replace(planned, shards=resharded(pieces, limit))
    tokenizer = _tokenizer(planned)
    notes = planned.notes
    if (stated := planned.base.config.get("eos_token_id")) != tokenizer.end_of_turn_id:
        notes += (f"config.json ends a turn with {tokenizer.end_of_turn_id} now, not {stated}.",)

    rounded = None
    if four_bit:
        with quiet_libraries():
            rounded = in_four_bit(planned, tokenizer, target.name, four_bit)
    written: FolderPlan = rounded or planned
    family = tokenizer.family
    command = vllm_command(target, tokenizer.context, family) if to == "vllm" else None

    form: ServedForm = "w4a16" if rounded else "bf16"
    group = rounded.group if rounded else 128

    def say_how_to_serve(folder: Path) -> None:
        if command:
            text = serving(command, target, family, planned.config, form, group)
            (folder / "SERVING.md").write_text(text, encoding="utf-8")

    write_folder(written, target, tokenizer=tokenizer, finish=say_how_to_serve)
    fits = room(planned.config, target.name, form, group) if command else None
    check = verify_command(target, str(source), base, adapted=adapted)
    if rounded and not adapted:
        check += " --data FILE"  # a checkpoint has no rows of its own
    return Exported(target, written.nbytes, command, notes, fits, check)


def _refuse_for_four_bit(
    to: Form, layout: Layout | None, dtype: str | None, max_shard_size: str | None
) -> None:
    if to != "vllm":
        raise AxtuneError(
            f"--bits 4 is vLLM's format, not one for {to}.",
            "Give --to vllm; a GGUF in 4 bit is --to gguf --dtype q4_k_m, without --bits.",
        )
    if layout == "own" or max_shard_size or dtype == "float32":
        raise AxtuneError(
            "An export in 4 bit is in Llama layout, has a file for each layer, and scales of 16 "
            "bit.",
            "Leave --layout and --max-shard-size out, and --dtype float32.",
        )


def _export_gguf(
    planned: CheckpointPlan,
    target: Path,
    dtype: Numbers | KQuant | None,
    options: RoundingOptions,
) -> Exported:
    """A GGUF file, with what llama.cpp and Ollama need to serve it."""
    tokenizer = _tokenizer(planned)
    rounded = None
    match dtype:
        case "q4_k_m" | "q5_k_m" | "q6_k":
            with quiet_libraries():
                rounded = k_quants(planned, tokenizer, target.name, dtype, options)
            file, needed = rounded.file, rounded.needed
        case _:
            file = gguf_file(planned, tokenizer, target.name, dtype)
            needed = file.size
    fits = None
    form = _SERVED_FORMS.get(dtype or min(matrix_dtypes(planned)))
    if form:
        fits = room(complete_config(planned), target.name, form)
    notes = planned.notes
    facts: Mapping[str, Any] = {}
    digests: dict[str, str] = {}
    with staged(target, needed, rounded.resumes if rounded else None) as folder:
        path = folder / file.path
        if rounded:
            with quiet_libraries():
                notes += rounded.write(folder)
            facts = rounded.facts()
        else:
            digests = write_files([dataclasses.replace(file, path=path)])
        (folder / "Modelfile").write_text(modelfile(tokenizer, path.name), encoding="utf-8")
        text = serving_gguf(target.name, tokenizer.context, fits)
        (folder / "SERVING.md").write_text(text, encoding="utf-8")
        how = rounded.scheme() if rounded else EIGHT_BIT if dtype == "q8_0" else None
        runs = planned.runs()
        card = served_card(target.name, runs, library="gguf", tags=["gguf"], rounded=how)
        (folder / "README.md").write_text(card, encoding="utf-8")
        copy_licences(planned.base.folder, folder)
        write_record(folder, known=digests, facts=facts)
        size = path.stat().st_size
    notes += (
        "Ollama, from 0.30, renders with the template in the file, but reads tools into types of "
        "its own before: its prompts with tools may differ from training; those of llama-server do "
        "not.",
    )
    return Exported(target, size, llama_server(target / file.path, tokenizer.context), notes, fits)


def _tokenizer(planned: CheckpointPlan) -> AxTokenizer:
    return load_tokenizer(
        dataclasses.replace(planned.base, folder=planned.tokenizer_folder, config=planned.config)
    )


def _in_llama_layout(planned: CheckpointPlan) -> CheckpointPlan:
    """The same model as a ``LlamaForCausalLM``."""
    config = dict(planned.config)
    if config.get("model_type") == "llama":
        return planned
    if config.get("model_type") != "qwen2":
        raise CheckpointError(
            f"{planned.base.name} is a {config.get('model_type')} model; the Llama layout is for "
            "Qwen2 models such as A.X 4.0.",
            "Export it in its own layout: --to hf.",
        )
    if config.get("use_sliding_window"):
        raise CheckpointError(
            f"{planned.base.name} attends through a sliding window; Llama models have none.",
            "Export it in its own layout: --to hf.",
        )
    for key in _QWEN2_KEYS:
        config.pop(key, None)
    config |= {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": False,
    }
    shards = {
        name: [new for piece in pieces for new in _with_zero_bias(piece)]
        for name, pieces in planned.shards.items()
    }
    return dataclasses.replace(planned, config=config, shards=shards)


def _with_zero_bias(piece: OutputTensor) -> Iterator[OutputTensor]:
    """Llama has a bias on all four projections or on none; Qwen2 has none on o_proj."""
    yield piece
    if piece.name.endswith(".self_attn.o_proj.weight"):
        name = piece.name.removesuffix("weight") + "bias"
        yield OutputTensor(name, piece.dtype, piece.shape[:1], None)


def _in_dtype(planned: CheckpointPlan, dtype: str) -> CheckpointPlan:
    wanted: torch.dtype = getattr(torch, dtype)
    shards = {
        name: [dataclasses.replace(piece, dtype=wanted) for piece in pieces]
        for name, pieces in planned.shards.items()
    }
    return dataclasses.replace(planned, shards=shards, config=with_dtype(planned.config, wanted))
