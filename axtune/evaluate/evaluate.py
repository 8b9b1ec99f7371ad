"""The story of an evaluation: questions, answers, figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING

from axtune.checkpoint.base import run_of
from axtune.checkpoint.leftovers import private_files
from axtune.checkpoint.model_card import add_evaluation
from axtune.checkpoint.run_dir import EVALUATION, Run
from axtune.errors import AxtuneError
from axtune.evaluate.answers import Answers, Kept, key_of, open_answers, short, writing
from axtune.evaluate.benchmarks import unscored_in_words
from axtune.evaluate.figures import METRICS, Scored, figures, reasons, scored
from axtune.evaluate.generate import Sampling
from axtune.evaluate.harness import load_tasks, run_tasks
from axtune.evaluate.losses import (
    LOSSES,
    SampleLoss,
    measure_losses,
    read_losses,
    write_losses,
)
from axtune.evaluate.models import Asked, Endpoint, LocalModel, Model
from axtune.evaluate.results import Measured, Result
from axtune.evaluate.sources import Selection, listed, select, trained_on
from axtune.evaluate.task_answers import open_task_answers
from axtune.evaluate.task_figures import TaskScore, measure_tasks
from axtune.evaluate.ties import ties_of
from axtune.quiet import quiet_libraries
from axtune.training.progress import Report
from axtune.units import package_version, plural

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict

AT_LEAST, AT_MOST = "--at-least", "--at-most"
_LOSSES = ("loss", "perplexity")  # better when lower
BASE = "base"  # what a run was trained on, as --against takes it

_PACKAGES = ("axtune", "torch", "transformers", "peft", "scipy", "sacrebleu")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked, and how.

    Attributes:
        data: Files of conversations or of a benchmark; empty: the run's own held-out rows.
        against: A run, checkpoint or URL that is asked the same; ``base`` for what the run was
            trained on; None for nothing.
        url: A server that is asked instead of loading the model.
        stream: Whether a server is asked for answers in parts.
        sampling: How answers are made.
        samples: Answers to each question.
        seed: Of draws: which questions, and at a temperature which answers.
        limit: Of how many questions, drawn by `seed`, and of each task; None for all.
        tasks: Of lm-evaluation-harness, by their names.
        task_folders: With tasks of one's own.
        num_fewshot: Examples in a task's prompt; None for what each task says.
        chat: Whether prompts of tasks are put through the chat template.
        out: Folder of the answers; None: ``evaluation`` in the run, or ``evaluation/NAME``.
    """

    data: Sequence[str] = ()
    against: str | None = None
    url: str | None = None
    stream: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    seed: int = 0
    limit: int | None = None
    tasks: Sequence[str] = ()
    task_folders: Sequence[Path] = ()
    num_fewshot: int | None = None
    chat: bool = False
    out: Path | None = None


