"""Talk to a trained run: the prompt is the one a serving engine makes, the answer streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.native_calls import Answer, form_of
from axtune.data.render import prompt_ids
from axtune.errors import AxtuneError
from axtune.model.trained import load_trained, stops_of
from axtune.quiet import quiet_libraries

HELP = "/system TEXT   /tools FILE   /reset   /exit"


def chat(
    run: str,
    *,
    message: str | None = None,
    system: str | None = None,
    tools_file: str | Path | None = None,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    console: Console | None = None,
) -> Answer | None:
    """Talk to a run, or to a model that nobody has trained yet.

    Args:
        run: A run folder, or a model as `axtune.checkpoint.locate.find` takes it.
        message: One message to answer; None opens a conversation on the terminal.
        system: The system prompt.
        tools_file: JSON file with a list of tools in OpenAI's form.
        temperature: 0 always takes the likeliest token.
        max_new_tokens: Longest answer.
        console: Where to; standard output by default.

    Returns:
        The answer to `message`, or None after a conversation.

    Raises:
        AxtuneError: When the run, the model or the tools cannot be read, or the prompt is too long.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    tools = read_tools(tools_file) if tools_file else None
    with quiet_libraries():
        loaded = load_trained(run, lambda text: console.print(text, style="yellow"))
        talk = Talk(*loaded, console, tools, temperature, max_new_tokens)
        talk.system(system)
        if message is None:
            _converse(talk, run)
            return None
        return talk.say({"role": "user", "content": message})


def read_tools(file: str | Path) -> list[dict[str, Any]]:
    """Tools in OpenAI's form from a JSON file.

    Raises:
        AxtuneError: When the file is not a JSON list of tools.
    """
    try:
        tools = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise AxtuneError(
            f"{file} cannot be read: {reason}.", "Give a JSON file with a list of OpenAI tools."
        ) from None
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools
    ):
        raise AxtuneError(
            f"{file} is not a list of tools.",
            'Expected: [{"type": "function", "function": {"name": …, "parameters": …}}, …].',
        )
    return tools


@dataclass
class Talk:
    """A conversation with a loaded model.

    Attributes:
        model: The base, with or without an adapter.
        tokenizer: The base's.
        console: Where answers go.
        tools: What the model may call, or None.
        temperature: 0 is greedy.
        max_new_tokens: Longest answer.
        messages: The conversation so far, in OpenAI's form.
    """

    model: PreTrainedModel
    tokenizer: AxTokenizer
    console: Console
    tools: list[dict[str, Any]] | None
    temperature: float
    max_new_tokens: int
    messages: list[dict[str, Any]] = field(default_factory=list)

    def system(self, text: str | None) -> None:
        """Begin anew under a system prompt, or under none."""
        self.messages = [{"role": "system", "content": text}] if text else []

    def say(self, *turns: dict[str, Any]) -> Answer:
        """Add turns, let the model answer, print the answer as it comes.

        Args:
            turns: A user's turn, or the results of the calls that the model made.

        Returns:
            The answer, which has become part of the conversation.

        Raises:
            AxtuneError: When the prompt cannot be made or is too long; the turns are dropped.
        """
        messages = [*self.messages, *turns]
        ids = prompt_ids(self.tokenizer, messages, self.tools)
        room = self.model.config.max_position_embeddings - len(ids)
        if room < 1:
            raise AxtuneError(
                f"The conversation has {len(ids)} tokens; the model reads at most "
                f"{self.model.config.max_position_embeddings}.",
                "Start again (/reset), or use fewer tools.",
            )
        text, ended = self._generate(ids, min(room, self.max_new_tokens))
        form = form_of(self.tokenizer.family)
        answer = form.parse(text)
        turn: dict[str, Any] = {"role": "assistant", "content": answer.content}
        if answer.tool_calls:
            turn["tool_calls"] = answer.tool_calls
        self.messages = [*messages, turn]
        if not answer.tool_calls:  # what looked like a call and is none was held back
            self._write(text[len(form.before(text)) :])
        if answer.content or not answer.tool_calls:
            self.console.print()
        for call in answer.tool_calls:
            self.console.print(call_text(call), style="cyan", markup=False)
        if not ended:
            self.console.print("(cut here: --max-new-tokens)", style="dim", markup=False)
        return answer

    @property
    def _stops(self) -> frozenset[int]:
        return stops_of(self.model)

    def _generate(self, ids: list[int], limit: int) -> tuple[str, bool]:
        """The model's text without its end of turn, and whether it came to that end."""
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=self.temperature > 0,
            temperature=self.temperature if self.temperature > 0 else None,
            eos_token_id=sorted(self._stops),
            pad_token_id=self.tokenizer.pad_id,
        )
        stream = _Stream(self.tokenizer, self._stops, self._write)
        prompt = torch.tensor([ids], device=self.model.device)  # (1, tokens)
        with torch.inference_mode():
            self.model.generate(  # type: ignore[operator]
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=config,
                streamer=stream,
            )
        ended = bool(stream.ids) and stream.ids[-1] in self._stops
        return self.tokenizer.decode(stream.ids[:-1] if ended else stream.ids), ended

    def _write(self, text: str) -> None:
        self.console.print(Text(text), end="")
        self.console.file.flush()


