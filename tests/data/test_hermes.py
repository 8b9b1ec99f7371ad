"""Hermes text of every dialect becomes calls, results and tools; what it holds survives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import arguments, texts

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.hermes import asks_for_python, from_text, split_calls
from axtune.data.parse import PreferenceRow, read_row
from axtune.data.render import answer_text
from axtune.errors import Problem

TOOLS = [{"type": "function", "function": {"name": "get_menu", "parameters": {"type": "object"}}}]
CALL = {"name": "get_menu", "arguments": {"날짜": "2026-05-21"}}
NOUS = (
    "You are a function calling AI model. You are provided with function signatures within "
    "<tools></tools> XML tags. Here are the available tools: <tools> {tools} </tools> Use the "
    "following pydantic model json schema for each tool call you will make: "
    '{{"title": "FunctionCall"}} For each function call return a json object with function name '
    "and arguments within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
    "{{'arguments': <args-dict>, 'name': <function-name>}}\n</tool_call>"
)
QWEN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n"
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    'within <tool_call></tool_call> XML tags:\n<tool_call>\n{{"name": <function-name>, '
    '"arguments": <args-json-object>}}\n</tool_call>'
)
AX = (
    "당신은 도구 호출 기능을 갖춘 유용한 도우미입니다.\n<tools>\n{tools}\n</tools>\n\n도구를 "
    '호출하려면 아래의 JSON으로 응답하세요.\n도구 호출 형식: <tool_call>{{"name": 도구 이름, '
    '"arguments": dictionary 형태의 도구 인자값}}</tool_call>'
)


def convert(*messages: Any) -> tuple[list[Any], Any, list[str]]:
    """The messages and tools of Hermes messages, and the codes of what is wrong."""
    problems: list[Problem] = []
    raw = [(f"messages[{n}]", message) for n, message in enumerate(messages)]
    out, tools = from_text(raw, problems)
    found = tools[0][1] if tools else None
    return [message for _, message in out], found, [problem.code for problem in problems]


@pytest.mark.parametrize("dialect", [NOUS, QWEN, AX])
@pytest.mark.parametrize(
    "written",
    [
        json.dumps(TOOLS),
        json.dumps(TOOLS, indent=2),
        json.dumps(TOOLS[0]),
        json.dumps(TOOLS[0]) + "\n" + json.dumps(TOOLS[0]),
        str(TOOLS),
    ],
)
def test_tools_leave_the_system_turn(dialect: str, written: str) -> None:
    text = dialect.format(tools=written)
    rest, tools, problems = convert({"role": "system", "content": text})
    assert (rest, problems) == ([], [])
    assert tools[0] == TOOLS[0]
    around = {"role": "system", "content": f"너는 상담원이다.\n\n{text}\n\n존댓말을 쓴다."}
    rest, tools, problems = convert(around)
    assert rest == [{"role": "system", "content": "너는 상담원이다.\n\n존댓말을 쓴다."}]
    assert tools[0] == TOOLS[0]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(CALL, ensure_ascii=False),
        json.dumps(CALL),
        "\n" + json.dumps(CALL) + "\n",
        json.dumps(CALL, indent=1),
        str(CALL),
        "{'arguments': {'날짜': '2026-05-21'}, 'name': 'get_menu'}",
    ],
)
def test_calls_leave_the_text(written: str) -> None:
    block = f"<tool_call>{written}</tool_call>"
    for text, said, count in [
        (block, "", 1),
        (f"확인해 볼게요.\n{block}", "확인해 볼게요.", 1),
        (f"{block}\n{block}", "", 2),
        (f"<think>\n음\n</think>\n\n{block}{block}", "<think>\n음\n</think>", 2),
    ]:
        (message,), _, problems = convert({"role": "assistant", "content": text})
        assert (message["content"], problems) == (said, [])
        assert [call["function"] for call in message["tool_calls"]] == [CALL] * count


def test_python_literals_become_json_values() -> None:
    text = "<tool_call>{'name': 'f', 'arguments': {'a': True, 'b': None, 'c': (1,)}}</tool_call>"
    (call,) = split_calls(text)[1]
    assert call.item["function"] == {"name": "f", "arguments": {"a": True, "b": None, "c": [1]}}


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f"}</tool_call> 그리고 끝',
        '<tool_call>{"name": "f"}',
        "<tool_call></tool_call>",
        "<tool_call>oops</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": 1}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>{'name': 'f', 'arguments': {1, 2}}</tool_call>",
        "<tool_call>{'name': 'f', 'arguments': {'a': b'x'}}</tool_call>",
        "<tool_call>{'name': 'f', 'arguments': {'a': 1e999}}</tool_call>",
        "<tool_call>{[]: 1}</tool_call>",
        "<tool_call>" + "(" * 500 + ")" * 500 + "</tool_call>",
    ],
)
def test_a_broken_call_is_a_problem(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        split_calls(text)
    rest, _, problems = convert({"role": "assistant", "content": text})
    assert (rest, problems) == ([], ["bad-hermes-call"])


TWO = [CALL, {**CALL, "name": "get_bus"}]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(TWO),
        str(TWO),
        "\n".join(map(json.dumps, TWO)),
        "".join(map(json.dumps, TWO)),
        json.dumps([{"name": c["name"], "parameters": c["arguments"]} for c in TWO]),
    ],
)
def test_several_calls_in_one_tag(written: str) -> None:
    (message,), _, problems = convert(
        {"role": "assistant", "content": f"<tool_call>\n{written}\n</tool_call>"}
    )
    assert problems == []
    assert [call["function"] for call in message["tool_calls"]] == TWO


@pytest.mark.parametrize(
    "written",
    [
        """{"name": "get_menu", "arguments": '{"날짜": "2026-05-21"}'} <|endoftext|>""",
        json.dumps(CALL),
        str(CALL),
    ],
)
def test_calls_as_glaive_writes_them(written: str) -> None:
    text = f"볼게요 <functioncall> {written}"
    (message,), _, problems = convert({"role": "assistant", "content": text})
    assert (message["content"], problems) == ("볼게요", [])
    assert [call["function"] for call in message["tool_calls"]] == [CALL]
    quoted = """<functioncall> {"name": "f", "arguments": '{"a": "it\\'s"}'}"""
    (message,), _, problems = convert({"role": "assistant", "content": quoted})
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": "it's"}


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "oops",
        '{"name": "f"} 그리고',
        '{"arguments": {}}',
        '{"name": "f", "argument": {"a": 1}}',
    ],
)
def test_a_broken_call_of_glaive_is_a_problem(rest: str) -> None:
    left, _, problems = convert({"role": "assistant", "content": f"<functioncall> {rest}"})
    assert (left, problems) == ([], ["bad-hermes-call"])


