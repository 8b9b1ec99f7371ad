"""The story of a training run, top to bottom."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainingArguments

from axtune.checkpoint import catalog
from axtune.checkpoint.catalog import Checkpoint
from axtune.checkpoint.provenance import original_of
from axtune.checkpoint.run_dir import (
    Run,
    RunDir,
    claim,
    describe,
    last_checkpoint,
    model_card,
    open_run,
    read_manifest,
    step_of,
)
from axtune.checkpoint.tokenizer import AxTokenizer, disagreement_with_auto, load_tokenizer
from axtune.config.faults import first_line
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared, prepare
from axtune.data.packing import PackLayout
from axtune.errors import AxtuneError, CheckpointError, Fault, MissingPackageError
from axtune.model.adapter import Adapter
from axtune.model.load import (
    Precision,
    Size,
    choose_precision,
    faster_on_this_cpu,
    load_model,
    measure,
    quantization_of,
)
from axtune.model.offload import embeddings_to_host
from axtune.plan.architecture import read_architecture
from axtune.plan.estimate import PlanInputs, free_memory
from axtune.plan.gpus import usable
from axtune.plan.memory import CPU, GPU
from axtune.plan.search import Search, advice, refusal
from axtune.quiet import quiet_libraries
from axtune.training.arguments import training_arguments
from axtune.training.initial_adapter import start_adapter
from axtune.training.plots import plot
from axtune.training.progress import Report
from axtune.training.summary import summary
from axtune.training.trainer import Rehearsal, RunContext, make_trainer
from axtune.units import duration, gigabytes

T = TypeVar("T")

_FAULTS_SHOWN = 20
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def train(recipe: Recipe) -> Run:
    """Train an adapter as a recipe says.

    Started once in each process of a distributed run (accelerate launch, torchrun).

    Args:
        recipe: The job.

    Returns:
        The finished run's folder, adapter and manifest.

    Raises:
        AxtuneError: Whatever the user can mend: recipe, data, checkpoint, memory, packages.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the report says how to go on.
    """
    _check_launcher()
    with quiet_libraries(), _sigterm_as_ctrl_c():
        precision = choose_precision(recipe.precision)
        args = training_arguments(recipe, precision)  # sets up the process group
        state = PartialState()
        _use_all_cores(state)
        report = Report(enabled=state.is_main_process)
        if (cards := torch.cuda.device_count()) > 1 and state.num_processes == 1:
            report.say(
                f"Training on 1 of {cards} GPUs; on all of them: "
                f"accelerate launch --num_processes {cards} -m axtune RECIPE"
            )
        scratch = _scratch_folder(state)
        planned: list[Search] = []  # what the run was planned as, once it is
        try:
            recipe = _resolved(recipe, precision, state)
            run = _train(recipe, precision, args, state, report, scratch, planned)
            if state.is_main_process and recipe.after:
                from axtune.after import finish  # merging and exporting, for those who do

                finish(run, report)
            return run
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise _out_of_memory(planned) from error
        except OSError as error:
            file = error.filename
            ours = isinstance(file, str) and Path(file).is_relative_to(recipe.output_dir)
            if not ours and error.errno not in _NOT_WRITTEN:
                raise
            raise AxtuneError(
                f"{recipe.output_dir} cannot be written: {error.strerror}.",
                "Make room (then resume=true goes on), or set another output_dir.",
            ) from error
        except ImportError as error:  # an optimiser or a kernel that wants a package of its own
            raise MissingPackageError(f"A package is missing: {first_line(error)}") from error
        finally:
            report.end()
            if state.is_local_main_process:
                shutil.rmtree(scratch, ignore_errors=True)


def _resolved(recipe: Recipe, precision: Precision, state: PartialState) -> Recipe:
    """The recipe with the quantisation of a model that is quantised already.

    What is recorded of the run then says how its weights were made, whether its recipe does or not.
    """
    model = _once(
        state, lambda: catalog.find(recipe.model, revision=recipe.revision, weights=False)
    )
    quantization = quantization_of(model, recipe.quantization, precision)
    return recipe.model_copy(update={"quantization": quantization})


def _train(
    recipe: Recipe,
    precision: Precision,
    args: TrainingArguments,
    state: PartialState,
    report: Report,
    scratch: Path,
    planned: list[Search],
) -> Run:
    began = time.monotonic()
    run_dir = _once(state, lambda: claim(recipe))
    checkpoint = _once(state, lambda: catalog.find(recipe.model, revision=recipe.revision))
    tokenizer = load_tokenizer(checkpoint)
    if state.is_main_process and (line := disagreement_with_auto(tokenizer)):
        report.say(line, "yellow")

    faults = _Faults(report)
    data = _once(
        state,
        lambda: prepare(recipe, tokenizer, scratch, faults),
        lambda: Prepared.load(scratch),
    )
    faults.close()

    if (search := _search(recipe, checkpoint, data, state, report)) is not None:
        planned.append(search)
        _once(state, lambda: _check_memory(search, state, report), lambda: None)

    model = load_model(
        checkpoint,
        tokenizer,
        precision=precision,
        attention=recipe.attention,
        quantization=recipe.quantization,
    )
    if "embeddings" in recipe.offload and args.device.type == "cuda":
        embeddings_to_host(model, args.device)
    elif recipe.offload and args.device.type == "cpu":
        report.say("offload is for GPUs: on a CPU everything is in host memory as it is.", "yellow")
    faster = faster_on_this_cpu(recipe.quantization, precision)
    if faster and args.device.type == "cpu" and original_of(checkpoint) is None:
        report.say(
            f"This CPU only emulates bf16; several times faster: {' '.join(faster)}", "yellow"
        )
    adapter = start_adapter(model, recipe, checkpoint, report)
    size = measure(adapter.model)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    context = RunContext(adapter, args, tokenizer, data, run_dir, report, recipe)
    trainer = make_trainer(context)

    counts = _counts(args, data, size, batch)
    _check_resume(run_dir, counts, data)
    report.table(_derived(recipe, precision, args, data, size, batch, trainer.packing))
    facts = {"precision": precision, "counts": counts, "data": _accounts(data)}
    manifest = describe(recipe, checkpoint, facts) if state.is_main_process else {}
    if state.is_main_process:
        run_dir.begin(recipe, manifest)
    state.wait_for_everyone()

    status = "failed"
    try:
        report.say(_rehearsed(trainer.rehearse()))
        trainer.make_ready(checkpoint, precision)
        with trainer.stopper.watching():
            resumed = run_dir.resumes_from
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if state.is_main_process:
            manifest["metrics"] = summary(run_dir.metrics())
            if not trainer.stopper.interrupted:
                run_dir.write_adapter(lambda folder: _fill(folder, adapter, tokenizer, manifest))
        status = "interrupted" if trainer.stopper.interrupted else "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        report.end()
        if state.is_main_process:
            manifest["status"] = status
            manifest["counts"]["steps"] = trainer.state.global_step
            manifest["wall_seconds"] = round(time.monotonic() - began, 1)
            run_dir.write_manifest(manifest)
            plot(run_dir.metrics(), run_dir.path / "loss.png")
        if status == "interrupted":
            report.say(_how_to_go_on(run_dir), "yellow")

    _leave(state)
    if status == "interrupted":
        raise KeyboardInterrupt
    report.table(_outcome(recipe, manifest))
    return open_run(run_dir.path)


def _fill(folder: Path, adapter: Adapter, tokenizer: AxTokenizer, manifest: dict[str, Any]) -> None:
    """Write the files of ``adapter/``."""
    adapter.save(folder)
    tokenizer.copy_files(folder)
    (folder / "README.md").write_text(model_card(manifest), encoding="utf-8")


def _once(state: PartialState, work: Callable[[], T], then: Callable[[], T] | None = None) -> T:
    """Let one process of each machine work first, and the others take up what it left.

    Args:
        state: The processes.
        work: What the first one does.
        then: What the others do afterwards; the same work, unless told.

    Raises:
        SystemExit: On the others, when the first one failed: it says why.
    """
    first = state.is_local_main_process
    result: list[T] = []
    failure: Exception | None = None
    if first:
        try:
            result.append(work())
        except Exception as error:
            failure = error
    failed = gather_object([failure is not None]) if state.num_processes > 1 else [False]
    if failure is not None:
        raise failure
    if any(failed):
        raise SystemExit(1)
    return result[0] if first else (then or work)()


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, so that prepared rows are not left in the scratch folder."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_launcher() -> None:
    for name, switch in (
        ("FSDP", "ACCELERATE_USE_FSDP"),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED"),
    ):
        if os.environ.get(switch, "").lower() in ("1", "true"):
            raise AxtuneError(
                f"accelerate is configured for {name}, which axtune does not train with yet.",
                "Start it with: accelerate launch --multi_gpu --num_processes N recipe.yaml",
            )


def _use_all_cores(state: PartialState) -> None:
    """Share a CPU machine's cores out: launchers give each process one thread unless told."""
    if not torch.cuda.is_available() and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, (cores or 1) // state.num_processes))


