"""Will it fit, how long will it take: a run's memory and time before it begins. Imports no torch.

A plan needs a checkpoint's ``config.json``, a recipe, and the lengths of its samples: from the data
through the same pass that training makes (`axtune.data.pipeline`), or from one length for all of
them. The bytes are `axtune.plan.memory`'s, the steps `axtune.plan.schedule`'.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.provenance import original_of
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.recipe import Recipe, Source, preference_of
from axtune.data.dataset import training_checker
from axtune.data.mixture import mix, spans_of
from axtune.data.pipeline import RowChecker
from axtune.data.sources import files_of
from axtune.data.statistics import Sizes, StatsBuilder
from axtune.errors import DataError
from axtune.plan.architecture import HEAD, Architecture, read_architecture, trained_by
from axtune.plan.gpus import Card
from axtune.plan.memory import (
    Device,
    Job,
    Memory,
    Micro,
    evaluation,
    exchanged,
    four_bit_bytes,
    training,
    unpacking,
    work,
)
from axtune.plan.schedule import Batches, batching_of, evaluation_batches, training_batches
from axtune.units import gigabytes

# What merging or exporting holds, whatever the model: scripts/bench_merge.py measured 291 MB at
# 14.5 GB of weights, most of it torch itself. They run on the host and stream.
STREAMING = 300_000_000

# Of a card's rate on paper, what LoRA training through transformers and PEFT reaches; runs of 7B
# models that people report lie between 30% and 60%. Of its bandwidth, what unpacking 4 bit reaches.
EFFICIENCY, UNPACKING = 0.45, 0.7
UNCERTAINTY = 0.4  # of the time, either way

# How axtune.evaluate.generate makes batches on a card: answers at once, and what their keys and
# values may take: a share of what is free, and this many times the weights.
_MOST_AT_ONCE, _ROOM, _OF_WEIGHTS = 64, 0.5, 2
# Seconds to start the kernels of a layer and its adapter, which a token waits for: assumed.
_LAUNCHING = 1e-3


@dataclass(frozen=True)
class PlanInputs:
    """What a plan needs besides the recipe.

    Attributes:
        name: The checkpoint's.
        architecture: Its sizes.
        sizes: Of the training samples, those that are to be held out among them.
        eval_sizes: Of the samples of `data.eval`, where it names files.
        share: Of the samples that is trained on.
        refused: Rows that training would refuse.
        assumed: Whether the samples are not the data's but of one length, and nobody knows how
            many they are; `data.max_length` cuts them then.
        processes: That share the work.
        sharded: Whether they share out the weights as well (FSDP2).
    """

    name: str
    architecture: Architecture
    sizes: Sizes
    eval_sizes: Sizes | None = None
    share: float = 1.0
    refused: int = 0
    assumed: bool = False
    processes: int = 1
    sharded: bool = False


@dataclass(frozen=True)
class Plan:
    """A run before it begins.

    Attributes:
        recipe: The job.
        known: What it was planned from.
        job: What of it decides memory.
        batches: What its steps hold.
        longest: The peak of the largest step.
        mean: The peak of the average step.
        evaluation: The peak of evaluating, and of computing references; None without either.
        eval_mean: The average forward pass of an evaluation.
        eval_passes: Forward passes of one evaluation.
        left_out: Samples that `data.max_length` leaves out.
    """

    recipe: Recipe
    known: PlanInputs
    job: Job
    batches: Batches
    longest: Memory
    mean: Memory
    evaluation: Memory | None
    eval_mean: Micro | None
    eval_passes: int
    left_out: int

    @property
    def peak(self) -> float:
        """The most that the run holds on its device, in bytes."""
        return max(self.longest.total, self.evaluation.total if self.evaluation else 0.0)

    @property
    def exchanged(self) -> float:
        """Bytes that each process receives from the others in an optimiser step."""
        return exchanged(self.job, self.batches.passes)

    @property
    def written(self) -> int:
        """Bytes of a merged or exported checkpoint in 16 bit, on the disk."""
        return 2 * self.known.architecture.parameters


def from_data(recipe: Recipe, checkpoint: Checkpoint, tokenizer: AxTokenizer) -> PlanInputs:
    """Read a recipe's data as training would, and keep its lengths.

    Args:
        recipe: Its data section says what to read.
        checkpoint: Found without weights.
        tokenizer: The checkpoint's.

    Raises:
        AxtuneError: When a path is not there.
        DataError: When no row is fit to train on.
    """
    checker = training_checker(recipe, tokenizer)
    ledger, counts = _read(recipe.data.sources, checker)
    row_of = np.asarray(ledger.row, np.int64)
    tokens = np.bincount(row_of, ledger.sizes().tokens, ledger.rows_read).astype(np.int64)
    # Which rows are seen more often than others is drawn in training; here from the same seed.
    times = mix(spans_of(recipe.data, counts), tokens, np.random.default_rng(recipe.seed))
    sizes = ledger.sizes().select(np.repeat(np.arange(len(row_of)), times[row_of]))
    refused = ledger.refused.total()
    checker.overlaps = None  # held-out rows are not held against each other
    held_out, share = None, 1.0
    if isinstance(recipe.data.eval, float):
        share -= recipe.data.eval
    elif recipe.data.eval is not None:
        ledger, _ = _read(recipe.data.eval, checker)
        held_out = ledger.sizes()
        refused += ledger.refused.total()
    return PlanInputs(
        name=checkpoint.name,
        architecture=read_architecture(checkpoint.config, checkpoint.name),
        sizes=sizes,
        eval_sizes=held_out,
        share=share,
        refused=refused,
    )


def from_length(recipe: Recipe, checkpoint: Checkpoint, tokens: int) -> PlanInputs:
    """What is known when every sample is of one length.

    Args:
        recipe: The job.
        checkpoint: Found without weights.
        tokens: Of the longest sequence of each sample. All of a conversation counts as labelled; of
            a preference one half is the prompt, and each answer as long.
    """
    prompt = tokens // 2 if recipe.objective.judges else 0
    answers = (tokens - prompt) * recipe.objective.answers
    columns = (tokens, prompt + answers, prompt, answers)
    # As many samples as a few steps take; how many there are nobody knows.
    batching = batching_of(recipe)
    count = max(batching.batch * batching.accumulation, batching.eval_batch)
    return PlanInputs(
        name=checkpoint.name,
        architecture=read_architecture(checkpoint.config, checkpoint.name),
        sizes=Sizes(*(np.full(count, column, np.int64) for column in columns)),
        assumed=True,
    )


def _read(sources: Sequence[Source], checker: RowChecker) -> tuple[StatsBuilder, list[int]]:
    """Count the rows of some sources; all of them, and how many each has."""
    ledger, counts = StatsBuilder(), []
    for files in [files_of(source) for source in sources]:
        before = ledger.rows_read
        for checked in checker.stream(files):
            ledger.add(checked)
        counts.append(ledger.rows_read - before)
    if not len(ledger.row):
        raise DataError(
            "There is nothing to plan for: no row of the data can be used.",
            [],
            "axtune data check says why.",
        )
    return ledger, counts


def as_quantized(recipe: Recipe, checkpoint: Checkpoint) -> Recipe:
    """The recipe with the quantisation of a base that `axtune quantize` made."""
    made_from = original_of(checkpoint)
    if made_from is None or recipe.quantization is not None:
        return recipe
    return recipe.model_copy(update={"quantization": made_from.quantization})


def make_plan(recipe: Recipe, known: PlanInputs, device: Device) -> Plan:
    """Plan a run.

    Args:
        recipe: The job.
        known: Its checkpoint and data.
        device: Where it is to run.

    Raises:
        RecipeError: When a number of the recipe is not one that can be counted with.
        DataError: When `data.max_length` leaves no sample.
    """
    job = replace(
        job_of(recipe, known.architecture, device),
        processes=known.processes,
        sharded=known.sharded,
    )
    batching = batching_of(recipe)
    sizes, held_out = (
        part and _within(part, batching.max_length, known.assumed or recipe.data.truncate)
        for part in (known.sizes, known.eval_sizes)
    )
    if not sizes or (held_out is not None and not held_out):
        raise DataError(
            "There is nothing to plan for: data.max_length leaves no sample.",
            [],
            "Set a larger data.max_length.",
        )
    batches = training_batches(batching, sizes, known.share / known.processes)
    evaluated, eval_mean, passes = None, None, 0
    # Reference log-probabilities take the training rows through the same forward pass.
    rows = [sizes] if held_out is None or _cached(recipe) else []
    if recipe.data.eval is not None or _cached(recipe):
        for part in (*rows, *([held_out] if held_out else [])):  # the held-out ones last
            longest, eval_mean, passes = evaluation_batches(batching, part)
            peak = evaluation(job, longest)
            if evaluated is None or peak.total > evaluated.total:
                evaluated = peak
        if held_out is None:
            passes = round(passes * (1 - known.share))
    return Plan(
        recipe=recipe,
        known=known,
        job=job,
        batches=batches,
        longest=training(job, batches.longest),
        mean=training(job, batches.mean),
        evaluation=evaluated,
        eval_mean=eval_mean,
        eval_passes=passes,
        left_out=len(known.sizes) - len(sizes),
    )


def _within(sizes: Sizes, limit: int, cut: bool) -> Sizes:
    """The samples that a recipe's `data.max_length` lets in."""
    return sizes.cut(limit) if cut else sizes.select(sizes.lengths <= limit)


