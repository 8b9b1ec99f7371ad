"""The certificate: a checkpoint is whole, computes what was trained, and serves the same tokens.

Files are held against the base (`doctor`), the model against base and adapter in float32
(`layerwise`), and the prompts that the real vLLM makes against those of training (`serving`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint import locate
from axtune.checkpoint.base import find_base, run_of
from axtune.checkpoint.locate import ADAPTER_CONFIG, Checkpoint
from axtune.checkpoint.provenance import unquantized
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.config.objective import objective_of
from axtune.config.recipe import Data, Source, Task
from axtune.data.conversation import normalise_request
from axtune.data.dataset import held_out_rows
from axtune.data.messages import Message
from axtune.data.native_calls import CallForm, form_of
from axtune.data.pipeline import RowChecker
from axtune.data.requests import Request, document_ids, read_requests, requests_of, same_answer
from axtune.data.sources import files_of
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, CheckpointError, MissingPackageError
from axtune.model.dtypes import stated_dtype
from axtune.model.int4 import is_int4
from axtune.quiet import quiet_libraries
from axtune.verify.agreement import (
    MOST_KL,
    against_16_bit,
    how_made,
    incomparable,
    recorded_base,
    unmeasured,
)
from axtune.verify.certificate import Certificate, Check
from axtune.verify.doctor import CONVERSATION, TOOLS, examine
from axtune.verify.layerwise import Layerwise, Reading
from axtune.verify.vllm import Reply, Served, connect, find_vllm, require_client, serve
from axtune.weights.nf4 import FourBit, four_bit

# Holds a 4-bit checkpoint's answers against those of its 16-bit base with an adapter, which may be
# None; given the run and the rows' files, where there are any, and `least_agreement`.
Ask = Callable[
    [Checkpoint, Checkpoint, Path | None, Run | None, Sequence[str], float | None], Iterable[Check]
]

START = "start"  # instead of a server's URL: start one

# How far rounding every weight once may move the logits, as a share of their spread: eight times
# the rounding of one number (2^-8 for bfloat16, so 3.1%). Errors of a layer's many weights mostly
# cancel: the embedded models' merges measure 0.2 to 0.6%.
_ROUNDINGS = 8
_LEAST_BOUND = 1e-3  # of float32's own noise, when two programs add in different orders

_PROMPTS = 4
_POSITIONS = 512  # of all prompts together: a row of logits has 100,000 numbers
_NEW_TOKENS = 16
_AUTO_TEXTS = 256
_CALLS = 8
_TEXTS = 4

_PARSER = "Start vLLM with --enable-auto-tool-choice --tool-call-parser {}."


def verify(
    folder: str | Path,
    *,
    against: str | None = None,
    adapter: str | Path | None = None,
    data: Sequence[str] = (),
    vllm: str | None = None,
    most_kl: float | None = None,
    least_agreement: float | None = None,
    ask: Ask | None = None,
) -> Certificate:
    """Check a checkpoint and write its certificate next to the weights.

    Args:
        folder: A checkpoint that `axtune.weights.merge` or `axtune.export.export` made, or any
            other.
        against: Its base, as `axtune.checkpoint.locate.find` takes it, or a folder quantised from
            that; None takes the adapter's, or of a folder in 4 bit the one that its record names.
        adapter: What was merged into it: a run's folder or an adapter's; None for the base itself.
        data: Files whose rows are asked for; none takes those that the run was trained on.
        vllm: `START`, the URL of a running server, or None to leave vLLM out.
        most_kl: Of a checkpoint in 4 bit, how far from the 16-bit one it may be, in nats a token;
            None is `MOST_KL`, where it can be measured.
        least_agreement: The share of questions that it must answer with the same calls; None
            judges nothing.
        ask: Holds the calls that a checkpoint in 4 bit answers with against those of the 16-bit
            one; None leaves that out.

    Returns:
        The certificate, written.

    Raises:
        AxtuneError: When the folder, base, adapter, data or server is not there.
    """
    checkpoint = _local(folder)
    run = run_of(Path(adapter)) if adapter else None
    if adapter and not run and not (Path(adapter) / ADAPTER_CONFIG).is_file():
        raise AxtuneError(
            f"{adapter} is neither a run folder nor an adapter folder.",
            "A run folder is what output_dir named; an adapter folder holds adapter_config.json.",
        )
    base = None
    if adapter:
        base = find_base(against, run, Path(adapter))
    elif against:
        base = unquantized(locate.find(against))
    else:
        base = recorded_base(checkpoint.folder)
    asked = _Asked(None)
    if data:
        if run:  # other files, read as the run read its own
            given = data_options(data, max_length=run.recipe.data.max_length)
            read = run.recipe.data.model_copy(update={"train": given.train})
            asked = _Asked(read, run.recipe.task)
        else:
            context = checkpoint.config.get("max_position_embeddings", 4096)
            asked = _Asked(data_options(data, max_length=context))
        for source in asked.sources:
            files_of(source)  # a wrong path fails at once
    elif run:
        asked = _Asked(run.recipe.data, run.recipe.task)
    if vllm is not None:
        require_client()  # and so does what vLLM needs, before the weights are read
        connect(vllm) if vllm != START else find_vllm()
    for_vllm = vllm is not None or (checkpoint.folder / "SERVING.md").is_file()
    with quiet_libraries():
        texts = _texts(asked, run, base or checkpoint)
        checks = [*_absent(asked), *examine(checkpoint, base, for_vllm=for_vllm, texts=texts)]
        sound = all(check.status != "fail" or check.part == "tokenizer" for check in checks)
        if sound:
            tokenizer = load_tokenizer(base or checkpoint)
            own = run.adapter if run else Path(adapter) if adapter else None
            if is_int4(checkpoint.config):
                rows, which = _rows(asked, run, tokenizer)
                most = MOST_KL if most_kl is None else most_kl
                checks += against_16_bit(checkpoint, base, own, rows, which, most)
                if ask and base and not incomparable(how_made(checkpoint.folder), base, own):
                    checks += ask(checkpoint, base, own, run, data, least_agreement)
            else:
                checks += _logits(checkpoint, base, run, own, _prompts(asked, run, tokenizer))
            if vllm is not None:
                checks += _served(checkpoint, tokenizer, asked, run, vllm)
        checks += unmeasured(checks, most_kl, least_agreement)
    certificate = Certificate(checkpoint.folder, tuple(checks))
    certificate.write()
    return certificate


def _local(folder: str | Path) -> Checkpoint:
    if not Path(folder).is_dir():
        raise AxtuneError(
            f"There is no folder {folder}.", "Give the folder of a checkpoint, merged or exported."
        )
    if (Path(folder) / ADAPTER_CONFIG).is_file():
        raise AxtuneError(
            f"{folder} is an adapter, not a checkpoint.",
            "Merge it first (axtune merge), then verify the result with --adapter.",
        )
    return locate.find(str(folder))


# --- what is asked ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """What the checkpoint is asked.

    Attributes:
        data: The rows, as training read them; None without.
        task: What they trained; None takes each row for what it is.
    """

    data: Data | None
    task: Task | None = None

    @property
    def sources(self) -> list[Source]:
        return self.data.sources if self.data else []

    def requests(self, tokenizer: AxTokenizer) -> Iterator[Request]:
        """The data's requests and, so that there are some of every kind, those made for this."""
        if self.data:
            yield from read_requests(self.data, tokenizer, self.task)
        raw = [(f"messages[{n}]", message) for n, message in enumerate(CONVERSATION)]
        yield from requests_of(normalise_request(raw, TOOLS, []), tokenizer)


