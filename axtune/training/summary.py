"""What a run says of itself: what it was made from before it begins, what it came to after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments

from axtune.checkpoint.run_dir import RunDir
from axtune.checkpoint.steps import last_checkpoint, step_of
from axtune.config.recipe import Recipe, best_figure
from axtune.config.recipe_file import as_override
from axtune.data.dataset import Prepared
from axtune.data.packing import PackLayout
from axtune.errors import AxtuneError, Fault
from axtune.model.load import Precision, Size
from axtune.plan.estimate import answers, askings
from axtune.plan.gpus import find_card
from axtune.plan.search import Search
from axtune.training.asking import Questions
from axtune.training.plots import best_of, curve
from axtune.training.progress import Event, Report, figure_text
from axtune.training.trainer import Rehearsal, RunContext, RunTrainer
from axtune.units import duration, plural, typed

_FAULTS_SHOWN = 20


class FaultLines:
    """Prints the first faults of the data and counts the rest."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._count = 0

    def __call__(self, fault: Fault) -> None:
        self._count += 1
        if self._count <= _FAULTS_SHOWN:
            self._report.say(str(fault), "yellow" if fault.severity == "warning" else "red")

    def close(self) -> None:
        if (more := self._count - _FAULTS_SHOWN) > 0:
            self._report.say(f"… and {more:,} more; all of them: axtune data check", "yellow")


def counts(args: TrainingArguments, data: Prepared, size: Size, batch: int) -> dict[str, int]:
    """What the manifest counts: rows, samples, tokens, parameters, processes."""
    account = data.account
    return {
        "rows": account.rows_used,
        "samples": len(data.train),
        "eval_samples": len(data.eval) if data.eval is not None else 0,
        "tokens": account.tokens,
        "labelled_tokens": account.labelled_tokens,
        "parameters": size.total,
        "trainable_parameters": size.trainable,
        "processes": args.world_size,
        "effective_batch": batch,
    }


def accounts(data: Prepared) -> dict[str, Any]:
    """Where every row went, for the manifest."""
    held_out = data.eval_account
    return {"train": data.account.to_json(), "eval": held_out.to_json() if held_out else None}


def derived(
    run: RunContext, precision: Precision, size: Size, batch: int, packing: PackLayout | None
) -> list[tuple[str, str]]:
    """What follows from recipe, data and machine, as names and values for the user."""
    recipe, args, data = run.recipe, run.args, run.data
    share = 100 * size.trainable / size.total
    account = data.account
    labelled = 100 * account.labelled_tokens / max(account.tokens, 1)
    bits = f", {size.quantized_layers} linear layers in 4 bit" if size.quantized_layers else ""
    kernels = "sdpa" if recipe.attention == "auto" else recipe.attention
    held_out = f"; {len(data.eval):,} held out" if data.eval is not None else ""
    return [
        ("model", f"{recipe.model}, {size.total:,} parameters"),
        ("adapter", f"{size.trainable:,} trained parameters ({share:.2f}%)"),
        ("precision", f"{precision}{bits}; {kernels} attention; on {args.device.type}"),
        ("data", f"{plural(len(data.train), 'sample')}, {account.tokens:,} tokens, "
                 f"{labelled:.1f}% labelled{held_out}"),
        *([("mixture", _mixture(account.mixture))] if len(account.mixture) > 1 else []),
        ("batch", _batch(args, batch, packing)),
        *([("packing", _packs(packing))] if packing else []),
    ]  # fmt: skip


def _mixture(parts: Sequence[Mapping[str, Any]]) -> str:
    """What each source has of an epoch's tokens, and how often its rows are seen."""
    return ", ".join(
        f"{part['source']} {part['share']:.1%}"
        + (f" × {part['seen']:.2g}" if round(part["seen"], 2) != 1 else "")
        + (" (replay)" if part["replay"] else "")
        for part in parts
    )


def _batch(args: TrainingArguments, batch: int, packing: PackLayout | None) -> str:
    processes = plural(args.world_size, "process")
    accumulated = args.gradient_accumulation_steps
    if packing:
        packs = plural(accumulated, "pack")
        size = f"{packing.longest:,} tokens"
        return f"{processes} × {packs} of up to {size}, about {plural(batch, 'sample')}"
    rows = args.per_device_train_batch_size
    return f"{processes} × {rows} × {accumulated} accumulated = {plural(batch, 'sample')}"


def _packs(packing: PackLayout) -> str:
    """The account of waste: passes and empty slots, without packing and with it."""
    padding = f"; no padding instead of {packing.padding:.1%}" if packing.padding else ""
    return (
        f"{plural(len(packing.packs), 'pass')} an epoch instead of {packing.unpacked:,}, "
        f"{packing.filled:.1%} of their slots filled{padding}"
    )


