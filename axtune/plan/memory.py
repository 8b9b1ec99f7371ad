"""How many bytes a step takes: arithmetic over sizes, with one formula for cards and for CPUs.

At the peak of a training step these stand side by side: the weights; the adapter with its
gradients; what the optimiser remembers; what autograd has saved of the layers; and, whichever is
larger, one layer's recomputation and backward pass or the loss head's work; beside them workspace.

What is saved of a layer was read off transformers' code and checked by autograd's own hooks (a
test does so again): every term below names the tensors it stands for. The few figures that no
code shows are the constants of a `Device`, each with its source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from axtune.config.objective import Objective
from axtune.plan.architecture import Architecture, Trained

Kind = Literal["gpu", "cpu"]

HEAD_ROWS = 128  # labelled positions that `axtune.model.fused_loss` projects at a time
# Tokens of a tile of `axtune.model.tiles`: enough to keep the matrix products of a card or a CPU
# busy, few enough that a tile takes an eighth of what 16,384 tokens take.
TILE = 2048
_TILE_ROWS, _TILE_COLUMNS = 4096, 32_768  # TRL's fused head: trl/kernels/chunked_logprob.py

# Bytes that an optimiser remembers of each trained number: AdamW two float32 moments; 8-bit ones
# two bytes and a float32 scale for each of 256 (bitsandbytes, optimizer.py).
_EIGHT_BIT = 2 * (1 + 4 / 256)
_REMEMBERED = {
    "sgd": 0.0,
    "adafactor": 0.01,  # a row and a column instead of the matrix
    "adagrad": 4.0,
    "rmsprop": 4.0,
    "lion_32bit": 4.0,
    "paged_lion_32bit": 4.0,
    "lion_8bit": _EIGHT_BIT / 2,
    "paged_lion_8bit": _EIGHT_BIT / 2,
    "rmsprop_bnb_8bit": _EIGHT_BIT / 2,
    "adamw_8bit": _EIGHT_BIT,
    "adamw_bnb_8bit": _EIGHT_BIT,
    "paged_adamw_8bit": _EIGHT_BIT,
}
_HALF_A_BYTE = 0.5  # of a parameter in 4 bit, without its share of the scales
_BUFFERS = 3  # of a layer, while FSDP gathers the next one
_TWO_MOMENTS = 8.0  # of every other name: AdamW's own, which no other one exceeds by much

# Of a layer's largest adapted matrix, the float32 copies that DoRA makes to take the norms of its
# rows (peft/tuners/lora/dora.py); tests/plan/test_memory.py counts them.
_DORA_COPIES = 6.5


@dataclass(frozen=True)
class Device:
    """What differs between cards and CPUs.

    Attributes:
        kind: Which.
        slack: What a step really holds of activations, times what the arithmetic says.
        tile: Bytes of scratch for each number of TRL's fused head's tile, beside the tile itself.
        library: Bytes that the libraries keep once they have computed: kernels, pools, threads.
    """

    kind: Kind
    slack: float
    tile: int
    library: int


# slack: a published 7B QLoRA run on an A100 grows by 0.63 MB a token, the arithmetic here by 0.49;
# the caching allocator rounds up and keeps what it split. tile: Triton works in the tile itself.
# library: part of what a card loses before a run begins (`axtune.plan.gpus`).
GPU = Device("gpu", slack=1.27, tile=0, library=0)
# slack, library: scripts/bench_plan.py. tile: logits, their transform, log-probability,
# probability, gradient and two products of it in float32, and a mask, where torch stands in for
# Triton (chunked_logprob.py, _backward_tile).
CPU = Device("cpu", slack=1.0, tile=29, library=25_000_000)


@dataclass(frozen=True)
class Job:
    """What of a recipe decides how much memory it takes.

    Attributes:
        objective: Of the task.
        device: Where it runs.
        architecture: Of the base.
        trained: Its adapter.
        width: Bytes of an activation, and of a weight that is not in 4 bit: 2 or 4.
        quantized: Parameters held in 4 bit.
        four_bit: Bytes of each of them, its share of the scales included.
        compute: Bytes of a number that 4-bit layers compute with; 0 without any.
        optimizer: transformers' name.
        checkpointing: Whether layers are computed again in the backward pass.
        offload: Of activations and embeddings, those that live in the host's memory.
        eager: Whether attention holds whole matrices of scores.
        second_adapter: Whether a copy of the adapter stays as reference.
        processes: That train together, each on a device like this one.
        sharded: Whether they share out the weights (FSDP2); else each has all of them (DDP).
    """

    objective: Objective
    device: Device
    architecture: Architecture
    trained: Trained
    width: int
    quantized: int = 0
    four_bit: float = 0.0
    compute: int = 0
    optimizer: str = "adamw_torch_fused"
    checkpointing: bool = True
    offload: frozenset[str] = frozenset()
    eager: bool = False
    second_adapter: bool = False
    processes: int = 1
    sharded: bool = False

    @property
    def shares(self) -> int:
        """Among how many devices the weights are shared out."""
        return self.processes if self.sharded else 1

    @property
    def mixed(self) -> bool:
        """Whether the adapter's float32 is cast to the base's 16 bit in each product."""
        return self.width == 2

    @property
    def copies_inputs(self) -> bool:
        """Whether each adapted layer keeps a cast copy of its input.

        PEFT casts an input to the adapter's float32 and autocast casts it back, in each layer
        anew. Over 4-bit layers PEFT leaves that to autocast, where it is a CUDA one
        (peft/tuners/lora/bnb.py).
        """
        return self.mixed and not (self.quantized and self.device.kind == "gpu")


@dataclass(frozen=True)
class Micro:
    """What one forward pass takes in.

    Attributes:
        tokens: Positions, padding included.
        labelled: Positions with something to learn.
        scored: Positions that the head projects where it cannot leave the others out.
        cells: Cells of the boolean attention masks, rows times columns; 0 where attention is
            plainly causal.
        branch: Keys that second answers attend to behind shared prompts.
        joined: Positions whose attention is several calls, for answers or samples in one sequence,
            that are joined.
        squares: Sum over sequences of their length squared, what attention's work grows with.
        samples: How many samples.
    """

    tokens: float
    labelled: float
    scored: float
    cells: float = 0.0
    branch: float = 0.0
    joined: float = 0.0
    squares: float = 0.0
    samples: float = 1.0


@dataclass(frozen=True)
class Memory:
    """Bytes at a step's peak.

    Attributes:
        weights: Of the base.
        adapter: What is trained, and its gradients.
        optimizer: What the optimiser remembers.
        saved: What autograd has saved for the backward pass.
        recompute: The layer that is being computed or differentiated.
        head: The loss head's work; it is over when the first layer's backward pass begins.
        workspace: Weights on their way out of 4 bit, casts of the adapter, libraries.
    """

    weights: float
    adapter: float
    optimizer: float
    saved: float
    recompute: float
    head: float
    workspace: float

    @property
    def total(self) -> float:
        """The peak, in bytes."""
        beside = self.weights + self.adapter + self.optimizer + self.saved + self.workspace
        return beside + max(self.recompute, self.head)


def training(job: Job, micro: Micro) -> Memory:
    """The peak of training on one micro-batch.

    Args:
        job: The recipe's side.
        micro: The data's side.
    """
    a, slack = job.architecture, job.device.slack
    hidden = job.width * a.hidden * micro.tokens
    fixed = _fixed(job)
    if job.checkpointing:
        # Offloading holds the one that is fetched and the one before it.
        saved = (2 if "activations" in job.offload else a.layers) * hidden
        again = max(_again(job, ranks, micro) for ranks in job.trained.ranks)
    else:
        saved = sum(_layer(job, ranks, micro) for ranks in job.trained.ranks)
        again = max(_moving(job, ranks, micro.tokens) for ranks in job.trained.ranks)
        again += _attention(job, micro) if job.eager else 0.0
    return replace(
        fixed,
        saved=slack * saved,
        recompute=slack * again,
        head=_head(job, micro, gradients=True),
        workspace=fixed.workspace + _unpacked(job, micro, gradients=True) + _row_norms(job),
    )


def evaluation(job: Job, micro: Micro) -> Memory:
    """The peak of computing a loss, or reference log-probabilities, without gradients.

    Args:
        job: The recipe's side.
        micro: The data's side.
    """
    a, c = job.architecture, job.width
    tile = _tile(micro.tokens) if job.checkpointing else micro.tokens
    inner = 3.0 * c * a.ffn  # silu, up, their product
    if job.copies_inputs:
        inner += (4 + c) * a.ffn
    # Residual, norm, output; or norm, queries, keys, values, and what attention makes.
    mlp = 3 * c * a.hidden * micro.tokens + inner * tile
    attention = c * (2 * a.hidden + 2 * a.query + 2 * a.key) * micro.tokens
    work = max(mlp, attention) + _attention(job, micro)
    fixed = _fixed(job)
    return replace(
        fixed,
        adapter=fixed.adapter - _trained(job),  # gradients are dropped after each step
        recompute=job.device.slack * work,
        head=_head(job, micro, gradients=False),
        workspace=fixed.workspace + _unpacked(job, micro, gradients=False) + _row_norms(job),
    )


def _fixed(job: Job) -> Memory:
    """What does not grow with the data."""
    a, t = job.architecture, job.trained
    whole = job.width * (a.parameters - job.quantized)
    # Of 4-bit weights FSDP shares out the bytes; their scales stay with every process.
    scales = (job.four_bit - _HALF_A_BYTE) * job.quantized
    weights = scales + (_HALF_A_BYTE * job.quantized + whole) / job.shares
    if "embeddings" in job.offload:
        weights -= job.width * a.table * (1 if a.tied else 2)
    elif job.device.kind == "cpu" and job.mixed and not a.tied:
        # Weights in their file's own type are mapped; of the embedding only a few rows are read.
        weights -= job.width * a.table
    casts = 2.0 * t.lora if job.mixed else 0.0  # autocast keeps them until its region ends
    return Memory(
        weights=weights,
        # Gradients are shared out at the end of a step only.
        adapter=_trained(job) * (1 + (2 if job.second_adapter else 1) / job.shares),
        optimizer=remembered(job.optimizer) * t.parameters / job.shares,
        saved=0.0,
        recompute=0.0,
        head=0.0,
        workspace=job.device.library + casts + _gathered(job),
    )


def _gathered(job: Job) -> float:
    """Bytes of sharded weights that a device has whole for a time: a layer's as they arrive, as
    they are computed with, and the next one's; and the head, which stays."""
    if job.shares == 1:
        return 0.0
    return _BUFFERS * _layer_weights(job) + job.width * job.architecture.table