TOOLACE = (
    "You are an expert in composing functions. Here is a list of functions in JSON format that you "
    "can invoke:\n{tools}. \nShould you decide to return the function call(s), Put it in the "
    "format of [func1(params_name=params_value, params_name2=params_value2...), func2(params)]\n\n"
    "NO other text MUST be included. \n오늘: 2026-05-21(목)"
)
PYTHON = {"role": "system", "content": TOOLACE.format(tools=json.dumps([TOOLS[0]["function"]]))}


def test_calls_as_python_where_the_system_text_asks_for_them() -> None:
    problems: list[Problem] = []
    said = {"role": "assistant", "content": '[get_menu(날짜="2026-05-21")]'}
    raw = [("a", PYTHON), ("b", {"role": "user", "content": "[f(a=1)]"}), ("c", said)]
    assert asks_for_python(raw)
    out, ((_, tools),) = from_text(raw, problems)
    assert problems == []
    assert out[0][1]["content"] == "오늘: 2026-05-21(목)"
    assert out[1] == raw[1]
    assert [call["function"] for call in out[2][1]["tool_calls"]] == [CALL]
    assert tools == [TOOLS[0]["function"]]
    assert from_text([("c", said)], problems)[0] == [("c", said)]  # nobody asked for Python
    assert not asks_for_python([("c", said), ("d", "글")])