def _scratch_folder(state: PartialState) -> Path:
    """A folder for prepared samples, of one name on all processes, readable by this user only."""
    token = [secrets.token_hex(8)]
    if state.num_processes > 1:
        broadcast_object_list(token)
    folder = Path(tempfile.gettempdir()) / f"axtune-{token[0]}"
    if state.is_local_main_process:
        folder.mkdir(mode=0o700)
    return folder


class _Faults:
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


def _search(
    recipe: Recipe, checkpoint: Checkpoint, data: Prepared, state: PartialState, report: Report
) -> Search | None:
    """The plan of a run, and the way to others; None for a model that no plan knows."""
    assert data.sizes is not None  # prepare measures them
    try:
        architecture = read_architecture(checkpoint.config, checkpoint.name)
    except CheckpointError as error:
        report.say(f"Not planned: {error.found}", "yellow")
        return None
    known = PlanInputs(
        checkpoint.name,
        architecture,
        data.sizes,
        data.eval_sizes,
        processes=state.num_processes,
    )
    return Search(recipe, known, GPU if torch.cuda.is_available() else CPU)


def _check_memory(search: Search, state: PartialState, report: Report) -> None:
    """Refuse, or with ``plan: warn`` bemoan, a run that cannot fit into this machine's memory.

    Raises:
        AxtuneError: With what it needs, what there is, and the edits that make it fit.
    """
    if torch.cuda.is_available():
        room = usable(torch.cuda.mem_get_info()[1])
    else:
        free = free_memory()
        if free is None:
            return
        room = free / state.num_processes
    needed = f"{gigabytes(search.plan.peak)} at the peak, of {gigabytes(room)}"
    report.table([("memory", f"{needed}, by the plan")])
    if search.plan.peak <= room:
        return
    error = refusal(search, room)
    if search.plan.recipe.plan == "refuse":
        raise error
    report.say(str(error), "yellow")


