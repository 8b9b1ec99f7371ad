"""A benchmark's files in two parts: rows to train on, and the questions that remain to be asked.

Never both: rows of the files that share what a user says go to the same side, be it word for word
or nearly, within a file or across files. FunctionChat-Bench asks a question with five choices of
tools and tells it again with a slot left out; BFCL asks some of its questions in two categories.

A training row is a question with the answer that the benchmark calls right: of each argument the
first right value, and none of one that may be left out. Earlier turns of the assistant are context
(``"weight": 0``), since each is the answer of a row of its own. Where no call is right, BFCL
records no text, and the row says `NO_TOOL_FITS`.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from axtune.checkpoint.atomic import refuse_existing, staged
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.config.paths import data_suffix
from axtune.data.pipeline import RowChecker
from axtune.data.rows import Row
from axtune.data.sources import digest
from axtune.errors import AxtuneError
from axtune.evaluate.benchmarks import (
    POSSIBLE_ANSWER,
    asked_files,
    benchmark_rows,
    is_benchmark,
    read_questions,
    require_scored,
    unscored_in_words,
)
from axtune.evaluate.questions import Question
from axtune.evaluate.score import Argument, Fields
from axtune.units import plural

TRAIN, TEST, SPLIT = "train.jsonl", "test", "split.yaml"
HELD_OUT = 0.3
_SHARE_OR_NUMBER = (
    "Give a share of each category between 0 and 1, such as 0.3, or a whole number of questions, "
    "such as 200."
)
NO_TOOL_FITS = "None of the tools can do this."
# The embedded model whose template rows are held against where none is named; its context says
# nothing of the models that they are for, so they are as long as they are.
_TEMPLATE, _LONGEST = "tiny-ax-4.0", 1 << 20

_NO_WORD = re.compile(r"[\W_]+")
_GRAM = 3  # letters
# Of the three-letter sequences of two texts, the share that both have (Jaccard's index) from which
# on they are one question. Found by looking at pairs of BFCL and FunctionChat-Bench: from here on
# they differ in a word or a slot.
_NEAR = 0.7
# Of the shorter text's sequences the share that the longer one has, from which on it is the shorter
# one with a slot filled; of shorter texts than this many sequences it says nothing.
_WITHIN, _LONG_ENOUGH = 0.8, 8


@dataclass(frozen=True, slots=True)
class Split:
    """What went where: ``split.yaml``.

    Attributes:
        seed: Of the draw.
        held_out: As it was asked for.
        files: SHA-256 of each, by its name.
        groups: Of rows that stay together.
        train: Rows to train on, by category.
        test: Questions to be asked, by category.
        left_out: Questions of the training side that are no row, by why.
        unscored: Questions of BFCL whose categories are not scored, by these: on neither side.
    """

    seed: int
    held_out: float | int
    files: dict[str, str]
    groups: int
    train: dict[str, int]
    test: dict[str, int]
    left_out: dict[str, int]
    unscored: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A row of a benchmark's file.

    Attributes:
        file: Where it stands.
        row: As it was read.
        questions: That it asks: one of BFCL, several of FunctionChat-Bench.
    """

    file: Path
    row: Row
    questions: list[Question] = field(default_factory=list)