def _layer_weights(job: Job) -> float:
    """Bytes of a layer that FSDP gathers."""
    a = job.architecture
    plain = a.linear_parameters - job.quantized
    packed = _HALF_A_BYTE * job.quantized + job.width * plain + 4.0 * job.trained.lora
    return packed / a.layers


def exchanged(job: Job, passes: float) -> float:
    """Bytes that a process receives from the others in an optimiser step.

    Args:
        job: The recipe's side.
        passes: Micro-batches of the step.
    """
    others = (job.processes - 1) / job.processes
    gradients = 4.0 * job.trained.parameters * others
    if not job.sharded:
        return 2 * gradients  # their sums' parts, then the sums
    a = job.architecture
    # Layers come once forward and once backward; the head once, and the embedding.
    weights = 2 * a.layers * _layer_weights(job) + 2 * job.width * a.table
    return gradients + passes * others * weights


def remembered(optimizer: str) -> float:
    """Bytes that an optimiser, by transformers' name, remembers of each trained number."""
    return _REMEMBERED.get(optimizer, _TWO_MOMENTS)


def _trained(job: Job) -> float:
    """Bytes of what is trained, and of its gradients: PEFT keeps adapters in float32."""
    return 4.0 * job.trained.lora + job.width * job.trained.copied


def _layer(job: Job, ranks: dict[str, int], micro: Micro) -> float:
    """Bytes that autograd saves of one layer for its backward pass, where nothing is computed anew.

    transformers/models/llama/modeling_llama.py, Qwen2 alike; frozen weights save no inputs, so
    those of a linear layer are kept for its adapter only.
    """
    norms = 2 * 4 * job.architecture.hidden  # both keep their input in float32
    per_token = norms + _attention_kept(job, ranks) + _mlp_kept(job, ranks)
    return per_token * micro.tokens + _attention(job, micro)


