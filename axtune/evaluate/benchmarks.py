"""Benchmarks of the field, read from their files as they are published.

**BFCL** (the Berkeley Function-Calling Leaderboard, v4): the categories that need no execution, in
Python's types. A file of questions has its right answers in ``possible_answer`` beside it, under
the same name. Its rules, as its own checker has them:

- Strings are equal without space, ``,./-_*^`` and case, and with ``'`` for ``"``.
- Every argument lists its right values; ``""`` among them says that it may be left out, if it is
  not required. Then an empty list and an empty string are right as well. Defaults say nothing.
- 5 is right for 5.0 where the schema says float. 5.0 is not right for 5.
- A value has the declared type or the type of the first right value; right values of another type
  are never met.
- ``irrelevance`` wants no call, ``live_relevance`` any call.

**FunctionChat-Bench** (Kakao): Dialog, Singlecall and CallDecision. Turns of type ``call`` are held
against its exact-match rule; others (slot, relevance, completion) are texts, which it gives to a
judge. Strings are equal without spaces and case, and ``acceptable_arguments`` adds right values;
where it is a sentence for the judge, it adds none. Defaults say nothing. Unlike the benchmark's
program, true is not 1, a call behind the first one is not overlooked, and where a number is
acceptable it is that number and not every value. The system prompt that its program puts before
Dialog and Singlecall is not in its files, and not in these questions.

Questions are of one cluster (`axtune.evaluate.intervals`) where they are of one dialog, or of one
function of Singlecall, which are a line each. BFCL and CallDecision have a line for each question,
and ask some again with other tools: those in which the user says the same belong together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from axtune.config.recipe import Source
from axtune.data.literals import parse_json
from axtune.data.native_calls import Answer
from axtune.data.readers import read_rows
from axtune.data.rows import Row
from axtune.data.sources import files_of
from axtune.data.tools import as_json_schema
from axtune.errors import DataError, Fault
from axtune.evaluate.questions import Question
from axtune.evaluate.score import Argument, Fields, Rules, Wanted, WantedCall, wanted_of
from axtune.units import plural

POSSIBLE_ANSWER = "possible_answer"  # BFCL's folder of right answers, beside its questions

_LONGEST_LINE = 64_000_000

_BFCL_PUNCTUATION = re.compile(r"[ ,./\-_*^]")
_BFCL_CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
_BFCL_FILE = re.compile(r"BFCL_v\d+_(\w+)\.jsonl?")
# Folders of a copy of BFCL that hold no questions, but what some are made of and scored by.
_BFCL_BESIDE = (
    POSSIBLE_ANSWER,
    "multi_turn_func_doc",
    "memory_prereq_conversation",
    "executable_eval_sanity_check",
)
_BFCL_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_AS_PUBLISHED = "Give the file as the benchmark publishes it."
_OTHER_FILES = f"Give files of {', '.join(_BFCL_CATEGORIES)}, or the folder: it is left out there."
_ELSEWHERE = "its category is scored by execution or in another language than Python"
_LEFT_OUT = ""  # among the right values of an argument: it may be left out


def bfcl_text(text: str) -> str:
    """A string as BFCL compares it (its ``standardize_string``)."""
    return _BFCL_PUNCTUATION.sub("", text).lower().replace("'", '"')


def functionchat_text(text: str) -> str:
    """A string as FunctionChat-Bench compares it."""
    return text.replace(" ", "").lower()


BFCL = Rules(text=bfcl_text, defaults=False, integral_floats=False)
FUNCTIONCHAT = Rules(text=functionchat_text, defaults=False)


_BFCL_KEYS = {"id", "question", "function"}
_FUNCTIONCHAT_KEYS = ({"dialog_num", "turns"}, {"input_messages", "serial_num"},
                      {"function_num", "query"})  # fmt: skip


def is_benchmark(path: Path) -> bool:
    """Whether a file is of a benchmark that `read_questions` reads, or names why it does not."""
    if _unscored(path):
        return True
    first = next(read_rows(path, max_line_bytes=_LONGEST_LINE), None)
    keys = set(first.value) if first and isinstance(first.value, dict) else set()
    return any(known <= keys for known in (_BFCL_KEYS, *_FUNCTIONCHAT_KEYS))


def is_answers(path: Path) -> bool:
    """Whether a file holds BFCL's right answers to a file beside its folder, and asks nothing."""
    return path.parent.name == POSSIBLE_ANSWER and (path.parent.parent / path.name).is_file()


