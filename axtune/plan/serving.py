"""Which export serves on which card, with how long a context and for how many at once: arithmetic.

vLLM takes a share of the card (``--gpu-memory-utilization``, 0.90), of which its own work takes
some; weights and the cache of keys and values share the rest, and every token of every conversation
has its place in the cache. llama.cpp asks for all of its cache at the start, of ``-c`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from axtune.plan.architecture import Architecture, read_architecture
from axtune.plan.gpus import GIB, Card
from axtune.units import gigabytes

KQuant = Literal["q4_k_m", "q5_k_m", "q6_k"]
Form = Literal["bf16", "fp8", "w4a16", "q8_0", "q4_k_m", "q5_k_m", "q6_k"]

FORMS: dict[Form, str] = {
    "bf16": "vLLM, 16 bit",
    "fp8": "vLLM, fp8",
    "w4a16": "vLLM, 4 bit",
    "q8_0": "GGUF q8_0",
    "q6_k": "GGUF q6_k",
    "q5_k_m": "GGUF q5_k_m",
    "q4_k_m": "GGUF q4_k_m",
}

# What vLLM 0.32 takes of a card, and of that for itself: activations of the longest step, CUDA
# graphs, the context. Measured by nobody here: the second is an assumption.
SHARE, ENGINE = 0.90, 0.9e9

# Sizes in config.json of the models that this is about, for who has not downloaded them.
LIGHTS: dict[str, dict[str, Any]] = {
    "skt/A.X-4.0-Light": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 16384,
        "vocab_size": 102400,
        "tie_word_embeddings": False,
    },
    "skt/A.X-3.1-Light": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 10880,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "vocab_size": 102400,
        "tie_word_embeddings": False,
    },
}

GROUP = 128  # of weights in 4 bit, unless told
_LEAST_CONTEXT = 512  # less serves nobody

# vLLM gives out places in blocks of so many tokens and keeps a block for itself; it does not start
# for a context that needs more blocks than are left.
_BLOCK = 16

# Bytes in a block of 256 numbers, and of 32 (ggml/src/ggml-common.h).
_BLOCKS = {"Q4_K": 144 / 256, "Q5_K": 176 / 256, "Q6_K": 210 / 256}
_OLDER = {"Q5_0": 22 / 32, "Q5_1": 24 / 32, "Q8_0": 34 / 32}
# Where 256 does not divide a row, llama.cpp takes these instead (llama-quant.cpp).
FALLS_BACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@dataclass(frozen=True)
class Served:
    """A form of a model on a card.

    Attributes:
        form: Of `FORMS`.
        weights: Their bytes.
        tokens: Of all conversations together that fit in the cache, 16 bit each number.
        context: Of the longest conversation that one user can have; 0 where it does not fit.
    """

    form: Form
    weights: float
    tokens: int
    context: int

    def users(self, tokens: int) -> int:
        """How many conversations of so many tokens fit at once."""
        return self.tokens // tokens if self.context >= tokens else 0


def served(form: Form, config: dict[str, Any], name: str, card: Card, group: int = GROUP) -> Served:
    """What a card has room for.

    Args:
        form: Of the weights.
        config: The model's ``config.json``.
        name: The model's, for messages.
        card: The card.
        group: Of ``w4a16``: inputs that share a scale.

    Raises:
        CheckpointError: When the config lacks sizes.
    """
    model = read_architecture(config, name)
    weights = weight_bytes(form, model, group)
    left = SHARE * card.gigabytes * GIB - ENGINE - weights
    tokens = max(0, int(left / cache_bytes(model)) // _BLOCK - 1) * _BLOCK
    context = min(tokens, int(config.get("max_position_embeddings", tokens)))
    return Served(form, weights, tokens, context if context >= _LEAST_CONTEXT else 0)


def cache_bytes(model: Architecture) -> int:
    """Bytes of keys and values of a token, in 16 bit."""
    return 2 * model.layers * model.key * 2


def weight_bytes(form: Form, model: Architecture, group: int = GROUP) -> float:
    """Bytes of the weights in a form.

    Args:
        form: Of `FORMS`.
        model: Its sizes.
        group: Of ``w4a16``.
    """
    rest = model.parameters - model.linear_parameters
    if form == "bf16":
        return 2.0 * model.parameters
    if form == "fp8":  # vLLM rounds linear layers when it loads them
        return model.linear_parameters + 2.0 * rest
    if form == "w4a16":
        return model.linear_parameters * (0.5 + 2 / group) + 2.0 * rest
    return _gguf_bytes(form, model)


def _gguf_bytes(form: Form, model: Architecture) -> float:
    """As llama.cpp chooses types (llama-quant.cpp, llama_tensor_get_type); vectors in float32."""

    def size(count: float, width: int, kind: str) -> float:
        if kind in _BLOCKS and width % 256:
            kind = FALLS_BACK[kind]
        return count * (_BLOCKS | _OLDER)[kind]

    if form == "q8_0":
        plain = finer = table = head = "Q8_0"
    else:
        plain = table = {"q4_k_m": "Q4_K", "q5_k_m": "Q5_K", "q6_k": "Q6_K"}[form]
        finer = head = "Q6_K"
    total = 0.0
    for layer in range(model.layers):
        for module, (rows, width) in model.linears.items():
            fine = module.endswith(("v_proj", "down_proj")) and _finer(layer, model.layers)
            total += size(rows * width, width, finer if fine else plain)
    if model.tied:
        total += size(model.table, model.hidden, head)
    else:
        total += size(model.table, model.hidden, table) + size(model.table, model.hidden, head)
    vectors = model.parameters - model.linear_parameters
    return total + 4.0 * (vectors - model.table * (1 if model.tied else 2))


def _finer(layer: int, layers: int) -> bool:
    """Which layers' values and down projections have more bits (llama.cpp, use_more_bits)."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def show(
    console: Console,
    models: dict[str, dict[str, Any]],
    cards: Sequence[Card],
    tokens: int,
    group: int = GROUP,
) -> None:
    """Print for each model which form serves on which card.

    Args:
        console: Where to.
        models: ``config.json`` by name.
        cards: The columns.
        tokens: Of a conversation, by which users are counted.
        group: Of weights in 4 bit.
    """
    for name, config in models.items():
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        table.add_column("weights", justify="right")
        for card in cards:
            table.add_column(card.name, justify="right")
        for form, title in FORMS.items():
            cells = [served(form, config, name, card, group) for card in cards]
            table.add_row(
                title, gigabytes(cells[0].weights), *(_cell(one, tokens) for one in cells)
            )
        console.print(f"[bold]{name}[/]")
        console.print(table)
        whole = config.get("max_position_embeddings", tokens)
        if tokens > whole:
            console.print(
                f"{name} reads {whole:,} tokens at most: no conversation of {tokens:,} fits.",
                style="yellow",
            )
    console.print(
        f"Longest context of one user, and × how many conversations of {tokens:,} tokens at once; "
        "– where it does not fit. Of 0.90 of the card, less 0.9 GB that an engine takes "
        "(assumed); the cache in 16 bit, and twice as much fits with --kv-cache-dtype fp8.",
        style="dim",
    )


def to_json(
    models: dict[str, dict[str, Any]], cards: Sequence[Card], tokens: int, group: int = GROUP
) -> list[dict[str, Any]]:
    """The same as JSON-ready values."""
    return [
        {
            "model": name,
            "card": card.name,
            "form": form,
            "weight_bytes": round(one.weights),
            "cache_tokens": one.tokens,
            "context": one.context,
            "users": one.users(tokens),
        }
        for name, config in models.items()
        for card in cards
        for form in FORMS
        if (one := served(form, config, name, card, group))
    ]


def _cell(one: Served, tokens: int) -> str:
    if not one.context:
        return "–"
    users = one.users(tokens)
    return _thousands(one.context) + (f" ×{users}" if users else "")


def _thousands(count: int) -> str:
    return f"{count / 1000:.0f}k" if count >= 10_000 else f"{count / 1000:.1f}k"
