"""The story of a training run, top to bottom."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import TracebackType

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, TrainingArguments

from axtune.checkpoint import catalog
from axtune.checkpoint.leftovers import private_files
from axtune.checkpoint.model_card import model_card
from axtune.checkpoint.provenance import original_of
from axtune.checkpoint.run_dir import (
    Run,
    RunDir,
    claim,
    describe,
    open_run,
    read_manifest,
)
from axtune.checkpoint.tokenizer import AxTokenizer, disagreement_with_auto, load_tokenizer
from axtune.config.faults import first_line
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared, prepare
from axtune.errors import AxtuneError, MissingPackageError
from axtune.model.adapter import Adapter
from axtune.model.load import (
    Precision,
    choose_precision,
    faster_on_this_cpu,
    load_model,
    measure,
    quantization_of,
)
from axtune.model.offload import embeddings_to_host
from axtune.plan.search import Search
from axtune.quiet import quiet_libraries
from axtune.signals import sigterm_as_ctrl_c
from axtune.training.arguments import training_arguments
from axtune.training.distributed import (
    check_launcher,
    leave,
    once,
    scratch_folder,
    use_all_cores,
)
from axtune.training.initial_adapter import start_adapter
from axtune.training.memory_check import check_memory, is_out_of_memory, out_of_memory, search_of
from axtune.training.plots import plot
from axtune.training.progress import Report
from axtune.training.summary import (
    FaultLines,
    accounts,
    counts,
    derived,
    how_to_go_on,
    outcome,
    rehearsed,
    summary,
)
from axtune.training.trainer import RunContext, make_trainer

_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def train(recipe: Recipe) -> Run:
    """Train an adapter as a recipe says.

    Started once in each process of a distributed run (accelerate launch, torchrun).

    Args:
        recipe: The job.

    Returns:
        The finished run's folder, adapter and manifest.

    Raises:
        AxtuneError: Whatever the user can repair: recipe, data, checkpoint, memory, packages.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the report says how to go on.
    """
    began = time.monotonic()
    check_launcher()
    with (
        quiet_libraries(),
        sigterm_as_ctrl_c(),
        private_files(),
        _Explained(recipe.output_dir) as explained,
    ):
        precision = choose_precision(recipe.precision)
        args = training_arguments(recipe, precision)  # sets up the process group
        state = PartialState()
        use_all_cores(state)
        with Report(enabled=state.is_main_process) as report, scratch_folder(state) as scratch:
            # What is trained: the base, and where the run goes.
            _say_unused_gpus(report, state)
            recipe = once(state, lambda: _as_quantized(recipe, precision))
            run_dir = once(state, lambda: claim(recipe))
            checkpoint = once(state, lambda: catalog.find(recipe.model, revision=recipe.revision))
            tokenizer = load_tokenizer(checkpoint)
            if state.is_main_process and (line := disagreement_with_auto(tokenizer)):
                report.say(line, "yellow")

            # What it is trained on, and whether that fits.
            faults = FaultLines(report)
            data = once(
                state,
                lambda: prepare(recipe, tokenizer, scratch, faults),
                lambda: Prepared.load(scratch),
            )
            faults.close()
            search = explained.search = search_of(recipe, checkpoint, data, state, report)
            if search:
                once(state, lambda: check_memory(search, state, report), lambda: None)

            # What trains it.
            model = load_model(
                checkpoint,
                tokenizer,
                precision=precision,
                attention=recipe.attention,
                quantization=recipe.quantization,
            )
            _offload(model, recipe, args, report)
            slow = faster_on_this_cpu(recipe.quantization, precision)
            if slow and args.device.type == "cpu" and original_of(checkpoint) is None:
                report.say(f"This CPU only emulates bf16; faster: {' '.join(slow)}", "yellow")
            adapter = start_adapter(model, recipe, checkpoint, report)
            size = measure(adapter.model)
            rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
            batch = rows * args.world_size
            context = RunContext(adapter, args, tokenizer, data, run_dir, report, recipe)
            trainer = make_trainer(context)

            # Its record.
            counted = counts(args, data, size, batch)
            _check_resume(run_dir, counted, data)
            report.table(derived(context, precision, size, batch, trainer.packing))
            facts = {"precision": precision, "counts": counted, "data": accounts(data)}
            manifest = describe(recipe, checkpoint, facts) if state.is_main_process else {}
            if state.is_main_process:
                run_dir.begin(recipe, manifest)
            state.wait_for_everyone()

            # The training.
            status = "failed"
            try:
                report.say(rehearsed(trainer.rehearse()))
                trainer.make_ready(checkpoint, precision)
                with trainer.stopper.watching():
                    resumed = run_dir.resumes_from
                    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
                if state.is_main_process:
                    manifest["metrics"] = summary(run_dir.metrics())
                    if not trainer.stopper.interrupted:
                        card = model_card(manifest, run_dir.path / "adapter")
                        run_dir.write_adapter(lambda to: _fill(to, adapter, tokenizer, card))
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
                    report.say(how_to_go_on(run_dir), "yellow")

            # What follows.
            leave(state)
            if trainer.stopper.interrupted:
                raise trainer.stopper.signal
            report.table(outcome(recipe, manifest))
            run = open_run(run_dir.path)
            if state.is_main_process and recipe.after:
                from axtune.after import finish  # merging and exporting, for those who do

                finish(run, report)
            return run


class _Explained:
    """Turns failures of libraries that a user can do something about into errors that say what.

    Attributes:
        search: The plan of the run, once there is one.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self.search: Search | None = None

    def __enter__(self) -> _Explained:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise out_of_memory(self.search) from error
        if isinstance(error, ImportError):  # an optimiser or a kernel with a package of its own
            raise MissingPackageError(
                f"A package is missing: {first_line(error)}", "Install it with pip."
            ) from error
        if isinstance(error, OSError):
            file = error.filename
            ours = isinstance(file, str) and Path(file).is_relative_to(self.output_dir)
            if ours or error.errno in _NOT_WRITTEN:
                raise AxtuneError(
                    f"{self.output_dir} cannot be written: {error.strerror}.",
                    "Free some space and continue with resume=true, or set another output_dir.",
                ) from error


