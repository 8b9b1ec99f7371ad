"""Whether weights in 4 bit answer with the calls that the 16-bit ones answer with.

Both are asked the same questions, greedily; the answer of the 16-bit model is what is wanted, by
the rules that every call is judged by (`axtune.evaluate.score`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import Run
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.data.native_calls import Answer, form_of
from axtune.errors import AxtuneError
from axtune.evaluate.figures import ALL, figures, scored
from axtune.evaluate.generate import Prompt, Sampling, generate
from axtune.evaluate.intervals import measure_shares
from axtune.evaluate.questions import Question
from axtune.evaluate.score import Rules, Wanted, score, wanted_of
from axtune.evaluate.sources import select
from axtune.model.adapter import load_adapter
from axtune.model.load import choose_precision, load_model
from axtune.plan.architecture import read_architecture
from axtune.plan.estimate import free_memory
from axtune.units import gigabytes
from axtune.verify.agreement import how_made, how_to_lose_less
from axtune.verify.certificate import FOUR_BIT, Check

QUESTIONS = 64

_LONGEST = 256  # tokens of an answer
_BESIDE = 1.2  # what answers take beside the weights
_NAME = "answers"


def same_calls(
    checkpoint: Checkpoint,
    base: Checkpoint,
    adapter: Path | None,
    run: Run | None,
    data: Sequence[str],
    least: float | None = None,
) -> Iterator[Check]:
    """Ask both, and count how often they make the same of a question.

    Args:
        checkpoint: In 4 bit.
        base: In 16 bit.
        adapter: Merged into the former, or served beside it; None for none.
        run: That it is of; its held-out rows are asked where there is no `data`.
        data: Files of conversations or of a benchmark.
        least: The share of questions on which they must agree; None judges nothing.
    """
    if reason := _too_large(base):
        yield Check(FOUR_BIT, _NAME, "skip", reason)
        return
    tokenizer = load_tokenizer(checkpoint)
    try:
        recipe = run.recipe if run else None
        questions = select(tokenizer, recipe, data, room=_LONGEST, limit=QUESTIONS).questions
        if not questions:
            raise AxtuneError("The rows ask nothing.", "Give rows that an assistant answers.")
    except AxtuneError as error:
        found = error.found.rstrip(".")
        if run:  # paths of this machine are nobody else's business
            for path in (str(run.path), *(source.path for source in run.recipe.data.sources)):
                found = found.replace(path, Path(path).name)
        yield Check(FOUR_BIT, _NAME, "skip", f"no questions to ask: {found}; give --data FILE")
        return
    made = how_made(checkpoint.folder)
    beside = adapter is not None and made.get("adapters") == []
    wanted = _answers(base, adapter, tokenizer, questions)
    given = _answers(checkpoint, adapter if beside else None, tokenizer, questions)
    same = [
        _is_same(one, other, question)
        for one, other, (question, _) in zip(given, wanted, questions, strict=True)
    ]
    clusters = [one.cluster or number for number, (one, _) in enumerate(questions)]
    share = measure_shares("same", ALL, same, clusters=clusters).value
    found = (
        f"{sum(same)} of {len(same)} questions are answered with the same calls, or with none "
        f"({share.value:.1%} [{share.low:.1%}, {share.high:.1%}])"
    )
    marks = {"same": share.value, "low": share.low, "high": share.high}
    marks["questions"] = float(len(same))
    asked = [question for question, _ in questions]
    after, before = (
        [scored(question, [answer]) for question, answer in zip(asked, answers, strict=True)]
        for answers in (given, wanted)
    )
    for one in figures(after, before):
        if one.metric == "accuracy" and one.before:
            found += f"; right {one.before.value:.1%} in 16 bit, {one.value.value:.1%} in 4"
            marks |= {"accuracy_16_bit": one.before.value, "accuracy": one.value.value}
            break
    if least is not None and share.value < least:
        remedy = f"Export it again {how_to_lose_less(made, checkpoint.config)}."
        yield Check(FOUR_BIT, _NAME, "fail", f"{found}; expected {least:.0%}", remedy, marks)
    else:
        yield Check(FOUR_BIT, _NAME, "pass", found, "", marks)


def _too_large(base: Checkpoint) -> str | None:
    """Why a base cannot be loaded here; None where it can."""
    parameters = read_architecture(base.config, base.name).parameters
    if torch.cuda.is_available():
        needed, free = 2.0 * parameters, float(torch.cuda.mem_get_info()[0])
    else:
        needed, free = 4.0 * parameters, free_memory() or float("inf")
    if needed * _BESIDE <= free:
        return None
    return (
        f"{gigabytes(needed)} of weights do not fit here; ask both on a card with axtune eval DIR "
        "--against RUN"
    )


def _is_same(answer: Answer, other: Answer, question: Question) -> bool:
    """Whether an answer calls what another one calls, as calls are compared everywhere."""
    if not other.tool_calls:
        return not answer.tool_calls
    try:
        wanted: Wanted = wanted_of({"tool_calls": other.tool_calls})
    except ValueError:  # arguments that are no JSON: the same only to the letter
        return answer.tool_calls == other.tool_calls
    return score(answer, wanted, question.tools, Rules()).right


def _answers(
    checkpoint: Checkpoint,
    adapter: Path | None,
    tokenizer: AxTokenizer,
    questions: Sequence[tuple[Question, list[int]]],
) -> list[Answer]:
    """Greedy answers of a checkpoint, loaded for it and given back."""
    model: PreTrainedModel = load_model(checkpoint, tokenizer, precision=choose_precision("auto"))
    if adapter:
        model = load_adapter(model, adapter)
    form = form_of(tokenizer.family)
    found: dict[int, Answer] = {}
    prompts = [Prompt(prompt) for _, prompt in questions]
    for batch in generate(model.eval(), prompts, Sampling(0.0, _LONGEST)):
        for number, made in batch.items():
            text = tokenizer.decode(made.ids[:-1] if made.ended else made.ids)
            found[number] = form.parse(text)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [found[number] for number in range(len(questions))]