def convert(
    data: Sequence[str],
    out: Path,
    *,
    held_out: float | int = HELD_OUT,
    seed: int = 0,
    model: str | None = None,
) -> Split:
    """Write a benchmark's files as rows to train on and as questions that those do not hold.

    ``OUT/train.jsonl`` has a row for each question of one side; rows with a fault, such as an
    answer that breaks its own tool's schema, stay out. ``OUT/test`` has the files of the other side
    in the benchmark's own form, to be asked with ``--data OUT/test``.

    Args:
        data: Files, folders or globs of BFCL or FunctionChat-Bench.
        out: The folder to make, whole or not at all.
        held_out: How many questions are to be asked: a share below 1 (a float), or a number (an
            int). As near to it, in each category, as rows that stay together allow.
        seed: Of the draw; the same files and seed make the same parts.
        model: Whose template, control tokens and context the rows keep to; None for the format of
            A.X 4.0 at any length.

    Raises:
        AxtuneError: When a file is none of a benchmark, one side would be empty, or `out` exists or
            cannot be written.
        DataError: When a benchmark's file cannot be read.
    """
    refuse_existing(out)
    tokenizer = load_tokenizer(model or _TEMPLATE, learning=True)
    files, unscored = _files(data)
    asked = [one for file in files for one in _asked(file)]
    questions = sum(len(one.questions) for one in asked)
    groups = _groups(asked)
    chosen = _draw(asked, groups, _share(held_out, questions), seed)
    held = [one for number, one in enumerate(asked) if number in chosen]
    learned = [one for number, one in enumerate(asked) if number not in chosen]
    longest = tokenizer.context if model else _LONGEST
    rows, left_out = _training_rows(_questions(learned), tokenizer, longest)
    if not rows or not held:
        empty = "ask" if not held else "train on"
        raise AxtuneError(
            f"--held-out {held_out} of {questions:,} questions leaves nothing to {empty}.",
            "Give another share or number, or more files.",
        )
    split = Split(
        seed=seed,
        held_out=held_out,
        files={file.name: digest(file) for file in files},
        groups=len(set(groups)),
        train=dict(Counter(category for category, _ in rows)),
        test=dict(Counter(question.category for question in _questions(held))),
        left_out=left_out,
        unscored=dict(unscored),
    )
    train = _lines(json.dumps(row, ensure_ascii=False).encode() for _, row in rows)
    tests = dict(_test_files(held))
    with staged(out, len(train) + sum(map(len, tests.values()))) as folder:
        (folder / TRAIN).write_bytes(train)
        for name, content in tests.items():
            (folder / TEST / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / TEST / name).write_bytes(content)
        YAML().dump(asdict(split), folder / SPLIT)
    return split


def show_split(console: Console, split: Split, out: Path) -> None:
    """Print what went where, by category."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("to train on", "to be asked"):
        table.add_column(name, justify="right")
    sides = (split.train, split.test)
    for category in dict.fromkeys(chain(*sides)):
        table.add_row(category, *(f"{side.get(category, 0):,}" for side in sides))
    table.add_row("all", *(f"{sum(side.values()):,}" for side in sides))
    console.print(table)
    if split.left_out:
        counts = ", ".join(f"{code} {count:,}" for code, count in split.left_out.items())
        console.print(f"not to train on: {counts}")
    if split.unscored:
        console.print(unscored_in_words(split.unscored))
    share = split.held_out if isinstance(split.held_out, float) else "its part"
    console.print(
        f"of each category {share}, as near as questions that belong together allow; drawn with "
        f"seed {split.seed}; none of {out / TEST} is in {out / TRAIN}"
    )


# --- what is read ---------------------------------------------------------------------------------


def _files(data: Sequence[str]) -> tuple[list[Path], Counter[str]]:
    """The benchmark's files, each once, and what of BFCL is not scored, by its categories."""
    named, unscored = asked_files(data_options(data).train)
    files = list(dict.fromkeys(named))
    require_scored(files)
    seen: dict[str, Path] = {}
    for file in files:
        if not is_benchmark(file):
            raise AxtuneError(
                f"{file} is no file of BFCL or FunctionChat-Bench.",
                "Conversations are training rows already; data.eval=0.1 holds some out.",
            )
        if (other := seen.setdefault(_test_name(file), file)) is not file:
            raise AxtuneError(
                f"{other} and {file} have the same name, and would be one file of questions.",
                "Give one of them, or rename it.",
            )
    return files, unscored


def _asked(file: Path) -> list[_Asked]:
    """The rows of a file that ask something."""
    found = {row.line: _Asked(file, row) for row in benchmark_rows(file)}
    for question in read_questions(file):
        found[question.line].questions.append(question)
    return [one for one in found.values() if one.questions]


