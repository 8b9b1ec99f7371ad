"""A model of any size in float32 on a machine that cannot hold it: one layer in memory at a time.

The model is built without weights. Just before a layer runs, its weights are read from the
checkpoint's files; right after, they are dropped. Everything else (masks, cache, PEFT's layers) is
transformers' and PEFT's own code, so that what is computed here owes nothing to how axtune merges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from axtune.checkpoint.adapter_layers import EMBEDDING, HEAD
from axtune.checkpoint.locate import Checkpoint
from axtune.errors import CheckpointError
from axtune.model.adapter import load_adapter
from axtune.model.int4 import PACKED, SCALE, SHAPE, stored_weight
from axtune.weights.nf4 import FourBit
from axtune.weights.safetensors_file import load, read_checkpoint

# What PEFT puts into the names of a base's parameters.
_PEFT = re.compile(r"\.token_adapter(?=\.base_layer\.)|\.(base_layer|original_module)(?=\.)")


@dataclass(frozen=True)
class Reading:
    """What a model says about some prompts.

    Attributes:
        logits: Of every position of every prompt, one after the other, (positions, vocabulary), in
            float32.
        greedy: For each prompt the likeliest tokens that follow.
        margins: For each of those by how much its logit leads the second best.
    """

    logits: torch.Tensor
    greedy: list[list[int]]
    margins: list[list[float]]


class Layerwise:
    """A causal language model in float32, read from its files as it runs.

    Args:
        checkpoint: Found with its weights: in 16 bit, or in 4 bit as engines serve it.
        adapter: A folder that PEFT saved, put over it; None for the checkpoint alone.
        four_bit: Round the linear layers to 4 bit and back first, as a QLoRA run saw them.
        vocabulary: Rows of embeddings and head; None for the checkpoint's own.

    Raises:
        CheckpointError: When the files do not make the model that config.json describes.
        AxtuneError: When PEFT cannot put the adapter over it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: Path | None = None,
        four_bit: FourBit | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self._name = checkpoint.name
        self._four_bit = four_bit
        self._stored = {
            tensor.name: tensor
            for shard in read_checkpoint(checkpoint.folder).values()
            for tensor in shard
        }
        config = AutoConfig.from_pretrained(
            str(checkpoint.folder), local_files_only=True, trust_remote_code=False
        )
        if vocabulary is not None:
            config.vocab_size = vocabulary
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(
                config,
                dtype=torch.float32,
                attn_implementation="sdpa",
                trust_remote_code=False,
            )
        self._base: Any = base
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Its frequencies are computed from the config, not read.
        base.model.rotary_emb = type(base.model.rotary_emb)(config).to(self._device)
        _hollow_out(base)
        self.model: PreTrainedModel | PeftModel = base
        if adapter is not None:
            self.model = load_adapter(base, adapter, low_cpu_mem_usage=True)
        self.model.eval()
        for name, module in self._stations(base):
            module.register_forward_pre_hook(lambda module, _, name=name: self._fill(name, module))
            module.register_forward_hook(lambda module, *_: self._drop(module))
        self._held: dict[int, list[tuple[torch.nn.Module, str]]] = {}

    def read(self, prompts: Sequence[Sequence[int]], new_tokens: int = 0) -> Reading:
        """Run prompts through the model.

        Args:
            prompts: Token ids of each.
            new_tokens: How many tokens to add to each, always the likeliest.
        """
        ids, seen = self._padded(prompts)
        cache = DynamicCache()
        logits = self._step(ids, seen, cache)  # (prompts, width, vocabulary)
        last = logits[:, -1]
        everywhere = logits[seen.bool()].cpu()
        del logits
        greedy: list[list[int]] = [[] for _ in prompts]
        margins: list[list[float]] = [[] for _ in prompts]
        for _ in range(new_tokens):
            best = last.topk(2, dim=-1)
            for row, (values, indices) in enumerate(
                zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ):
                greedy[row].append(indices[0])
                margins[row].append(values[0] - values[1])
            if len(greedy[0]) == new_tokens:
                break
            seen = torch.nn.functional.pad(seen, (0, 1), value=1)
            last = self._step(best.indices[:, :1], seen, cache)[:, -1]
        return Reading(everywhere, greedy, margins)

    @torch.inference_mode()
    def states(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """What goes into the head, of every position of every sequence, one after the other.

        Args:
            sequences: Token ids of each; all go through a layer together.

        Returns:
            (positions, width) in float32.
        """
        ids, seen = self._padded(sequences)
        positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
        out = self._base.model(
            input_ids=ids, attention_mask=seen, position_ids=positions, use_cache=False
        )
        states: torch.Tensor = out.last_hidden_state[seen.bool()]
        return states

    @torch.inference_mode()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """What the head makes of states: a row of the vocabulary's size for each.

        Args:
            states: Some of those of `states`.

        Returns:
            (positions, vocabulary) in float32.
        """
        logits: torch.Tensor = self._base.get_output_embeddings()(states)
        return logits

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and what of them is seen, padded on the left: all end together."""
        width = max(map(len, sequences))
        ids = torch.zeros((len(sequences), width), dtype=torch.long, device=self._device)
        seen = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, width - len(sequence) :] = torch.tensor(sequence)
            seen[row, width - len(sequence) :] = 1
        return ids, seen

    def without_adapter(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """The logits of the base alone, as `Reading.logits`."""
        if not isinstance(self.model, PeftModel):
            return self.read(prompts).logits
        with self.model.disable_adapter():
            return self.read(prompts).logits

    @torch.inference_mode()
    def _step(self, ids: torch.Tensor, seen: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        positions = (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        logits: torch.Tensor = self.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits

    def _stations(self, base: Any) -> list[tuple[str, torch.nn.Module]]:
        """The modules that are filled and dropped as wholes, with their names in the files."""
        return [
            ("model.embed_tokens", base.get_input_embeddings()),
            *((f"model.layers.{n}", layer) for n, layer in enumerate(base.model.layers)),
            ("model.norm", base.model.norm),
            ("lm_head", base.get_output_embeddings()),
        ]

    def _fill(self, place: str, module: torch.nn.Module) -> None:
        """Read a module's weights; what PEFT loaded is there already."""
        held = []
        for name, parameter in list(module.named_parameters()):
            owner_name, _, leaf = name.rpartition(".")
            owner = module.get_submodule(owner_name)
            if _is_hollow(parameter):
                tensor = self._read(_PEFT.sub("", f"{place}.{name}"), tuple(parameter.shape))
                held.append((owner, leaf))
            else:
                tensor = parameter.data.to(self._device, torch.float32)
            owner._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
        self._held[id(module)] = held

    def _drop(self, module: torch.nn.Module) -> None:
        for owner, leaf in self._held.pop(id(module), []):
            parameter = owner._parameters[leaf]
            assert parameter is not None
            owner._parameters[leaf] = _hollow(tuple(parameter.shape))

    def _read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        stored = self._stored.get(name)
        if stored is None and name == HEAD:
            stored = self._stored.get(EMBEDDING)  # tied
        tensor = load(stored).float() if stored else self._unpacked(name)
        if tensor.shape != shape and not (name in (EMBEDDING, HEAD) and len(shape) == 2):
            raise CheckpointError(
                f"{self._name}: {name} has shape {list(tensor.shape)}; its config.json declares "
                f"{list(shape)}.",
                "Weights and config.json are of different checkpoints; copy it again.",
            )
        if stored and self._four_bit is not None and self._four_bit.concerns(stored):
            tensor = _rounded(tensor, self._four_bit)
        return tensor.to(self._device)

    def _unpacked(self, name: str) -> torch.Tensor:
        """A weight in 4 bit, as engines multiply by it."""
        module = name.removesuffix("weight")
        parts = [self._stored.get(f"{module}{part}") for part in (PACKED, SCALE, SHAPE)]
        if parts[0] is None:
            raise CheckpointError(f"{self._name} lacks {name}.", "Copy the checkpoint again.")
        packed, scales, shape = (load(part) if part else None for part in parts)
        assert packed is not None
        return stored_weight(parts[0].name, packed, scales, shape).float()


# One number that stands for all of a tensor: it has a shape and a device, and takes no memory. PEFT
# would leave an adapter without numbers too, over a base on torch's own "meta" device.
_NUMBER = torch.zeros(1)


def _hollow(shape: tuple[int, ...]) -> torch.nn.Parameter:
    return torch.nn.Parameter(_NUMBER.expand(shape), requires_grad=False)


def _is_hollow(parameter: torch.nn.Parameter) -> bool:
    return parameter.untyped_storage().data_ptr() == _NUMBER.untyped_storage().data_ptr()


def _hollow_out(model: torch.nn.Module) -> None:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = _hollow(tuple(parameter.shape))


def _rounded(tensor: torch.Tensor, settings: FourBit) -> torch.Tensor:
    """To 4 bit and back by bitsandbytes itself, as loading a QLoRA base does."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(
        tensor.to(settings.dtype), compress_statistics=settings.double, quant_type=settings.kind
    )
    restored: torch.Tensor = dequantize_4bit(packed, state)
    return restored.float()
