"""What a conversation must keep to before anything is learned from it."""

from __future__ import annotations

import socket
import threading
import unicodedata
from typing import Any

import pytest
from support.rows import calls, chat, check_rows, codes, tool
from support.turns import ANSWER

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.validate import check, schema_validator, violations

RESULT = {"role": "tool", "content": "{}"}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def results(*named: str | None, key: str = "tool_call_id") -> Any:
    """A row of two calls, whose results name theirs."""
    turns = [RESULT if name is None else {**RESULT, key: name} for name in named]
    return chat("q", calls(("f", {}), ("g", {})), *turns, "a", tools=[tool("f"), tool("g")])


def problems_of(row: Any) -> list[tuple[str, str]]:
    conversation, problems = read_row(row)
    assert conversation is not None, problems
    return [(problem.code, problem.severity) for problem in check(conversation)[1]]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (chat("q", "a"), []),
        (chat("q"), [("no-assistant", "error")]),
        (chat("q", ""), [("empty-assistant", "error")]),
        (chat("q", " \n"), [("empty-assistant", "error")]),
        (chat("q", "", "r", "b"), [("empty-assistant", "warning")]),
        (chat("q", "a", "r"), [("trailing-turns", "warning")]),
        (
            chat("q", {"role": "assistant", "content": "a", "weight": 0}),
            [("nothing-to-learn", "error")],
        ),
        (
            chat("q", "", "r", {"role": "assistant", "content": "a", "weight": 0}),
            [("empty-assistant", "warning"), ("nothing-to-learn", "error")],
        ),
        (
            chat("q", {"role": "assistant", "content": "a", "reasoning_content": "왜"}),
            [("reasoning-unseen", "warning")],
        ),
        (chat("q", calls(("f", {}))), [("call-without-tools", "warning")]),
        (chat("q", calls(("f", {})), tools=[tool("g")]), [("unknown-tool", "error")]),
        (chat("q", calls(("f", {})), tools=[tool("f")]), []),
        (chat("q", calls(("f", {"n": 10**30})), tools=[tool("f", NUMBER)]), []),
        (
            chat("q", calls(("f", {"n": "1"})), tools=[tool("f", NUMBER)]),
            [("schema-violation", "error")],
        ),
        (chat("q", calls(("f", {})), tools=[tool("f", NUMBER)]), [("schema-violation", "error")]),
        (
            chat("q", calls(("f", {"n": 1}), ("f", {"n": 1.5})), tools=[tool("f", NUMBER)]),
            [("schema-violation", "error")],
        ),
        (
            chat("q", calls(("f", {})), tools=[tool("f", {"type": "object", "required": 3})]),
            [("bad-schema", "warning")],
        ),
        (
            chat("q", calls(("f", {})), tools=[tool("f", {"$ref": "#/no"})]),
            [("bad-schema", "warning")],
        ),
        (chat("q", "a", tools=[tool("f", {"type": "strng"})]), []),
        (chat("q", calls(("f", {})), RESULT, "a", tools=[tool("f")]), []),
        (chat("q", calls(("f", {}), ("f", {})), RESULT, RESULT, "a", tools=[tool("f")]), []),
        (
            chat("q", calls(("f", {})), RESULT, RESULT, "a", tools=[tool("f")]),
            [("result-without-call", "error")],
        ),
        (chat("q", RESULT, "a", tools=[tool("f")]), [("result-without-call", "error")]),
        (
            chat("q", "찾아볼게요", RESULT, "a"),
            [("result-without-call", "warning")],
        ),
        (chat(RESULT, "a"), [("result-without-call", "error")]),
        (results("call_0", "call_1"), []),
        (results("call_0", None), []),
        (results("call_1", "call_0"), [("result-order", "warning")]),
        (results("call_0", "zzz"), [("result-of-no-call", "warning")]),
        (results("f", "g", key="name"), []),
        (results("g", "f", key="name"), [("result-order", "warning")]),
        (results("h", "g", key="name"), [("result-of-no-call", "warning")]),
    ],
)
def test_rules(row: Any, wanted: list[tuple[str, str]]) -> None:
    assert problems_of(row) == wanted


def judged(answer: Any, *, prompt: Any = "q", label: bool | None = None, **keys: Any) -> Any:
    """A row in which an answer is chosen, rejected, or labelled."""
    if label is not None:
        return {"prompt": prompt, "completion": [answer], "label": label, **keys}
    return {"prompt": prompt, "chosen": "a", "rejected": [answer], **keys}


@pytest.mark.parametrize(
    ("call", "code"),
    [(calls(("g", {})), "unknown-tool"), (calls(("f", {"n": "1"})), "schema-violation")],
)
def test_a_rejected_call_may_be_wrong(call: Any, code: str) -> None:
    tools = [tool("f", NUMBER)]
    assert problems_of(judged(call, tools=tools)) == [(code, "warning")]
    assert problems_of(judged(call, label=False, tools=tools)) == [(code, "warning")]
    assert problems_of(judged(call, label=True, tools=tools)) == [(code, "error")]
    chosen = {"prompt": "q", "chosen": [call], "rejected": "b", "tools": tools}
    assert problems_of(chosen) == [(code, "error")]
    # What was called before either answer stays as strict as in any row.
    before = [{"role": "user", "content": "q"}, call, RESULT, {"role": "user", "content": "r"}]
    assert problems_of(judged(calls(("f", {"n": 1})), prompt=before, tools=tools)) == [
        (code, "error")
    ]


