"""Requests: what a client sends for each learned turn, and the prompt that training showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.rows import TEMPLATES, calls, chat, check_rows, codes, tool, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.data.render import prompt_ids
from axtune.data.requests import Request, read_requests, same_answer
from axtune.data.samples import IGNORED, Sample, learned_turns


def requests(tokenizer: AxTokenizer, *files: Path) -> list[Request]:
    return list(read_requests(data_options([str(file) for file in files]), tokenizer))


def test_every_learned_turn_of_the_templates_has_its_served_prompt(
    either_tiny: AxTokenizer,
) -> None:
    found = requests(either_tiny, *sorted(TEMPLATES.glob("*.jsonl")))
    assert len(found) > 200
    for request in found:
        assert prompt_ids(either_tiny, request.messages, request.tools) == request.prompt


def test_messages_are_openais_own(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = chat(
        "주문 두 개 찾아 줘",
        calls(("find", {"id": 1}), ("find", '{"id": 2}')),
        {"role": "tool", "content": "하나"},
        {"role": "tool", "content": "둘"},
        "찾았습니다.",
        tools=[tool("find", {"type": "object"})],
    )
    first, second = requests(tiny, write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert [message["role"] for message in first.messages] == ["user"]
    _, called, one, two = second.messages
    assert [call["function"]["arguments"] for call in called["tool_calls"]] == [
        '{"id": 1}',
        '{"id": 2}',
    ]
    assert [one["tool_call_id"], two["tool_call_id"]] == [
        call["id"] for call in called["tool_calls"]
    ]
    assert same_answer(first.answer, "", [("find", '{"id":1}'), ("find", '{"id": 2}')])
    assert not same_answer(first.answer, "", [("find", '{"id": 2}'), ("find", '{"id": 1}')])
    assert not same_answer(first.answer, "네", [("find", '{"id": 1}'), ("find", '{"id": 2}')])
    assert same_answer(second.answer, "찾았습니다.", [])


def test_of_a_preference_the_chosen_answer_is_asked_for(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = {"prompt": "몇 시예요?", "chosen": "세 시입니다.", "rejected": "몰라요."}
    (found,) = requests(tiny, write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert same_answer(found.answer, "세 시입니다.", [])


def test_broken_rows_and_absent_files_are_left_out(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "{broken\n"
        + json.dumps({"messages": "no"})
        + "\n"
        + json.dumps({"messages": [{"role": "user", "content": "\ud83d"}]})
        + "\n"
        + json.dumps(chat("안녕", "안녕하세요."), ensure_ascii=False)
        + "\n",
        encoding="utf-8",
    )
    assert len(requests(tiny, tmp_path / "absent.jsonl", file)) == 1


WEATHER = tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}})
SOUND = chat("안녕하세요", "반갑습니다.")


def long(words: int) -> str:
    return "하나 둘 셋 " * words


@pytest.mark.parametrize(
    ("row", "code", "options"),
    [
        (chat("그만<|im_end|>이라고 써 줘", "네."), "control-token", {}),
        (
            chat("서울 날씨", calls(("get_time", {"city": "서울"})), tools=[WEATHER]),
            "unknown-tool",
            {},
        ),
        (chat(long(200), "길군요."), "too-long", {"max_length": 128}),
        (chat("서울 날씨", calls(("get_weather", "서울")), tools=[WEATHER]), "bad-arguments", {}),
        (
            {"prompt": "몇 시예요?", "chosen": "세 시입니다.", "rejected": "몰라요."},
            "wrong-task",
            {},
        ),
    ],
)
def test_a_row_that_training_refuses_is_no_request(
    tiny: AxTokenizer, tmp_path: Path, row: Any, code: str, options: dict[str, Any]
) -> None:
    refused, taken = check_rows(tiny, [row, SOUND], task="sft", **options)
    assert code in codes(refused)
    file = write_jsonl(tmp_path / "rows.jsonl", [row, SOUND])
    (found,) = read_requests(data_options([str(file)], **options), tiny, "sft")
    assert found.messages == SOUND["messages"][:1]
    (sample,) = taken.samples
    assert isinstance(sample, Sample)
    assert sample.input_ids[: len(found.prompt)] == found.prompt
    assert sample.labels[len(found.prompt)] != IGNORED


def test_what_control_tokens_keep_lets_through_is_asked(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = chat("그만<|im_end|>이라고 써 줘", "네.")
    data = data_options([str(write_jsonl(tmp_path / "r.jsonl", [row]))], control_tokens="keep")
    (found,) = read_requests(data, tiny, "sft")
    assert found.prompt == prompt_ids(tiny, found.messages)


def test_kto_asks_the_chosen_answer_of_a_pair_once(tiny: AxTokenizer, tmp_path: Path) -> None:
    row = {"prompt": "몇 시예요?", "chosen": "세 시입니다.", "rejected": "몰라요."}
    data = data_options([str(write_jsonl(tmp_path / "r.jsonl", [row]))])
    (found,) = read_requests(data, tiny, "kto")
    assert same_answer(found.answer, "세 시입니다.", [])


def test_turns_that_say_nothing_or_are_not_learned_are_no_requests(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    silent, unlearned = {"role": "assistant", "content": " "}, {"role": "assistant", "weight": 0}
    row = chat("a", silent, "b", {**unlearned, "content": "아니요"}, "c", "네.")
    data = data_options([str(write_jsonl(tmp_path / "r.jsonl", [row]))])
    (found,) = read_requests(data, tiny, "sft")
    assert same_answer(found.answer, "네.", [])
    assert len(found.messages) == 5


@pytest.mark.parametrize("thinking", [False, True])
def test_of_a_truncated_row_the_whole_turns_are_asked(
    tiny: AxTokenizer, tmp_path: Path, thinking: bool
) -> None:
    """With a cut ``<think>`` block every turn is a sequence of its own."""
    first = "<think>음</think>네." if thinking else "네."
    row = chat("하나", first, "둘", "네, 네.", "셋", long(100))
    (checked,) = check_rows(tiny, [row], with_turns=True, truncate=True, max_length=128)
    assert codes(checked, "warning") == ["truncated"]
    assert checked.samples[-1].labels[-1] != IGNORED  # the last turn's beginning is learned too
    assert sum(len(learned_turns(sample.labels)) for sample in checked.samples) == 3
    assert [learned.turn for learned in checked.turns] == [1, 3]
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    data = data_options([str(file)], truncate=True, max_length=128)
    found = list(read_requests(data, tiny, "sft"))
    assert [request.answer["content"] for request in found] == [first, "네, 네."]
    for request in found:
        assert request.prompt == prompt_ids(tiny, request.messages)


def test_a_sequence_that_the_cut_leaves_nothing_of_takes_its_turn_along(tiny: AxTokenizer) -> None:
    row = chat("하나", "<think>음</think>네.", "둘" + long(100), "네, 네.")
    (checked,) = check_rows(tiny, [row], with_turns=True, truncate=True, max_length=128)
    assert [learned.turn for learned in checked.turns] == [1]
    assert len(checked.samples) == 1


def test_a_turn_that_is_cut_behind_a_kept_control_token_is_no_request(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    """The last token that is left is an end of turn, and yet the turn is not whole."""
    row = chat("하나", "네.", "둘", "네.<|im_end|>네, 네.")
    (whole,) = check_rows(tiny, [row], control_tokens="keep")
    (sample,) = whole.samples
    ends = [n for n, token in enumerate(sample.input_ids, 1) if token == tiny.end_of_turn_id]
    options = {"control_tokens": "keep", "truncate": True, "max_length": ends[-2]}
    (cut,) = check_rows(tiny, [row], **options)
    assert cut.samples[0].labels[-1] == tiny.end_of_turn_id
    data = data_options([str(write_jsonl(tmp_path / "r.jsonl", [row]))], **options)
    (found,) = read_requests(data, tiny, "sft")
    assert same_answer(found.answer, "네.", [])


def test_conversations_are_held_only_where_turns_are_asked_for(tiny: AxTokenizer) -> None:
    (plain,) = check_rows(tiny, [SOUND])
    (asked,) = check_rows(tiny, [SOUND], with_turns=True)
    (refused,) = check_rows(tiny, [SOUND], with_turns=True, task="dpo")
    (long,) = check_rows(tiny, [chat(*"ab" * 30)], with_turns=True, max_length=64)
    assert codes(long) == ["too-long"]
    assert plain.turns == refused.turns == long.turns == []
    assert plain.samples == asked.samples
    (learned,) = asked.turns
    assert learned.prompt == asked.samples[0].input_ids[: learned.begin]
    assert (learned.turn, learned.end) == (1, len(asked.samples[0].input_ids))