def asked_files(sources: Iterable[Source]) -> tuple[list[Path], Counter[str]]:
    """The files that ask something, without right answers and what is not scored here.

    Of a folder of BFCL, the categories that are not scored are left out; a file that is named is
    wanted, and refused where it is read.

    Args:
        sources: Conversations or benchmarks.

    Returns:
        The files, and how many questions are left out by BFCL's categories.

    Raises:
        AxtuneError: When there is no such file.
    """
    asked: list[Path] = []
    left_out: Counter[str] = Counter()
    for source in sources:
        files = files_of(source)
        if files != [Path(source.path).expanduser()]:
            files = _scored(files, left_out)
        asked += [file for file in files if not is_answers(file)]
    return asked, +left_out


def require_scored(files: Iterable[Path]) -> None:
    """Stop at files of BFCL that were named and are not scored here, at all of them together.

    Raises:
        DataError: When there are such.
    """
    faults = [
        Fault(str(file), 1, "not-scored", f"{_ELSEWHERE}.") for file in files if _unscored(file)
    ]
    if faults:
        raise DataError("A benchmark's file cannot be read.", faults, _OTHER_FILES)


def _scored(files: Sequence[Path], left_out: Counter[str]) -> list[Path]:
    """Of the files of a folder those that are no part of BFCL that is not scored."""
    is_bfcl = any(_BFCL_FILE.fullmatch(file.name) for file in files)
    kept = []
    for file in files:
        if is_bfcl and file.parent.name in _BFCL_BESIDE:
            continue
        if category := _unscored(file):
            rows = read_rows(file, max_line_bytes=_LONGEST_LINE)
            left_out[category] += sum(row.fault is None for row in rows)
        else:
            kept.append(file)
    return kept


def _unscored(path: Path) -> str | None:
    """The category of a file of BFCL that is not scored here, by its name; None of others."""
    found = _BFCL_FILE.fullmatch(path.name)
    return found[1] if found and found[1] not in _BFCL_CATEGORIES else None


def unscored_in_words(left_out: Mapping[str, int]) -> str:
    """What `asked_files` left out, a sentence."""
    return (
        f"{plural(sum(left_out.values()), 'question')} of BFCL left out, of categories that are "
        "scored by execution or in another language than Python: "
        f"{', '.join(f'{category} {count:,}' for category, count in left_out.items())}."
    )


def benchmark_rows(path: Path) -> Iterator[Row]:
    """The rows of a benchmark's file, each an object.

    Raises:
        DataError: When one cannot be read.
    """
    for row in read_rows(path, max_line_bytes=_LONGEST_LINE):
        _object(row)
        yield row


def read_questions(path: Path, answers: Path | None = None) -> Iterator[Question]:
    """The questions of a benchmark's file, which its rows tell.

    Args:
        path: Of BFCL or FunctionChat-Bench.
        answers: BFCL's right answers; None for ``possible_answer/NAME`` beside the file.

    Raises:
        DataError: When a row cannot be read, is of no benchmark that is known, or has no answer.
    """
    require_scored([path])
    known: dict[str, list[Any]] | None = None
    for row in benchmark_rows(path):
        value = row.value
        try:
            if "function" in value and "question" in value:
                if known is None:
                    known = _bfcl_answers(answers or path.parent / POSSIBLE_ANSWER / path.name)
                found: Iterable[Question] = [_bfcl(value, known)]
            elif "turns" in value:
                found = _dialog(value)
            elif "input_messages" in value:
                found = [_call_decision(value)]
            elif "function_num" in value:
                found = _single_call(value)
            else:
                raise ValueError("it is of neither BFCL nor FunctionChat-Bench")
            for question in found:
                cluster = question.cluster or f"{row.file}:{row.line}"
                yield replace(question, file=row.file, line=row.line, cluster=cluster)
        except _Unanswered as unanswered:
            raise _refused(row, "not-scored", str(unanswered), unanswered.remedy) from None
        except (LookupError, TypeError, AttributeError, ValueError):
            text = "it has not the form of a question of BFCL v4 or FunctionChat-Bench"
            raise _refused(row, "bad-question", text) from None


