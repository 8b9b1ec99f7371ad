"""The real vLLM: started on a folder, or already running somewhere, and asked as a client asks."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from axtune.checkpoint import locate
from axtune.checkpoint.leftovers import scratch
from axtune.config.faults import first_line
from axtune.errors import AxtuneError, MissingPackageError

_START_SECONDS = 900
_TOKENIZE_SECONDS = 60
_ANSWER_SECONDS = 600
_LOG_LINES = 12
_NEEDS_AVX_512 = "cpu_gemm_wna16"  # its product of weights in 4 bit, absent from other builds
_AS_EXPORTED = "Start the server with the command in SERVING.md of the exported folder."
_LOOK = "Look into the server's log, and start it again."
# What reading an answer raises that has another form than OpenAI's interface gives it.
_OTHER_FORM = (AttributeError, LookupError, TypeError, ValueError)

# Where scripts/setup_vllm.sh puts it: it needs other versions of torch and transformers than ours.
_ENVIRONMENT = Path(".venv-vllm") / "bin" / "vllm"


class RefusedError(AxtuneError):
    """A request that a server refused, or did not answer to its end.

    Args:
        found: As in `AxtuneError`; it may hold what the server says of the request.
        remedy: As in `AxtuneError`.
        status: Of HTTP; None where no answer came.
    """

    def __init__(self, found: str, remedy: str, status: int | None) -> None:
        super().__init__(found, remedy)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What a client got back.

    Attributes:
        content: The text; empty when there is none.
        calls: Name and arguments, JSON text, of each call.
        finish_reason: ``stop``, ``tool_calls`` or ``length``.
        ids: The tokens that the model wrote, its end of turn among them.
    """

    content: str
    calls: list[tuple[str, str]]
    finish_reason: str
    ids: list[int]


@dataclass(frozen=True)
class Served:
    """A running vLLM.

    Attributes:
        url: Where it answers, such as ``http://localhost:8000``.
        model: The name by which requests ask for the model.
        tells_ids: Whether it says the tokens of an answer, as vLLM does when asked.
        retries: How often a request is sent again that the server could not take.
        direct: Whether requests go to that address alone: by no proxy, and on to no other server
            where the first one says so.
    """

    url: str
    model: str
    tells_ids: bool = True
    retries: int = 0
    direct: bool = False

    def tokenize(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None
    ) -> list[int]:
        """The ids of the prompt that the engine makes of a request.

        Raises:
            AxtuneError: When the server refuses the request or does not answer.
        """
        request: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
        return self._tokens({**request, "add_generation_prompt": True})

    def tokenize_text(self, text: str) -> list[int]:
        """The ids that the engine makes of a text to go on with.

        Raises:
            AxtuneError: When the server refuses the request or does not answer.
        """
        request = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return self._tokens(request)

    def _tokens(self, request: dict[str, Any]) -> list[int]:
        answer = _post(f"{self.url}/tokenize", request)
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise _of_another_form(self.url)
        return tokens

    def ask(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        **extra: Any,
    ) -> Reply:
        """One answer, through the OpenAI client.

        Args:
            messages: In OpenAI's form.
            tools: What may be called.
            max_tokens: Longest answer.
            temperature: 0 always takes the likeliest token.
            extra: vLLM's own parameters.

        Raises:
            RefusedError: When the server refuses the request or does not answer.
            AxtuneError: When what it answers is not of OpenAI's interface.
            MissingPackageError: When the package openai is not installed.
        """
        with self._completion(messages, tools, max_tokens, temperature, extra) as answer:
            choice = answer.choices[0]
            return _checked(
                Reply(
                    content=choice.message.content or "",
                    calls=[
                        (call.function.name, call.function.arguments)
                        for call in choice.message.tool_calls or ()
                    ],
                    finish_reason=choice.finish_reason or "",
                    ids=list(getattr(choice, "token_ids", None) or ()),  # older servers send none
                )
            )

    def stream(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        **extra: Any,
    ) -> Reply:
        """The same answer as it arrives in parts, put together as clients do.

        Args:
            messages: As for `ask`, and so the others.
            tools: What may be called.
            max_tokens: Longest answer.
            temperature: 0 always takes the likeliest token.
            extra: vLLM's own parameters.

        Raises:
            RefusedError: When the server refuses the request or breaks off.
            AxtuneError: When what it answers is not of OpenAI's interface.
            MissingPackageError: When the package openai is not installed.
        """
        reply = Reply("", [], "", [])
        completion = self._completion(messages, tools, max_tokens, temperature, extra, stream=True)
        with completion as parts:
            for part in parts:
                if part.choices:
                    reply = _checked(grown(reply, part.choices[0]))
        if not reply.finish_reason:  # which the last part of every answer has
            raise RefusedError(f"{self.url} broke off an answer.", _LOOK, None)
        return reply

    @contextmanager
    def _completion(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None,
        max_tokens: int,
        temperature: float,
        extra: dict[str, Any],
        **how: Any,
    ) -> Iterator[Any]:
        """What the client gives back; errors of reading it are the server's too."""
        require_client()
        import openai

        client = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            timeout=_ANSWER_SECONDS,
            max_retries=self.retries,
            http_client=openai.DefaultHttpxClient(
                trust_env=not self.direct, follow_redirects=not self.direct
            ),
        )
        wanted = {"return_token_ids": True} if self.tells_ids else {}
        try:
            with client:
                yield client.chat.completions.create(
                    model=self.model,
                    messages=list(messages),  # type: ignore[arg-type]
                    tools=list(tools) if tools else openai.omit,  # type: ignore[arg-type]
                    temperature=temperature,
                    max_tokens=max_tokens,
                    extra_body={**wanted, **extra},
                    **how,
                )
        except openai.APIConnectionError as error:
            reason = first_line(error.__cause__ or error).rstrip(".")
            raise RefusedError(f"{self.url} does not answer: {reason}.", _LOOK, None) from None
        except openai.APIResponseValidationError:
            raise _of_another_form(self.url) from None
        except openai.OpenAIError as error:
            raise RefusedError(
                f"{self.url} refused a request: {first_line(error).rstrip('.')}.",
                _AS_EXPORTED,
                getattr(error, "status_code", None),
            ) from None
        except _OTHER_FORM:
            raise _of_another_form(self.url) from None
        except Exception as error:  # of the client's HTTP library, another one in each version
            reason = first_line(error).rstrip(".")
            raise RefusedError(f"{self.url} broke off an answer: {reason}.", _LOOK, None) from None


