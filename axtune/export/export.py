"""A checkpoint in the form that another program wants: Hugging Face, vLLM, llama.cpp, an adapter.

From a run in one pass: adapter, layout and dtype are all applied while the base streams by.

transformers 5 replaces the pre-tokenizer of every ``model_type: qwen2``, and vLLM loads tokenizers
with transformers. The same weights in Llama layout (``attention_bias: true``, Qwen2's biases of q,
k and v kept, one of zeros for o) compute the same logits to the last bit and keep their tokenizer.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from axtune.checkpoint import locate
from axtune.checkpoint.atomic import refuse_existing, staged
from axtune.checkpoint.base import run_of
from axtune.checkpoint.families import LAYOUTS, Family, relative_of_a_x
from axtune.checkpoint.locate import ADAPTER_CONFIG
from axtune.checkpoint.record import write_record
from axtune.checkpoint.saved_adapter import PREFIX, WEIGHTS, fits_nothing
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.data.native_calls import form_of
from axtune.errors import AxtuneError, CheckpointError
from axtune.export.four_bit import FourBitOptions, in_four_bit
from axtune.export.gguf import Numbers, gguf_file, llama_server, serving_gguf
from axtune.export.ollama import modelfile
from axtune.model.dtypes import stated_dtype, with_dtype
from axtune.quiet import quiet_libraries
from axtune.units import shard_bytes
from axtune.weights.folder import (
    CheckpointPlan,
    FolderPlan,
    copy_licences,
    served_card,
    write_folder,
    write_json,
)
from axtune.weights.lora_delta import SavedAdapter, open_adapter
from axtune.weights.merge import Into, plan
from axtune.weights.output_tensor import OutputTensor, resharded
from axtune.weights.safetensors_file import load
from axtune.weights.stream_writer import write_files

Form = Literal["hf", "vllm", "gguf", "adapter"]
Layout = Literal["own", "llama"]

# What a Qwen2 config says and a Llama config does not.
_QWEN2_KEYS = ("layer_types", "max_window_layers", "sliding_window", "use_sliding_window")

_DECODER_LAYER = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+\.lora_\w+(\.weight)?$")

# The ranks that vLLM's --max-lora-rank takes (vllm/config/lora.py, 0.32).
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        folder: Where.
        nbytes: The size of its tensors.
        command: The line that serves it with vLLM or llama.cpp; None for transformers.
        notes: What a user should know, a sentence each.
    """

    folder: Path
    nbytes: int
    command: str | None
    notes: tuple[str, ...]


