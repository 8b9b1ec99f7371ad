"""What is read of a reply, and what is counted instead of guessed."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.drafting.replies import Drafted, Pair, read_check, read_pairs

ONE = '{"question": "휴가는 며칠인가요?", "answer": "15일입니다."}'
PAIR = Pair("휴가는 며칠인가요?", "15일입니다.")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"pairs": [{ONE}]}}',
        f"[{ONE}]",
        ONE,
        f'```json\n{{"pairs": [{ONE}]}}\n```',
        f'다음은 {{요청하신}} 질문입니다:\n\n{{"pairs": [{ONE}]}}\n도움이 되었기를 바랍니다.',
        f'<think>{{"pairs": []}} 흠</think>{{"pairs": [{ONE}]}}',
        '{"질문": "휴가는 며칠인가요? ", "답변": "15일입니다."}',
        '{"pairs": [{"질문": "휴가는 며칠인가요?", "답": "15일입니다.", "근거": "제3조"}]}',
    ],
)
def test_pairs_are_read_as_models_write_them(text: str) -> None:
    assert read_pairs(text, "stop") == Drafted([PAIR])


def test_an_object_for_each_pair() -> None:
    assert read_pairs(f"1. {ONE}\n2. {ONE}", "stop").pairs == [PAIR, PAIR]


@pytest.mark.parametrize(
    ("text", "finish_reason", "failed"),
    [
        (f'{{"pairs": [{ONE}', "length", "cut-off"),
        (f"[{ONE}]", "length", "cut-off"),
        ("", "stop", "unreadable"),
        ("질문: 휴가는 며칠인가요?\n답: 15일입니다.", "stop", "unreadable"),
        (f"[{ONE}]"[:-5], "stop", "unreadable"),
        ('{"pairs": []}', "stop", "nothing-to-ask"),
        ("[]", "stop", "nothing-to-ask"),
    ],
)
def test_what_cannot_be_read_has_a_reason(text: str, finish_reason: str, failed: str) -> None:
    drafted = read_pairs(text, finish_reason)
    assert not drafted.pairs
    assert drafted.failed == failed


@pytest.mark.parametrize(
    "item",
    [
        '{"question": "하나?"}',
        '{"question": "하나?", "answer": null}',
        '{"question": ["하나?"], "answer": "둘"}',
        '{"question": "하나?", "answer": "\\ud83d"}',
        '{"question": "하나\\u0000?", "answer": "둘"}',
        '"하나?"',
        "3",
        "null",
        "[]",
    ],
)
def test_a_pair_that_is_none_is_counted(item: str) -> None:
    drafted = read_pairs(f'{{"pairs": [{item}, {ONE}]}}', "stop")
    assert (drafted.pairs, drafted.malformed, drafted.failed) == ([PAIR], 1, "")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["pairs", "question", "answer", "답", "x"]), inner)
), max_leaves=12))  # fmt: skip
def test_no_json_breaks_the_reader(value: object) -> None:
    text = json.dumps(value)
    drafted = read_pairs(text, "stop")
    assert drafted.failed or drafted.pairs or drafted.malformed
    read_check(text, "stop")


@pytest.mark.parametrize("text", ["[" * 300_000, "{" * 300_000, '{"a":' * 100_000, "9" * 9999])
def test_hostile_replies_are_read_in_time(text: str) -> None:
    begun = time.monotonic()
    assert read_pairs(text, "stop").failed == "unreadable"
    assert read_check(text, "stop") is None
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"answerable": true, "answer": " 15일 "}', "15일"),
        ('```json\n{"answer": "15일"}\n```', "15일"),
        ('{"answerable": false, "answer": "15일"}', ""),
        ('{"answerable": true, "answer": "답할 수 없음"}', ""),
        ('{"answerable": true, "answer": "지문만으로는 답할 수 없습니다."}', ""),
        ('{"answerable": true, "answer": "주어진 지문에서는 알 수 없습니다."}', ""),
        ('{"answerable": true, "answer": ""}', None),
        ('{"answerable": "아마도", "answer": "15일"}', None),
        ('{"answer": 15}', None),
        ("15일입니다.", None),
        ("[]", None),
    ],
)
def test_a_check_is_read_or_not(text: str, answer: str | None) -> None:
    assert read_check(text, "stop") == answer
    assert read_check(text, "length") is None
