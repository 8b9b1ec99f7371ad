"""A trained adapter as vLLM loads it over an exported base (``--enable-lora``)."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from axtune.checkpoint import locate
from axtune.checkpoint.atomic import staged
from axtune.checkpoint.base import run_of
from axtune.checkpoint.families import relative_of_a_x
from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint
from axtune.checkpoint.record import write_record
from axtune.checkpoint.saved_adapter import PREFIX, WEIGHTS, fits_nothing
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError, CheckpointError
from axtune.export.serving import Exported, serving, vllm_command
from axtune.model.int4 import WEAK_BENEATH_ADAPTERS
from axtune.units import typed
from axtune.weights.folder import served_card, write_json
from axtune.weights.lora_delta import SavedAdapter, open_adapter
from axtune.weights.safetensors_file import load

_DECODER_LAYER = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+\.lora_\w+(\.weight)?$")

# The ranks that vLLM's --max-lora-rank takes (vllm/config/lora.py, 0.32).
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def export_adapter(source: Path, target: Path, base: str | None) -> Exported:
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
            f"Merge it: axtune export {typed(source)} --to vllm.",
        )
    size = sum(tensor.nbytes for tensor in adapter.tensors.values())
    slots = next(value for value in _VLLM_RANKS if value >= rank)
    found = _at_hand(name)
    context = int(found.config["max_position_embeddings"]) if found else None
    family = found.family if found else relative_of_a_x("llama")  # whose layout vLLM serves
    command = vllm_command(Path("BASE"), context, family) + (
        f" --enable-lora --max-lora-rank {slots}"
        f" --lora-modules {shlex.quote(f'{target.name}={target}')}"
    )
    of_base = f"axtune export {typed(str(name))} --to vllm"
    notes = [f"BASE is the folder that `{of_base} --out BASE` makes."]
    if run and run.recipe.quantization:
        notes.append(_over_4_bit(of_base, source))
    stops: list[int] = []
    if run and run.learned_documents:
        stops = list(load_tokenizer(found).stop_ids) if found else []
        if stops:
            command += f" --generation-config {shlex.quote(str(target))}"
        notes.append(_where_documents_end(stops))
    # Ranks are padded where they differ.
    with staged(target, size * rank // min(t.shape[0] for t in _halves(adapter, "A"))) as folder:
        _write_adapter(adapter, rank, folder)
        text = serving(command, target, family) + "\n" + "\n".join(notes) + "\n"
        (folder / "SERVING.md").write_text(text, encoding="utf-8")
        card = served_card(target.name, [run] if run else [], library="peft", tags=["lora"])
        (folder / "README.md").write_text(card, encoding="utf-8")
        if found and stops:
            ends = {**found.generation_config, "eos_token_id": stops}
            write_json(folder / "generation_config.json", ends)
        write_record(folder, facts={"adapter": {"stop_token_ids": stops}} if stops else None)
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
            f"Merge it: axtune export {typed(source)} --to vllm.",
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


def _at_hand(model: str | None) -> Checkpoint | None:
    """The base, without its weights; the adapter itself does not need it."""
    with suppress(CheckpointError):
        return locate.find(str(model), weights=False)
    return None


def _over_4_bit(of_base: str, source: Path) -> str:
    """Where to serve an adapter that was trained over 4-bit weights, and what that costs.

    Args:
        of_base: The line that exports its base, without ``--out``.
        source: The run.
    """
    merged = shlex.join(["axtune", "export", str(source), "--to", "vllm", "--bits", "4"])
    return (
        "The run was trained over a base in 4 bit. This adapter is served over the base in 16 bit, "
        f"or, where that is too large, over the one in 4 bit that `{of_base} --bits 4 --calibrate "
        f"FILE --out BASE` makes, FILE having rows like those that it will be asked. A known "
        f"weakness: {WEAK_BENEATH_ADAPTERS}. `axtune verify BASE --adapter RUN` measures it; "
        f"`{merged} --out DIR` merges the adapter before the weights are rounded, and has no such "
        "weakness."
    )


def _where_documents_end(stops: Sequence[int]) -> str:
    """How a server comes to stop where documents end; of the base it knows where turns do.

    vLLM 0.32 takes ``eos_token_id`` from a folder's generation_config.json alone, and none from
    --override-generation-config (vllm/config/model.py, try_get_generation_config).

    Args:
        stops: What ends a turn and what ends a document; empty where the base is not at hand.
    """
    if not stops:
        return (
            "The run learned documents, and the base's generation_config.json may not stop where "
            "they end: send requests with the id of <|endoftext|> as stop_token_ids."
        )
    listed = " and ".join(map(str, stops))
    return (
        f"The run learned documents: it stops at {listed}, as generation_config.json of this "
        "folder says and --generation-config passes on. On a server without that, requests take "
        f"stop_token_ids: {stops[1:]}."
    )