class _Stream(BaseStreamer):
    """Prints text as it is generated, up to the first call, which is shown parsed later."""

    def __init__(
        self, tokenizer: AxTokenizer, stops: frozenset[int], write: Callable[[str], None]
    ) -> None:
        self.ids: list[int] = []
        self._tokenizer = tokenizer
        self._stops = stops
        self._form = form_of(tokenizer.family)
        self._write = write
        self._shown = 0
        self._past_prompt = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then token after token."""
        if not self._past_prompt:
            self._past_prompt = True
            return
        self.ids += value.flatten().tolist()
        ids = [token for token in self.ids if token not in self._stops]
        text = self._form.before(self._tokenizer.decode(ids))
        # A Hangul syllable may take several tokens; until it is whole it decodes to U+FFFD.
        if not text.endswith("\ufffd"):
            self._write(text[self._shown :])
            self._shown = len(text)

    def end(self) -> None:
        """Nothing is held back that could still be shown."""


def call_text(call: dict[str, Any]) -> str:
    """A tool call as a line of code: ``get_weather(city="서울")``."""
    function = call["function"]
    arguments = json.loads(function["arguments"])
    parts = [f"{name}={json.dumps(v, ensure_ascii=False)}" for name, v in arguments.items()]
    return f"{function['name']}({', '.join(parts)})"


def _converse(talk: Talk, run: str) -> None:
    with suppress(ImportError):  # line editing and history, where Python has them
        import readline  # noqa: F401
    talk.console.print(f"{run}   {HELP}", style="dim", markup=False)
    while True:
        try:
            line = talk.console.input(Text("you › ", style="bold")).strip()
        except (EOFError, KeyboardInterrupt):
            talk.console.print()
            return
        if line == "/exit":
            return
        if not line:
            continue
        try:
            if line.startswith("/"):
                _command(talk, line)
            else:
                _exchange(talk, line)
        except AxtuneError as error:
            talk.console.print(str(error), style="red", markup=False)
        except KeyboardInterrupt:
            talk.console.print("\n(stopped; this turn is discarded)", style="dim", markup=False)


def _command(talk: Talk, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word == "/reset":
        first = talk.messages[:1]
        talk.messages = [turn for turn in first if turn["role"] == "system"]
    elif word == "/system":
        talk.system(rest.strip() or None)
    elif word == "/tools" and rest:
        talk.tools = read_tools(rest.strip())
    else:
        raise AxtuneError(f"There is no command {word}.", HELP)


def _exchange(talk: Talk, line: str) -> None:
    """A user's turn, and as many rounds of calls and results as the model asks for."""
    answer = talk.say({"role": "user", "content": line})
    while answer.tool_calls:
        results = []
        for call in answer.tool_calls:
            prompt = Text(f"result of {call['function']['name']} › ", style="cyan")
            content = talk.console.input(prompt)
            results.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        answer = talk.say(*results)
