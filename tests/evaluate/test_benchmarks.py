"""The field's files as they are published, and their own checkers' verdicts as ours.

BFCL's checker comes from the package ``bfcl-eval``, unpacked and not installed:
``pip download --no-deps bfcl-eval`` and unzip the wheel; ``AXTUNE_BFCL`` names the folder. Tests
that need it are skipped without.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from axtune.data.native_calls import Answer
from axtune.errors import DataError
from axtune.evaluate.benchmarks import Question, bfcl_text, read_questions
from axtune.evaluate.score import Verdict, score

Calls = list[tuple[str, dict[str, Any]]]

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


def judged(question: Question, calls: Calls, content: str = "") -> Verdict:
    """The verdict on calls."""
    items = [
        {
            "id": "1",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for name, arguments in calls
    ]
    return score(Answer(content, items), question.wanted, question.tools, question.rules)


# --- BFCL's own checker ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bfcl() -> Iterator[Path]:
    """The folder of the unpacked package, importable, without the clients of every provider."""
    default = Path(tempfile.gettempdir()) / "bfcl" / "x"
    folder = Path(os.environ.get("AXTUNE_BFCL", default))
    if not (folder / "bfcl_eval").is_dir():
        pytest.skip(f"there is no unpacked bfcl-eval in {folder} (AXTUNE_BFCL)")
    before = set(sys.modules)
    models = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"m": SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))
    sys.modules[models.__name__] = models
    try:
        yield folder / "bfcl_eval"
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.startswith("bfcl_eval"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def own_checker(bfcl: Path) -> Callable[[dict[str, Any], list[Any], Calls], bool]:
    """BFCL's verdict on calls: question and right answers as published, then the calls."""
    checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker
    python = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON

    def verdict(row: dict[str, Any], truth: list[Any], calls: Calls) -> bool:
        said = [{name: copy.deepcopy(arguments)} for name, arguments in calls]
        category = row["id"].rpartition("_")[0]
        return bool(checker(row["function"], said, truth, python, category, "m")["valid"])

    return verdict


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


def bfcl_rows(bfcl: Path, category: str) -> Iterator[tuple[Question, dict[str, Any], list[Any]]]:
    path = bfcl / "data" / f"BFCL_v4_{category}.json"
    truths = path.parent / "possible_answer" / path.name
    lines = zip(
        path.read_text("utf-8").splitlines(), truths.read_text("utf-8").splitlines(), strict=True
    )
    for question, (row, truth) in zip(read_questions(path), lines, strict=True):
        yield question, json.loads(row), json.loads(truth)["ground_truth"]


# Where BFCL's checker and ours part, by what was done to the answer. All but the first are its
# shortcuts, which its authors state in comments or which follow from Python's ``==``.
EXPLAINED = {
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


def test_bfcls_own_checker_says_the_same(
    bfcl: Path, own_checker: Callable[[dict[str, Any], list[Any], Calls], bool]
) -> None:
    dice = random.Random(13)
    verdicts: Counter[bool] = Counter()
    differences: Counter[str] = Counter()
    for category in ANSWERED:
        for question, row, truth in list(bfcl_rows(bfcl, category))[::3]:
            for what, calls in mutated(row, truth, dice):
                theirs = own_checker(row, truth, calls)
                verdicts[theirs] += 1
                if judged(question, calls).right != theirs:
                    differences[what] += 1
    assert min(verdicts.values()) > 5000
    assert differences.total() <= 0.002 * verdicts.total(), differences
    assert set(differences) <= EXPLAINED


def test_strings_are_as_bfcl_makes_them(
    bfcl: Path, own_checker: Callable[[dict[str, Any], list[Any], Calls], bool]
) -> None:
    theirs = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
    for text in ("April 1, 2024", "it's", "a_b-c.d/e^f*g", "서울 강남구", "\tÉ"):
        assert bfcl_text(text) == theirs.standardize_string(text)


def test_irrelevance_and_relevance_of_bfcl(bfcl: Path) -> None:
    for category, calls_are_right in (
        ("irrelevance", False),
        ("live_irrelevance", False),
        ("live_relevance", True),
    ):
        questions = list(read_questions(bfcl / "data" / f"BFCL_v4_{category}.json"))
        assert questions
        for question in questions:
            called = [(question.tools[0]["function"]["name"], {})] if question.tools else []
            assert judged(question, called).right == (calls_are_right == bool(called))
            assert judged(question, [], "미안해요").right == (not calls_are_right)


# --- Files of the same form -----------------------------------------------------------------------

FUNCTION = {
    "name": "math.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float", "description": "Base."},
            "sides": {"type": "tuple", "items": {"type": "integer"}, "description": "Sides."},
            "options": {
                "type": "dict",
                "properties": {"unit": {"type": "string"}},
                "description": "O.",
            },
            "anything": {"type": "any", "description": "A."},
        },
        "required": ["base"],
    },
}
POSSIBLE = {
    "base": [5, 5.5],
    "sides": ["", [1, 2]],
    "options": [{"unit": ["cm", "centimetre", ""]}, ""],
    "anything": [""],
}


