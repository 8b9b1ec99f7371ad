"""A server with OpenAI's interface that remembers what it was asked and answers what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """A server that remembers what it was asked and answers what a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals = 0  # requests that it cannot take first
        self.asked: list[tuple[str, Any]] = []
        # What is answered to a chat, where that depends on it: a status and JSON.
        self.reply: Callable[[dict[str, Any]], tuple[int, Any]] | None = None
        self.answers: dict[str, tuple[int, Any]] = {
            "/v1/models": (200, {"data": [{"id": "mine", "owned_by": "vllm"}]}),
            "/tokenize": (200, {"tokens": [25, 8], "count": 2}),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, message: dict[str, Any], finish_reason: str, **more: Any) -> None:
        self.answers["/v1/chat/completions"] = (200, completion(message, finish_reason, **more))


def completion(message: dict[str, Any], finish_reason: str, **more: Any) -> dict[str, Any]:
    """A reply in OpenAI's form."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": message, **more}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "mine"}
    return {**whole, "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, json.loads(body)))
        self._answer(json.loads(body))

    def _answer(self, request: dict[str, Any] | None = None) -> None:
        status, value = self.server.answers.get(self.path, (404, {}))
        if self.path.endswith("completions") and self.server.reply and request:
            status, value = self.server.reply(request)
        if self.path.endswith("completions") and self.server.refusals:
            self.server.refusals -= 1
            status, value = 503, {}
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if 300 <= status < 400:
            self.send_header("Location", value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def running() -> Iterator[Server]:
    """Serve for as long as the block lasts."""
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
