"""What a model is asked: the questions and documents of files, or of rows that a run held out.

A document asks nothing; what it tells is how likely a model finds its tokens.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.config.paths import is_document
from axtune.config.recipe import Data, Recipe
from axtune.data.dataset import held_out_rows
from axtune.data.pipeline import RowChecker
from axtune.data.render import prompt_ids
from axtune.data.samples import Sample
from axtune.data.sources import digest, files_of
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, DataError
from axtune.evaluate.benchmarks import (
    asked_files,
    is_benchmark,
    read_questions,
    require_scored,
    unscored_in_words,
)
from axtune.evaluate.questions import Question, questions_of
from axtune.units import plural

_ANY_LENGTH = 1 << 40
_PIECE = 4096  # tokens that documents are cut to where no recipe says


@dataclass(slots=True)
class Selection:
    """What is asked.

    Attributes:
        questions: Each with its prompt, as token ids.
        documents: How many there are of each file.
        samples: Of the rows that the questions are of, and of the documents, with their source:
            what a loss is taken of.
        rows: File and line of each of these samples.
        left_out: Questions that are not asked, by why.
        unscored: Those of BFCL whose categories are not scored, by these.
        personal_data: How much of each kind the recipe's gate found in the rows. A benchmark is
            asked as it is published.
    """

    questions: list[tuple[Question, list[int]]] = field(default_factory=list)
    documents: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, Sample]] = field(default_factory=list)
    rows: list[tuple[str, int]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)
    personal_data: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> list[dict[str, Any]]:
        """The names of the files, each with how many of its questions are asked.

        One with documents has how many these are besides.
        """
        counts = Counter(Path(question.file).name for question, _ in self.questions)
        return [
            {"file": name, "questions": counts[name]}
            | ({"documents": self.documents[name]} if name in self.documents else {})
            for name in dict.fromkeys((*counts, *self.documents))
        ]

    def but(self) -> str:
        """What was left out, in words."""
        return f"; not asked: {listed(self.left_out)}" if self.left_out else ""


def select(
    tokenizer: AxTokenizer,
    recipe: Recipe | None,
    files: Sequence[str],
    *,
    room: int,
    limit: int | None = None,
    seed: int = 0,
) -> Selection:
    """Read what files ask, or the rows that a recipe holds out, and make the questions' prompts.

    Args:
        tokenizer: Of the model that is asked.
        recipe: What it was trained by: rows are read as its own, and those that it holds out are
            asked where there are no files. None for a checkpoint.
        files: Conversations, documents or benchmarks.
        room: Tokens of an answer; a question that leaves the model fewer is left out.
        limit: How many questions; None for all.
        seed: Draws which.

    Raises:
        AxtuneError: When files or rows cannot be read, or nothing is left to be asked.
    """
    selected = Selection()
    kept = _Kept()
    found = 0
    for question in _questions(tokenizer, recipe, files, kept, selected.unscored):
        found += 1
        try:
            prompt = question.prompt or prompt_ids(tokenizer, question.messages, question.tools)
        except DataError as error:
            selected.left_out.update({fault.code for fault in error.faults})
            continue
        if len(prompt) + room > tokenizer.context:
            selected.left_out["too-long"] += 1
        else:
            selected.questions.append((question, prompt))
    if not found and not kept.documents:
        why = f" {unscored_in_words(selected.unscored)}" if selected.unscored else ""
        raise AxtuneError(
            f"There is nothing to ask.{why}", "Give files whose rows have an answer, or documents."
        )
    if selected.unscored:
        selected.left_out["not-scored"] = selected.unscored.total()
    if not selected.questions and not kept.documents:
        raise AxtuneError(
            f"None of {plural(found, 'question')} can be asked: {listed(selected.left_out)}.",
            "Give shorter answers room with --max-new-tokens, or other files.",
        )
    if limit is not None and limit < len(selected.questions):
        drawn = sorted(random.Random(seed).sample(range(len(selected.questions)), limit))
        selected.left_out["limit"] = len(selected.questions) - limit
        selected.questions = [selected.questions[place] for place in drawn]
    rows = dict.fromkeys((question.file, question.line) for question, _ in selected.questions)
    places = [*rows, *kept.documents]
    sources = _sources([file for file, _ in places])
    for place in places:
        samples = [one for one in kept.samples.get(place, ()) if one.length <= tokenizer.context]
        selected.samples += [(sources[place[0]], sample) for sample in samples]
        selected.rows += [place] * len(samples)
    selected.personal_data = kept.personal_data
    selected.documents = Counter(sources[file] for file, _ in kept.documents)
    return selected


def _questions(
    tokenizer: AxTokenizer,
    recipe: Recipe | None,
    files: Sequence[str],
    kept: _Kept,
    unscored: Counter[str],
) -> Iterator[Question]:
    if not files:
        yield from questions_of(kept.those_of(_held_out(tokenizer, recipe)))
        return
    # Of a row that is longer than the context, the first turns can still be asked.
    whole = {"max_length": _ANY_LENGTH, "truncate": False}
    options = data_options(files, **whole)
    sources, piece_length = options.train, _PIECE
    if recipe:  # rows are read as those that it was trained on
        options = recipe.data.model_copy(update=whole)
        piece_length = recipe.data.max_length
    given, left_out = asked_files(sources)
    unscored.update(left_out)
    require_scored(given)
    for file in given:
        if is_benchmark(file):
            yield from read_questions(file)
        else:
            checker = RowChecker(tokenizer, options, with_turns=True, piece_length=piece_length)
            yield from questions_of(kept.those_of(_sound(checker.stream([file]), options)))


def _held_out(tokenizer: AxTokenizer, recipe: Recipe | None) -> Iterator[RowResult]:
    if recipe is None:
        raise AxtuneError("A checkpoint has no rows of its own.", "Give them: --data FILE.")
    if recipe.data.eval is None:
        raise AxtuneError(
            f"The run in {recipe.output_dir} held out no rows.",
            "Give some that it was not trained on: --data FILE.",
        )
    yield from _sound(held_out_rows(recipe, tokenizer), recipe.data)


def _sound(rows: Iterable[RowResult], data: Data) -> Iterator[RowResult]:
    """Rows without a fault; what training would refuse cannot be a right answer either."""
    for checked in rows:
        if checked.refused and data.on_error == "stop":
            raise DataError(
                "A row cannot be asked.",
                checked.faults,
                "axtune data check lists every one; mend or remove them.",
            )
        yield checked


@dataclass(slots=True)
class _Kept:
    """What is kept of rows on their way to being questions.

    Attributes:
        samples: Of documents and conversations, by file and line.
        documents: Which of these rows are documents.
        personal_data: How much of each kind the gate found in them.
    """

    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)
    documents: list[tuple[str, int]] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)

    def those_of(self, rows: Iterable[RowResult]) -> Iterator[RowResult]:
        """The same rows."""
        for checked in rows:
            place = checked.file, checked.line
            if not checked.refused:
                self.personal_data.update(checked.personal_data)
            self.samples[place] = [one for one in checked.samples if isinstance(one, Sample)]
            if checked.document:
                self.documents.append(place)
            yield checked


def _sources(files: Iterable[str]) -> dict[str, str]:
    """The names of files, by these; several that are a document each are their folder."""
    paths = {file: Path(file).absolute() for file in dict.fromkeys(files)}
    beside = Counter(path.parent for path in paths.values() if is_document(path))
    return {
        file: path.parent.name if is_document(path) and beside[path.parent] > 1 else path.name
        for file, path in paths.items()
    }


def trained_on(runs: Sequence[Run | None], files: Sequence[str]) -> Iterator[str]:
    """What a user should know of files that runs were trained on, a sentence each.

    Args:
        runs: The model's, and that of what it is held against, where they are runs.
        files: That are asked; none of them: the rows that the first run held out.

    Raises:
        AxtuneError: When the data of the first run have changed or moved, so that nobody can tell
            which rows it held out.
    """
    if not files:
        if runs[0] is not None:
            _require_same_rows(runs[0])
        return
    asked = {path: digest(path) for one in data_options(files).train for path in files_of(one)}
    for run in filter(None, runs):
        learned = set(_digests(run, "train").values())
        for path in [path for path, sha in asked.items() if sha in learned]:
            yield (
                f"{path.name} is a file that {run.path} was trained on: what it gets right there "
                "proves nothing. Without --data, a run is asked the rows that it held out."
            )


def _require_same_rows(run: Run) -> None:
    data = run.recipe.data
    if data.eval is None:
        return  # which is said where the rows are read
    sources, part = (data.eval, "eval") if isinstance(data.eval, list) else (data.train, "train")
    remedy = "Give rows that it was not trained on: --data FILE."
    try:
        files = [file for source in sources for file in files_of(source)]
    except AxtuneError as error:
        raise AxtuneError(
            f"The rows that {run.path} held out cannot be found: {error.found}", remedy
        ) from None
    recorded = _digests(run, part)
    if recorded and sorted(recorded.values()) != sorted(map(digest, files)):
        raise AxtuneError(
            f"Which rows {run.path} held out cannot be told any more: its data "
            f"({', '.join(recorded)}) have changed since it was trained.",
            f"Restore the files. {remedy}",
        )


def _digests(run: Run, part: str) -> dict[str, str]:
    """SHA-256 of the files of a run's training or held-out rows, as its manifest has them."""
    account = (run.manifest.get("data") or {}).get(part) or {}
    return dict(account.get("digests") or {})


def listed(counts: Mapping[str, int]) -> str:
    """Counts by their names: ``telephone 4, card 1``."""
    return ", ".join(f"{code} {count:,}" for code, count in counts.items())