def bfcl_files(folder: Path, *, identity: str = "simple_python_0", answered: bool = True) -> Path:
    path = folder / "BFCL_v4_simple_python.json"
    asked = [[{"role": "user", "content": "Area?"}]]
    path.write_text(json.dumps({"id": identity, "question": asked, "function": [FUNCTION]}))
    if answered:
        (folder / "possible_answer").mkdir()
        truth = {"id": identity, "ground_truth": [{"math.area": POSSIBLE}]}
        (folder / "possible_answer" / path.name).write_text(json.dumps(truth))
    return path


def test_a_question_of_bfcl(tmp_path: Path) -> None:
    (question,) = read_questions(bfcl_files(tmp_path))
    assert (question.id, question.category) == ("simple_python_0", "simple_python")
    assert question.messages == [{"role": "user", "content": "Area?"}]
    properties = question.tools[0]["function"]["parameters"]["properties"]
    assert question.tools[0]["function"]["parameters"]["type"] == "object"
    types = {name: schema.get("type") for name, schema in properties.items()}
    assert types == {"base": "number", "sides": "array", "options": "object", "anything": None}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"base": 5}, None),
        ({"base": 5.0}, None),
        ({"base": 5.5, "sides": [1, 2], "options": {"unit": "C.M"}}, None),
        ({"base": 5, "sides": []}, None),
        ({"base": 5, "options": {}}, None),
        ({"base": 5, "anything": ""}, None),
        ({}, "missing-argument"),
        ({"base": 6}, "wrong-value"),
        ({"base": "5"}, "wrong-type"),
        ({"base": True}, "wrong-type"),
        ({"base": 5, "sides": [2, 1]}, "wrong-value"),
        ({"base": 5, "sides": [1.0, 2]}, "wrong-value"),
        ({"base": 5, "options": {"unit": "cm", "more": 1}}, "wrong-value"),
        ({"base": 5, "other": 1}, "unexpected-argument"),
    ],
)
def test_answers_to_a_question_of_bfcl(
    tmp_path: Path, arguments: dict[str, Any], reason: str | None
) -> None:
    (question,) = read_questions(bfcl_files(tmp_path))
    assert judged(question, [("math.area", arguments)]).reason == reason


def test_answers_may_stand_elsewhere(tmp_path: Path) -> None:
    path = bfcl_files(tmp_path)
    answers = (tmp_path / "possible_answer").rename(tmp_path / "elsewhere") / path.name
    assert [question.id for question in read_questions(path, answers)] == ["simple_python_0"]


@pytest.mark.parametrize(
    ("identity", "answered"),
    [("simple_python_0", False), ("simple_java_0", True), ("multi_turn_base_0", False)],
)
def test_what_cannot_be_scored_is_named(tmp_path: Path, identity: str, answered: bool) -> None:
    path = bfcl_files(tmp_path, identity=identity, answered=answered)
    with pytest.raises(DataError) as refused:
        list(read_questions(path))
    (fault,) = refused.value.faults
    assert (fault.file, fault.line, fault.code) == (str(path), 1, "not-scored")


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[1]",
        "{}",
        '{"question": [], "function": [], "id": "multiple_0"}',
        '{"question": 1, "function": "비밀", "id": 3}',
        '{"turns": [{}]}',
        '{"turns": 1, "비밀": 1}',
        '{"input_messages": []}',
        '{"function_num": 1, "query": [], "ground_truth": [{}], "acceptable_arguments": []}',
    ],
)
def test_other_files_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(row, "utf-8")
    with pytest.raises(DataError) as refused:
        list(read_questions(path))
    assert "비밀" not in str(refused.value)