def _object(row: Row) -> dict[str, Any]:
    if row.fault is not None:
        raise DataError("A benchmark's file cannot be read.", [row.fault])
    if not isinstance(row.value, dict):
        raise _refused(row, "bad-question", "a row is an object")
    return row.value


def _refused(row: Row, code: str, message: str, remedy: str = _AS_PUBLISHED) -> DataError:
    return DataError(
        "A benchmark's file cannot be read.",
        [Fault(row.file, row.line, code, f"{message}.")],
        remedy,
    )


# --- BFCL -----------------------------------------------------------------------------------------


class _Unanswered(Exception):
    """A question that cannot be scored.

    Args:
        message: Why not.
        remedy: What to do.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy or _AS_PUBLISHED


def _bfcl_answers(path: Path) -> dict[str, list[Any]]:
    """The right answers by question; none where there is no such file."""
    if not path.is_file():
        return {}
    return {row.value["id"]: row.value["ground_truth"] for row in benchmark_rows(path)}


def _bfcl(row: Mapping[str, Any], answers: Mapping[str, list[Any]]) -> Question:
    category = row["id"].rpartition("_")[0]
    if category not in _BFCL_CATEGORIES:
        raise _Unanswered(_ELSEWHERE, _OTHER_FILES)
    functions = {function["name"]: function for function in row["function"]}
    if category.endswith("irrelevance"):
        wanted = Wanted("no-call")
    elif category.endswith("relevance"):
        wanted = Wanted("any-call")
    elif row["id"] in answers:
        calls = [_bfcl_call(call, functions) for call in answers[row["id"]]]
        wanted = Wanted("calls", tuple(calls))
    else:
        raise _Unanswered("its right answer is missing; expected it in possible_answer, by its id")
    tools = [{"type": "function", "function": as_json_schema(one)} for one in row["function"]]
    (messages,) = row["question"]
    cluster = _said(messages)
    return Question(row["id"], category, messages, tools, wanted, BFCL, cluster=cluster)


def _said(messages: Sequence[Mapping[str, Any]]) -> str:
    """All that the user says."""
    return "\n".join(str(one["content"]) for one in messages if one["role"] == "user")


def _bfcl_call(call: Mapping[str, Any], functions: Mapping[str, Any]) -> WantedCall:
    ((name, possible),) = call.items()
    parameters = functions[name]["parameters"]
    required = parameters["required"]
    # What is required and has no right value is never right; nor is what the tool does not know.
    nothing = {name: Argument(()) for name in required if name not in possible}
    arguments = {
        argument: _bfcl_argument(values, parameters["properties"].get(argument), required, argument)
        for argument, values in possible.items()
    }
    return WantedCall(name, Fields(arguments | nothing))


def _bfcl_argument(values: list[Any], schema: Any, required: list[str], name: str) -> Argument:
    optional = _LEFT_OUT in values and name not in required
    if schema is None:
        return Argument((), optional)
    declared = _BFCL_TYPES[schema["type"]]
    first = next((type(value) for value in values if value != _LEFT_OUT), declared)
    types = {declared, first} | ({int} if declared is float else set())
    right = [_bfcl_value(value) for value in values if type(value) in types]
    if _LEFT_OUT in values and declared is list:
        right.append([])
    return Argument(tuple(right), optional)


def _bfcl_value(value: Any) -> Any:
    """A right value; an object's properties have several each, in a list of objects too."""
    if isinstance(value, list):
        return [_bfcl_value(item) if isinstance(item, dict) else item for item in value]
    if isinstance(value, dict) and all(isinstance(values, list) for values in value.values()):
        return Fields(
            {name: Argument(tuple(some), _LEFT_OUT in some) for name, some in value.items()}
        )
    return value


# --- FunctionChat-Bench ---------------------------------------------------------------------------


def _dialog(row: Mapping[str, Any]) -> Iterator[Question]:
    for turn in row["turns"]:
        yield Question(
            id=f"dialog_{row['dialog_num']}_{turn['turn_num']}",
            category=f"dialog_{turn['type_of_output']}",
            messages=turn["query"],
            tools=row["tools"],
            wanted=_accepting(wanted_of(turn["ground_truth"]), turn["acceptable_arguments"]),
            published=_published(turn["ground_truth"], turn["acceptable_arguments"]),
            rules=FUNCTIONCHAT,
            reference=turn["ground_truth"].get("content") or "",
        )