def _of_another_form(url: str) -> AxtuneError:
    return AxtuneError(
        f"What {url} answers is not of OpenAI's interface.",
        "Give the URL of an OpenAI-compatible server, such as vLLM's.",
    )


def _checked(reply: Reply) -> Reply:
    """The same reply; the client takes what a server sends, whatever its types are.

    Raises:
        TypeError: When a text of it is none.
    """
    texts = (reply.content, reply.finish_reason, *chain.from_iterable(reply.calls))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a reply is made of texts")
    return reply


def grown(reply: Reply, choice: Any) -> Reply:
    """A reply with a further part: a call's name comes once, its arguments piece by piece.

    Raises:
        LookupError: When a call before it is missing.
    """
    calls = list(reply.calls)
    for part in choice.delta.tool_calls or ():
        if part.index == len(calls):
            calls.append(("", ""))
        name, arguments = calls[part.index]
        function = part.function
        calls[part.index] = (name + (function.name or ""), arguments + (function.arguments or ""))
    return Reply(
        reply.content + (choice.delta.content or ""),
        calls,
        choice.finish_reason or reply.finish_reason,
        reply.ids + list(getattr(choice, "token_ids", None) or ()),
    )


def require_client() -> None:
    """Check that the OpenAI client is there.

    Raises:
        MissingPackageError: When it is not.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingPackageError(
            "Sending requests to vLLM needs the package openai, which is not installed.",
            "Run `pip install openai`.",
        )


def connect(url: str) -> Served:
    """A vLLM that is running already.

    Raises:
        AxtuneError: When nothing that serves a model answers there.
    """
    return served_models(url)[0]


def served_models(url: str, *, direct: bool = False) -> list[Served]:
    """The models of a server that is running already, one or more, in its order.

    Args:
        url: With ``/v1`` or without, and ``http://`` where it names no protocol.
        direct: As in `Served`.

    Raises:
        AxtuneError: When nothing that serves a model answers there.
    """
    url = url.rstrip("/").removesuffix("/v1")
    if "://" not in url:
        url = f"http://{url}"
    alone = (urllib.request.ProxyHandler({}), _NoRedirect()) if direct else ()
    try:
        key = os.environ.get("OPENAI_API_KEY", "none")
        request = urllib.request.Request(
            f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.build_opener(*alone).open(request, timeout=10) as stream:
            models = json.load(stream)["data"]
        _ = models[0]
        return [
            Served(url, str(one["id"]), tells_ids=one.get("owned_by") == "vllm", direct=direct)
            for one in models
        ]
    except (OSError, http.client.HTTPException, *_OTHER_FORM) as error:
        other = isinstance(error, _OTHER_FORM) and not isinstance(error, OSError)
        reason = "what is there lists no models" if other else str(error)
        raise AxtuneError(
            f"No server answers at {url} ({reason}).", "Give the URL of one that is running."
        ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Goes where it was sent, and nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: int, *_: Any) -> NoReturn:
        raise urllib.error.HTTPError(req.full_url, code, "it sends on to another server", {}, fp)  # type: ignore[arg-type]


@contextmanager
def serve(
    folder: Path, context: int, words: Sequence[str] = (), log: Path | None = None
) -> Iterator[Served]:
    """Start vLLM on a folder and stop it afterwards.

    Args:
        folder: That ``axtune export --to vllm`` made.
        context: Longest sequence, prompt and answer, in tokens; what vLLM reserves memory for.
        words: Further arguments of its command line, such as those for an adapter.
        log: Where its output goes; None keeps it only for an error's message.

    Yields:
        The server, ready to answer.

    Raises:
        AxtuneError: When vLLM is not there, ends, or is not ready in 15 minutes.
    """
    port = _free_port()
    parser = locate.find(str(folder), weights=False).family.tool_parser
    command = [
        str(find_vllm()), "serve", str(folder), "--served-model-name", folder.name,
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(context),
        "--enable-auto-tool-choice", "--tool-call-parser", parser, "--enforce-eager", *words,
    ]  # fmt: skip
    # The CPU build would take half of the machine's memory for its cache.
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
    with scratch() as place:  # its log may hold prompts
        log = log or place / "vllm.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end it as a group
            )
        try:
            _wait(process, port, log)
            yield Served(f"http://127.0.0.1:{port}", folder.name)
        finally:
            _end(process)


def find_vllm() -> Path:
    """The program ``vllm``: of ``.venv-vllm`` in the working folder or next to axtune, or of PATH.

    Next to axtune is in its checkout, and beside the environment that it is installed in.

    Raises:
        AxtuneError: When there is none.
    """
    beside = (Path(__file__).parents[2], Path(sys.prefix).parent)
    for path in (_ENVIRONMENT.absolute(), *(place / _ENVIRONMENT for place in beside)):
        if path.is_file():
            return path
    if found := shutil.which("vllm"):
        return Path(found)
    raise AxtuneError(
        "There is no vLLM on this machine.",
        "Install it into an environment of its own, with `bash scripts/setup_vllm.sh` in axtune's "
        "checkout or from a kit made with `axtune kit --vllm`; or give the URL of a running "
        "server: --vllm URL.",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip()
            if _NEEDS_AVX_512 in said:
                raise AxtuneError(
                    "vLLM's CPU build serves weights in 4 bit with AVX-512 only, which this CPU "
                    "does not have.",
                    "Serve the folder on a GPU or on such a CPU, and give its URL: --vllm URL; "
                    "without --vllm everything else is verified here.",
                )
            raise AxtuneError(
                "vLLM ended before it was ready. Its last lines:\n"
                + "\n".join(said.splitlines()[-_LOG_LINES:]),
                "Start it yourself, and give its URL: --vllm URL.",
            )
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AxtuneError(
        f"vLLM was not ready after {_START_SECONDS // 60} minutes.",
        "Start it yourself, and give its URL: --vllm URL.",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    process.wait()


def _post(url: str, request: dict[str, Any]) -> Any:
    body = json.dumps(request).encode()
    call = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=_TOKENIZE_SECONDS) as stream:
            return json.load(stream)
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read().decode(errors="replace")[:300]
        raise AxtuneError(f"{url} refused a request: {reason}", _AS_EXPORTED) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AxtuneError(f"{url} does not answer: {first_line(error)}", _LOOK) from None