def _attention_kept(job: Job, ranks: dict[str, int]) -> float:
    """Bytes a token: q, k, v, the output and a float32 sum for each head."""
    a, c = job.architecture, job.width
    return c * (2 * a.query + 2 * a.key) + 4 * a.heads + _adapted(job, ranks, "self_attn")


def _mlp_kept(job: Job, ranks: dict[str, int]) -> float:
    """Bytes a token: gate, silu(gate) and up."""
    return 3 * job.width * job.architecture.ffn + _adapted(job, ranks, "mlp")


def _adapted(job: Job, ranks: dict[str, int], block: str) -> float:
    """Bytes a token that the adapters of a layer's block keep."""
    a, c = job.architecture, job.width
    names = [name for name in ranks if name.startswith(f"{block}.")]
    inputs = {name: a.linears[name][1] for name in names}
    kept = float(c * sum(ranks[name] for name in names))  # between A and B
    if job.trained.dropout:
        # What is drawn: a byte on a card, a float32 number on a CPU (aten/native/Dropout.cpp).
        drawn = 1 if job.device.kind == "gpu" else 4
        kept += sum((c + drawn) * columns for columns in inputs.values())
    elif job.copies_inputs:
        kept += c * sum(inputs.values())
    else:
        # One norm's output serves several layers; o_proj's input is attention's output.
        normed = {
            f"{block}.{one}" for one in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
        }
        kept += c * a.hidden * any(name in normed for name in names)
        kept += c * a.ffn * ("mlp.down_proj" in names)
    if job.trained.dora:  # the base's output, and the adapter's, before they are scaled
        kept += 2 * c * sum(a.linears[name][0] for name in names)
    return kept