def evaluate(name: str, settings: Settings, report: Report) -> tuple[Result, Path]:
    """Ask a model the questions of some files, and say what it gets right.

    Args:
        name: A run, an adapter or a checkpoint.
        settings: What is asked, and how.
        report: What the user sees.

    Returns:
        What was found, and the folder that holds it with the answers.

    Raises:
        AxtuneError: When model, data, tasks or server cannot be used.
    """
    run = run_of(Path(name))
    with quiet_libraries(), private_files():
        tasks = load_tasks(settings.tasks, settings.task_folders) if settings.tasks else None
        model = _model(name, settings.url, settings, report)
        other = _other(name, run, settings, report)
        if other and other.facts == model.facts:
            line = f"{other.name} is {model.name} itself: both give the same answers."
            report.say(line, "yellow")
        # A checkpoint of a run is not the run, whose own evaluation stays as it is.
        itself = run is not None and Path(name).resolve() == run.path.resolve()
        folder = settings.out or (
            run.path / EVALUATION if run and itself else Path(EVALUATION) / Path(name).name
        )
        if settings.data or not tasks:
            for line in trained_on([run, _run_of(settings.against)], settings.data):
                report.say(line, "yellow")
        selected = Selection()
        if settings.data or not tasks:
            room = settings.sampling.max_new_tokens
            selected = select(
                model.tokenizer, run.recipe if run else None, settings.data,
                room=room, limit=settings.limit, seed=settings.seed,
            )  # fmt: skip
            if selected.unscored:
                report.say(unscored_in_words(selected.unscored))
            _require_figures(model, selected)
            asked = f"{len(selected.questions):,}{selected.but()}"
            documents = f"{selected.documents.total():,}, their loss and perplexity by source"
            report.table(
                [("questions", asked)] * bool(selected.questions)
                + [("documents", documents)] * bool(selected.documents)
                + [("masked", listed(selected.personal_data))] * bool(selected.personal_data)
                + [("answers" if selected.questions else "figures", str(folder))]
            )
        began = time.monotonic()
        with open_answers(folder) as answers, _told_what_is_kept(answers, report):
            if tasks:  # told before a model is loaded
                with open_task_answers(folder, {}) as kept:
                    if damaged := kept.damaged_in_words():
                        report.say(damaged, "yellow")
            after = _heard(model, selected, tasks, settings, answers, report)
            before = _heard(other, selected, tasks, settings, answers, report) if other else None
        result = Result(
            model=model.name,
            against=other.name if other else None,
            settings={
                "backend": model.backend,
                **({"against_backend": other.backend} if other else {}),
                "temperature": settings.sampling.temperature,
                "max_new_tokens": settings.sampling.max_new_tokens,
                "samples": settings.samples,
                "seed": settings.seed,
                "limit": settings.limit,
                **({"data": list(settings.data)} if settings.data else {}),
                **({"tasks": list(settings.tasks)} if settings.tasks else {}),
            },
            data=selected.files,
            questions=len(selected.questions),
            left_out=dict(selected.left_out),
            personal_data=dict(selected.personal_data),
            measured=_measured(after, before, selected),
            reasons=reasons(after.scores),
            reasons_before=reasons(before.scores) if before else {},
            cut=_cut(after, before),
            ties=_ties(model, other, after, before) if other and before else None,
            seconds=round(time.monotonic() - began, 1),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={name: package_version(name) or "" for name in _PACKAGES},
            keys=[short(one.key) for heard in (after, before) if heard for one in heard.answers],
        )
        if note := result.put(folder):
            report.say(note)
        if run and folder == run.path / EVALUATION:
            with writing(run.adapter):
                add_evaluation(run)
    return result, folder


def bounds(given: Sequence[str], option: str = AT_LEAST) -> dict[str, float]:
    """What ``--at-least`` or ``--at-most`` says: figures by their metrics.

    Args:
        given: ``METRIC=VALUE`` each.
        option: Which of the two: the least of what is better when higher, or the most of a loss.

    Raises:
        AxtuneError: When one is no ``METRIC=VALUE``, or of a metric that the other option bounds.
    """
    metrics, others = (METRICS, _LOSSES) if option == AT_LEAST else (_LOSSES, METRICS)
    example = "accuracy=0.8" if option == AT_LEAST else "loss=1.2"
    found = {}
    for word in given:
        metric, _, value = word.partition("=")
        try:
            found[metric] = float(value)
        except ValueError:
            found[metric] = nan
        if metric in others:
            better = "lower" if option == AT_LEAST else "higher"
            other = AT_MOST if option == AT_LEAST else AT_LEAST
            raise AxtuneError(
                f"{option} {word} bounds the wrong side: {metric} is better when it is {better}.",
                f"Give {other} {word}.",
            )
        if not (metric in metrics or "/" in metric) or isnan(found[metric]):
            raise AxtuneError(
                f"{option} {word} is no figure.",
                f"Expected METRIC=VALUE with one of {', '.join(metrics)}, or TASK/METRIC, such as "
                f"{example}.",
            )
        if metric in METRICS and metric != "chrf" and found[metric] > 1:
            raise AxtuneError(
                f"{option} {word} can never be reached: {metric} is a share.",
                f"Give it from 0 to 1: {metric}={found[metric] / 100:g}.",
            )
    return found


