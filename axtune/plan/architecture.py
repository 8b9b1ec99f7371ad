"""A checkpoint's sizes from its ``config.json``, and an adapter's from a recipe; no weights read.

What PEFT makes of ``target_modules`` and its kin is decided here on module names alone, in the way
of ``peft.tuners.tuners_utils.check_target_module_exists`` and ``peft.utils.get_pattern_key``, so
that a plan counts the parameters that a run will train.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from axtune.checkpoint.adapter_layers import ends_with, of_pattern, targeted
from axtune.checkpoint.families import LAYOUTS
from axtune.config.recipe import LORA_DEFAULTS
from axtune.errors import CheckpointError

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"

_NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
)


@dataclass(frozen=True)
class Architecture:
    """A Llama or Qwen2 decoder, as both A.X Light models are.

    Attributes:
        hidden: Width of the hidden states.
        ffn: Width inside the MLP.
        layers: How many.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head_width: Of one head.
        vocabulary: Rows of the embedding and of the head.
        tied: Whether both are one tensor.
        biases: Which linear layers have one.
    """

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    biases: frozenset[str]

    @property
    def query(self) -> int:
        """Width of all queries."""
        return self.heads * self.head_width

    @property
    def key(self) -> int:
        """Width of all keys, which is that of all values."""
        return self.kv_heads * self.head_width

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """A layer's linear layers by module name within it: outputs and inputs."""
        return {
            "self_attn.q_proj": (self.query, self.hidden),
            "self_attn.k_proj": (self.key, self.hidden),
            "self_attn.v_proj": (self.key, self.hidden),
            "self_attn.o_proj": (self.hidden, self.query),
            "mlp.gate_proj": (self.ffn, self.hidden),
            "mlp.up_proj": (self.ffn, self.hidden),
            "mlp.down_proj": (self.hidden, self.ffn),
        }

    @cached_property
    def linear_parameters(self) -> int:
        """Weights of all layers' linear layers: what 4-bit quantisation takes."""
        return self.layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def table(self) -> int:
        """Parameters of the embedding, and of the head."""
        return self.vocabulary * self.hidden

    @cached_property
    def parameters(self) -> int:
        """All parameters."""
        biases = sum(self.linears[name][0] for name in self.biases)
        rest = self.layers * (biases + 2 * self.hidden) + self.hidden
        return self.linear_parameters + rest + self.table * (1 if self.tied else 2)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, as the files of a checkpoint have them."""
        yield f"{EMBEDDING}.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}"
            for name, shape in self.linears.items():
                yield f"{prefix}.{name}.weight", shape
                if name in self.biases:
                    yield f"{prefix}.{name}.bias", shape[:1]
            for norm in ("input_layernorm", "post_attention_layernorm"):
                yield f"{prefix}.{norm}.weight", (self.hidden,)
        yield "model.norm.weight", (self.hidden,)
        if not self.tied:
            yield f"{HEAD}.weight", (self.vocabulary, self.hidden)


def read_architecture(config: dict[str, Any], name: str) -> Architecture:
    """The sizes that a ``config.json`` declares.

    Args:
        config: The file's content.
        name: The checkpoint's, for the message.

    Raises:
        CheckpointError: When a size is missing, or the model is not of the A.X family's kinds.
    """
    kind = str(config.get("model_type"))
    if kind not in LAYOUTS:
        raise CheckpointError(
            f"{name} is of model_type {kind}; a plan can only be made for {' and '.join(LAYOUTS)}.",
            "Use an A.X checkpoint, or train without a plan: plan=warn.",
        )
    wrong = [k for k in _NEEDED if not isinstance(config.get(k), int) or config[k] < 1]
    if wrong:
        raise CheckpointError(
            f"config.json of {name} declares no {', '.join(wrong)}.",
            "Use the original config.json of the checkpoint.",
        )
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    qkv = {f"self_attn.{letter}_proj" for letter in "qkv"}
    biases = set(LAYOUTS[kind].biased)
    if not biases and config.get("attention_bias"):
        biases |= qkv | {"self_attn.o_proj"}
    if config.get("mlp_bias"):
        biases |= {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    return Architecture(
        hidden=hidden,
        ffn=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or hidden // heads,
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        biases=frozenset(biases),
    )


@dataclass(frozen=True)
class Trained:
    """What a recipe's ``lora`` section trains.

    Attributes:
        ranks: Of each layer, the rank of every linear layer that has an adapter, by name.
        lora: Parameters of all adapters.
        copied: Parameters of modules that are trained whole (``modules_to_save``).
        dora: Whether the adapters are weight-decomposed.
        dropout: Whether they drop inputs out.
    """

    ranks: tuple[dict[str, int], ...]
    lora: int
    copied: int
    dora: bool
    dropout: bool

    @property
    def parameters(self) -> int:
        """All parameters that are trained."""
        return self.lora + self.copied


def trained_by(architecture: Architecture, lora: dict[str, Any]) -> Trained:
    """The parameters that PEFT will train.

    Args:
        architecture: The base.
        lora: The recipe's section: PEFT's ``LoraConfig`` by its own names.
    """
    lora = LORA_DEFAULTS | lora
    rank_of = dict(lora.get("rank_pattern") or {})
    saved = tuple(lora.get("modules_to_save") or ())
    dora = bool(lora.get("use_dora", False))
    chosen = set(targeted(lora, dict(architecture.tensors())))
    total = 0
    ranks: list[dict[str, int]] = []
    for layer in range(architecture.layers):
        here: dict[str, int] = {}
        for module, (rows, columns) in architecture.linears.items():
            name = f"model.layers.{layer}.{module}"
            if name in chosen:
                rank = _rank(name, rank_of, int(lora["r"]))
                here[module] = rank
                total += rank * (rows + columns) + (rows if dora else 0)
                total += rows if lora.get("lora_bias") else 0
        ranks.append(here)
    if EMBEDDING in chosen:
        rank = _rank(EMBEDDING, rank_of, int(lora["r"]))
        total += rank * (architecture.vocabulary + architecture.hidden)
    copied = sum(
        architecture.table for name in (EMBEDDING, HEAD) if _ends_with(name, saved)
    ) + architecture.layers * sum(
        rows * columns + (rows if module in architecture.biases else 0)
        for module, (rows, columns) in architecture.linears.items()
        if _ends_with(module, saved)
    )
    return Trained(
        ranks=tuple(ranks),
        lora=total,
        copied=copied,
        dora=dora,
        dropout=float(lora.get("lora_dropout") or 0.0) > 0,
    )


def _ends_with(name: str, modules: Iterable[str]) -> bool:
    return any(ends_with(name, module) for module in modules)


def _rank(name: str, pattern: dict[str, int], otherwise: int) -> int:
    for key, rank in pattern.items():
        if of_pattern(key, name):
            return int(rank)
    return otherwise
