"""Asking a server: what is sent, what comes back, and what is said when nothing does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.openai_server import Server, running

from axtune.checkpoint import locate
from axtune.errors import AxtuneError
from axtune.verify import vllm
from axtune.verify.vllm import Reply, Served, connect, find_vllm, grown, serve

MESSAGES = [{"role": "user", "content": "서울 날씨는?"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as made:
        yield made


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_url_may_be_written_in_any_way(scheme: str, ending: str, server: Server) -> None:
    url = f"{scheme}127.0.0.1:{server.server_port}{ending}"
    assert connect(url) == Served(server.url, "mine")


@pytest.mark.parametrize(
    "answer",
    [(200, b""), (200, b"<html>"), (200, {"data": []}), (200, {}), (200, [])],
    ids=str,
)
def test_what_is_no_vllm(answer: Any, server: Server) -> None:
    server.answers["/v1/models"] = answer
    with pytest.raises(AxtuneError, match="No server answers at http") as caught:
        connect(server.url)
    assert "URL of one" in caught.value.remedy


def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(AxtuneError, match="No server answers"):
        connect(f"127.0.0.1:{vllm._free_port()}")


def test_a_prompts_tokens_are_those_of_a_request(server: Server) -> None:
    served = connect(server.url)
    assert served.tokenize(MESSAGES, None) == [25, 8]
    assert served.tokenize(MESSAGES, TOOLS) == [25, 8]
    plain = {"model": "mine", "messages": MESSAGES, "add_generation_prompt": True}
    assert server.asked == [("/tokenize", plain), ("/tokenize", {**plain, "tools": TOOLS})]


def test_an_answer_with_its_tokens(server: Server) -> None:
    server.says({"role": "assistant", "content": "맑음"}, "stop", token_ids=[40, 27])
    reply = connect(server.url).ask(MESSAGES, max_tokens=9, min_tokens=2)
    assert reply == Reply("맑음", [], "stop", [40, 27])
    ((_, request),) = server.asked
    assert (request["temperature"], request["max_tokens"], request["min_tokens"]) == (0, 9, 2)
    assert request["return_token_ids"] is True
    assert "tools" not in request


def test_an_answer_that_calls(server: Server) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    server.says(message, "tool_calls", token_ids=None)
    reply = connect(server.url).ask(MESSAGES, TOOLS)
    assert reply == Reply("", [("f", '{"a": 1}')], "tool_calls", [])
    assert server.asked[0][1]["tools"] == TOOLS


def test_a_request_that_is_refused_is_told_with_the_reason(server: Server) -> None:
    refusal = (400, {"error": {"message": "prompt too long"}})
    server.answers |= {"/tokenize": refusal, "/v1/chat/completions": refusal}
    served = connect(server.url)
    for ask in (served.tokenize, served.ask):
        with pytest.raises(AxtuneError, match="prompt too long") as caught:
            ask(MESSAGES, None)
        assert "SERVING.md" in caught.value.remedy


def choice(**values: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"index": 0, "finish_reason": "stop", **values}]}


@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (204, b""),
        (200, b"<html>"),
        (200, b"[1, 2]"),
        (200, b"3"),
        (200, {}),
        (200, {"choices": []}),
        (200, {"choices": None}),
        (200, {"error": {"message": "loading"}}),
        choice(),
        choice(message="hi"),
        choice(message={"content": [{"type": "text", "text": "hi"}]}),
        choice(message={"tool_calls": ["f"]}),
        choice(message={"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}),
        choice(message={"content": "hi"}, finish_reason=7),
    ],
    ids=str,
)
def test_an_answer_of_another_form_is_one_sentence(answer: Any, server: Server) -> None:
    served = connect(server.url)
    server.answers |= {"/v1/chat/completions": answer, "/tokenize": answer}
    with pytest.raises(AxtuneError, match=r"is not of OpenAI's interface\.\nGive the URL"):
        served.ask(MESSAGES)
    with pytest.raises(AxtuneError, match=r"not of OpenAI's interface|does not answer"):
        served.tokenize_text("hi")


def stream(*parts: Any) -> tuple[int, bytes]:
    """The body of a streamed answer; a part is a choice, or what else stands there."""
    values = [{"choices": [part]} if isinstance(part, dict) else part for part in parts]
    lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return 200, b"".join(b"data: " + line + b"\n\n" for line in lines)


HALF = {"index": 0, "delta": {"content": "맑"}, "finish_reason": None}
END = {"index": 0, "delta": {"content": "음"}, "finish_reason": "stop"}
FAR = {"tool_calls": [{"index": 10**9, "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (stream(HALF), "broke off an answer"),
        (stream(HALF, b"[DONE]"), "broke off an answer"),
        (stream(b"[DONE]"), "broke off an answer"),
        ((200, b""), "broke off an answer"),
        (stream(HALF, b"{"), "not of OpenAI's interface"),
        (stream(HALF, b"[1]"), "not of OpenAI's interface"),
        (stream({"index": 0, "delta": None}), "not of OpenAI's interface"),
        (stream({"index": 0, "delta": {"content": ["hi"]}}), "not of OpenAI's interface"),
        (stream({"index": 0, "delta": FAR}, END), "not of OpenAI's interface"),
        (stream(HALF, b'{"error": {"message": "out of memory"}}'), "out of memory"),
    ],
)
def test_a_streamed_answer_is_whole_or_an_error(answer: Any, said: str, server: Server) -> None:
    served = connect(server.url)
    server.answers["/v1/chat/completions"] = answer
    with pytest.raises(AxtuneError, match=said):
        served.stream(MESSAGES)
    server.answers["/v1/chat/completions"] = stream(HALF, END, b"[DONE]")
    assert served.stream(MESSAGES) == Reply("맑음", [], "stop", [])


def test_a_connection_that_breaks_while_parts_arrive(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients before version 3 let the errors of their HTTP library through."""

    class BrokenError(Exception):
        pass

    def broken(*_: object) -> None:
        raise BrokenError("peer closed connection")

    server.answers["/v1/chat/completions"] = stream(HALF, END)
    monkeypatch.setattr(vllm, "grown", broken)
    with pytest.raises(AxtuneError, match=r"broke off an answer: peer closed connection\."):
        connect(server.url).stream(MESSAGES)