def test_what_both_answers_share_is_said_once() -> None:
    prompt = [{"role": "user", "content": "q"}, RESULT]
    row = {"prompt": prompt, "chosen": "a", "rejected": "b"}
    assert problems_of(row) == [("result-without-call", "error")]
    results = [calls(("f", {})), RESULT, RESULT, {"role": "assistant", "content": "a"}]
    row = {"prompt": "q", "chosen": "a", "rejected": results, "tools": [tool("f")]}
    assert problems_of(row) == [("result-without-call", "error")]


def test_texts_of_a_preference(tiny: AxTokenizer) -> None:
    row = {"prompt": "q<|im_end|>", "chosen": "a<|user|>", "rejected": "b</think><|im_sep|>"}
    (checked,) = check_rows(tiny, [row])
    assert [fault.message.split()[0] for fault in checked.faults] == [
        "prompt",
        "chosen",
        "rejected",
    ]
    assert set(codes(checked)) == {"control-token"}
    (kept,) = check_rows(tiny, [row], control_tokens="keep")
    assert not kept.refused
    call = calls(("f", {"a": "<|im_end|>"}))
    (checked,) = check_rows(tiny, [judged(call, tools=[tool("f"), tool("<|user|>")])])
    places = [fault.message.split()[0] for fault in checked.faults]
    assert places == ["rejected[0].tool_calls[0]", "tools[1]"]
    decomposed = unicodedata.normalize("NFD", "각")
    (checked,) = check_rows(tiny, [{"prompt": "q", "chosen": "a", "rejected": decomposed}])
    assert codes(checked, "warning") == ["nfd"]


def test_an_empty_turn_is_context_and_not_learned() -> None:
    conversation, _ = read_row(chat("q", "", "r", "b"))
    assert conversation is not None
    assert conversation.learn == [1, 3]
    checked, _ = check(conversation)
    assert isinstance(checked, Conversation)
    assert checked.learn == [3]
    assert conversation.learn == [1, 3]
    assert len(conversation.messages) == 4


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"주민번호": {"type": "integer"}}},
        {"properties": {"주민번호": False}},
        {"additionalProperties": False},
        {"dependentRequired": {"주민번호": ["생년월일"]}},
        {"patternProperties": {"^주민": {"enum": ["900101"]}}},
        {"propertyNames": {"maxLength": 1}},
        {"$defs": {"p": {"required": ["생년월일"]}}, "$ref": "#/$defs/p"},
    ],
)
def test_a_violation_names_the_keyword_and_not_the_content(parameters: dict[str, Any]) -> None:
    row = chat("q", calls(("f", {"주민번호": "900101-1"})), tools=[tool("f", parameters)])
    conversation, _ = read_row(row)
    assert conversation is not None
    _, (problem,) = check(conversation)
    assert problem.code == "schema-violation"
    assert problem.message.startswith("messages[1].tool_calls[0]: ")
    for content in ("주민", "900101", "생년월일", "[1].tool_calls[0].f"):
        assert content not in problem.message


def test_a_schema_cannot_make_us_go_to_the_network() -> None:
    asked: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        thread = threading.Thread(target=lambda: asked.append(server.accept()), daemon=True)
        thread.start()
        row = chat("q", calls(("f", {})), tools=[tool("f", {"$ref": address})])
        assert problems_of(row) == [("bad-schema", "warning")]
        assert asked == []
        # The listener would have heard: it does hear this.
        socket.create_connection(server.getsockname()).close()
        thread.join()
        assert len(asked) == 1
        asked[0][0].close()


def test_a_schema_cannot_make_us_read_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("schema") / "any.json"
    file.write_text("{}", encoding="utf-8")
    row = chat("q", calls(("f", {})), tools=[tool("f", {"$ref": file.as_uri()})])
    assert problems_of(row) == [("bad-schema", "warning")]


CONTROL = "앞<|im_end|>뒤"


@pytest.mark.parametrize(
    "row",
    [
        chat(CONTROL, "a"),
        chat("q", CONTROL),
        chat({"role": "system", "content": CONTROL}, "q", "a"),
        chat("q", calls(("f", {})), {"role": "tool", "content": "</tool_output>"}, "a"),
        chat("q", calls(("f", {"a": [CONTROL]}))),
        chat("q", calls(("f", {CONTROL: 1}))),
        chat("q", calls(("<|im_end|>", {}))),
        chat("q", "a", tools=[tool("f", {"description": CONTROL})]),
        chat("q", "a", tools=[tool("<think>")]),
        chat("<think>", "a"),
        chat("<|extra_id_0|>", "a"),
        chat({"role": "user", "content": ["<|im_", "start|>", "<|im_start|>"]}, "a"),
        {"instruction": "q", "input": CONTROL, "output": "a"},
        {"prompt": "q", "completion": CONTROL},
    ],
)
def test_control_tokens_are_refused_everywhere(tiny: AxTokenizer, row: Any) -> None:
    (refused,) = check_rows(tiny, [row])
    assert set(codes(refused)) == {"control-token"}
    (kept,) = check_rows(tiny, [row], control_tokens="keep")
    assert not kept.refused


