"""Who is asked: a server of this machine or this network, unless the user says otherwise.

Documents of a company are sent there, so that its address is looked at first. To a private address
requests go straight, by no proxy and with no redirect, and what a server says of a request, which
may repeat it, is never shown.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
from dataclasses import dataclass, replace
from typing import Any

from axtune.errors import AxtuneError
from axtune.verify.vllm import RefusedError, Reply, Served, require_client, served_models

_RETRIES = 4
# What servers say of a request that does not fit: vLLM, llama.cpp, Ollama, OpenAI.
_TOO_LONG = re.compile(
    r"context.{0,20}(?:length|size|window)|max(?:imum)?[ _]?(?:model|context)[ _]?len"
    r"|too (?:long|many tokens|large)|exceed",
    re.IGNORECASE,
)
# Statuses that speak of one request; others are the server's own trouble, or the user's key.
_OF_THE_REQUEST = (400, 413, 422)
_OF_A_SCHEMA = (*_OF_THE_REQUEST, 500, 501)  # where a server that knows none is sent one


class TooLongError(AxtuneError):
    """A request that does not fit in the model's context."""


class UnwillingError(AxtuneError):
    """A request that the server refuses, for a reason of its own."""


@dataclass(slots=True)
class Asking:
    """A server and how it is asked.

    Attributes:
        served: The server.
        seed: Sent with each request.
        structured: Whether it is sent the JSON Schema of its answers; None until it has answered.
    """

    served: Served
    seed: int
    structured: bool | None = None

    def ask(self, messages: list[dict[str, Any]], schema: dict[str, Any], max_tokens: int) -> Reply:
        """One reply. The first one finds out whether the server takes a schema.

        Raises:
            TooLongError: When the prompt and the reply do not fit in the model's context.
            UnwillingError: When this request is refused.
            AxtuneError: When the server does not answer, or refuses every request.
        """
        if self.structured is not None:
            return self._ask(messages, schema if self.structured else None, max_tokens)
        try:
            reply = self._ask(messages, schema, max_tokens)
            self.structured = True
        except UnwillingError:
            reply = self._ask(messages, None, max_tokens)
            self.structured = False
        return reply

    def _ask(
        self, messages: list[dict[str, Any]], schema: dict[str, Any] | None, max_tokens: int
    ) -> Reply:
        form: dict[str, Any] = {}
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            form = {"response_format": {"type": "json_schema", "json_schema": named}}
        try:
            return self.served.ask(messages, max_tokens=max_tokens, seed=self.seed, **form)
        except RefusedError as error:
            trying = schema is not None and self.structured is None
            raise self._explained(error, _OF_A_SCHEMA if trying else _OF_THE_REQUEST) from None

    def _explained(self, error: RefusedError, of_the_request: tuple[int, ...]) -> AxtuneError:
        """What is said of a refusal: never the server's own words, which may repeat the request."""
        url, status = self.served.url, error.status
        if status is None:
            return AxtuneError(f"{url} does not answer.", "Look into its log, and start it again.")
        said = f"{url} refused a request with status {status}"
        if status in of_the_request:
            if _TOO_LONG.search(error.found):
                return TooLongError(f"{said}: it does not fit in the context of the model.")
            return UnwillingError(f"{said}.", "The server's log says why.")
        if status in (401, 403):
            return AxtuneError(f"{said}: its key is wrong.", "Set OPENAI_API_KEY to its key.")
        if status == 404:
            return AxtuneError(
                f"{said}: it has no model {self.served.model}, or answers no chat completions.",
                "Give a model that it serves with --model.",
            )
        if 300 <= status < 400:
            return AxtuneError(
                f"{said}: it sends on to another address, where the documents are not sent.",
                "Give that address itself as --url.",
            )
        return AxtuneError(f"{said}.", "Look into the server's log, and start it again.")


def find_server(url: str, model: str | None, *, allow_remote: bool) -> Served:
    """The server at a URL, with the model that is to be asked.

    Args:
        url: With ``/v1`` or without.
        model: By the server's name for it; None takes the only one that it lists.
        allow_remote: Whether the server may be outside of this machine and of private networks.

    Raises:
        AxtuneError: When the URL is none or is outside, nothing answers there, or it is not clear
            which model is meant.
        MissingPackageError: When the package openai is not installed.
    """
    url, host = _split(url)
    inside = _is_inside(host)
    if not inside and not allow_remote:
        raise AxtuneError(
            f"{host} is not on this machine or in a private network, and the documents would be "
            "sent there.",
            "Give the URL of a server of your own, or add --allow-remote if they may leave.",
        )
    require_client()
    models = served_models(url, direct=inside)
    names = [one.model for one in models]
    if model is None and len(models) > 1:
        raise AxtuneError(
            f"{url} serves {len(models)} models: {', '.join(names[:10])}.",
            "Say which one is to be asked: --model NAME.",
        )
    if model is not None and model not in names:
        raise AxtuneError(
            f"{url} does not serve {model}, but {', '.join(names[:10])}.",
            "Give one of these with --model.",
        )
    return replace(models[names.index(model) if model else 0], retries=_RETRIES)


def _split(url: str) -> tuple[str, str]:
    """A URL with its protocol, and its host."""
    given = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urllib.parse.urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not given.isprintable() or " " in given:
        raise AxtuneError("--url is no URL of a server.", "Give one such as http://localhost:8000.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise AxtuneError(
            f"The URL of {host} holds more than an address.",
            "Give the address alone, and the server's key in OPENAI_API_KEY.",
        )
    return given.rstrip("/").removesuffix("/v1"), host


def _is_inside(host: str) -> bool:
    """Whether all addresses of a host are of this machine or of a private network."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise AxtuneError(
            f"The server {host} cannot be found.", "Give the URL of one that is running."
        ) from None
    return all(_is_private(str(address[0])) for *_, address in found)


def _is_private(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_private or mapped.is_loopback or mapped.is_link_local)
