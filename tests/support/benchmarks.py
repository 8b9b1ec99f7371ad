"""The benchmarks' own verdicts beside ours, on right answers and on wrong ones.

Their code is imported from folders of its own, unpacked and not installed, without the clients of
providers that it loads on the way.
"""

from __future__ import annotations

import copy
import importlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from axtune.data.native_calls import Answer
from axtune.evaluate.benchmarks import Question, read_questions
from axtune.evaluate.score import Verdict, score

Calls = list[tuple[str, dict[str, Any]]]
BfclChecker = Callable[[dict[str, Any], list[Any], Calls], bool]
ExactMatch = Callable[[dict[str, Any], Calls], bool]

ANSWERED = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)


class Judged(NamedTuple):
    """Two verdicts on an answer.

    Attributes:
        what: What was done to the right answer.
        theirs: Whether the benchmark calls it right.
        ours: Whether axtune does.
        published: Whether axtune says that the benchmark's program does, where they part.
    """

    what: str
    theirs: bool
    ours: bool
    published: bool | None = None


def judged(question: Question, calls: Calls, content: str = "") -> Verdict:
    """The verdict on calls."""
    answer = Answer(content, as_items(calls))
    return score(answer, question.wanted, question.tools, question.rules)


def as_items(calls: Calls) -> list[dict[str, Any]]:
    """Calls in OpenAI's form."""
    return [
        {
            "id": "1",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in calls
    ]


@contextmanager
def importable(folder: Path, stubs: dict[str, ModuleType]) -> Iterator[None]:
    """Modules of a folder can be imported; `stubs` stand for those that would load too much."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.update(stubs)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        roots = {name.partition(".")[0] for name in stubs}
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in roots:
                del sys.modules[name]


# --- BFCL -----------------------------------------------------------------------------------------


@contextmanager
def bfcl_checker(folder: Path) -> Iterator[BfclChecker]:
    """BFCL's verdict on calls: question and right answers as published, then the calls.

    Args:
        folder: Of the unpacked package bfcl-eval.
    """
    models = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"m": SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    with importable(folder, {models.__name__: models}):
        checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker
        python = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON

        def verdict(row: dict[str, Any], truth: list[Any], calls: Calls) -> bool:
            said = [{name: copy.deepcopy(arguments)} for name, arguments in calls]
            category = row["id"].rpartition("_")[0]
            return bool(checker(row["function"], said, truth, python, category, "m")["valid"])

        yield verdict


def judge_bfcl(data: Path, checker: BfclChecker, *, each: int, seed: int = 13) -> Iterator[Judged]:
    """Verdicts on many answers to every so-manyth question that has a right one.

    Args:
        data: BFCL's folder of questions.
        checker: Of `bfcl_checker`.
        each: 3 for every third question.
        seed: Of where an answer is changed.
    """
    dice = random.Random(seed)
    for category in ANSWERED:
        for question, row, truth in list(bfcl_rows(data, category))[::each]:
            for what, calls in mutated(row, truth, dice):
                yield Judged(what, checker(row, truth, calls), judged(question, calls).right)


def bfcl_rows(data: Path, category: str) -> Iterator[tuple[Question, dict[str, Any], list[Any]]]:
    """Questions as axtune reads them, with their rows and right answers as published."""
    path = data / f"BFCL_v4_{category}.json"
    truths = path.parent / "possible_answer" / path.name
    lines = zip(
        path.read_text("utf-8").splitlines(), truths.read_text("utf-8").splitlines(), strict=True
    )
    for question, (row, truth) in zip(read_questions(path), lines, strict=True):
        yield question, json.loads(row), json.loads(truth)["ground_truth"]


def first_right(truth: list[Any]) -> Calls:
    """The first answer that the possible answers allow, with what may be left out where they say
    a value for it.
    """

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            chosen = {
                key: next((v for v in some if v != ""), "") if isinstance(some, list) else some
                for key, some in value.items()
            }
            return {key: one for key, one in chosen.items() if one != "" or "" not in value[key]}
        if isinstance(value, list):
            return [value_of(item) if isinstance(item, dict) else item for item in value]
        return value

    calls = []
    for call in truth:
        ((name, possible),) = call.items()
        arguments = {}
        for argument, values in possible.items():
            stated = [value for value in values if value != ""]
            if stated:
                arguments[argument] = value_of(stated[0])
        calls.append((name, arguments))
    return calls


def mutated(
    row: dict[str, Any], truth: list[Any], dice: random.Random
) -> Iterator[tuple[str, Calls]]:
    """Answers to a question, right ones and wrong ones, each with what was done to it."""
    right = first_right(truth)
    yield "right", right
    yield "swapped order", right[::-1]
    yield "extra call", [*right, right[0]]
    yield "missing call", right[1:]
    other = next((f["name"] for f in row["function"] if f["name"] != right[0][0]), "other")
    yield "wrong name", [(other, right[0][1]), *right[1:]]

    def changed(name: str, value: Any) -> Calls:
        arguments = dict(right[at][1])
        arguments[name] = value
        return [*right[:at], (right[at][0], arguments), *right[at + 1 :]]

    at = dice.randrange(len(right))
    name, arguments = right[at]
    possible = truth[at][name]
    yield "unknown argument", changed("unknown_argument", 1)
    for argument in possible:
        kept = {key: value for key, value in arguments.items() if key != argument}
        yield "left out", [*right[:at], (name, kept), *right[at + 1 :]]
        yield "null", changed(argument, None)
        yield "empty text", changed(argument, "")
        yield "empty list", changed(argument, [])
        for value in possible[argument]:
            if not isinstance(value, (dict, list)):
                yield "alternative", changed(argument, value)
    for argument, value in arguments.items():
        yield "in a list", changed(argument, [value])
        for what, other_value in mutations(value, dice):
            yield what, changed(argument, other_value)


def mutations(value: Any, dice: random.Random) -> Iterator[tuple[str, Any]]:
    """A value, with something done to it: all of it or, in a list or an object, a part."""
    if isinstance(value, bool):
        yield "wrong value", not value
        yield "other type", int(value)
        yield "other type", str(value)
    elif isinstance(value, int):
        yield "wrong value", value + 1
        yield "other type", str(value)
        yield "float for int", float(value)
    elif isinstance(value, float):
        yield "wrong value", value + 1
        yield "other type", str(value)
        yield "int for float", int(value)
    elif isinstance(value, str):
        yield "wrong value", value + " x"
        yield "case", value.upper()
        yield "punctuation", value.replace(" ", "-") + "."
        yield "outer space", f" {value} "
        yield "other type", 7
    elif isinstance(value, list):
        yield "wrong value", [*value, *value[:1]]
        yield "reversed", value[::-1]
        if value:
            at = dice.randrange(len(value))
            for what, other in mutations(value[at], dice):
                yield f"{what} inside", [*value[:at], other, *value[at + 1 :]]
    elif isinstance(value, dict):
        yield "reversed", dict(reversed(value.items()))
        yield "unknown key", {**value, "unknown_key": 1}
        if value:
            key = dice.choice(list(value))
            yield "left out inside", {name: one for name, one in value.items() if name != key}
            for what, other in mutations(value[key], dice):
                yield f"{what} inside", {**value, key: other}


# Where BFCL's checker and ours part, by what was done to the answer. All but the first are its
# shortcuts, which its authors state in comments or which follow from Python's ``==``.
BFCL_PARTS = {
    # It takes the first call that fits and never looks back; ours finds the assignment that fits.
    "swapped order",
    # A string where another type is declared ("dontcare" for an integer) is compared letter by
    # letter; ours compares every string by the benchmark's rule.
    "case",
    "punctuation",
    "outer space",
    # So is a string in a list in an object, which its checks do not reach.
    "case inside inside",
    "punctuation inside inside",
    "outer space inside inside",
    # In an object and in a nested list it compares by ``==``: 5.0 is right for an integer there,
    # though not elsewhere.
    "float for int inside",
    "float for int inside inside",
    # ... and in a list of floats each item needs the type of the list's first right value: 5 is not
    # right for 5.0 there, though it is elsewhere.
    "int for float inside",
    # ... and 1 is right for true, in an object alone.
    "other type inside",
}


# --- FunctionChat-Bench ---------------------------------------------------------------------------


@contextmanager
def functionchat_match(folder: Path) -> Iterator[ExactMatch]:
    """FunctionChat-Bench's exact match of calls: a turn as its program sees it, then the calls.

    Args:
        folder: Of its repository.
    """
    loaded = ("utils", "openai_utils", "api_executor", "formatter", "evaluation_registor")
    stubs = {f"src.{name}": _Anything(f"src.{name}") for name in loaded}
    with importable(folder, dict(stubs)):
        handler = importlib.import_module("src.evaluation_handler").EvaluationHandler
        alone = handler.__new__(handler)  # without its settings and its judge

        def verdict(turn: dict[str, Any], calls: Calls) -> bool:
            try:
                alone.get_acceptable_arguments(turn)
            except ValueError:  # where its program stops: no JSON, and no sentence that it knows
                turn = {**turn, "acceptable_arguments": None}
            return bool(alone.exact_match(turn, {"tool_calls": as_items(calls)})[0])

        yield verdict


class _Anything(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def judge_functionchat(files: list[Path], match: ExactMatch) -> Iterator[Judged]:
    """Verdicts on many answers to every turn that wants a call.

    Args:
        files: Dialog, Singlecall and CallDecision, as they are published.
        match: Of `functionchat_match`.
    """
    for file in files:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        turns = [turn for row in rows for turn in _turns(row)]
        for question, turn in zip(read_questions(file), turns, strict=True):
            if question.wanted.decision != "calls":
                continue
            acceptable = _acceptable(turn["acceptable_arguments"])
            for what, calls in _answers(question, acceptable):
                assert question.published is not None
                as_published = question.published(Answer("", as_items(calls)))
                ours = judged(question, calls).right
                yield Judged(what, match(turn, calls), ours, as_published)


def _turns(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The questions of a row, as the benchmark's program hands them to its exact match."""
    if "turns" in row:
        yield from row["turns"]
    elif "input_messages" in row:
        yield row
    else:
        for truth, more in zip(row["ground_truth"], row["acceptable_arguments"], strict=True):
            for _ in row["tools"]:
                yield {
                    "type_of_output": "call",
                    "ground_truth": json.loads(truth["content"]),
                    "acceptable_arguments": more["content"],
                }


def _acceptable(given: Any) -> dict[str, str]:
    """What its program does with the further right values of an argument, where that is odd."""
    if isinstance(given, dict):
        return dict.fromkeys(given, ", of an object")
    try:
        found = json.loads(given)
    except (TypeError, ValueError):  # nothing, or a sentence for the judge
        return {}
    return {
        name: ", beside a number"
        for name, values in found.items()
        if not isinstance(values, (list, str))
    }


def _answers(question: Question, odd: dict[str, str]) -> Iterator[tuple[str, Calls]]:
    """Answers to a question, right ones and wrong ones, each with what was done to it.

    Args:
        question: That wants one call.
        odd: Added to what was done to some arguments.
    """
    (call,) = question.wanted.calls
    name, wanted = call.name, call.arguments.properties
    right = {argument: one.values[0] for argument, one in wanted.items()}
    yield "right", [(name, right)]
    yield "no call", []
    yield "extra call", [(name, right), (name, right)]
    yield "wrong name", [("다른", right)]
    yield "unknown argument", [(name, {**right, "unknown_argument": 1})]
    for argument, one in wanted.items():

        def changed(what: str, value: Any, argument: str = argument) -> tuple[str, Calls]:
            return what + odd.get(argument, ""), [(name, {**right, argument: value})]

        kept = {key: value for key, value in right.items() if key != argument}
        yield "left out" + odd.get(argument, ""), [(name, kept)]
        yield changed("null", None)
        yield changed("in a list", [right[argument]])
        for value in one.values[1:]:
            yield changed("alternative", value)
        for what, other in mutations(right[argument], random.Random(0)):
            yield changed(what, other)


# Where its exact match and ours part.
FUNCTIONCHAT_PARTS = {
    # It looks at the first call alone.
    "extra call",
    # Python's 1 is True.
    "other type",
    # Where a number is acceptable, and not a text or a list, it takes every value; ours the number.
    "left out, beside a number",
    "null, beside a number",
    "in a list, beside a number",
    "wrong value, beside a number",
    "other type, beside a number",
    # Its program stops where acceptable_arguments is an object, and not the JSON text of one.
    "alternative, of an object",
}