def _cached(recipe: Recipe) -> bool:
    """Whether reference log-probabilities are computed before training."""
    preference = preference_of(recipe)
    return recipe.objective.has_reference and preference.reference == "cached"


def job_of(recipe: Recipe, architecture: Architecture, device: Device) -> Job:
    """What of a recipe decides how much memory it takes; the one place that reads it.

    Args:
        recipe: The job.
        architecture: Of its base.
        device: Where it is to run; on a card, ``precision: auto`` is one of 16 bit.
    """
    automatic = "fp32" if device.kind == "cpu" else "bf16"
    precision = automatic if recipe.precision == "auto" else recipe.precision
    width = 4 if precision == "fp32" else 2
    preference = preference_of(recipe)
    four_bit = recipe.quantization or {}
    kept = four_bit.get("llm_int8_skip_modules") or [HEAD]
    quantized = architecture.layers * sum(
        rows * columns
        for name, (rows, columns) in architecture.linears.items()
        if not any(name.endswith(str(module)) for module in kept)
    )
    compute = str(four_bit.get("bnb_4bit_compute_dtype", "float32"))
    return Job(
        objective=recipe.objective,
        device=device,
        architecture=architecture,
        trained=trained_by(architecture, recipe.lora),
        width=width,
        quantized=quantized if four_bit else 0,
        four_bit=four_bit_bytes(double=bool(four_bit.get("bnb_4bit_use_double_quant"))),
        compute=(4 if compute == "float32" else 2) if four_bit else 0,
        optimizer=str(recipe.training.get("optim", "adamw_torch_fused")),
        checkpointing=recipe.training.get("gradient_checkpointing") is not False,
        offload=frozenset(recipe.offload if device.kind == "gpu" else ()),  # a CPU is the host
        eager=recipe.attention == "eager",
        second_adapter=recipe.start_from is not None and preference.reference == "each_step",
    )