def below(
    result: Result, least: Mapping[str, float], most: Mapping[str, float] | None = None
) -> list[str]:
    """What is wrong with a result, a sentence each: figures beyond their bounds, or not there.

    Args:
        result: Of an evaluation.
        least: What figures are to be at least.
        most: What figures are to be at most.
    """
    found = []
    wanted = [(metric, bound, "least") for metric, bound in least.items()]
    wanted += [(metric, bound, "most") for metric, bound in (most or {}).items()]
    for metric, bound, side in wanted:
        # The first of a metric is that of all categories.
        value = next((one.value.value for one in result.measured if one.metric == metric), None)
        if value is None:
            why = "was not measured" if metric in _LOSSES else "is of no question"
            line = f"{metric} {why}, and was to be at {side} {bound:g}."
            known = metric in METRICS or metric in _LOSSES
            there = ", ".join(dict.fromkeys(one.metric for one in result.measured))
            found.append(line if known else f"{line} There are {there}.")
        elif value < bound if side == "least" else value > bound:
            found.append(f"{metric} is {value:.4g}, and was to be at {side} {bound:g}.")
    return found


def _require_figures(model: Model, selected: Selection) -> None:
    if not selected.questions and model.backend == "endpoint":
        raise AxtuneError(
            "Documents ask nothing, and a server does not say how likely it finds their tokens.",
            "Leave --url out, so that the loss of the documents is computed here; or give files "
            "of questions: --data FILE.",
        )


# --- who is asked ---------------------------------------------------------------------------------


def _model(name: str, url: str | None, settings: Settings, report: Report) -> Model:
    if url:
        return Endpoint(url, name, stream=settings.stream)
    return LocalModel(name, lambda line: report.say(line, "yellow"))


def _other(name: str, run: Run | None, settings: Settings, report: Report) -> Model | None:
    """What the model is held against."""
    against = settings.against
    if against is None:
        return None
    if against.startswith(("http://", "https://")):
        return _model(name, against, settings, report)
    if against == BASE and not Path(against).exists():
        if run is None:
            raise AxtuneError(
                f"{name} is no run, so nothing says what its base is.",
                "Name it: --against MODEL.",
            )
        against = run.recipe.model
    return _model(against, None, settings, report)


# --- what is answered -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a model said.

    Attributes:
        answers: One behind the other, those to a question together.
        scores: The questions with their answers.
        losses: Of the samples; None of a server.
        tasks: Of lm-evaluation-harness.
    """

    answers: list[Kept]
    scores: list[Scored]
    losses: list[SampleLoss] | None
    tasks: list[TaskScore]


def _heard(
    model: Model,
    selected: Selection,
    tasks: TaskDict | None,
    settings: Settings,
    kept: Answers,
    report: Report,
) -> _Heard:
    """Ask a model everything, and let go of it."""
    try:
        answers = _answers(model, selected, settings, kept, report)
        losses = _losses(model, selected, kept.file.parent, report) if selected.samples else None
        scores = _tasks(model, tasks, settings, kept.file.parent, report) if tasks else []
    finally:
        model.release()
    count = settings.samples
    of_each = [answers[place : place + count] for place in range(0, len(answers), count)]
    heard = [
        scored(question, [each.answer for each in said])
        for (question, _), said in zip(selected.questions, of_each, strict=True)
    ]
    return _Heard(answers, heard, losses, scores)


@contextmanager
def _told_what_is_kept(answers: Answers, report: Report) -> Iterator[None]:
    """Say at Ctrl-C and SIGTERM that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{plural(len(answers), 'answer')} in {answers.file.parent}"
        report.say(f"Stopped with {kept}: the same command goes on from there.", "yellow")
        raise