def _say_unused_gpus(report: Report, state: PartialState) -> None:
    if (cards := torch.cuda.device_count()) > 1 and state.num_processes == 1:
        report.say(
            f"Training on 1 of {cards} GPUs; on all of them: "
            f"accelerate launch --num_processes {cards} -m axtune RECIPE"
        )


def _as_quantized(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe with the quantisation of a model that is quantised already.

    What is recorded of the run then says how its weights were made, whether its recipe does or not.
    """
    model = catalog.find(recipe.model, revision=recipe.revision, weights=False)
    quantization = quantization_of(model, recipe.quantization, precision)
    return recipe.model_copy(update={"quantization": quantization})


def _offload(
    model: PreTrainedModel, recipe: Recipe, args: TrainingArguments, report: Report
) -> None:
    """Keep in host memory what the recipe wants there; activations are the trainer's."""
    if "embeddings" in recipe.offload and args.device.type == "cuda":
        embeddings_to_host(model, args.device)
    elif recipe.offload and args.device.type == "cpu":
        report.say("offload is for GPUs: on a CPU everything is in host memory already.", "yellow")


def _check_resume(run_dir: RunDir, counted: dict[str, int], data: Prepared) -> None:
    """A resumed run skips the samples behind it, so batch and rows must be what they were."""
    if run_dir.resumes_from is None:
        return
    before = read_manifest(run_dir.path)
    if before["data"]["train"]["digests"] != data.account.to_json()["digests"]:
        raise AxtuneError(
            f"The rows have changed since the run in {run_dir.path} was started.",
            "Restore the old rows, or start a new run with another output_dir.",
        )
    if before["counts"]["effective_batch"] != counted["effective_batch"]:
        raise AxtuneError(
            f"The run in {run_dir.path} was started with an effective batch of "
            f"{before['counts']['effective_batch']}; this one has {counted['effective_batch']}.",
            "Set training.gradient_accumulation_steps so that they are equal.",
        )


def _fill(folder: Path, adapter: Adapter, tokenizer: AxTokenizer, card: str) -> None:
    """Write the files of ``adapter/``."""
    adapter.save(folder)
    tokenizer.copy_files(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