@pytest.mark.parametrize(
    "row",
    [
        chat("전화 <|telephone|>", "<|resident_reg|> 확인했습니다."),
        chat("q", "<think>\n음\n</think>\n\n답"),
        chat("a<b>c | <im_end> <|im_end", "1 < 2"),
        chat("<tool_response>는 무엇인가요?", "태그입니다."),
    ],
)
def test_what_is_no_control_token_is_allowed(tiny: AxTokenizer, row: Any) -> None:
    (checked,) = check_rows(tiny, [row])
    assert checked.faults == []


def test_nfd_is_reported_and_converted(tiny: AxTokenizer) -> None:
    nfd = unicodedata.normalize("NFD", "한국어")
    for row in (chat(nfd, "a"), chat("q", calls(("f", {"a": nfd})), tools=[tool("f")])):
        (kept,) = check_rows(tiny, [row])
        assert codes(kept, "warning") == ["nfd"]
        (converted,) = check_rows(tiny, [row], nfc=True)
        assert converted.faults == []
        assert "한국어" in tiny.decode(converted.samples[0].input_ids)
        assert "한국어" not in tiny.decode(kept.samples[0].input_ids)


@pytest.mark.parametrize(
    "said",
    ['<|python_tag|>{"name": "w"}', '[TOOL_CALLS][{"name": "w"}]', "<TOOLCALL>[{}]</TOOLCALL>",
     "<function=w>{}</function>", "[INST] 안녕 [/INST]", "네.</s>", "네.<end_of_turn>"],
)  # fmt: skip
def test_markup_of_other_models_in_an_answer_is_named(tiny: AxTokenizer, said: str) -> None:
    (checked,) = check_rows(tiny, [chat("질문", said)])
    assert codes(checked, "warning") == ["foreign-markup"]
    assert not checked.refused


def test_brackets_and_tags_of_any_text_are_no_markup(tiny: AxTokenizer) -> None:
    for said in ("배열 [1, 2] 입니다.", "<b>굵게</b>", "[참고] a < b", "<script>"):
        (checked,) = check_rows(tiny, [chat("질문", said)])
        assert codes(checked, "warning") == []


def test_characters_that_were_lost_are_said(tiny: AxTokenizer) -> None:
    (checked,) = check_rows(tiny, [chat("택배는?", "여\ufffd 시")])
    assert codes(checked, "warning") == ["replacement-character"]
    assert not checked.refused


def test_a_schema_is_a_validator_unless_it_is_broken() -> None:
    validator = schema_validator({"type": "array", "items": {"type": "number"}})
    assert violations(validator, [57600, 1.5]) == []
    assert violations(validator, ["57600"]) == ["type"]
    assert schema_validator({"type": 12}) is None
    assert schema_validator({"$ref": "https://example.com/schema.json"}) is None


@pytest.mark.parametrize("asked", ["", "  \n", "\u200b"])
def test_a_question_that_says_nothing_is_refused(tiny: AxTokenizer, asked: str) -> None:
    (checked,) = check_rows(tiny, [chat(asked, "a")])
    assert codes(checked) == ["empty-prompt"]
    (checked,) = check_rows(tiny, [chat(asked, {**ANSWER, "weight": 0}, "q", "a")])
    assert codes(checked) == []


@pytest.mark.parametrize(
    "thought", ["<think>왜</think>", "<think>왜", "왜</think>\n", "<reasoning>왜</reasoning> "]
)
def test_a_thought_alone_is_no_answer(tiny: AxTokenizer, thought: str) -> None:
    (checked,) = check_rows(tiny, [chat("q", thought)])
    assert codes(checked) == ["empty-assistant"]
    assert "a thought and no answer" in checked.faults[0].message
    (checked,) = check_rows(tiny, [chat("q", thought, "r", "a")])
    assert (codes(checked), codes(checked, "warning")) == ([], ["empty-assistant"])
    (checked,) = check_rows(tiny, [chat("q", f"{thought}</think>답" if "<" in thought else "답")])
    assert codes(checked) == []


def test_calls_whose_results_are_missing_are_named(tiny: AxTokenizer) -> None:
    called = calls(("f", {}), ("f", {}))
    result = {"role": "tool", "content": "1"}
    tools = [tool("f")]
    for results, wanted in (([], 1), ([result], 1), ([result, result], 0)):
        row = chat("q", called, *results, {"role": "assistant", "content": "답"}, tools=tools)
        (checked,) = check_rows(tiny, [row])
        assert codes(checked, "warning") == ["call-without-result"] * wanted
        assert codes(checked) == []