def speed(plan: Plan, card: Card) -> float | None:
    """Tokens a second in training on a card, by its rate on paper; None when that is not known.

    An estimate: ± `UNCERTAINTY`.

    Args:
        plan: The run.
        card: Where.
    """
    if not card.teraflops:
        return None
    return plan.batches.mean.tokens / _training_pass(plan, card)


def seconds(plan: Plan, card: Card) -> float | None:
    """How long a run takes on a card, evaluations, questions and references included.

    An estimate: ± `UNCERTAINTY`. Reading data, loading weights and saving are not in it. None when
    the card's rate is not known, or how many samples there are.

    Args:
        plan: The run.
        card: Where.
    """
    if not card.teraflops or plan.known.assumed:
        return None
    recipe = plan.recipe
    total = plan.batches.steps * plan.batches.passes * _training_pass(plan, card)
    if plan.eval_mean is not None:
        once = _pass(plan, card, plan.eval_mean, gradients=False)
        if recipe.data.eval is not None:
            total += _evaluations(plan) * plan.eval_passes * once
        if _cached(recipe):
            total += plan.batches.samples / plan.eval_mean.samples * once
    return total + (answering(plan, card) or 0.0)


def largest_pass(plan: Plan, card: Card) -> float | None:
    """Seconds of the largest forward and backward pass on a card, where its rate is known.

    Args:
        plan: The run.
        card: Where.
    """
    if not card.teraflops:
        return None
    return _pass(plan, card, plan.batches.longest, gradients=True)


def answering(plan: Plan, card: Card) -> float | None:
    """How long a run's questions hold it up on a card, all times that they are asked.

    At most: as if every answer were as long as ``evaluate.max_new_tokens`` allows. None when the
    card's rate is not known, or nobody knows how many questions there are, or there are none.

    Args:
        plan: The run.
        card: Where.
    """
    if (count := questions(plan)) is None:
        return None
    prompts = count * float(plan.known.sizes.lengths.mean())
    once = answers(plan, card, count, prompts)
    return once and askings(plan) * once


