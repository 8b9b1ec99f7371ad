"""What saved adapters do to the tensors of a base: PEFT's own semantics, a block of rows at a time.

Read from the adapter's files, without PEFT and without the model. All arithmetic is in float32 and
in PEFT's order (``W + (B @ A) * scale``), so that the result is PEFT's in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint.adapter_layers import (
    EMBEDDING,
    HEAD,
    differing_tensors,
    of_pattern,
)
from axtune.checkpoint.locate import ADAPTER_CONFIG
from axtune.checkpoint.record import require_as_written
from axtune.checkpoint.saved_adapter import (
    WEIGHTS,
    fits_nothing,
    incomplete,
    names_in_base,
    read_adapter_config,
    require_finite,
)
from axtune.errors import AxtuneError
from axtune.weights.output_tensor import Step
from axtune.weights.safetensors_file import (
    TensorInfo,
    is_zero,
    load,
    nonfinite_in,
    read_header,
    require_floats,
)

_PARTS = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_B.bias",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector.weight",
    ".lora_magnitude_vector",
    ".token_adapter.trainable_tokens_delta",
)


@dataclass(frozen=True)
class SavedAdapter:
    """A LoRA adapter on the disk.

    Attributes:
        folder: With ``adapter_config.json`` and ``adapter_model.safetensors``.
        config: The former.
        tensors: The latter's tensors, by the names of the base's modules, without PEFT's prefix.
        weight: What its delta is multiplied by.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    weight: float = 1.0

    def scale(self, module: str) -> float:
        """alpha / r of a module, or alpha / sqrt(r) with rsLoRA (PEFT, tuners/lora/layer.py)."""
        rank = self.rank(module)
        alpha = float(
            _of_module(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        )
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    @property
    def adds_nothing(self) -> bool:
        """Whether it leaves its base as it is: B, at 0 before training, is 0 in every layer."""
        inner = (".lora_A.weight", ".lora_embedding_B")  # what B is multiplied with
        outer = [tensor for name, tensor in self.tensors.items() if not name.endswith(inner)]
        return all(map(is_zero, outer))

    def rank(self, module: str) -> int:
        """The rank that its configuration gives a module."""
        return int(_of_module(self.config.get("rank_pattern"), module, self.config["r"]))


@dataclass
class Change:
    """What becomes of one tensor of the base.

    Attributes:
        shape: Its shape afterwards.
        replacement: The tensor that stands in its place, before the steps; None for the base's own.
        prepare: Each gives one step, with what it needs in memory.
    """

    shape: tuple[int, ...]
    replacement: TensorInfo | None = None
    prepare: list[Callable[[], Step]] = field(default_factory=list)


def open_adapter(folder: Path, weight: float = 1.0) -> SavedAdapter:
    """Read an adapter's configuration and the names of its tensors.

    Raises:
        AxtuneError: When it is not a LoRA adapter, or uses what cannot be merged.
    """
    require_as_written(folder)
    config = read_adapter_config(folder)
    file = folder / WEIGHTS
    stored = {tensor.name: tensor for tensor in read_header(file)}
    tensors = {plain: stored[name] for name, plain in names_in_base(file, stored).items()}
    if not tensors:
        raise AxtuneError(f"{file} holds no tensors.", "Copy the adapter again, or train it again.")
    if not math.isfinite(weight):
        raise AxtuneError(
            f"The weight {weight} of {folder} is not a finite number.", "Give one such as 0.5."
        )
    require_floats(stored.values(), str(folder))
    for name, tensor in stored.items():
        require_finite(file, name, nonfinite_in(tensor))
    return SavedAdapter(folder, config, tensors, weight)


def changes(
    adapters: Sequence[SavedAdapter], base: dict[str, TensorInfo], name: str, *, tied: bool
) -> dict[str, Change]:
    """What adapters do to a base, by the base's tensor names.

    Args:
        adapters: In the order in which their deltas are added.
        base: The base's tensors.
        name: The base's.
        tied: Whether the base's head is its embedding; the result then has ``lm_head.weight`` when
            the two part.

    Raises:
        AxtuneError: When an adapter is of another base, broken, or in another's way.
    """
    found: dict[str, Change] = {}
    for adapter in adapters:
        _Reader(adapter, base, name, found, tied, alone=len(adapters) == 1).read()
    if tied and HEAD not in found and EMBEDDING in found:
        embedding = found[EMBEDDING]
        follows = all(adapter.config.get("ensure_weight_tying") for adapter in adapters)
        if embedding.shape != base[EMBEDDING].shape:
            raise AxtuneError(
                f"The adapter resizes the embeddings from {base[EMBEDDING].shape[0]:,} to "
                f"{embedding.shape[0]:,} tokens, but brings no head of that size.",
                "Save it with save_embedding_layers=True.",
            )
        if not follows and not _only_tokens(adapters):
            found[HEAD] = Change(base[EMBEDDING].shape)
    return found


class _Reader:
    """Sorts one adapter's tensors into the changes that they make."""

    def __init__(
        self,
        adapter: SavedAdapter,
        base: dict[str, TensorInfo],
        base_name: str,
        found: dict[str, Change],
        tied: bool,
        alone: bool,
    ) -> None:
        self._adapter = adapter
        self._base = {**base, HEAD: base[EMBEDDING]} if tied else base
        self._base_name = base_name
        self._found = found
        self._tied = tied
        self._alone = alone
        self._replaced: set[str] = set()

    def read(self) -> None:
        parts: dict[str, dict[str, TensorInfo]] = {}
        whole: dict[str, TensorInfo] = {}
        for name, tensor in self._adapter.tensors.items():
            part = next((part for part in _PARTS if name.endswith(part)), None)
            if part is None:
                whole[name.replace(".base_layer.", ".")] = tensor
            else:
                parts.setdefault(name.removesuffix(part), {})[part] = tensor
        follows = self._tied and self._adapter.config.get("ensure_weight_tying")
        head = HEAD.removesuffix(".weight")
        if follows:  # the head is the embedding still; its copies say the same again
            parts.pop(head, None)
            whole.pop(HEAD, None)
        strangers = [tensor.name for name, tensor in whole.items() if name not in self._base]
        strangers += [
            tensor.name
            for module, own in parts.items()
            if f"{module}.weight" not in self._base
            for tensor in own.values()
        ]
        if strangers:
            raise fits_nothing(self._adapter.folder, strangers, self._base_name)
        for name, tensor in whole.items():
            self._replace(name, tensor)
        for module, own in parts.items():
            self._module(module, own)
        for name, change in list(self._found.items()):
            if not (change.prepare or change.replacement):
                del self._found[name]
        self._require_as_declared()

    def _require_as_declared(self) -> None:
        """Refuse an adapter whose configuration is of other layers than its tensors."""
        adapter = self._adapter
        shapes = {name: tensor.shape for name, tensor in self._base.items()}
        missing, further = differing_tensors(adapter.config, adapter.tensors, shapes)
        if missing:
            raise incomplete(adapter.folder, missing)
        if further:
            raise AxtuneError(
                f"{adapter.folder / WEIGHTS} holds {further[0]}"
                + (f" and {len(further) - 1} more tensors" if further[1:] else "")
                + f", which {ADAPTER_CONFIG} does not declare.",
                "Configuration and weights are of different adapters, or one of them was edited; "
                "copy the adapter again.",
            )

    def _replace(self, name: str, tensor: TensorInfo) -> None:
        """modules_to_save, trained biases, and embeddings saved whole."""
        before = self._base[name].shape
        resized = name in (EMBEDDING, HEAD) and tensor.shape[1:] == before[1:]
        if tensor.shape != before and not resized:
            raise self._other_base(f"its {name} is {tensor.shape}, the base's is {before}")
        if name in self._found:
            raise AxtuneError(
                f"Two of the adapters change {name}, one of them by replacing it.",
                "Merge one of them alone.",
            )
        if self._adapter.weight != 1:
            raise AxtuneError(
                f"The adapter {self._adapter.folder} replaces {name} whole, which has no weight "
                f"{self._adapter.weight}.",
                "Merge it with weight 1.",
            )
        self._found[name] = Change(tensor.shape, tensor)
        self._replaced.add(name)

    def _module(self, module: str, parts: dict[str, TensorInfo]) -> None:
        name = f"{module}.weight"
        change = self._change(name)
        if delta := parts.get(".token_adapter.trainable_tokens_delta"):
            self._tokens(module, change, delta)
        if ".lora_A.weight" in parts or ".lora_B.weight" in parts:
            left, right = parts.get(".lora_B.weight"), parts.get(".lora_A.weight")
            self._low_rank(module, change, left, right, parts, transposed=False)
        if ".lora_embedding_A" in parts or ".lora_embedding_B" in parts:
            left, right = parts.get(".lora_embedding_A"), parts.get(".lora_embedding_B")
            self._low_rank(module, change, left, right, parts, transposed=True)

    def _low_rank(
        self,
        module: str,
        change: Change,
        left: TensorInfo | None,
        right: TensorInfo | None,
        parts: dict[str, TensorInfo],
        transposed: bool,
    ) -> None:
        """A delta of rank r: left (rows, r) @ right (r, width), both stored so or transposed."""
        if left is None or right is None:
            raise AxtuneError(
                f"{self._adapter.folder / WEIGHTS} has one half of {module}'s LoRA.",
                "Copy the adapter again, or train it again.",
            )
        rank = self._adapter.rank(module)
        expected = (change.shape[0], rank), (rank, change.shape[1])
        shapes = left.shape, right.shape
        if transposed:
            shapes = left.shape[::-1], right.shape[::-1]
        if shapes != expected:
            raise self._other_base(
                f"its LoRA of {module} has shapes {shapes[0]} and {shapes[1]}; rank {rank} and the "
                f"base's {change.shape} want {expected[0]} and {expected[1]}"
            )
        scale = self._adapter.scale(module) * self._adapter.weight
        magnitude = parts.get(".lora_magnitude_vector", parts.get(".lora_magnitude_vector.weight"))
        if bool(self._adapter.config.get("use_dora")) != (magnitude is not None):
            raise AxtuneError(
                f"{self._adapter.folder}: use_dora and the tensors of {module} disagree.",
                "Configuration and weights are of different adapters; copy it again.",
            )
        if magnitude is not None and transposed:
            raise AxtuneError(
                f"The adapter {self._adapter.folder} uses DoRA on embeddings, which axtune cannot "
                "merge.",
                "Merge it with PEFT's merge_and_unload.",
            )
        if magnitude is not None:
            self._require_alone()
        if magnitude is not None or not (is_zero(left) or is_zero(right)):
            change.prepare.append(lambda: _low_rank(left, right, scale, magnitude, transposed))
        if bias := parts.get(".lora_B.bias"):
            name = f"{module}.bias"
            if name not in self._base:
                raise self._other_base(f"it adds to {name}, which the base lacks")
            added = self._change(name)
            if bias.shape != added.shape:
                raise self._other_base(f"its bias of {module} has the shape {bias.shape}")
            added.prepare.append(lambda: _addition(load(bias).float() * scale))

    def _tokens(self, module: str, change: Change, delta: TensorInfo) -> None:
        """Rows of single tokens, trained whole (``trainable_token_indices``)."""
        indices = self._token_indices(module)
        outside = [index for index in indices if index >= change.shape[0]]
        if delta.shape != (len(indices), change.shape[1]) or outside:
            raise self._other_base(
                f"its {len(indices)} trained tokens are {delta.shape}, the base's {module} is "
                f"{change.shape}"
            )
        if self._adapter.weight != 1 or not self._alone:
            raise AxtuneError(
                f"The adapter {self._adapter.folder} replaces the rows of single tokens, which "
                "have no weight and no sum.",
                "Merge it alone, with weight 1.",
            )
        # The rows are put in place last: PEFT reads them from the layer under its LoRA.
        change.prepare.append(lambda: _token_rows(indices, load(delta).float()))

    def _token_indices(self, module: str) -> list[int]:
        indices = self._adapter.config.get("trainable_token_indices")
        if isinstance(indices, list):
            return [int(index) for index in indices]
        for name, values in (indices or {}).items():
            if of_pattern(name, module):
                return [int(index) for index in values]
        raise AxtuneError(
            f"{self._adapter.folder / ADAPTER_CONFIG} names no trained tokens of {module}.",
            "Configuration and weights are of different adapters; copy it again.",
        )

    def _change(self, name: str) -> Change:
        if name not in self._found:
            self._found[name] = Change(self._base[name].shape)
        if self._found[name].replacement and name not in self._replaced:
            raise AxtuneError(
                f"Two of the adapters change {name}, one of them by replacing it.",
                "Merge one of them alone.",
            )
        return self._found[name]

    def _require_alone(self) -> None:
        if self._adapter.weight != 1 or not self._alone:
            raise AxtuneError(
                f"The adapter {self._adapter.folder} is a DoRA, whose delta depends on the weights "
                "it is added to: it has no sum with others, and no weight.",
                "Merge it alone, with weight 1.",
            )

    def _other_base(self, reason: str) -> AxtuneError:
        """The error for shapes that are not those of the base."""
        folder, base = self._adapter.folder, self._base_name
        named = self._adapter.config.get("base_model_name_or_path")
        found = f"The adapter {folder} does not fit {base}: {reason}."
        if named == base:
            return AxtuneError(
                found,
                f"It names {base} as its base, so its {ADAPTER_CONFIG} and its weights are of "
                "different adapters, or one of them was edited; copy it again.",
            )
        if named:
            return AxtuneError(
                found, f"It was trained on {named}; if that is another model, give it with --base."
            )
        return AxtuneError(found, "Give the base that it was trained on with --base.")


def _of_module(pattern: dict[str, Any] | None, module: str, default: Any) -> Any:
    """As PEFT's ``get_pattern_key``: the first key that matches the module's name or its end."""
    for key, value in (pattern or {}).items():
        if of_pattern(key, module):
            return value
    return default


def _only_tokens(adapters: Sequence[SavedAdapter]) -> bool:
    """Whether embeddings change by trained tokens alone, which PEFT gives a tied head as well."""
    prefix = EMBEDDING.removesuffix("weight")
    own = [name for adapter in adapters for name in adapter.tensors if name.startswith(prefix)]
    return all(name.endswith(".trainable_tokens_delta") for name in own)


def _low_rank(
    left: TensorInfo,
    right: TensorInfo,
    scale: float,
    magnitude: TensorInfo | None,
    transposed: bool,
) -> Step:
    """W + (B A) s; with DoRA, m (W + (B A) s) / |W + (B A) s| by rows."""
    b, a = load(left).float(), load(right).float()
    if transposed:
        b, a = b.T, a.T
    m = load(magnitude).float() if magnitude is not None else None

    def step(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        torch.mm(b[start : start + len(rows)], a, out=scratch)
        rows.add_(scratch.mul_(scale))
        if m is not None:
            norm = torch.linalg.norm(rows, dim=1)
            rows.mul_((m[start : start + len(rows)] / norm).unsqueeze(1))

    return step


def _addition(vector: torch.Tensor) -> Step:
    def step(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        rows.add_(vector[start : start + len(rows)].unsqueeze(1))

    return step


def _token_rows(indices: list[int], values: torch.Tensor) -> Step:
    def step(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        for index, value in zip(indices, values, strict=True):
            if start <= index < start + len(rows):
                rows[index - start] = value

    return step