def _answers(
    model: Model, selected: Selection, settings: Settings, kept: Answers, report: Report
) -> list[Kept]:
    """The answers of a model: those that are kept, and the others."""
    sampling = settings.sampling
    asked: list[Asked] = []
    keys: list[str] = []
    for question, prompt in selected.questions:
        for sample in range(settings.samples):
            facts = {"prompt": prompt, "sample": sample}
            if sampling.temperature > 0:
                facts |= {"seed": settings.seed}
            asked.append(Asked(question, prompt, int(key_of(**facts)[:15], 16)))
            facts |= {"model": model.facts, "temperature": sampling.temperature}
            keys.append(key_of(**facts, max_new_tokens=sampling.max_new_tokens))
    missing = {number for number, key in enumerate(keys) if key not in kept}
    if len(missing) < len(asked):
        report.say(f"{model.name}: {plural(len(asked) - len(missing), 'answer')} kept from before")
    if missing:
        with report.counting(f"{model.name}: answers", len(missing)) as count:
            for said in model.answers(asked, sampling, missing.__contains__):
                kept.add(
                    Kept(
                        key=keys[number],
                        model=model.name,
                        question=asked[number].question.id,
                        category=asked[number].question.category,
                        asked=asked[number].question.asked,
                        right=asked[number].question.right,
                        sample=number % settings.samples,
                        content=one.answer.content,
                        tool_calls=one.answer.tool_calls,
                        ended=one.ended,
                        ids=one.ids,
                        margins=one.margins,
                    )
                    for number, one in said.items()
                )
                for _ in missing.intersection(said):
                    count()
    return [kept[key] for key in keys]


def _losses(
    model: Model, selected: Selection, folder: Path, report: Report
) -> list[SampleLoss] | None:
    """What a model thinks of the samples: as it was kept, or computed and kept."""
    samples = [sample for _, sample in selected.samples]
    key = key_of(model=model.facts, samples=[[one.input_ids, one.labels] for one in samples])
    file = folder / LOSSES
    kept = read_losses(file)
    if key in kept:
        return kept[key]
    if model.backend == "endpoint":  # which says nothing of the tokens of a prompt
        return None
    with report.counting(f"{model.name}: losses", len(samples)) as count:
        losses = model.losses(samples, lambda done: _repeat(count, done))
    if losses is not None:
        write_losses(file, {**kept, key: losses})
    return losses


def _tasks(
    model: Model, tasks: TaskDict, settings: Settings, folder: Path, report: Report
) -> list[TaskScore]:
    """The figures of lm-evaluation-harness."""
    asked = model.for_tasks(settings.sampling, chat=settings.chat)
    report.say(f"{model.name}: asking {', '.join(settings.tasks)} …")
    with open_task_answers(folder, {"model": model.facts, "chat": settings.chat}) as kept:
        run = run_tasks(
            asked, tasks, chat=settings.chat, limit=settings.limit,
            num_fewshot=settings.num_fewshot, kept=kept,
        )  # fmt: skip
    if run.truncated:
        cut = f"{plural(run.truncated, 'prompt')} lost the beginning, being too long for the model"
        report.say(f"{model.name}: {cut}", "yellow")
    return list(run.scores)


def _repeat(action: Callable[[], None], times: int) -> None:
    for _ in range(times):
        action()


# --- what it adds up to ---------------------------------------------------------------------------


def _measured(after: _Heard, before: _Heard | None, selected: Selection) -> list[Measured]:
    found = figures(after.scores, before.scores if before else None) if after.scores else []
    if after.losses:
        sources = [source for source, _ in selected.samples]
        then = before.losses if before else None
        found += measure_losses(sources, after.losses, then, selected.rows)
    if after.tasks:
        found += measure_tasks(after.tasks, before.tasks if before else None)
    return found


def _run_of(against: str | None) -> Run | None:
    """The run that a model is held against, where it is one."""
    named = against is not None and not against.startswith(("http://", "https://"))
    return run_of(Path(against)) if against and named else None


def _cut(after: _Heard, before: _Heard | None) -> dict[str, int]:
    """How many answers did not come to their end, by who gave them."""
    counts = Counter(
        one.model
        for heard in (after, before)
        for one in (heard.answers if heard else ())
        if not one.ended
    )
    return dict(counts)


def _ties(model: Model, other: Model, after: _Heard, before: _Heard) -> dict[str, float] | None:
    """Where answers of the same weights part; None of other weights."""
    if model.weights != other.weights:
        return None
    return ties_of(after.answers, before.answers, max(model.epsilon, other.epsilon))