@pytest.mark.parametrize(
    ("text", "before", "codes"),
    [
        ("필요한 값이 없습니다.", "필요한 값이 없습니다.", []),
        ("[1] 참고 (표)", "[1] 참고 (표)", []),
        ("보세요 [표 (1)]", "보세요 [표 (1)]", []),
        ("볼게요 [get_menu(날짜='2026-05-21')]", "볼게요", []),
        ("[get_menu(날짜)]", None, ["bad-hermes-call"]),
        ("[get_menu(날짜='2026-05-21')] 봅니다", None, ["bad-hermes-call"]),
    ],
)
def test_a_text_among_calls_as_python(text: str, before: str | None, codes: list[str]) -> None:
    problems: list[Problem] = []
    raw = [("a", {"role": "assistant", "content": text})]
    out, _ = from_text(raw, problems, python=True)
    assert [problem.code for problem in problems] == codes
    assert [message["content"] for _, message in out] == ([] if before is None else [before])


def test_an_answer_is_read_as_its_prompt_asks() -> None:
    row = {
        "prompt": [PYTHON, {"role": "user", "content": "q"}],
        "chosen": '[get_menu(날짜="2026-05-21")]',
        "rejected": "모릅니다",
    }
    preference, problems = read_row(row)
    assert problems == []
    assert isinstance(preference, PreferenceRow)
    assert preference.chosen is not None
    assert [c["function"] for c in preference.chosen.messages[2]["tool_calls"]] == [CALL]


@pytest.mark.parametrize("tag", ["tool_response", "tool_output"])
@pytest.mark.parametrize("role", ["tool", "user"])
def test_results_become_tool_turns(tag: str, role: str) -> None:
    one, two = f"<{tag}>\n{{}}\n</{tag}>", f"<{tag}>나</{tag}>"
    rest, _, problems = convert({"role": role, "content": f"{one}\n{two}"})
    assert rest == [{"role": "tool", "content": "{}"}, {"role": "tool", "content": "나"}]
    assert problems == []


def test_what_is_no_hermes_stays_as_it_is() -> None:
    messages = [
        {"role": "user", "content": "<tool_response>인용</tool_response>을 설명해 줘"},
        {"role": "user", "content": "<tool_call>은 무엇인가요?"},
        {"role": "assistant", "content": "답", "tool_calls": []},
        {"role": "system", "content": "<tools>는 태그입니다."},
        {"role": "user", "content": None},
        "글자",
    ]
    assert convert(*messages) == (messages, None, [])


def test_unreadable_tools_are_left_to_be_refused() -> None:
    _, tools, _ = convert({"role": "system", "content": "<tools>[oops]</tools>"})
    assert tools == "[oops]"


@given(
    content=texts.filter(lambda text: "<tool_call>" not in text),
    named=st.lists(
        st.tuples(
            st.text("abc_가", min_size=1),
            # vLLM's parser takes it for the end of the call, and so it is refused here.
            arguments.filter(lambda values: "</tool_call>" not in json.dumps(values)),
        ),
        max_size=3,
    ),
)
def test_split_undoes_answer(tiny: AxTokenizer, content: str, named: list[tuple[str, Any]]) -> None:
    wanted = [{"name": name, "arguments": values} for name, values in named]
    message = {"content": content, "tool_calls": [{"function": call} for call in wanted]}
    said, calls = split_calls(answer_text(message, tiny).removesuffix(tiny.end_of_turn))
    assert (said, [call.item["function"] for call in calls]) == (content, wanted)


@given(st.text(max_size=30) | st.text("{}[]()'\":,<>/tool_call1e9", max_size=40))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for block in (text, f"<tool_call>{text}</tool_call>", f"<tools>[{text}]</tools>"):
        for role in ("assistant", "system", "tool"):
            convert({"role": role, "content": block})
