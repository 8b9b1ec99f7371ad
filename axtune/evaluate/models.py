"""Who answers: a model loaded in this process, or a server that is asked as a client asks it.

Both hand over what a client gets, and say by what facts an answer of theirs is known again.
"""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import PreTrainedModel

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.provenance import base_digests
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.data.native_calls import Answer, form_of
from axtune.data.samples import Sample
from axtune.errors import AxtuneError
from axtune.evaluate.generate import Prompt, Sampling, generate
from axtune.evaluate.harness import loaded_model, served_model
from axtune.evaluate.losses import SampleLoss, sample_losses
from axtune.evaluate.questions import Question
from axtune.model.dtypes import PRECISIONS, stated_dtype
from axtune.model.load import choose_precision
from axtune.model.trained import load_trained, trained_checkpoint
from axtune.verify.vllm import Reply, Served, connect, require_client

if TYPE_CHECKING:
    from lm_eval.api.model import LM

_AT_ONCE = 16  # requests to a server, which puts them into one batch
_TASK_BATCH = 16  # prompts of lm-evaluation-harness at once
_RETRIES = 4  # the client waits longer each time, as the API's errors ask


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, ready to be answered.

    Attributes:
        question: With its messages and tools.
        prompt: Token ids of it, up to where the assistant begins to speak.
        seed: Of this answer.
    """

    question: Question
    prompt: list[int]
    seed: int


@dataclass(frozen=True, slots=True)
class Said:
    """What was answered.

    Attributes:
        answer: As the client gets it.
        ended: Whether it came to its end before the longest answer.
        ids: Its tokens, the end of turn among them, where they are known.
        margins: By how much each token's logit led the second best; empty where nobody computed it.
    """

    answer: Answer
    ended: bool
    ids: list[int]
    margins: list[float]


class Model(Protocol):
    """Who answers.

    Attributes:
        name: As the user gave it.
        backend: ``transformers``, or ``endpoint``.
        tokenizer: That renders its prompts.
        weights: Digests of what it computes with.
        epsilon: Between 1 and the next number that it computes with.
        facts: JSON by which its answers are known again.
    """

    name: str
    backend: str
    tokenizer: AxTokenizer
    weights: dict[str, Any]
    epsilon: float
    facts: dict[str, Any]

    def answers(
        self, asked: Sequence[Asked], sampling: Sampling, wanted: Callable[[int], bool]
    ) -> Iterator[dict[int, Said]]:
        """Answer questions, some at a time.

        Args:
            asked: All of them.
            sampling: How.
            wanted: Whether one, by its number, is to be answered.

        Yields:
            Answers by the numbers of their questions; also some that are not wanted.

        Raises:
            AxtuneError: When the model cannot be loaded, or the server does not answer.
        """

    def losses(
        self, samples: Sequence[Sample], on_batch: Callable[[int], None]
    ) -> list[SampleLoss] | None:
        """What it thinks of samples; None of a server, which does not tell.

        Args:
            samples: Of the rows.
            on_batch: Called after each batch with how many samples it had.
        """

    def for_tasks(self, sampling: Sampling, *, chat: bool) -> LM:
        """The same model as lm-evaluation-harness asks it.

        Args:
            sampling: Whose batch size is taken.
            chat: Whether prompts are put through the chat template.
        """

    def release(self) -> None:
        """Give its memory back."""


class LocalModel:
    """A run, an adapter or a checkpoint, loaded in this process when it is first asked.

    Args:
        name: As `axtune.model.trained.trained_checkpoint` takes it.
        say: Called with what a user should know of the run.

    Raises:
        AxtuneError: When it cannot be found.
    """

    backend = "transformers"

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name = name
        self._say = say
        self._loaded: PreTrainedModel | None = None
        checkpoint, run, adapter = trained_checkpoint(name)
        self.tokenizer = load_tokenizer(checkpoint)
        precision = choose_precision(run.recipe.precision if run else "auto")
        self.epsilon = torch.finfo(PRECISIONS[precision]).eps
        self.weights = _digests(checkpoint, adapter)
        self.facts = {
            "backend": self.backend,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "weights": self.weights,
            "precision": precision,
            "quantization": run.recipe.quantization if run else None,
        }

    def answers(
        self, asked: Sequence[Asked], sampling: Sampling, wanted: Callable[[int], bool]
    ) -> Iterator[dict[int, Said]]:
        """Answer in batches."""
        tokenizer, form = self.tokenizer, form_of(self.tokenizer.family)
        prompts = [Prompt(one.prompt, one.seed) for one in asked]
        for batch in generate(self._model(), prompts, sampling, wanted):
            said = {}
            for number, made in batch.items():
                text = tokenizer.decode(made.ids[:-1] if made.ended else made.ids)
                said[number] = Said(form.parse(text), made.ended, made.ids, made.margins)
            yield said

    def losses(
        self, samples: Sequence[Sample], on_batch: Callable[[int], None]
    ) -> list[SampleLoss] | None:
        """The loss of each sample."""
        return sample_losses(self._model(), samples, on_batch=on_batch)

    def for_tasks(self, sampling: Sampling, *, chat: bool) -> LM:
        """The loaded model, with this tokenizer."""
        size = sampling.batch_size or _TASK_BATCH
        return loaded_model(self._model(), self.tokenizer, batch_size=size, chat=chat)

    def release(self) -> None:
        """Give the weights' memory back."""
        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _model(self) -> PreTrainedModel:
        if self._loaded is None:
            self._loaded, _ = load_trained(self.name, self._say)
        return self._loaded