def _again(job: Job, ranks: dict[str, int], micro: Micro) -> float:
    """Bytes while a checkpointed layer is computed again and differentiated, beside its input.

    The MLP goes first, tile by tile, beside all that attention keeps; then attention.
    """
    a, c = job.architecture, job.width
    hidden = c * a.hidden * micro.tokens
    beside = _attention_kept(job, ranks) * micro.tokens + _attention(job, micro)
    tile = _tile(micro.tokens)
    norm = 0 if c == 4 else 4 * a.hidden  # its input in float32
    mlp = (norm + _mlp_kept(job, ranks)) * tile + _moving(job, ranks, tile)
    mlp += 3 * hidden  # the MLP's input, and the gradients of what it gives and of what it takes
    # The gradients of the layer's output and of what its first norm gives; of queries, keys, values
    # and attention's output; and scores, where attention holds them.
    attention = 2 * hidden + c * (2 * a.query + 2 * a.key) * micro.tokens
    if job.copies_inputs:  # an input on its way through the adapter's float32
        attention += 4 * a.hidden * micro.tokens
    if job.eager:
        attention += _attention(job, micro)
    return beside + max(mlp, attention)


def _tile(tokens: float) -> float:
    """Tokens of the largest tile of a sequence."""
    return tokens / math.ceil(tokens / TILE) if tokens > TILE else tokens


def _attention(job: Job, micro: Micro) -> float:
    """Bytes of one layer's attention that grow with more than the tokens."""
    a, c = job.architecture, job.width
    if job.eager:  # scores after the softmax in float32, and cast
        return (4 + (c if job.mixed else 0)) * a.heads * micro.squares
    masks = c * micro.cells  # a boolean mask becomes one of numbers, in each layer
    outputs = c * a.query * micro.joined  # as one tensor, beside each call's own
    keys = 2 * c * a.query * micro.branch  # prompt's and answer's, joined; then one for each head
    if micro.cells and not micro.branch and 1 < a.kv_heads < a.heads:
        keys = 2 * c * (a.query - a.key) * micro.tokens  # behind a mask, torch repeats them
    return masks + outputs + keys


def _moving(job: Job, ranks: dict[str, int], tokens: float) -> float:
    """Bytes beside the saved ones while an MLP is computed or differentiated."""
    a, c = job.architecture, job.width
    adapted = "mlp.down_proj" in ranks
    # Backward: the gradients of the product, of silu(gate) and of up; what the product takes is
    # free by then where it was saved.
    backward = (2 if adapted else 3) * c * a.ffn
    if job.quantized and job.compute != c:
        backward += job.compute * a.ffn
    # Forward: the product itself, its cast to float32 for the adapter (and the saved copy).
    forward = (4 + c) * a.ffn if job.copies_inputs and adapted else 0
    # And the gradient of the hidden states.
    return (max(forward, backward) + c * a.hidden) * tokens


