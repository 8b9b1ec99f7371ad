"""The story of a training run, top to bottom."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainingArguments

from axtune.checkpoint import locate
from axtune.checkpoint.atomic import errno_of, reason_of
from axtune.checkpoint.identity import changes, identity
from axtune.checkpoint.leftovers import private_files, umask
from axtune.checkpoint.model_card import model_card
from axtune.checkpoint.provenance import original_digests, original_of
from axtune.checkpoint.run_dir import (
    EVALUATION,
    Fork,
    Run,
    RunDir,
    claim,
    describe,
    fork,
    open_run,
    recorded_weights,
)
from axtune.checkpoint.tokenizer import AxTokenizer, disagreement_with_auto, load_tokenizer
from axtune.config.faults import first_line
from axtune.config.loader import load, located
from axtune.config.paths import require_writable
from axtune.config.recipe import Recipe
from axtune.data.dataset import Prepared, prepare
from axtune.errors import AxtuneError, CheckpointError, MissingPackageError
from axtune.evaluate.results import RESULT, read_result
from axtune.model.adapter import Adapter, tensors_of
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
from axtune.report.page import write_report
from axtune.signals import sigterm_as_ctrl_c
from axtune.training.arguments import training_arguments
from axtune.training.callbacks import chosen_by
from axtune.training.distributed import (
    alone,
    check_launcher,
    leave,
    once,
    scratch_folder,
    shares_weights,
    use_all_cores,
)
from axtune.training.initial_adapter import start_adapter
from axtune.training.learned import Beginning
from axtune.training.memory_check import (
    PeakMemory,
    check_memory,
    check_rehearsal_memory,
    is_out_of_memory,
    out_of_memory,
    planned,
    search_of,
)
from axtune.training.peers import meet, note_failure, of_peers
from axtune.training.plots import plot
from axtune.training.progress import Report
from axtune.training.summary import (
    FaultLines,
    accounts,
    asked,
    counts,
    derived,
    how_to_go_on,
    measured,
    outcome,
    rehearsed,
    summary,
)
from axtune.training.trackers import failed
from axtune.training.trainer import RunContext, make_trainer

if TYPE_CHECKING:
    from axtune.evaluate.in_training import TrainingQuestions

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITTEN = (*_FULL, errno.EACCES, errno.EROFS)


def train(recipe: Recipe | str | Path) -> Run:
    """Train an adapter as a recipe says.

    Started once in each process of a distributed run (accelerate launch, torchrun).

    Args:
        recipe: The job, or the file of its recipe.

    Returns:
        The finished run's folder, adapter and manifest.

    Raises:
        AxtuneError: Whatever the user can repair: recipe, data, checkpoint, memory, packages.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the report says how to go on.
    """
    if isinstance(recipe, Recipe):
        return _train(recipe)
    with located(recipe):
        return _train(load(recipe))


def _train(recipe: Recipe) -> Run:
    """The story of the run."""
    began = time.monotonic()
    check_launcher(recipe)
    require_writable(recipe.output_dir)
    recipe, origin = _origin(recipe)
    with (
        quiet_libraries(),
        sigterm_as_ctrl_c(),
        private_files() as usual,
        _Explained(recipe.output_dir) as explained,
    ):
        precision = choose_precision(recipe.precision)
        meet(recipe)
        args = training_arguments(recipe, precision)  # sets up the process group
        state = PartialState()
        use_all_cores(state)
        with (
            Report(enabled=state.is_main_process) as report,
            scratch_folder(state) as scratch,
            alone(state, recipe.output_dir),
        ):
            # What is trained: the base, and where the run goes.
            _say_unused_gpus(report, state)
            recipe = once(state, lambda: _as_quantized(recipe, precision))
            run_dir = once(state, lambda: claim(recipe))
            once(state, lambda: _require_readable(run_dir.path / EVALUATION))
            for note in _beginning(run_dir, origin):
                report.say(note, "yellow")
            checkpoint = once(state, lambda: locate.find(recipe.model, revision=recipe.revision))
            tokenizer = load_tokenizer(checkpoint, learning=True)
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
            questions = _questions(recipe, tokenizer, state)
            if questions:
                report.table([("questions", asked(questions, search, state))])
            rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
            batch = rows * args.world_size
            known_by = identity(
                recipe,
                precision=precision,
                batch=batch,
                processes=args.world_size,
                rows=data.digests,
                base=original_digests(checkpoint),
            )
            once(state, lambda: _require_fit(run_dir, origin, known_by))

            # What trains it.
            memory = PeakMemory()
            model = load_model(
                checkpoint,
                tokenizer,
                precision=precision,
                attention=recipe.attention,
                quantization=recipe.quantization,
                documents=recipe.objective.learns_documents,
                sharded=shares_weights(state),
            )
            _offload(model, recipe, args, report)
            slow = faster_on_this_cpu(recipe.quantization, precision)
            if slow and args.device.type == "cpu" and original_of(checkpoint) is None:
                report.say(f"This CPU only emulates bf16; faster: {' '.join(slow)}", "yellow")
            adapter = start_adapter(model, recipe, checkpoint, report)
            size = measure(adapter.model)
            context = RunContext(
                adapter, args, tokenizer, data, run_dir, report, recipe, known_by, questions
            )
            trainer = make_trainer(context)
            if origin:
                trainer.begin_from(origin.weights)
            beginning = Beginning(adapter.model)
            trainer.shard()

            # Its record.
            counted = counts(args, data, size, batch)
            report.table(derived(context, precision, size, batch, trainer.packing))
            facts = {"precision": precision, "counts": counted, "data": accounts(data)}
            facts |= {"plan": planned(search)}
            facts |= {"forked_from": origin.facts} if origin else {}
            manifest = describe(recipe, checkpoint, facts) if state.is_main_process else {}
            if state.is_main_process:
                run_dir.begin(recipe, manifest)
            state.wait_for_everyone()

            # The training.
            status = "failed"
            try:
                rehearsal = trainer.rehearse()
                check_rehearsal_memory(rehearsal, search, report)
                report.say(rehearsed(rehearsal))
                trainer.make_ready(checkpoint, precision)
                with trainer.stopper.watching():
                    resumed = run_dir.resumes_from
                    stepped = time.monotonic()
                    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
                tensors = tensors_of(adapter.model)  # all processes gather it
                if state.is_main_process:
                    manifest["measured"] = measured(trainer, memory.read(), stepped)
                    manifest["metrics"] = summary(run_dir.metrics(), chosen_by(args))
                if not trainer.stopper.interrupted:
                    beginning.require_learned()
                    if state.is_main_process:
                        trained = Run(run_dir.path, run_dir.path / "adapter", recipe, manifest)
                        card = model_card(trained)
                        written = run_dir.write_adapter(
                            lambda to: _fill(to, adapter, tensors, tokenizer, card)
                        )
                        manifest["adapter_sha256"] = recorded_weights(written)
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
                    plot(run_dir.metrics(), run_dir.path / "loss.png", chosen_by(args))
                    write_report([run_dir.path])
                if status == "interrupted":
                    report.say(how_to_go_on(run_dir, forked=origin is not None), "yellow")

            # What follows.
            leave(state)
            if trainer.stopper.interrupted:
                raise trainer.stopper.signal
            report.table(outcome(recipe, manifest))
            run = open_run(run_dir.path)
            if state.is_main_process and recipe.after:
                from axtune.after import finish  # merging and exporting, for those who do

                del model, adapter, context, trainer  # what follows may load weights of its own
                try:
                    with umask(usual):
                        finish(run, report)
                finally:
                    write_report([run_dir.path])
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
        if isinstance(error, Exception):
            note_failure()
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise out_of_memory(self.search) from error
        if said := of_peers(error):
            raise said from error
        if isinstance(error, ImportError):  # an optimiser or a kernel with a package of its own
            raise MissingPackageError(
                f"A package is missing: {first_line(error)}", "Install it with pip."
            ) from error
        if isinstance(error, (OSError, SafetensorError)):
            file = getattr(error, "filename", None)
            ours = isinstance(file, str) and Path(file).is_relative_to(self.output_dir)
            if ours or errno_of(error) in _NOT_WRITTEN:
                first = "Free some space" if errno_of(error) in _FULL else "Put that in order"
                raise AxtuneError(
                    f"{file if ours else self.output_dir} cannot be written: {reason_of(error)}.",
                    f"{first} and continue with resume=true, or set another output_dir.",
                ) from error
        if isinstance(error, Exception) and (tracker := failed(error)):
            raise AxtuneError(
                f"training.report_to: {tracker} failed: {first_line(error)}",
                f"Set it up as {tracker} says, or remove it.",
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
    model = locate.find(recipe.model, revision=recipe.revision, weights=False)
    quantization = quantization_of(model, recipe.quantization, precision)
    return recipe.model_copy(update={"quantization": quantization})


def _questions(
    recipe: Recipe, tokenizer: AxTokenizer, state: PartialState
) -> TrainingQuestions | None:
    """What the model is asked while it trains."""
    if recipe.evaluate is None:
        return None
    from axtune.evaluate.in_training import TrainingQuestions  # scoring, for those who ask

    return once(state, lambda: TrainingQuestions(recipe, tokenizer))


def _offload(
    model: PreTrainedModel, recipe: Recipe, args: TrainingArguments, report: Report
) -> None:
    """Keep in host memory what the recipe wants there; activations are the trainer's."""
    if "embeddings" in recipe.offload and args.device.type == "cuda":
        embeddings_to_host(model, args.device)
    elif recipe.offload and args.device.type == "cpu":
        report.say("offload is for GPUs: on a CPU everything is in host memory already.", "yellow")


