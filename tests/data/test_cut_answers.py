"""What its own server cut off is not learned as a whole answer."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat, check_rows, codes
from support.turns import ANSWER, USER, read

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.cut_answers import cut_key

CUT = [
    {"finish_reason": "length"},
    {"finishReason": "MAX_TOKENS"},
    {"stop_reason": "max_tokens"},
    {"stopReason": "max_tokens"},
    {"done_reason": "length"},
    {"status": "incomplete"},
    {"incomplete_details": {"reason": "max_output_tokens"}},
    {"finish_details": {"type": "max_tokens"}},
    {"truncated": True},
    {"is_complete": False},
    {"response_metadata": {"finish_reason": "length"}},
    {"finish_reason": "content_filter"},
]
WHOLE = [
    {"finish_reason": "stop"},
    {"stop_reason": "end_turn"},
    {"finish_reason": "tool_calls"},
    {"status": "completed"},
    {"incomplete_details": None},
    {"truncated": False},
    {"finish_reason": None, "metadata": {"length": "length"}},
]


@pytest.mark.parametrize("said", CUT, ids=str)
def test_a_cut_answer_is_refused(tiny: AxTokenizer, said: dict[str, Any]) -> None:
    on_turn = {"messages": [USER, {**ANSWER, **said}]}
    pair = {"prompt": "q", "chosen": [{**ANSWER, **said}], "rejected": "b"}
    for row in (on_turn, chat("q", "a", **said), {"prompt": "q", "completion": "a"} | said, pair):
        (checked,) = check_rows(tiny, [row])
        assert codes(checked) == ["cut-answer"]
        assert next(iter(said)) in checked.faults[0].message


@pytest.mark.parametrize("said", WHOLE, ids=str)
def test_a_whole_answer_is_learned(tiny: AxTokenizer, said: dict[str, Any]) -> None:
    rows = [{"messages": [USER, {**ANSWER, **said}]}, chat("q", "a", **said)]
    for checked in check_rows(tiny, rows):
        assert checked.faults == []


def test_what_is_context_may_be_cut() -> None:
    assert read({**ANSWER, "finish_reason": "length", "weight": 0})[1] == []
    assert read({**USER, "status": "incomplete"})[1] == []


def test_openai_says_it_beside_the_message() -> None:
    _, (problem,) = read({"message": ANSWER, "finish_reason": "length"})
    assert problem.startswith("cut-answer: turns[0].finish_reason")
    assert cut_key({"choices": [{"finish_reason": "length"}]}) == "choices.finish_reason"