def _absent(asked: _Asked) -> Iterator[Check]:
    """Data that was moved since, or is looked for from another folder."""
    for source in asked.sources:
        try:
            files_of(source)
        except AxtuneError:
            name = Path(source.path).name  # a path of this machine is nobody else's business
            found = (
                f"{name} cannot be found from here, so its prompts are not asked; give --data FILE"
            )
            yield Check("data", "rows", "skip", found)


def _documents(asked: _Asked, run: Run | None, tokenizer: AxTokenizer) -> Iterator[list[int]]:
    """Documents of the data, rather those that were held out."""
    if asked.task and not objective_of(asked.task).learns_documents:
        return
    with suppress(AxtuneError):  # `_absent` says so
        yield from document_ids(_rows(asked, run, tokenizer)[0])


def _texts(asked: _Asked, run: Run | None, checkpoint: Checkpoint) -> list[str]:
    """Documents and prompts of the data as text, for AutoTokenizer."""
    try:
        tokenizer = load_tokenizer(checkpoint)
    except CheckpointError:
        return []
    prompts = (request.prompt for request in asked.requests(tokenizer))
    found = islice(chain(_documents(asked, run, tokenizer), prompts), _AUTO_TEXTS)
    return [tokenizer.decode(ids) for ids in found]


def _prompts(asked: _Asked, run: Run | None, tokenizer: AxTokenizer) -> list[list[int]]:
    """A few short prompts and beginnings of documents; the data's own where there are any."""
    documents = islice(_documents(asked, run, tokenizer), _PROMPTS // 2)
    found = [ids[: _POSITIONS // _PROMPTS] for ids in documents]
    room = _POSITIONS - sum(map(len, found))
    for request in asked.requests(tokenizer):
        if len(request.prompt) <= room and request.prompt not in found:
            found.append(request.prompt)
            room -= len(request.prompt)
        if len(found) == _PROMPTS:
            break
    return found


# --- logits -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Distance:
    """How far a checkpoint is from a reference.

    Attributes:
        spread: Root mean square of the logits' difference, as a share of their own spread.
        largest: Of the differences.
        kl: Mean divergence of the next token's distribution, in nats.
        same: Prompts with equal greedy text.
        ties: Prompts whose greedy text parts where the reference's two best are so near to each
            other that differences of `largest` can swap them.
    """

    spread: float
    largest: float
    kl: float
    same: int
    ties: int


def _logits(
    checkpoint: Checkpoint,
    base: Checkpoint | None,
    run: Run | None,
    folder: Path | None,
    prompts: list[list[int]],
) -> list[Check]:
    """The model's answers against those of base and adapter in float32."""
    part = "logits"
    if base is None:
        return [
            Check(part, "base + adapter", "skip", "no base to compare with; give --against BASE")
        ]
    if checkpoint.config.get("quantization_config"):
        return [Check(part, "base + adapter", "skip", "the checkpoint is quantised")]
    vocabulary = int(checkpoint.config["vocab_size"])
    own = Layerwise(checkpoint).read(prompts, _NEW_TOKENS)
    names: dict[FourBit | None, str] = {None: "base + adapter" if folder else "base"}
    kinds: list[FourBit | None] = [None]
    if run and run.recipe.quantization:
        try:
            seen = four_bit(run.recipe.quantization, str(run.manifest.get("precision")))
        except (AxtuneError, MissingPackageError):
            seen = None
        if seen:
            kinds.append(seen)
            names[None], names[seen] = "16-bit base + adapter", f"{seen.kind} base + adapter"
    distances = {}
    moved = float("inf")
    for kind in kinds:
        reference = Layerwise(base, folder, kind, vocabulary)
        reading = reference.read(prompts, _NEW_TOKENS)
        distances[kind] = _distance(own, reading)
        if folder and kind is None:
            moved = _spread(reference.without_adapter(prompts), reading.logits)
    nearest = min(kinds, key=lambda kind: distances[kind].spread)
    bound = max(_ROUNDINGS * _unit_roundoff(checkpoint), _LEAST_BOUND)
    checks = []
    for kind in kinds:
        found = distances[kind]
        checks.append(_logit_check(names[kind], found, len(prompts), bound, judged=kind is nearest))
    if folder:
        checks.append(_effect(moved, distances[nearest].spread))
    return checks


def _distance(own: Reading, reference: Reading) -> _Distance:
    largest = float((own.logits - reference.logits).abs().max())
    left, right = (torch.log_softmax(each.logits, dim=-1) for each in (reference, own))
    kl = float((left.exp() * (left - right)).sum(dim=-1).mean())
    same = ties = 0
    for ours, theirs, margins in zip(own.greedy, reference.greedy, reference.margins, strict=True):
        parts = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        same += parts is None
        ties += parts is not None and margins[parts] <= 2 * largest
    return _Distance(_spread(own.logits, reference.logits), largest, kl, same, ties)


def _spread(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """Root mean square of the difference over that of the reference around its mean."""
    centred = reference - reference.mean(dim=-1, keepdim=True)
    return float((logits - reference).norm() / centred.norm())


def _unit_roundoff(checkpoint: Checkpoint) -> float:
    dtype = getattr(torch, str(stated_dtype(checkpoint.config)), torch.float32)
    return float(torch.finfo(dtype).eps) / 2


def _logit_check(
    name: str, distance: _Distance, prompts: int, bound: float, *, judged: bool
) -> Check:
    greedy = f"greedy text equal in {distance.same} of {prompts}"
    if distance.ties and distance.spread <= bound:
        greedy += f", parting at a tie within rounding in {distance.ties}"
    found = (
        f"differ by {distance.spread:.2%} of their spread (bound {bound:.2%}), "
        f"KL {distance.kl:.1e} nats; {greedy}"
    )
    figures = {
        "spread": distance.spread,
        "bound": bound,
        "largest": distance.largest,
        "kl_nats": distance.kl,
        "greedy_equal": float(distance.same),
        "greedy_ties": float(distance.ties),
        "prompts": float(prompts),
    }
    if not judged:
        return Check(
            "logits", name, "pass", f"(not what this was merged into) {found}", "", figures
        )
    if distance.spread <= bound and distance.same + distance.ties == prompts:
        return Check("logits", name, "pass", found, "", figures)
    remedy = "Merge again, from the run itself and its own base."
    return Check("logits", name, "fail", found, remedy, figures)


def _effect(moved: float, distance: float) -> Check:
    """An adapter that does little leaves even the bare base within the bound."""
    figures = {"adapter_moves": moved}
    found = f"the adapter moves the logits by {moved:.2%} of their spread"
    if moved > 2 * distance:
        return Check("logits", "adapter", "pass", found, "", figures)
    found += ", no more than rounding does, so whether it is merged cannot be told"
    return Check("logits", "adapter", "warn", found, "Train it further.", figures)


# --- 4 bit ------------------------------------------------------------------------------------


def _rows(
    asked: _Asked, run: Run | None, tokenizer: AxTokenizer
) -> tuple[Iterator[RowResult], str]:
    """Rows to compare on, and what they are: rather those that the run did not see."""
    own = run is not None and asked.data is run.recipe.data
    if own and run and run.recipe.data.eval is not None:
        return held_out_rows(run.recipe, tokenizer), "held-out rows"
    if asked.data is None:
        return iter(()), ""
    files = (file for source in asked.sources for file in files_of(source))
    rows = RowChecker(tokenizer, asked.data, asked.task).stream(files)
    return rows, "rows that it was trained on" if own else "rows"


# --- vLLM -------------------------------------------------------------------------------------


def _served(
    checkpoint: Checkpoint, tokenizer: AxTokenizer, asked: _Asked, run: Run | None, vllm: str
) -> list[Check]:
    requests = list(asked.requests(tokenizer))
    documents = list(islice(_documents(asked, run, tokenizer), _AUTO_TEXTS))
    if vllm != START:
        served = connect(vllm)
        return [*_texts_served(served, tokenizer, documents), *_ask(served, tokenizer, requests)]
    longest = max(map(len, (*documents, *(request.prompt for request in requests))))
    context = min(tokenizer.context, longest + 1024)
    with serve(checkpoint.folder, context) as served:
        return [*_texts_served(served, tokenizer, documents), *_ask(served, tokenizer, requests)]


def _texts_served(
    served: Served, tokenizer: AxTokenizer, documents: list[list[int]]
) -> Iterator[Check]:
    """Documents as the engine would cut them when it is to go on with them."""
    if not documents:
        return
    wrong = sum(served.tokenize_text(tokenizer.decode(ids)) != ids for ids in documents)
    if wrong:
        found = f"{wrong} of {len(documents)} documents have other ids than training showed"
        remedy = "Serve the folder that axtune export --to vllm makes."
        yield Check("vllm", "documents", "fail", found, remedy)
    else:
        found = f"all {len(documents)} documents have the ids that training showed"
        yield Check("vllm", "documents", "pass", found)


def _ask(served: Served, tokenizer: AxTokenizer, requests: list[Request]) -> list[Check]:
    """Prompts of every request, and answers to a few of them."""
    part = "vllm"
    wrong = [r for r in requests if served.tokenize(r.messages, r.tools) != r.prompt]
    if wrong:
        found = f"{len(wrong)} of {len(requests)} prompts have other ids than training showed"
        remedy = "Serve the folder that axtune export --to vllm makes."
        return [Check(part, "prompts", "fail", found, remedy)]
    found = f"all {len(requests)} prompts have the ids that training showed"
    checks = [Check(part, "prompts", "pass", found)]
    with_call = [r for r in requests if r.tools and r.answer.get("tool_calls")][:_CALLS]
    without = [r for r in requests if not r.answer.get("tool_calls")][:_TEXTS]
    parser, form = tokenizer.family.tool_parser, form_of(tokenizer.family)
    came = recorded = 0
    for request in (*with_call, *without):
        reply = served.ask(request.messages, request.tools)
        said = tokenizer.decode([id for id in reply.ids if id != tokenizer.end_of_turn_id])
        written = [
            (call["function"]["name"], call["function"]["arguments"])
            for call in form.parse(said).tool_calls
        ]
        if reply.calls != written:
            found = f"{len(reply.calls)} calls came back, and the model wrote {len(written)}"
            return [*checks, Check(part, "calls", "fail", found, _PARSER.format(parser))]
        came += len(reply.calls)
        recorded += same_answer(request.answer, reply.content, reply.calls)
    asked = len(with_call) + len(without)
    found = f"{recorded} of {asked} answers are the data's own, word for word"
    figures = {"asked": float(asked), "as_recorded": float(recorded)}
    answers = Check(part, "answers", "pass", found, "", figures)
    if came:
        found = f"the {parser} parser returned all {came} calls that the model wrote"
        checks.append(Check(part, "calls", "pass", found))
    else:
        checks.append(_forced_call(served, parser, form))
    return [*checks, _streamed(served, form, requests[-1], with_call), answers]


def _made_to_write(form: CallForm) -> str:
    """A pattern of a call, for a model that is made to write one."""
    return form.pattern(TOOLS[0]["function"]["name"], r'\{"id": "[0-9]{1,8}"\}')


def _forced_call(served: Served, parser: str, form: CallForm) -> Check:
    """A model that did not call anything is made to, so that the parser is tried all the same."""
    name = TOOLS[0]["function"]["name"]
    reply = served.ask(CONVERSATION[:2], TOOLS, structured_outputs={"regex": _made_to_write(form)})
    if [called for called, _ in reply.calls] == [name] and reply.finish_reason == "tool_calls":
        found = f"the {parser} parser returned a call that the model was made to write"
        return Check("vllm", "calls", "pass", found)
    return Check(
        "vllm", "calls", "fail", "a written call did not come back as one", _PARSER.format(parser)
    )


def _streamed(
    served: Served, form: CallForm, later: Request, with_call: Sequence[Request]
) -> Check:
    """Answers that come in parts are those that come whole.

    Args:
        served: What is asked, for a call, several calls in one answer, and calls of later turns.
        form: In which it writes calls.
        later: A request after a call and its result.
        with_call: Further requests.
    """
    call = _made_to_write(form)
    requests: list[tuple[list[Message], Any, dict[str, Any]]] = [
        (CONVERSATION[:2], TOOLS, {"structured_outputs": {"regex": call}}),
        (CONVERSATION[:2], TOOLS, {"structured_outputs": {"regex": call + call}}),
        (later.messages, later.tools, {"structured_outputs": {"regex": call}}),
        (later.messages, later.tools, {}),
        *((request.messages, request.tools, {}) for request in with_call),
    ]
    calls = 0
    for messages, tools, extra in requests:
        whole = served.ask(messages, tools, **extra)
        parts = served.stream(messages, tools, **extra)
        if _as_client(parts) != _as_client(whole):
            found = (
                f"streamed, {len(parts.calls)} calls and {len(parts.content)} characters came "
                f"back ({parts.finish_reason}); whole, {len(whole.calls)} and "
                f"{len(whole.content)} ({whole.finish_reason})"
            )
            remedy = "Ask this server with stream=False, or serve with another version of vLLM."
            return Check("vllm", "streaming", "fail", found, remedy)
        calls += len(whole.calls)
    found = f"{len(requests)} answers are the same streamed and whole, {calls} calls among them"
    return Check("vllm", "streaming", "pass", found)


def _as_client(reply: Reply) -> tuple[str, list[tuple[str, Any]], str]:
    """What a client goes by; arguments are JSON, however they are spaced."""
    calls = [(name, json.loads(arguments or "null")) for name, arguments in reply.calls]
    return reply.content, calls, reply.finish_reason