# --- FunctionChat-Bench ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def functionchat(shared: Path) -> list[Question]:
    """All questions of the three files."""
    files = sorted((shared / "functionchat").glob("*.jsonl"))
    if not files:
        pytest.skip("there is no FunctionChat-Bench beside the checkout")
    return [question for file in files for question in read_questions(file)]


def ground_truth(question: Question) -> Calls:
    return [
        (call.name, {name: one.values[0] for name, one in call.arguments.properties.items()})
        for call in question.wanted.calls
    ]


def test_functionchats_turns(functionchat: list[Question]) -> None:
    assert len({question.id for question in functionchat}) == len(functionchat)
    wanted = Counter(
        (question.category.rpartition("_")[0], question.wanted.decision)
        for question in functionchat
        if not question.category.startswith("single")
    )
    assert wanted["dialog", "calls"] == 7
    assert wanted["call_decision", "calls"] == 50
    assert wanted["call_decision", "text"] == 253
    assert sum(question.category.startswith("single") for question in functionchat) == 300


def test_functionchats_exact_match(functionchat: list[Question]) -> None:
    widened = 0
    for question in functionchat:
        if question.wanted.decision != "calls":
            continue
        right = ground_truth(question)
        assert judged(question, right).right, question.id
        ((name, arguments),) = right
        for argument, one in question.wanted.calls[0].arguments.properties.items():
            for value in one.values[1:]:
                widened += 1
                assert judged(question, [(name, {**arguments, argument: value})]).right
            kept = {key: value for key, value in arguments.items() if key != argument}
            assert judged(question, [(name, kept)]).reason == "missing-argument"
            value = arguments[argument]
            wrong = not value if isinstance(value, bool) else f"{value}?"
            assert not judged(question, [(name, {**arguments, argument: wrong})]).right
            assert not judged(question, [(name, {**arguments, argument: [value]})]).right
            if isinstance(value, str):
                spaced = {**arguments, argument: f" {value.upper()} "}
                assert judged(question, [(name, spaced)]).right
        assert judged(question, [(name, {**arguments, "x": 1})]).reason == "unexpected-argument"
        assert judged(question, [("다른", arguments)]).reason == "wrong-tool"
        assert judged(question, right * 2).reason == "number-of-calls"
        assert judged(question, [], "네").reason == "no-call"
    assert widened > 100


def test_functionchats_texts_are_counted_apart(functionchat: list[Question]) -> None:
    texts = [question for question in functionchat if question.wanted.decision == "text"]
    assert texts
    for question in texts:
        said = judged(question, [], "네, 도와드릴게요.")
        assert (said.decision, said.right, said.reason) == (True, False, "not-judged")
        called = judged(question, [(question.tools[0]["function"]["name"], {})])
        assert (called.decision, called.right, called.reason) == (False, False, "unwanted-call")


def test_acceptable_arguments_in_every_form(tmp_path: Path) -> None:
    def question(acceptable: Any) -> Question:
        call = {"name": "f", "arguments": '{"a": "서울", "b": null}'}
        row = {
            "serial_num": 1,
            "category": "CALL",
            "input_messages": [{"role": "user", "content": "서울 날씨"}],
            "input_tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "type_of_output": "call",
            "ground_truth": {"role": "assistant", "tool_calls": [{"function": call}]},
            "acceptable_arguments": acceptable,
        }
        path = tmp_path / "file.jsonl"
        path.write_text(json.dumps(row), "utf-8")
        return next(read_questions(path))

    for acceptable in ('{"a": ["Seoul", "SEL"]}', {"a": "Seoul"}, '{"a": "Seoul", "z": 1}'):
        assert judged(question(acceptable), [("f", {"a": "seoul", "b": None})]).right
    for acceptable in (None, "Only ground truth is allowed.", '"Seoul"', "[]"):
        assert not judged(question(acceptable), [("f", {"a": "Seoul", "b": None})]).right
        assert judged(question(acceptable), [("f", {"a": "서울"})]).right  # null and absent are one