def questions(plan: Plan) -> int | None:
    """About how many questions a run asks its model; None when only their files tell."""
    config = plan.recipe.evaluate
    if config is None or plan.known.assumed:
        return None
    if config.data is not None:
        return config.limit
    known = plan.known
    held_out = known.eval_sizes
    rows = round(len(known.sizes) * (1 - known.share)) if held_out is None else len(held_out)
    return min(rows, config.limit or rows)


def askings(plan: Plan) -> int:
    """How often a run asks them."""
    config, batches = plan.recipe.evaluate, plan.batches
    if config is None:
        return 0
    first = _of_the_base(plan)
    if config.every == "end":
        return first + 1
    if config.every == "epoch":
        return first + batches.epochs
    return first + math.ceil(batches.steps / config.every)


def answers(plan: Plan, card: Card, count: int, prompt_tokens: float) -> float | None:
    """Seconds in which a model answers questions once, if every answer is as long as it may be.

    A token waits for the weights and the keys and values of its batch to come out of the card's
    memory, and for the kernels to be started; a prompt for its arithmetic.

    Args:
        plan: The run.
        card: Where.
        count: Questions.
        prompt_tokens: Of all of them.
    """
    config = plan.recipe.evaluate
    if config is None or not card.teraflops or not count:
        return None
    job, a = plan.job, plan.job.architecture
    longest = prompt_tokens / count + config.max_new_tokens
    kept = 2 * a.layers * a.key * job.width * longest  # bytes of an answer's keys and values
    weights = job.four_bit * job.quantized + job.width * (a.parameters - job.quantized)
    room = min(_ROOM * max(0.0, card.usable - weights), _OF_WEIGHTS * weights)
    at_once = max(1, min(_MOST_AT_ONCE, int(room / kept)))
    read = job.width * (a.parameters - job.quantized) + unpacking(job, gradients=False)
    token = (read + at_once * kept) / (card.bandwidth * 1e9 * UNPACKING) + a.layers * _LAUNCHING
    prompts = 2 * a.parameters * prompt_tokens / (card.teraflops * 1e12 * EFFICIENCY)
    return math.ceil(count / at_once) * config.max_new_tokens * token + prompts


def _training_pass(plan: Plan, card: Card) -> float:
    """Seconds of the average forward and backward pass, of a reference in each step too."""
    mean = plan.batches.mean
    once = _pass(plan, card, mean, gradients=True)
    if plan.recipe.objective.has_reference and not _cached(plan.recipe):
        once += _pass(plan, card, mean, gradients=False)
    return once


def _pass(plan: Plan, card: Card, micro: Micro, *, gradients: bool) -> float:
    computing = work(plan.job, micro, gradients=gradients) / (card.teraflops * 1e12)
    moving = unpacking(plan.job, gradients=gradients) / (card.bandwidth * 1e9)
    return computing / EFFICIENCY + moving / UNPACKING


def _of_the_base(plan: Plan) -> int:
    """How often a run evaluates before its first step."""
    return int(plan.recipe.training.get("eval_on_start") is True)


def _evaluations(plan: Plan) -> float:
    given, first = plan.recipe.training, _of_the_base(plan)
    if given.get("eval_strategy", "epoch") == "steps":
        every = given.get("eval_steps") or given.get("logging_steps") or 10
        return first + plan.batches.steps / max(float(every), 1.0)
    return first + plan.batches.epochs


def free_memory() -> float | None:
    """Bytes that a process may still take of this machine's memory; None where nobody says.

    Linux' own estimate of what is available, and the limit of the control group (a container's).
    """
    found: list[float] = []
    meminfo = _text("/proc/meminfo")
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            found.append(float(line.split()[1]) * 1024)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        most, now = _text(limit).strip(), _text(used).strip()
        if most.isdigit() and now.isdigit():
            found.append(float(most) - float(now))
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return max(0.0, min(found)) if found else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def in_words(plan: Plan) -> str:
    """A plan's peak and what it is made of, in a line."""
    worst = plan.longest
    where = f"the longest step, {plan.batches.longest.tokens:,.0f} tokens"
    if plan.evaluation is not None and plan.evaluation.total > worst.total:
        worst, where = plan.evaluation, "evaluation"
    parts = {
        "weights": worst.weights,
        "adapter and optimizer": worst.adapter + worst.optimizer,
        "saved states": worst.saved,
        "one layer's work" if worst.recompute >= worst.head else "loss head": max(
            worst.recompute, worst.head
        ),
        "workspace": worst.workspace,
    }
    said = ", ".join(f"{name} {gigabytes(value)}" for name, value in parts.items() if value > 5e6)
    return f"{gigabytes(worst.total)} in {where}: {said}"
