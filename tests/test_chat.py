from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.chat import Talk, _Stream, call_text, chat, read_tools
from axtune.data.render import prompt_ids
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.trained import load_trained

pytestmark = LIBRARY_WARNINGS

TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}


def console():
    return Console(file=io.StringIO(), force_terminal=False, soft_wrap=True, highlight=False)


@pytest.fixture(scope="module")
def tiny():
    return load_trained("tiny-ax-4.0", print)


def talk_with(tiny, **changes):
    model, tokenizer = tiny
    values = {"tools": None, "temperature": 0.0, "max_new_tokens": 12, **changes}
    return Talk(model, tokenizer, console(), **values)


def test_the_answer_is_the_models_greedy_one_on_the_served_prompt(tiny):
    model, tokenizer = tiny
    talk = talk_with(tiny)
    talk.system("간단히 답하세요.")
    answer = talk.say({"role": "user", "content": "안녕하세요"})

    messages = [
        {"role": "system", "content": "간단히 답하세요."},
        {"role": "user", "content": "안녕하세요"},
    ]
    ids = prompt_ids(tokenizer, messages)
    said = []
    for _ in range(12):  # greedy by hand
        with torch.no_grad():
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == tokenizer.end_of_turn_id:
            break
    text = tokenizer.decode([i for i in said if i != tokenizer.end_of_turn_id])
    assert answer.content == text
    assert talk.console.file.getvalue().startswith(text.rstrip("\ufffd"))
    assert talk.messages == [*messages, {"role": "assistant", "content": text}]


def test_a_prompt_longer_than_the_context_is_refused_and_forgotten(tmp_path):
    found = checkpoint(tmp_path / "m")  # a context of 512
    talk = talk_with(load_trained(str(found.folder), print))
    with pytest.raises(AxtuneError, match="the model reads at most 512"):
        talk.say({"role": "user", "content": "가나다 " * 600})
    assert talk.messages == []


def test_the_stream_holds_back_half_a_syllable_and_calls(tiny):
    _, tokenizer = tiny
    written = []
    stream = _Stream(tokenizer, frozenset([tokenizer.end_of_turn_id]), written.append)
    stream.put(torch.tensor([[25, 8]]))  # the prompt
    text = '쀍 하나<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    ids = tokenizer.encode(text)
    assert len(tokenizer.encode("쀍")) > 1  # the case is one
    for token in [*ids, tokenizer.end_of_turn_id]:
        stream.put(torch.tensor([token]))
    assert "".join(written) == "쀍 하나"
    assert not any("\ufffd" in part for part in written)
    assert tokenizer.decode(stream.ids[:-1]) == text


def test_a_call_is_shown_as_one():
    function = {"name": "get_weather", "arguments": '{"city": "서울", "days": 3}'}
    assert call_text({"function": function}) == 'get_weather(city="서울", days=3)'


def test_tools_come_from_openai_json(tmp_path):
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([TOOL]))
    assert read_tools(file) == [TOOL]
    for text, match in (("{", "not JSON"), ("{}", "not a list of tools"), ("[1]", "not a list")):
        file.write_text(text)
        with pytest.raises(AxtuneError, match=match):
            read_tools(file)
    with pytest.raises(AxtuneError, match="No such file"):
        read_tools(tmp_path / "nowhere.json")


def test_one_message_prints_its_answer(tmp_path):
    out = console()
    answer = chat("tiny-ax-3.1", message="안녕하세요", max_new_tokens=8, console=out)
    assert answer is not None
    assert out.file.getvalue().startswith(answer.content.rstrip("\ufffd"))


def test_a_conversation_with_commands_and_a_tool_result(monkeypatch, tmp_path, tiny):
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([TOOL]))
    lines = iter(
        ["", "/nope", f"/tools {tools}", "/system 짧게", "안녕", "/reset", "/exit", "never"]
    )
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    out = console()
    assert chat("tiny-ax-4.0", max_new_tokens=4, console=out) is None
    assert "There is no command /nope." in out.file.getvalue()
    assert next(lines) == "never"


def test_results_go_in_as_tool_turns_until_the_model_stops_calling(monkeypatch, tiny):
    from axtune import chat as room
    from axtune.data.native_calls import Answer

    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = iter(['<tool_call>{"name": "f", "arguments": {}}</tool_call>', "끝"])
    prompts = []

    def speak(self, ids, limit):  # an untrained model calls nothing; what follows its words is real
        prompts.append(self.tokenizer.decode(ids))
        return next(said), True

    monkeypatch.setattr(Talk, "_generate", speak)
    monkeypatch.setattr("builtins.input", lambda *_: '{"ok": true}')
    talk = talk_with(tiny, tools=[TOOL])
    room._exchange(talk, "해 줘")
    assert [turn["role"] for turn in talk.messages] == ["user", "assistant", "tool", "assistant"]
    assert talk.messages[1]["tool_calls"] == [call]
    assert '<tool_output>{"ok": true}</tool_output>' in prompts[1]
    assert "f()" in talk.console.file.getvalue()
    assert isinstance(Answer("", []), tuple)


def test_what_is_neither_run_nor_model_is_a_sentence():
    with pytest.raises(CheckpointError, match="no model"):
        chat("no-such-thing", message="hi")