def asked(questions: Questions, search: Search | None, state: PartialState) -> str:
    """How many questions there are, when they are asked, and how long that takes by the plan."""
    count = len(questions)
    text = f"{count:,} of {plural(questions.files, 'file')}"
    if questions.left_out:
        others = ", ".join(f"{code} {n:,}" for code, n in questions.left_out.items())
        text += f" (not asked: {others})"
    if questions.personal_data:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in questions.personal_data.items())
        text += f" (masked: {kinds})"
    if search is None:
        return text
    text += f", {plural(askings(search.plan), 'time')}"
    if not torch.cuda.is_available():
        return f"{text}; the first time will tell how long it takes on this CPU"
    try:
        card = find_card(torch.cuda.get_device_name())
    except AxtuneError:  # of no rate on paper
        return f"{text}; the first time will tell how long it takes on this card"
    share = -(-count // state.num_processes)
    tokens = questions.prompt_tokens / state.num_processes
    once = answers(search.plan, card, share, tokens)
    return f"{text}; at most {duration(once)} each by the plan" if once else text


def rehearsed(rehearsal: Rehearsal) -> str:
    """That the largest step fits, and what it took."""
    peak = f", {rehearsal.peak / 1e9:.1f} GB" if rehearsal.peak else ""
    return (
        f"The largest step fits: {rehearsal.tokens:,} tokens at once, "
        f"{rehearsal.seconds:.1f} s{peak}."
    )


def measured(trainer: RunTrainer, peak: int, began: float) -> dict[str, Any]:
    """What a run took, for the manifest: beside what the plan said.

    Args:
        trainer: After its training.
        peak: Bytes, of `axtune.training.memory_check.PeakMemory`.
        began: When the training began, by the monotonic clock.
    """
    found: dict[str, Any] = {"peak": peak, "steps": trainer.state.global_step}
    if trainer.run.run_dir.resumes_from is None:  # else the steps before took time as well
        found["seconds"] = round(time.monotonic() - began, 1)
    return found


def outcome(recipe: Recipe, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The finished run, as names and values for the user."""
    metrics = manifest.get("metrics", {})
    rows = []
    if "first_loss" in metrics:
        rows.append(("loss", f"{metrics['first_loss']:.4f} → {metrics['last_loss']:.4f}"))
    chosen = best_figure(recipe) or "loss"
    if (best := metrics.get(f"best_eval_{chosen}")) is not None:
        at = f"best at step {metrics['best_step']}, which the adapter is from"
        if chosen == "loss":
            rows.append(("eval loss", f"{best:.4f}, {at}"))
        else:
            rows.append(("answers", f"{figure_text(chosen, best)}, {at}"))
    if "tokens_per_second" in metrics:
        speed, seconds = metrics["tokens_per_second"], manifest["wall_seconds"]
        rows.append(("speed", f"{speed:,.0f} tokens/s; {duration(seconds)} in all"))
    rows.append(("run", f"{recipe.output_dir} (adapter/, report.html, loss.png, metrics.jsonl)"))
    rows.append(("next", f"axtune chat {typed(recipe.output_dir)}"))
    if recipe.data.eval is not None and "evaluate" not in recipe.after:
        rows.append(("", f"axtune eval {typed(recipe.output_dir)} --against base"))
    return rows


def how_to_go_on(run_dir: RunDir, *, forked: bool = False) -> str:
    """What to do after a run was stopped.

    Args:
        run_dir: The run's.
        forked: Whether its folder is not the one that the command names.
    """
    checkpoint = last_checkpoint(run_dir.checkpoints)
    if checkpoint is None:
        return "Stopped before the first checkpoint; the same command starts again."
    return (
        f"Stopped; step {step_of(checkpoint)} is saved in {checkpoint}. "
        "Go on with the same command and resume=true"
        + (f" {as_override('output_dir', str(run_dir.path))}" if forked else "")
    )


def summary(events: Sequence[Event], best: str = "eval_loss") -> dict[str, float]:
    """The run in a few numbers.

    Args:
        events: Of ``metrics.jsonl``.
        best: The metric that chose the best checkpoint.

    Returns:
        Of those that the run has: first_loss, last_loss, best_ and that metric, best_step,
        tokens_per_second (the median).
    """
    result: dict[str, float] = {}
    if losses := curve(events, "loss"):
        result["first_loss"], result["last_loss"] = losses[0][1], losses[-1][1]
    if point := best_of(events, best):
        result["best_step"], result[f"best_{best}"] = point
    if speeds := sorted(value for _, value in curve(events, "tokens_per_second")):
        result["tokens_per_second"] = speeds[len(speeds) // 2]
    return result