def _questions(asked: Iterable[_Asked]) -> Iterator[Question]:
    return chain.from_iterable(one.questions for one in asked)


# --- which go together ----------------------------------------------------------------------------


def _groups(asked: Sequence[_Asked]) -> list[int]:
    """The number of each row's group: rows that share what a user says, nearly or through others.

    Rows and texts are the nodes of a graph, and its connected components the groups.
    """
    texts: dict[str, int] = {}
    says: list[tuple[int, int]] = []  # row, text
    for number, one in enumerate(asked):
        for text in {_near_text(text) for text in _user_texts(one)}:
            says.append((number, texts.setdefault(text, len(texts))))
    size = len(asked) + len(texts)
    rows, said = np.array(says, np.int64).reshape(-1, 2).T
    begin, end = _near_pairs(list(texts))
    begin = np.concatenate([rows, begin + len(asked)])
    end = np.concatenate([said, end]) + len(asked)
    graph = csr_array((np.ones(len(begin), bool), (begin, end)), shape=(size, size))
    groups: list[int] = connected_components(graph, directed=False)[1][: len(asked)].tolist()
    return groups


def _user_texts(asked: _Asked) -> Iterator[str]:
    for question in asked.questions:
        for message in question.messages:
            if message["role"] == "user":
                yield str(message["content"])


