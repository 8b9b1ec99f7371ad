"""The story of an evaluation: questions, answers, figures."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isnan, nan
from pathlib import Path
from typing import Any

from axtune.checkpoint.base import run_of
from axtune.checkpoint.leftovers import private_files
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.config.recipe import Data
from axtune.data.dataset import held_out_rows
from axtune.data.pipeline import RowChecker
from axtune.data.render import prompt_ids
from axtune.data.sources import files_of
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, DataError
from axtune.evaluate.answers import Answers, Kept, key_of, open_answers
from axtune.evaluate.benchmarks import is_answers, is_benchmark, read_questions
from axtune.evaluate.figures import METRICS, Scored, figures, reasons, scored
from axtune.evaluate.generate import Sampling
from axtune.evaluate.models import Asked, Endpoint, LocalModel, Model
from axtune.evaluate.questions import Question, questions_of
from axtune.evaluate.results import Result
from axtune.evaluate.ties import ties_of
from axtune.quiet import quiet_libraries
from axtune.training.progress import Report
from axtune.units import package_version, plural

FOLDER = "evaluation"
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
        limit: Of how many questions, drawn by `seed`; None for all.
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
        AxtuneError: When model, data or server cannot be used.
    """
    run = run_of(Path(name))
    with quiet_libraries(), private_files():
        model = _model(name, settings.url, settings, report)
        other = _other(name, run, settings, report)
        folder = settings.out or (run.path / FOLDER if run else Path(FOLDER) / Path(name).name)
        asked, left_out, data = _asked(model.tokenizer, run, settings)
        count = len(asked) // settings.samples
        report.table([("questions", f"{count:,}{_but(left_out)}"), ("answers", str(folder))])
        began = time.monotonic()
        with open_answers(folder) as answers:
            after = _answered(model, asked, settings, answers, report)
            before = _answered(other, asked, settings, answers, report) if other else None
        now, then = _scored(asked, after), _scored(asked, before) if before else None
        result = Result(
            model=name,
            against=settings.against,
            settings={
                "backend": model.backend,
                **({"against_backend": other.backend} if other else {}),
                "temperature": settings.sampling.temperature,
                "max_new_tokens": settings.sampling.max_new_tokens,
                "samples": settings.samples,
                "seed": settings.seed,
                "limit": settings.limit,
            },
            data=data,
            questions=count,
            left_out=left_out,
            measured=figures(now, then),
            reasons=reasons(now),
            reasons_before=reasons(then) if then else {},
            ties=_ties(model, other, after, before) if other and before else None,
            seconds=round(time.monotonic() - began, 1),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={name: package_version(name) or "" for name in _PACKAGES},
        )
        result.write(folder)
    return result, folder


def bounds(given: Sequence[str]) -> dict[str, float]:
    """What ``--at-least`` says: figures by their metrics.

    Raises:
        AxtuneError: When one is no ``METRIC=VALUE``.
    """
    found = {}
    for word in given:
        metric, _, value = word.partition("=")
        try:
            found[metric] = float(value)
        except ValueError:
            found[metric] = nan
        if metric not in METRICS or isnan(found[metric]):
            raise AxtuneError(
                f"--at-least {word} is no figure.",
                f"Expected METRIC=VALUE with one of {', '.join(METRICS)}, such as accuracy=0.8.",
            )
    return found


def below(result: Result, least: Mapping[str, float]) -> list[str]:
    """What is wrong with a result, a sentence each: figures below their bounds, or not there."""
    found = []
    for metric, bound in least.items():
        # The first of a metric is that of all categories.
        value = next((one.value.value for one in result.measured if one.metric == metric), None)
        if value is None:
            found.append(f"no question is about {metric}, which was to be at least {bound:g}.")
        elif value < bound:
            found.append(f"{metric} is {value:.4g}, and was to be at least {bound:g}.")
    return found


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


# --- what is asked --------------------------------------------------------------------------------


def _asked(
    tokenizer: AxTokenizer, run: Run | None, settings: Settings
) -> tuple[list[Asked], dict[str, int], list[dict[str, Any]]]:
    """The questions, how many were left out by why, and what each file gave."""
    found = list(_questions(tokenizer, run, settings))
    if not found:
        raise AxtuneError("There is nothing to ask.", "Give files whose rows have an answer.")
    left_out: Counter[str] = Counter()
    ready: list[tuple[Question, list[int]]] = []
    for question in found:
        try:
            prompt = question.prompt or prompt_ids(tokenizer, question.messages, question.tools)
        except DataError as error:
            left_out.update({fault.code for fault in error.faults})
            continue
        if len(prompt) + settings.sampling.max_new_tokens > tokenizer.context:
            left_out["too-long"] += 1
        else:
            ready.append((question, prompt))
    files = Counter(question.file for question, _ in ready)
    if settings.limit is not None and settings.limit < len(ready):
        kept = sorted(random.Random(settings.seed).sample(range(len(ready)), settings.limit))
        left_out["limit"] = len(ready) - settings.limit
        ready = [ready[place] for place in kept]
    if not ready:
        raise AxtuneError(
            f"None of {plural(len(found), 'question')} can be asked: {_listed(left_out)}.",
            "Give shorter answers room with --max-new-tokens, or other files.",
        )
    asked = [
        Asked(question, prompt, _seed(settings.seed, prompt, sample))
        for question, prompt in ready
        for sample in range(settings.samples)
    ]
    return asked, dict(left_out), [{"file": Path(f).name, "questions": n} for f, n in files.items()]