def _counts(args: TrainingArguments, data: Prepared, size: Size, batch: int) -> dict[str, int]:
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


def _accounts(data: Prepared) -> dict[str, Any]:
    held_out = data.eval_account
    return {"train": data.account.to_json(), "eval": held_out.to_json() if held_out else None}


def _check_resume(run_dir: RunDir, counts: dict[str, int], data: Prepared) -> None:
    """A resumed run skips the samples behind it, so batch and rows must be what they were."""
    if run_dir.resumes_from is None:
        return
    before = read_manifest(run_dir.path)
    if before["data"]["train"]["digests"] != data.account.to_json()["digests"]:
        raise AxtuneError(
            f"The rows have changed since the run in {run_dir.path} was begun.",
            "Train anew with another output_dir, or bring the old rows back.",
        )
    if before["counts"]["effective_batch"] != counts["effective_batch"]:
        raise AxtuneError(
            f"The run in {run_dir.path} was begun with an effective batch of "
            f"{before['counts']['effective_batch']}; this one has {counts['effective_batch']}.",
            "Set training.gradient_accumulation_steps so that they agree.",
        )


def _derived(
    recipe: Recipe,
    precision: Precision,
    args: TrainingArguments,
    data: Prepared,
    size: Size,
    batch: int,
    packing: PackLayout | None,
) -> list[tuple[str, str]]:
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
        ("data", f"{len(data.train):,} samples, {account.tokens:,} tokens, {labelled:.1f}% learned"
                 f"{held_out}"),
        ("batch", _batch(args, batch, packing)),
        *([("packing", _packs(packing))] if packing else []),
    ]  # fmt: skip