def export(
    source: str | Path,
    out: str | Path,
    *,
    to: Form = "hf",
    base: str | None = None,
    layout: Layout | None = None,
    dtype: Numbers | None = None,
    max_shard_size: str | None = None,
    into: Into = "16bit",
    four_bit: FourBitOptions | None = None,
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
        dtype: Of the weights; None keeps the checkpoint's. ``q8_0`` is for gguf alone.
        max_shard_size: Such as ``5GB`` or ``500MB``; None keeps the checkpoint's files.
        into: As `axtune.weights.merge.merge` takes it, for a run.
        four_bit: Round the linear layers to 4 bit, for ``vllm``; None keeps them.

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
        return _export_adapter(Path(source), target, base)
    if to == "gguf" and (layout or max_shard_size):
        raise AxtuneError(
            "A GGUF is one file in the model's own architecture: it has no layout and no shards.",
            "Leave --layout and --max-shard-size out.",
        )
    if to != "gguf" and dtype == "q8_0":
        raise AxtuneError(f"q8_0 is for GGUF files, not for {to}.", "Give --to gguf as well.")
    if four_bit:
        _refuse_for_four_bit(to, layout, dtype, max_shard_size)
    if not adapted and into != "16bit":
        raise AxtuneError(
            f"{source} is not a run; --into says how to merge one.", "Leave --into out."
        )
    sources = [source] if adapted else []
    planned = plan(sources, base if adapted else str(source), into=into)
    if to == "gguf":
        return _export_gguf(planned, target, dtype)
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

    family = tokenizer.family
    command = _serve(target, tokenizer.context, family) if to == "vllm" else None

    def say_how_to_serve(folder: Path) -> None:
        if command:
            (folder / "SERVING.md").write_text(_serving(command, target, family), encoding="utf-8")

    folder: FolderPlan = planned
    if four_bit:
        with quiet_libraries():
            folder = in_four_bit(planned, tokenizer, target.name, four_bit)
    write_folder(folder, target, tokenizer=tokenizer, finish=say_how_to_serve)
    return Exported(target, folder.nbytes, command, notes)


def _refuse_for_four_bit(
    to: Form, layout: Layout | None, dtype: Numbers | None, max_shard_size: str | None
) -> None:
    if to != "vllm":
        raise AxtuneError(
            f"--bits 4 is vLLM's format, not one for {to}.",
            "Give --to vllm; a GGUF in 4 bit is --to gguf --dtype q4_k_m.",
        )
    if layout == "own" or max_shard_size or dtype == "float32":
        raise AxtuneError(
            "An export in 4 bit is in Llama layout, has a file for each layer, and scales of 16 "
            "bit.",
            "Leave --layout and --max-shard-size out, and --dtype float32.",
        )


def _export_gguf(planned: CheckpointPlan, target: Path, dtype: Numbers | None) -> Exported:
    """A GGUF file, with what llama.cpp and Ollama need to serve it."""
    tokenizer = _tokenizer(planned)
    file = gguf_file(planned, tokenizer, target.name, dtype)
    ollama = modelfile(tokenizer, file.path.name)
    with staged(target, file.size) as folder:
        digests = write_files([dataclasses.replace(file, path=folder / file.path)])
        (folder / "Modelfile").write_text(ollama, encoding="utf-8")
        text = serving_gguf(target.name, tokenizer.context)
        (folder / "SERVING.md").write_text(text, encoding="utf-8")
        card = served_card(target.name, planned.runs(), library="gguf", tags=["gguf"])
        (folder / "README.md").write_text(card, encoding="utf-8")
        copy_licences(planned.base.folder, folder)
        write_record(folder, known=digests)
    notes = (
        *planned.notes,
        "Ollama reads tools into types of its own, so its prompts with tools differ from training; "
        "those of llama-server do not.",
    )
    command = llama_server(target / file.path, tokenizer.context)
    return Exported(target, file.size, command, notes)


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


def _in_dtype(planned: CheckpointPlan, dtype: Numbers) -> CheckpointPlan:
    wanted: torch.dtype = getattr(torch, dtype)
    shards = {
        name: [dataclasses.replace(piece, dtype=wanted) for piece in pieces]
        for name, pieces in planned.shards.items()
    }
    return dataclasses.replace(planned, shards=shards, config=with_dtype(planned.config, wanted))


def _export_adapter(source: Path, target: Path, base: str | None) -> Exported:
    """An adapter that vLLM loads over an exported base, the run's own numbers."""
    run = run_of(source)
    adapter = open_adapter(run.adapter if run else source)
    _refuse_what_vllm_lacks(adapter, source)
    _refuse_misshapen(adapter)
    name = base or (
        run.manifest["base"]["name"] if run else adapter.config.get("base_model_name_or_path")
    )
    rank = max(int(adapter.config["r"]), *(tensor.shape[0] for tensor in _halves(adapter, "A")))
    if rank > _VLLM_RANKS[-1]:
        raise AxtuneError(
            f"vLLM loads adapters up to rank {_VLLM_RANKS[-1]}; this one has {rank}.",
            f"Merge it: axtune export {source} --to vllm.",
        )
    size = sum(tensor.nbytes for tensor in adapter.tensors.values())
    slots = next(value for value in _VLLM_RANKS if value >= rank)
    context, family = _facts(name)
    command = _serve(Path("BASE"), context, family) + (
        f" --enable-lora --max-lora-rank {slots}"
        f" --lora-modules {shlex.quote(f'{target.name}={target}')}"
    )
    notes = [f"BASE is the folder that `axtune export {name} --to vllm --out BASE` makes."]
    if run and run.recipe.quantization:
        notes.append(
            "The run was trained on 4-bit weights; vLLM adds this adapter to the 16-bit ones."
        )
    # Ranks are padded where they differ.
    with staged(target, size * rank // min(t.shape[0] for t in _halves(adapter, "A"))) as folder:
        _write_adapter(adapter, rank, folder)
        text = _serving(command, target, family) + "\n" + "\n".join(notes) + "\n"
        (folder / "SERVING.md").write_text(text, encoding="utf-8")
        card = served_card(target.name, [run] if run else [], library="peft", tags=["lora"])
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_record(folder)
    return Exported(target, size, command, tuple(notes))


def _refuse_what_vllm_lacks(adapter: SavedAdapter, source: Path) -> None:
    """vLLM loads lora_A and lora_B of linear layers, and nothing else (vllm/lora, 0.32)."""
    lacks = []
    if adapter.config.get("use_dora"):
        lacks.append("DoRA")
    if saved := adapter.config.get("modules_to_save"):
        lacks.append(f"modules_to_save ({', '.join(saved)})")
    others = [
        name
        for name in adapter.tensors
        if not name.endswith((".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"))
        or name.startswith(("lm_head.", "model.embed_tokens."))
    ]
    if others and not saved:
        lacks.append(f"trained {others[0]}")
    if lacks:
        raise AxtuneError(
            f"vLLM cannot load an adapter with {' and '.join(lacks)}.",
            f"Merge it: axtune export {source} --to vllm.",
        )


def _refuse_misshapen(adapter: SavedAdapter) -> None:
    """Every layer has two halves of the rank that the configuration gives it."""
    if strangers := [
        each.name for name, each in adapter.tensors.items() if not _DECODER_LAYER.match(name)
    ]:
        raise fits_nothing(adapter.folder, strangers, "a decoder")
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in adapter.tensors.items():
        module, _, half = name.removesuffix(".weight").rpartition(".lora_")
        halves.setdefault(module, {})[half] = tensor.shape
    for module, shapes in halves.items():
        a, b = shapes.get("A", ()), shapes.get("B", ())
        rank = adapter.rank(module)
        if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
            raise AxtuneError(
                f"{adapter.folder}: the LoRA of {module[:200]} has shapes {list(b)} and {list(a)}, "
                f"and its {ADAPTER_CONFIG} says rank {rank}.",
                "Configuration and weights are of different adapters; copy it again.",
            )


def _write_adapter(adapter: SavedAdapter, rank: int, folder: Path) -> None:
    """Config and tensors; with one rank and scale for all, where the adapter's own differ.

    Older vLLMs apply r and lora_alpha to all modules, whatever the patterns say.
    """
    # auto_mapping names a class to import.
    config = {**adapter.config, "inference_mode": True, "auto_mapping": None}
    as_saved = all(f"{PREFIX}{name}" == each.name for name, each in adapter.tensors.items())
    if as_saved and not (config.get("rank_pattern") or config.get("alpha_pattern")):
        shutil.copyfile(adapter.folder / WEIGHTS, folder / WEIGHTS)
        write_json(folder / ADAPTER_CONFIG, config)
        return
    tensors = {}
    for name, stored in adapter.tensors.items():
        tensor = load(stored)
        module, _, half = name.removesuffix(".weight").rpartition(".")
        missing = rank - adapter.rank(module)
        if half == "lora_A":
            tensor = torch.nn.functional.pad(tensor, (0, 0, 0, missing))
        else:
            tensor = torch.nn.functional.pad(tensor * adapter.scale(module), (0, missing))
        tensors[f"{PREFIX}{name}"] = tensor.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    uniform = {"r": rank, "lora_alpha": rank, "use_rslora": False}
    write_json(
        folder / ADAPTER_CONFIG, {**config, **uniform, "rank_pattern": {}, "alpha_pattern": {}}
    )


def _halves(adapter: SavedAdapter, half: str) -> list[Any]:
    return [
        tensor for name, tensor in adapter.tensors.items() if name.endswith(f".lora_{half}.weight")
    ]


def _facts(model: str | None) -> tuple[int | None, Family]:
    """The base's context and family, where it is at hand; the adapter itself does not need it."""
    with suppress(CheckpointError):
        base = locate.find(str(model), weights=False)
        return int(base.config["max_position_embeddings"]), base.family
    return None, relative_of_a_x("llama")  # the layout in which vLLM serves it


def _serve(folder: Path, context: int | None, family: Family) -> str:
    """The complete line that serves a folder."""
    name = "" if folder == Path("BASE") else f" --served-model-name {shlex.quote(folder.name)}"
    length = f" --max-model-len {context}" if context else ""
    return (
        f"vllm serve {shlex.quote(str(folder))}{name}{length}"
        f" --enable-auto-tool-choice --tool-call-parser {family.tool_parser}"
    )


def _serving(command: str, target: Path, family: Family) -> str:
    """SERVING.md: the line, and a request."""
    request = {
        "model": target.name,
        "messages": [{"role": "user", "content": "안녕하세요?"}],
        "temperature": 0,
    }
    parser, line, form = family.tool_parser, family.line, form_of(family).shown
    return f"""# Serving {target.name}

```sh
{command}
```

`{parser}` is the parser of the calls that {line} models write (`{form}`). A GPU
with too little memory for the whole context takes a smaller `--max-model-len`.

```sh
curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{json.dumps(request, ensure_ascii=False)}'
```
"""