def _questions(tokenizer: AxTokenizer, run: Run | None, settings: Settings) -> Iterator[Question]:
    if not settings.data:
        yield from _held_out(tokenizer, run)
        return
    whole = {"max_length": tokenizer.context, "truncate": False}
    options = data_options(settings.data, **whole)
    sources = options.train
    if run:  # rows are read as those that it was trained on
        options = run.recipe.data.model_copy(update=whole)
    files = [file for source in sources for file in files_of(source)]
    for file in [file for file in files if not is_answers(file)]:
        if is_benchmark(file):
            yield from read_questions(file)
        else:
            checker = RowChecker(tokenizer, options, with_turns=True)
            yield from questions_of(_sound(checker.stream([file]), options))


def _held_out(tokenizer: AxTokenizer, run: Run | None) -> Iterator[Question]:
    if run is None:
        raise AxtuneError("A checkpoint has no rows of its own.", "Give them: --data FILE.")
    if run.recipe.data.eval is None:
        raise AxtuneError(
            f"The run in {run.path} held out no rows.",
            "Give some that it was not trained on: --data FILE.",
        )
    yield from questions_of(_sound(held_out_rows(run.recipe, tokenizer), run.recipe.data))


def _sound(rows: Iterator[RowResult], data: Data) -> Iterator[RowResult]:
    """Rows without a fault; what training would refuse cannot be a right answer either."""
    for checked in rows:
        if checked.refused and data.on_error == "stop":
            raise DataError(
                "A row cannot be asked.",
                checked.faults,
                "axtune data check lists every one; mend or remove them.",
            )
        yield checked


def _but(left_out: dict[str, int]) -> str:
    return f"; not asked: {_listed(left_out)}" if left_out else ""


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in counts.items())


def _seed(seed: int, prompt: list[int], sample: int) -> int:
    """Of one answer, whatever else is asked."""
    return int(key_of(seed=seed, prompt=prompt, sample=sample)[:15], 16)


# --- answers --------------------------------------------------------------------------------------


def _answered(
    model: Model, asked: Sequence[Asked], settings: Settings, kept: Answers, report: Report
) -> list[Kept]:
    """The answers of a model in order: those that are kept, and the others."""
    sampling = settings.sampling
    keys = [
        key_of(
            model=model.facts,
            prompt=one.prompt,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            seed=one.seed if sampling.temperature > 0 else None,
            sample=number % settings.samples,
        )
        for number, one in enumerate(asked)
    ]
    missing = {number for number, key in enumerate(keys) if key not in kept}
    if len(missing) < len(asked):
        report.say(f"{model.name}: {len(asked) - len(missing):,} answers are there already")
    if missing:
        with report.counting(f"{model.name}: answers", len(missing)) as count:
            for said in model.answers(asked, sampling, missing.__contains__):
                kept.add(
                    Kept(
                        key=keys[number],
                        model=model.name,
                        question=asked[number].question.id,
                        category=asked[number].question.category,
                        sample=number % settings.samples,
                        content=one.answer.content,
                        tool_calls=one.answer.tool_calls,
                        ended=one.ended,
                        ids=one.ids,
                        margins=one.margins,
                    )
                    for number, one in said.items()
                )
                for number in said:
                    if number in missing:
                        count()
    return [kept[key] for key in keys]


def _ties(
    model: Model, other: Model, after: Sequence[Kept], before: Sequence[Kept]
) -> dict[str, float] | None:
    """Where answers of the same weights part; None of other weights."""
    if model.weights != other.weights:
        return None
    return ties_of(after, before, max(model.epsilon, other.epsilon))


def _scored(asked: Sequence[Asked], answers: Sequence[Kept]) -> list[Scored]:
    """Questions with all of their answers, which stand one behind the other."""
    found: list[tuple[Question, list[Kept]]] = []
    for one, answer in zip(asked, answers, strict=True):
        if found and found[-1][0] is one.question:
            found[-1][1].append(answer)
        else:
            found.append((one.question, [answer]))
    return [scored(question, [each.answer for each in each_said]) for question, each_said in found]