def _origin(recipe: Recipe) -> tuple[Recipe, Fork | None]:
    """The recipe of a fork, and where its weights come from; every other recipe as it is."""
    return fork(recipe) if recipe.resume == "fork" else (recipe, None)


def _beginning(run_dir: RunDir, origin: Fork | None) -> Iterator[str]:
    """What a user should know of where the run begins, a sentence each."""
    yield from run_dir.notes
    if origin:
        yield (
            f"A new run in {run_dir.path}, from the weights of {origin.weights}; optimizer, "
            "schedule and data begin anew."
        )


def _require_readable(evaluation: Path) -> None:
    """Refuse, before anything is trained, what the card and the report could not be made of."""
    if (evaluation / RESULT).is_file():
        try:
            read_result(evaluation)
        except CheckpointError as error:
            raise AxtuneError(
                error.found, f"Remove {evaluation}; once trained, axtune eval makes it anew."
            ) from None


def _require_fit(run_dir: RunDir, origin: Fork | None, known_by: dict[str, Any]) -> None:
    """Refuse to go on from what this run would not have made itself."""
    run_dir.require_same(known_by)
    if origin and (found := changes({"base": origin.base}, {"base": known_by["base"]})):
        raise AxtuneError(
            f"The weights of {origin.weights} are for another base: {'; '.join(found)}.",
            "Set model to the base that they were trained on.",
        )


def _fill(
    folder: Path,
    adapter: Adapter,
    tensors: dict[str, torch.Tensor],
    tokenizer: AxTokenizer,
    card: str,
) -> None:
    """Write the files of ``adapter/``."""
    adapter.save(folder, tensors)
    tokenizer.copy_files(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