def _call_decision(row: Mapping[str, Any]) -> Question:
    return Question(
        id=f"call_decision_{row['serial_num']}",
        category=f"call_decision_{row['category']}",
        messages=row["input_messages"],
        tools=row["input_tools"],
        wanted=_accepting(wanted_of(row["ground_truth"]), row["acceptable_arguments"]),
        published=_published(row["ground_truth"], row["acceptable_arguments"]),
        rules=FUNCTIONCHAT,
        reference=row["ground_truth"].get("content") or "",
        cluster=_said(row["input_messages"]),
    )


def _single_call(row: Mapping[str, Any]) -> Iterator[Question]:
    """Each question with every choice of tools."""
    asked = zip(row["query"], row["ground_truth"], row["acceptable_arguments"], strict=True)
    for query, truth, acceptable in asked:
        message = {"tool_calls": [{"function": parse_json(truth["content"])}]}
        wanted = _accepting(wanted_of(message), acceptable["content"])
        for choice in row["tools"]:
            yield Question(
                id=f"single_call_{query['serial_num']}_{choice['type']}",
                category=f"single_call_{choice['type']}",
                messages=[{"role": "user", "content": query["content"]}],
                tools=choice["content"],
                wanted=wanted,
                published=_published(message, acceptable["content"]),
                rules=FUNCTIONCHAT,
            )


def _accepting(wanted: Wanted, acceptable: Any) -> Wanted:
    """What is wanted, with further right values; an argument of null may be left out."""
    further = _acceptable(acceptable)

    def widened(call: WantedCall) -> WantedCall:
        arguments = {
            name: Argument(argument.values + further.get(name, ()), argument.values == (None,))
            for name, argument in call.arguments.properties.items()
        }
        return WantedCall(call.name, Fields(arguments))

    return replace(wanted, calls=tuple(map(widened, wanted.calls)))


def _published(truth: Mapping[str, Any], acceptable: Any) -> Callable[[Answer], bool] | None:
    """The exact match as Kakao's program counts it; None of turns that want no call.

    It looks at the first call alone. An argument that is left out counts as null. Where further
    values of an argument are neither a list nor a text, every value passes; and Python's 1 is True
    (README of FunctionChat-Bench, and what its program does).
    """
    if not truth.get("tool_calls"):
        return None
    function = truth["tool_calls"][0]["function"]
    wanted = function["arguments"]
    wanted = parse_json(wanted) if isinstance(wanted, str) else wanted
    try:
        further = parse_json(acceptable) if isinstance(acceptable, str) else None
    except ValueError:
        further = None
    others = further if isinstance(further, dict) else {}

    def fits(value: Any, name: str) -> bool:
        if _kakao(value) == _kakao(wanted[name]):
            return True
        more = others.get(name, [])
        if isinstance(more, list):
            return any(_kakao(value) == _kakao(other) for other in more)
        return not isinstance(more, str) or _kakao(value) == _kakao(more)

    def match(answer: Answer) -> bool:
        if not answer.tool_calls:
            return False
        said = answer.tool_calls[0]["function"]
        try:
            given = parse_json(said["arguments"])
        except (ValueError, TypeError):
            return False
        if said["name"] != function["name"] or not isinstance(given, dict):
            return False
        return given.keys() <= wanted.keys() and all(fits(given.get(name), name) for name in wanted)

    return match


def _kakao(value: Any) -> Any:
    """A value as its program compares it, with Python's ``==``."""
    return functionchat_text(value) if isinstance(value, str) else value


def _acceptable(given: Any) -> dict[str, tuple[Any, ...]]:
    """Further right values by argument: an object, or its JSON text."""
    try:
        found = parse_json(given) if isinstance(given, str) else given
    except ValueError:
        found = None
    if not isinstance(found, dict):  # nothing, or a sentence for the judge
        return {}
    return {
        name: tuple(values) if isinstance(values, list) else (values,)
        for name, values in found.items()
    }