def _near_text(text: str) -> str:
    """Letters and digits, without case, spaces and punctuation."""
    return _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def _near_pairs(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of texts that are nearly the same, by their numbers."""
    known: dict[str, int] = {}
    grams = [
        (number, known.setdefault(text[at : at + _GRAM], len(known)))
        for number, text in enumerate(texts)
        for at in range(max(1, len(text) - _GRAM + 1))
    ]
    where = np.unique(np.array(grams, np.int64).reshape(-1, 2), axis=0).T  # (2, grams of texts)
    has = csr_array((np.ones(where.shape[1], np.int32), tuple(where)))  # (texts, grams)
    size = np.bincount(where[0], minlength=len(texts))
    both = (has @ has.T).tocoo()  # how many grams two texts share
    one, other = both.coords
    near = both.data >= _NEAR * (size[one] + size[other] - both.data)
    shorter = np.minimum(size[one], size[other])
    near |= (both.data >= _WITHIN * shorter) & (shorter >= _LONG_ENOUGH)
    return one[near].astype(np.int64), other[near].astype(np.int64)


# --- which are held out ---------------------------------------------------------------------------


def held_out_of(text: str) -> float | int:
    """What ``--held-out`` says: a whole number of questions, or a share with a point.

    Raises:
        AxtuneError: When it is neither.
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    raise AxtuneError(f"--held-out {text} is no number.", _SHARE_OR_NUMBER)


def _share(held_out: float | int, questions: int) -> float:
    if isinstance(held_out, int) and 0 < held_out < questions:
        return held_out / questions
    if isinstance(held_out, float) and 0 < held_out < 1:
        return held_out
    raise AxtuneError(
        f"--held-out {held_out} cannot be held out of {plural(questions, 'question')}.",
        _SHARE_OR_NUMBER,
    )


def _draw(asked: Sequence[_Asked], groups: Sequence[int], share: float, seed: int) -> set[int]:
    """The rows that are held out: of each category groups in random order, until it has its share.

    A group counts for the category of its first question. It is taken where that brings the number
    of questions nearer to the share.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)

    def size(rows: Iterable[int]) -> int:
        return sum(len(asked[number].questions) for number in rows)

    strata: dict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        strata[asked[rows[0]].questions[0].category].append(rows)
    draw = random.Random(seed)
    chosen: set[int] = set()
    for stratum in strata.values():
        draw.shuffle(stratum)
        wanted = share * sum(map(size, stratum))
        for rows in stratum:
            if size(rows) / 2 <= wanted:
                chosen.update(rows)
                wanted -= size(rows)
    return chosen


# --- the side that is trained on ------------------------------------------------------------------


def _training_rows(
    questions: Iterable[Question], tokenizer: AxTokenizer, longest: int
) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, int]]:
    """Rows without any fault, with their categories; and how many others there are, by why."""
    left_out: Counter[str] = Counter()
    made: list[tuple[Question, dict[str, Any]]] = []
    for question in questions:
        if question.wanted.decision == "any-call":
            left_out["no-recorded-answer"] += 1
        elif question.wanted.decision == "no-call" and not question.tools:
            left_out["no-tools"] += 1
        elif (answer := answer_of(question)) is None:
            left_out["no-right-answer"] += 1
        else:
            made.append((question, _row(question, answer)))
    options = data_options(["rows"], max_length=longest)
    checked = RowChecker(tokenizer, options).check(
        [Row(question.file, question.line, row) for question, row in made]
    )
    sound = []
    for (question, row), result in zip(made, checked, strict=True):
        if result.faults:
            left_out.update({fault.code for fault in result.faults})
        else:
            sound.append((question.category, row))
    return sound, dict(left_out)


def _row(question: Question, answer: dict[str, Any]) -> dict[str, Any]:
    context = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in question.messages
    ]
    tools = {"tools": list(question.tools)} if question.tools else {}
    return {"messages": [*context, answer], **tools}


def answer_of(question: Question) -> dict[str, Any] | None:
    """The answer that a benchmark calls right, in OpenAI's form; None where nothing is right.

    Args:
        question: That wants calls, a text or no call.
    """
    if question.wanted.decision == "text":
        return {"role": "assistant", "content": question.reference}
    if question.wanted.decision == "no-call":
        return {"role": "assistant", "content": NO_TOOL_FITS}
    try:
        calls = [(call.name, _first(call.arguments)) for call in question.wanted.calls]
    except _NothingRightError:
        return None
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False)},
            }
            for number, (name, given) in enumerate(calls)
        ],
    }


class _NothingRightError(Exception):
    """An argument that is required has no right value."""


def _first(right: Any) -> Any:
    """The first right value: JSON, where `Fields` may stand in it."""
    if isinstance(right, list):
        return [_first(item) for item in right]
    if not isinstance(right, Fields):
        return right
    needed = {name: one for name, one in right.properties.items() if not one.optional}
    return {name: _first(_first_value(one)) for name, one in needed.items()}


def _first_value(argument: Argument) -> Any:
    if not argument.values:
        raise _NothingRightError
    return argument.values[0]


# --- the side that is asked -----------------------------------------------------------------------


def _test_files(held: Sequence[_Asked]) -> Iterator[tuple[str, bytes]]:
    """Names below ``test`` and contents: the benchmark's own lines, and their right answers."""
    by_file: dict[Path, list[_Asked]] = defaultdict(list)
    for one in held:
        by_file[one.file].append(one)
    for file, some in by_file.items():
        name = _test_name(file)
        yield name, _published(file, [one.row for one in some])
        answers = file.parent / POSSIBLE_ANSWER / file.name
        if answers.is_file():
            wanted = {one.row.value.get("id") for one in some}
            rows = [row for row in benchmark_rows(answers) if row.value.get("id") in wanted]
            yield f"{POSSIBLE_ANSWER}/{name}", _published(answers, rows)


def _test_name(file: Path) -> str:
    """A name of plain JSON lines."""
    if data_suffix(file) == file.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return file.name
    return f"{file.name.split('.')[0]}.jsonl"


def _published(file: Path, rows: Sequence[Row]) -> bytes:
    """Rows as they stand in a file of JSON lines, byte for byte; of another file, their JSON."""
    lines = file.read_bytes().split(b"\n")

    def line(row: Row) -> bytes:
        try:
            if json.loads(lines[row.line - 1]) == row.value:
                return lines[row.line - 1].rstrip(b"\r")
        except (ValueError, IndexError):
            pass
        return json.dumps(row.value, ensure_ascii=False).encode()

    return _lines(map(line, rows))


def _lines(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