def _batch(args: TrainingArguments, batch: int, packing: PackLayout | None) -> str:
    processes = f"{args.world_size} process" + ("es" if args.world_size > 1 else "")
    accumulated = args.gradient_accumulation_steps
    if packing:
        packs = "pack" if accumulated == 1 else "packs"
        size = f"{packing.longest:,} tokens"
        return f"{processes} × {accumulated} {packs} of up to {size}, about {batch} samples"
    rows = args.per_device_train_batch_size
    return f"{processes} × {rows} × {accumulated} accumulated = {batch} samples"


def _packs(packing: PackLayout) -> str:
    """The account of waste: passes and empty slots, without packing and with it."""
    padding = f"; no padding instead of {packing.padding:.1%}" if packing.padding else ""
    return (
        f"{len(packing.packs):,} passes an epoch instead of {packing.unpacked:,}, "
        f"{packing.filled:.1%} of their slots filled{padding}"
    )


def _rehearsed(rehearsal: Rehearsal) -> str:
    peak = f", {rehearsal.peak / 1e9:.1f} GB" if rehearsal.peak else ""
    return (
        f"The largest step fits: {rehearsal.tokens:,} tokens at once, "
        f"{rehearsal.seconds:.1f} s{peak}."
    )


def _outcome(recipe: Recipe, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    metrics = manifest.get("metrics", {})
    rows = []
    if "first_loss" in metrics:
        rows.append(("loss", f"{metrics['first_loss']:.4f} → {metrics['last_loss']:.4f}"))
    if "best_eval_loss" in metrics:
        best, step = metrics["best_eval_loss"], metrics["best_step"]
        rows.append(("eval loss", f"{best:.4f}, best at step {step}, which the adapter is from"))
    if "tokens_per_second" in metrics:
        speed, seconds = metrics["tokens_per_second"], manifest["wall_seconds"]
        rows.append(("speed", f"{speed:,.0f} tokens/s; {duration(seconds)} in all"))
    rows.append(("run", f"{recipe.output_dir} (adapter/, loss.png, metrics.jsonl, manifest.json)"))
    rows.append(("next", f"axtune chat {recipe.output_dir}"))
    return rows


def _how_to_go_on(run_dir: RunDir) -> str:
    checkpoint = last_checkpoint(run_dir.checkpoints)
    if checkpoint is None:
        return "Stopped before the first checkpoint; the same command starts again."
    return (
        f"Stopped; step {step_of(checkpoint)} is saved in {checkpoint}. "
        "Go on with the same command and resume=true"
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def _out_of_memory(planned: list[Search]) -> AxtuneError:
    if not planned:
        return AxtuneError("The memory is not enough.", "Shorter samples, or a smaller batch.")
    search = planned[0]
    needed = search.plan.peak
    # The plan was too hopeful by nobody knows how much; edits that save a sixth are worth a try.
    way = advice(search, needed * 5 / 6)
    return AxtuneError(
        f"The memory is not enough, though the plan needs {gigabytes(needed)} only.", way
    )


def _leave(state: PartialState) -> None:
    """Take the process group down when all are done, or torch complains at exit."""
    state.wait_for_everyone()
    if state.num_processes > 1:
        torch.distributed.destroy_process_group()