def _unpacked(job: Job, micro: Micro, *, gradients: bool) -> float:
    """Bytes of 4-bit weights while they are multiplied with: the largest one, or an MLP's for all
    of its tiles."""
    if not job.quantized:
        return 0.0
    linears = job.architecture.linears
    numbers = _largest(job)
    scales = numbers / 64 * 8
    if job.checkpointing and micro.tokens > TILE:
        mlp = sum(rows * columns for name, (rows, columns) in linears.items() if "mlp." in name)
        return mlp * job.compute + scales
    if not gradients:
        return numbers * job.compute + scales
    # The backward pass unpacks to what was loaded, then casts to what it computes with
    # (bitsandbytes/autograd/_functions.py).
    return numbers * (job.width + (job.compute if job.compute != job.width else 0)) + scales


def _row_norms(job: Job) -> float:
    """Bytes that DoRA takes for the norms of a matrix's rows."""
    return 4 * _DORA_COPIES * _largest(job) if job.trained.dora else 0.0


def _largest(job: Job) -> int:
    """Numbers of a layer's largest matrix."""
    return max(rows * columns for rows, columns in job.architecture.linears.values())


def _head(job: Job, micro: Micro, *, gradients: bool) -> float:
    """Bytes of the loss head's work.

    It has the last hidden states beside it, in float32 for the final norm where that is not a tile
    (`axtune.model.tiles`), and what that made.

    On a CPU, axtune's own projects `HEAD_ROWS` labelled positions at a time: float32 logits, which
    become their gradient in place, and either in 16 bit. Elsewhere TRL's fused head works in tiles,
    with the gradient of the hidden states in float32.
    """
    a, c = job.architecture, job.width
    beside = c * a.table if "embeddings" in job.offload else 0.0
    beside += ((c if job.checkpointing else 4) + c) * a.hidden * micro.tokens
    if job.device.kind == "cpu" and job.objective.own_head:
        rows = min(micro.labelled, HEAD_ROWS)
        states = (4 + c) * a.hidden * micro.labelled
        return beside + states + rows * a.vocabulary * (4 + (c if job.mixed else 0))
    scored = micro.labelled if job.device.kind == "gpu" else micro.scored
    tile = min(scored, _TILE_ROWS) * min(a.vocabulary, _TILE_COLUMNS)
    states = (c + (4 + c if gradients else 0)) * a.hidden * scored
    casts = 0.0
    if job.device.kind == "cpu" and job.mixed and gradients:
        casts = 4.0 * min(a.vocabulary, _TILE_COLUMNS) * a.hidden
    return beside + states + casts + tile * (c + job.device.tile)


def four_bit_bytes(*, double: bool) -> float:
    """Bytes of a parameter in NF4 or FP4: half a byte, and its share of a block's scale.

    Blocks of 64 have a float32 scale each; with double quantisation one byte, and a float32 scale
    for 256 of those (bitsandbytes/functional.py, quantize_4bit).
    """
    return _HALF_A_BYTE + (1 / 64 + 4 / (64 * 256) if double else 4 / 64)


def work(job: Job, micro: Micro, *, gradients: bool) -> float:
    """Floating-point operations of a micro-batch.

    Two for each weight and token in the forward pass; as many in the backward pass, because frozen
    weights get no gradient; once more where layers are computed again. Attention adds 4 × width a
    pair of positions, of which a causal one has half, and 2.5 times that going back
    (arXiv:2205.14135). The head is projected, projected again and differentiated.
    """
    a = job.architecture
    linear = 2.0 * (a.linear_parameters + job.trained.lora) * micro.tokens
    attention = 2.0 * a.query * micro.squares * a.layers
    head = 2.0 * a.table * micro.labelled
    if not gradients:
        return linear + attention + head
    passes = 2 if job.checkpointing else 1
    adapter = 2.0 * job.trained.lora * micro.tokens  # of the adapter's own weights
    return (passes + 1) * linear + adapter + (passes + 2.5) * attention + 3 * head


def unpacking(job: Job, *, gradients: bool) -> float:
    """Bytes that move to unpack the 4-bit weights for one micro-batch: read, written, read."""
    passes = (3 if job.checkpointing else 2) if gradients else 1
    return passes * job.quantized * (job.four_bit + 2 * max(job.compute, 1))