class Endpoint:
    """A server with OpenAI's interface, such as a running vLLM.

    Args:
        url: Of the server.
        name: What it serves: a run, an adapter or a checkpoint.
        stream: Whether answers are asked for in parts.

    Raises:
        AxtuneError: When nothing answers there, or `name` cannot be found.
        MissingPackageError: When the package openai is not installed.
    """

    backend = "endpoint"

    def __init__(self, url: str, name: str, *, stream: bool = False) -> None:
        require_client()
        served = connect(url)
        self.name = f"{name} at {served.url}"
        checkpoint, _, adapter = trained_checkpoint(name)
        self.tokenizer = load_tokenizer(checkpoint)
        stored = getattr(torch, str(stated_dtype(checkpoint.config)), torch.float32)
        self.epsilon = torch.finfo(stored).eps
        self.weights = _digests(checkpoint, adapter)
        self._served = replace(served, retries=_RETRIES)
        self._stream = stream
        self.facts = {
            "backend": self.backend,
            "url": served.url,
            "model": served.model,
            "weights": self.weights,
            "stream": stream,
        }

    def answers(
        self, asked: Sequence[Asked], sampling: Sampling, wanted: Callable[[int], bool]
    ) -> Iterator[dict[int, Said]]:
        """Answer one request for each question, several at once."""
        waiting = deque(number for number in range(len(asked)) if wanted(number))
        count = len(waiting)
        done: SimpleQueue[tuple[int, Said | Exception]] = SimpleQueue()

        def work() -> None:
            with suppress(IndexError):  # of an empty deque: nothing is left
                while True:
                    number = waiting.popleft()
                    done.put((number, self._said(asked[number], sampling)))

        # Nobody waits for these at Ctrl-C, as for those of a ThreadPoolExecutor.
        for _ in range(min(count, sampling.batch_size or _AT_ONCE)):
            Thread(target=work, daemon=True).start()
        try:
            for _ in range(count):
                number, said = done.get()
                if isinstance(said, Exception):
                    raise said
                yield {number: said}
        finally:
            waiting.clear()

    def _said(self, asked: Asked, sampling: Sampling) -> Said | Exception:
        try:
            return _ask(self._served, asked, sampling, stream=self._stream)
        except Exception as error:  # which is raised where answers are waited for
            return error

    def losses(
        self, samples: Sequence[Sample], on_batch: Callable[[int], None]
    ) -> list[SampleLoss] | None:
        """None: a server says nothing of the tokens of a prompt."""
        return None

    def for_tasks(self, sampling: Sampling, *, chat: bool) -> LM:
        """The server, asked by token ids."""
        return served_model(self._served.url, self._served.model, self.tokenizer)

    def release(self) -> None:
        """Nothing is held here."""


def _digests(checkpoint: Checkpoint, adapter: Path | None) -> dict[str, Any]:
    """What identifies the weights and the tokenizer that answers come from."""
    return {
        "base": base_digests(checkpoint.folder),
        "adapter": base_digests(adapter) if adapter else None,
    }


def _ask(served: Served, asked: Asked, sampling: Sampling, *, stream: bool) -> Said:
    """Ask a server one question."""
    ask: Callable[..., Reply] = served.stream if stream else served.ask
    drawn = {"seed": asked.seed} if sampling.temperature > 0 else {}
    try:
        reply = ask(
            asked.question.messages,
            asked.question.tools or None,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            **drawn,
        )
    except AxtuneError as error:
        raise AxtuneError(
            f"{asked.question.id}: {error.found}",
            f"{error.remedy} The answers so far are kept: the same command goes on from there.",
        ) from None
    calls = [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": _plain(arguments)},
        }
        for number, (name, arguments) in enumerate(reply.calls, 1)
    ]
    return Said(Answer(reply.content, calls), reply.finish_reason != "length", reply.ids, [])


def _plain(arguments: str) -> str:
    """The JSON text of arguments as `axtune.data.native_calls` spaces it, where it is JSON."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except ValueError:
        return arguments
