"""Who is asked, where documents may go, and what is said when a server does not do its part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.drafting import says
from support.openai_server import Server, running

from axtune.drafting.server import (
    Asking,
    TooLongError,
    UnwillingError,
    _is_private,
    find_server,
)
from axtune.errors import AxtuneError
from axtune.verify.vllm import Served

SECRET = "비밀카나리아"
MESSAGES = [{"role": "user", "content": SECRET}]
SCHEMA = {"type": "object"}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as made:
        made.reply = lambda request: says("네")
        yield made


def asking(server: Server, structured: bool | None = None, retries: int = 0) -> Asking:
    return Asking(Served(server.url, "mine", retries=retries, direct=True), 7, structured)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_only_model_is_taken(server: Server, ending: str) -> None:
    found = find_server(server.url + ending, None, allow_remote=False)
    assert (found.url, found.model, found.direct) == (server.url, "mine", True)
    assert find_server(server.url.removeprefix("http://"), "mine", allow_remote=False) == found


def test_several_models_have_to_be_told_apart(server: Server) -> None:
    server.answers["/v1/models"] = (200, {"data": [{"id": "one"}, {"id": "two"}]})
    with pytest.raises(AxtuneError, match="serves 2 models: one, two") as caught:
        find_server(server.url, None, allow_remote=False)
    assert "--model" in caught.value.remedy
    assert find_server(server.url, "two", allow_remote=False).model == "two"
    with pytest.raises(AxtuneError, match="does not serve three, but one, two"):
        find_server(server.url, "three", allow_remote=False)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_server_that_lists_no_models(server: Server, status: int) -> None:
    server.answers["/v1/models"] = (status, {"data": []})
    with pytest.raises(AxtuneError, match="No server answers"):
        find_server(server.url, None, allow_remote=False)


@pytest.mark.parametrize(
    "url", ["http://8.8.8.8:8000", "8.8.8.8", "https://[2001:4860:4860::8888]/v1"]
)
def test_documents_do_not_leave_the_building(url: str) -> None:
    with pytest.raises(AxtuneError, match="would be sent there") as caught:
        find_server(url, None, allow_remote=False)
    assert "--allow-remote" in caught.value.remedy


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.9", True),
        ("172.32.0.9", False),
        ("192.168.0.9", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
    ],
)
def test_private_addresses(address: str, private: bool) -> None:
    assert _is_private(address) is private


@pytest.mark.parametrize(
    "url",
    ["", "http://", "ftp://localhost", "file:///etc/passwd", "http://a b", "http://x:y"],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(AxtuneError, match=r"no URL of a server|cannot be found"):
        find_server(url, None, allow_remote=True)


@pytest.mark.parametrize("more", ["http://me:CANARY@localhost", "http://localhost/?key=CANARY"])
def test_a_key_does_not_belong_into_a_url(more: str) -> None:
    with pytest.raises(AxtuneError, match="more than an address") as caught:
        find_server(more, None, allow_remote=False)
    assert "CANARY" not in str(caught.value)


def test_no_redirect_is_followed_and_no_proxy_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as other:
        other.reply = server.reply
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        found = find_server(server.url, None, allow_remote=False)
        asked = Asking(found, 7)
        assert asked.ask(MESSAGES, SCHEMA, 9).content == "네"
        server.reply = lambda request: (307, f"{other.url}/v1/chat/completions")
        with pytest.raises(AxtuneError, match="sends on to another address"):
            asked.ask(MESSAGES, SCHEMA, 9)
        server.answers["/v1/models"] = (302, f"{other.url}/v1/models")
        with pytest.raises(AxtuneError, match="sends on to another server"):
            find_server(server.url, None, allow_remote=False)
        assert other.asked == []


def test_what_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asking(server)
    assert asked.ask(MESSAGES, SCHEMA, 9).content == "네"
    assert asked.structured is True
    ((_, request),) = server.asked
    assert (request["temperature"], request["seed"], request["max_tokens"]) == (0, 7, 9)
    form = request["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", SCHEMA)


@pytest.mark.parametrize("status", [400, 422, 500, 501])
def test_a_server_without_structured_output(server: Server, status: int) -> None:
    server.reply = lambda request: (status, {}) if "response_format" in request else says("네")
    asked = asking(server)
    for _ in range(2):
        assert asked.ask(MESSAGES, SCHEMA, 9).content == "네"
    assert asked.structured is False
    assert ["response_format" in request for _, request in server.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, {"message": f"maximum context length is 2048 {SECRET}"}, TooLongError, "context"),
        (400, {"error": {"message": "exceeds the available context size"}}, TooLongError, ""),
        (413, {"message": SECRET}, UnwillingError, "status 413"),
        (400, {"message": SECRET}, UnwillingError, "log says why"),
        (401, {"message": SECRET}, AxtuneError, "OPENAI_API_KEY"),
        (404, {"message": SECRET}, AxtuneError, "--model"),
        (429, {"message": SECRET}, AxtuneError, "status 429"),
        (503, {"message": SECRET}, AxtuneError, "status 503"),
        (200, b"<html>", AxtuneError, "interface"),
        (200, {"choices": []}, AxtuneError, "interface"),
        (200, {}, AxtuneError, "interface"),
        (200, [], AxtuneError, "interface"),
    ],
)
def test_what_a_server_refuses(
    server: Server, status: int, body: Any, kind: type[AxtuneError], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY")
    server.reply = lambda request: (status, body)
    with pytest.raises(kind) as caught:
        asking(server, structured=True).ask(MESSAGES, SCHEMA, 9)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert SECRET not in json.dumps(str(caught.value), ensure_ascii=False)
    assert "CANARY" not in str(caught.value)


def test_a_server_that_has_gone() -> None:
    asked = Asking(Served("http://127.0.0.1:9", "mine", direct=True), 7)
    with pytest.raises(AxtuneError, match="does not answer"):
        asked.ask(MESSAGES, SCHEMA, 9)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.reply = None
    server.refusals = 1
    server.says({"role": "assistant", "content": "네"}, "stop")
    assert asking(server, retries=2).ask(MESSAGES, SCHEMA, 9).content == "네"