def test_a_redirect_that_leads_nowhere(server: Server) -> None:
    served = connect(server.url)
    server.answers["/v1/chat/completions"] = (307, f"{server.url}/v1/chat/completions")
    with pytest.raises(AxtuneError, match=r"does not answer: .*redirects\."):
        served.ask(MESSAGES)


def test_an_answer_that_is_no_json(server: Server) -> None:
    server.answers["/tokenize"] = (200, b"<html>")
    with pytest.raises(AxtuneError, match="does not answer"):
        connect(server.url).tokenize(MESSAGES, None)


# --- a vLLM that is started -------------------------------------------------------------------

_READY = """\
import http.server, json, os, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
open(os.environ["SEEN"], "w").write(json.dumps([sys.argv[1:], os.getpid()]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def program(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program vllm of PATH, where no environment of axtune's has one."""
    file = folder / "bin" / "vllm"
    file.parent.mkdir()
    file.write_text(f"#!/usr/bin/env python3\n{code}")
    file.chmod(0o755)
    monkeypatch.setattr(vllm, "_ENVIRONMENT", Path("nowhere") / "vllm")
    monkeypatch.setenv("PATH", f"{file.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_vllm() == file


def test_the_working_folders_own_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "", monkeypatch)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    own = tmp_path / ".venv-vllm" / "bin" / "vllm"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_vllm() == own


def test_the_one_beside_the_environment_of_axtune_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm, "__file__", "/a/b/c.py")
    monkeypatch.setattr("sys.prefix", str(tmp_path / "home" / ".venv"))
    own = tmp_path / "home" / ".venv-vllm" / "bin" / "vllm"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_vllm() == own


def test_without_one_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "_ENVIRONMENT", Path("nowhere") / "vllm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AxtuneError, match="no vLLM on this machine") as caught:
        find_vllm()
    assert "scripts/setup_vllm.sh" in caught.value.remedy


def test_a_server_runs_while_it_is_used_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, _READY, monkeypatch)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    folder = locate.find("tiny-ax-4.0", weights=False).folder
    with serve(folder, 512, ["--enable-lora"]) as served:
        words, number = json.loads((tmp_path / "seen").read_text())
        os.kill(number, 0)  # it lives
    assert served.model == "tiny-ax-4.0"
    assert words[:2] == ["serve", str(folder)]
    assert words[words.index("--tool-call-parser") + 1] == "hermes"
    assert words[words.index("--max-model-len") + 1] == "512"
    assert words[-1] == "--enable-lora"
    with pytest.raises(ProcessLookupError):
        os.kill(number, signal.SIGTERM)


def test_a_server_that_ends_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "print(*range(100), 'no such model', sep='\\n')", monkeypatch)
    with (
        pytest.raises(AxtuneError, match="vLLM ended before it was ready") as caught,
        serve(locate.find("tiny-ax-4.0", weights=False).folder, 512),
    ):
        pass
    assert "no such model" in caught.value.found
    assert "\n50\n" not in caught.value.found
    assert "--vllm URL" in caught.value.remedy


def test_a_cpu_that_serves_no_4_bit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What vLLM 0.32 says on a CPU with AVX2 only.
    end = "'_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'"
    program(tmp_path, f"print({end!r}, *range(100), sep='\\n')", monkeypatch)
    with (
        pytest.raises(AxtuneError, match="with AVX-512 only") as caught,
        serve(locate.find("tiny-ax-4.0", weights=False).folder, 512),
    ):
        pass
    assert "--vllm URL" in caught.value.remedy


def part(content: str | None = None, finish: str | None = None, **call: Any) -> Any:
    """A part of a streamed answer, as the client gives it."""
    function = SimpleNamespace(name=call.get("name"), arguments=call.get("arguments"))
    calls = [SimpleNamespace(index=call["index"], function=function)] if call else None
    delta = SimpleNamespace(content=content, tool_calls=calls)
    return SimpleNamespace(delta=delta, finish_reason=finish, token_ids=[7])


def test_parts_of_an_answer_are_put_together_as_clients_do() -> None:
    reply = Reply("", [], "", [])
    for each in (
        part("확인"),
        part("합니다."),
        part(index=0, name="track", arguments=""),
        part(index=0, arguments='{"id": '),
        part(index=0, arguments='"1"}'),
        part(index=1, name="cancel", arguments="{}"),
        part(finish="tool_calls"),
    ):
        reply = grown(reply, each)
    calls = [("track", '{"id": "1"}'), ("cancel", "{}")]
    assert reply == Reply("확인합니다.", calls, "tool_calls", [7] * 7)


def test_a_texts_tokens_are_asked_as_it_stands(server: Server) -> None:
    assert connect(server.url).tokenize_text("제1조") == [25, 8]
    asked = {"model": "mine", "prompt": "제1조", "add_special_tokens": False}
    assert server.asked[-1] == ("/tokenize", asked)
