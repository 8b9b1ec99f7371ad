"""A loaded model and a server hand over what a client gets, and are known by what they compute."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.openai_server import Server, running
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.data.native_calls import Answer
from axtune.data.render import prompt_ids
from axtune.errors import AxtuneError
from axtune.evaluate import models
from axtune.evaluate.generate import Sampling
from axtune.evaluate.models import Asked, Endpoint, LocalModel, Said
from axtune.evaluate.questions import Question
from axtune.evaluate.score import Rules, Wanted

pytestmark = LIBRARY_WARNINGS

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as made:
        yield made


def asked(model: Endpoint | LocalModel, *texts: str) -> list[Asked]:
    found = []
    for text in texts:
        messages = [{"role": "user", "content": text}]
        question = Question(text, "call", messages, [TOOL], Wanted("text"), Rules())
        found.append(Asked(question, prompt_ids(model.tokenizer, messages, [TOOL]), 7))
    return found


def test_a_server_is_asked_what_a_client_sends(server: Server) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    server.says({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")
    model = Endpoint(server.url, "tiny-ax-4.0")
    found = list(model.answers(asked(model, "하나", "둘"), Sampling(), lambda number: number == 1))
    (said,) = [batch[1] for batch in found]
    ours = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert (said.answer, said.ended) == (Answer("", [ours]), True)
    ((_, request),) = server.asked
    assert request["messages"] == [{"role": "user", "content": "둘"}]
    assert (request["tools"], request["temperature"]) == ([TOOL], 0)
    assert "seed" not in request
    assert request["return_token_ids"] is True


def test_only_vllm_is_asked_for_what_only_vllm_knows(server: Server) -> None:
    server.answers["/v1/models"] = (200, {"data": [{"id": "mine", "owned_by": "someone"}]})
    server.says({"role": "assistant", "content": "네"}, "stop")
    model = Endpoint(server.url, "tiny-ax-4.0")
    list(model.answers(asked(model, "하나"), Sampling(), lambda _: True))
    assert "return_token_ids" not in server.asked[0][1]


def test_a_draw_is_asked_for_with_its_seed(server: Server) -> None:
    server.says({"role": "assistant", "content": "네"}, "length")
    model = Endpoint(server.url, "tiny-ax-4.0")
    ((said,),) = [
        batch.values()
        for batch in model.answers(asked(model, "하나"), Sampling(0.5, 9), lambda _: True)
    ]
    assert (said.answer.content, said.ended) == ("네", False)
    ((_, request),) = server.asked
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0.5, 7, 9)


def test_a_server_that_is_busy_is_asked_again(server: Server) -> None:
    server.says({"role": "assistant", "content": "네"}, "stop")
    server.refusals = 2
    model = Endpoint(server.url, "tiny-ax-4.0")
    assert len(list(model.answers(asked(model, "하나"), Sampling(), lambda _: True))) == 1
    assert len(server.asked) == 3


def test_a_server_that_refuses_is_a_sentence(server: Server) -> None:
    server.answers["/v1/chat/completions"] = (400, {"message": "too long"})
    model = Endpoint(server.url, "tiny-ax-4.0")
    with pytest.raises(AxtuneError, match="refused a request"):
        list(model.answers(asked(model, "하나", "둘", "셋"), Sampling(), lambda _: True))


@pytest.mark.parametrize("answer", [b"<html>", {"choices": []}, []])
def test_what_is_no_answer_is_a_sentence(server: Server, answer: object) -> None:
    server.answers["/v1/chat/completions"] = (200, answer)
    model = Endpoint(server.url, "tiny-ax-4.0")
    with pytest.raises(AxtuneError, match=r"하나: What .* is not of OpenAI's interface") as caught:
        list(model.answers(asked(model, "하나"), Sampling(), lambda _: True))
    assert "the same command goes on" in caught.value.remedy


def test_nobody_waits_for_requests_under_way_at_ctrl_c(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons = []

    def said(*_: object, **__: object) -> Said:
        daemons.append(threading.current_thread().daemon)
        return Said(Answer("네", []), True, [], [])

    monkeypatch.setattr(models, "_ask", said)
    model = Endpoint(server.url, "tiny-ax-4.0")
    asks = asked(model, "하나", "둘", "셋")
    found = list(model.answers(asks, Sampling(batch_size=2), lambda _: True))
    assert sorted(number for one in found for number in one) == [0, 1, 2]
    assert daemons == [True, True, True]


def test_nothing_there_is_a_sentence() -> None:
    with pytest.raises(AxtuneError, match="No server answers at"):
        Endpoint("http://127.0.0.1:9", "tiny-ax-4.0")


def test_a_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    left, right = LocalModel("tiny-ax-4.0", print), LocalModel("tiny-ax-3.1", print)
    assert left.facts == LocalModel("tiny-ax-4.0", print).facts
    assert left.facts != right.facts
    folder = checkpoint(tmp_path / "copy").folder
    before = LocalModel(str(folder), print).facts
    weights = next(folder.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert LocalModel(str(folder), print).facts != before


def test_a_loaded_model_answers_as_vllm_would_hand_it_over() -> None:
    model = LocalModel("tiny-ax-4.0", print)
    (batch,) = model.answers(asked(model, "하나"), Sampling(0.0, 5), lambda _: True)
    said = batch[0]
    ids = said.ids[:-1] if said.ended else said.ids
    assert said.answer == Answer(model.tokenizer.decode(ids), [])
    assert len(said.margins) == len(said.ids)
    model.release()
