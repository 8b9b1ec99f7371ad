"""Answers of a loaded model, in batches.

Prompts of like length stand in one batch, padded on the left. An answer does not depend on what is
beside it but for the rounding of sums: sampling draws from a generator of its own for each answer,
and batches are made from all prompts, whether they are asked again or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.training.memory_check import is_out_of_memory

_LARGEST_BATCH = 64
# Keys and values of one batch, in bytes: on a CPU, and as a share of what a GPU has free.
_CPU_CACHE, _GPU_SHARE = 4 << 30, 0.5


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is to be answered.

    Attributes:
        ids: Token ids, up to where the assistant begins to speak.
        seed: Of this answer; it says nothing at temperature 0.
    """

    ids: list[int]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer in tokens.

    Attributes:
        ids: Token ids, the end of turn among them where it came.
        margins: For each, by how much its logit led the second best, at temperature 0.
        ended: Whether the end of turn came before the longest answer.
    """

    ids: list[int]
    margins: list[float]
    ended: bool


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are made.

    Attributes:
        temperature: 0 always takes the likeliest token.
        max_new_tokens: Longest answer.
        batch_size: Answers at once; None for what memory allows.
    """

    temperature: float = 0.0
    max_new_tokens: int = 512
    batch_size: int | None = None


def batches(
    prompts: Sequence[Prompt], model: PreTrainedModel, sampling: Sampling
) -> list[list[int]]:
    """The numbers of the prompts that are answered together: the longest first.

    A batch that does not fit in memory fails at once, and not after an hour.
    """
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number].ids))
    found: list[list[int]] = []
    while order:
        longest = len(prompts[order[0]].ids) + sampling.max_new_tokens
        size = sampling.batch_size or _fitting(model, longest)
        found.append(order[:size])
        order = order[size:]
    return found


def generate(
    model: PreTrainedModel,
    tokenizer: AxTokenizer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[dict[int, Generated]]:
    """Answer prompts batch by batch.

    Args:
        model: In evaluation mode.
        tokenizer: The model's.
        prompts: All of them; none with `Sampling.max_new_tokens` longer than the model's context.
        sampling: How.
        wanted: Whether a prompt, by its number, is to be answered. A batch in which none is wanted
            is passed over; of another all are answered, as if none had been before.

    Yields:
        The answers of a batch, by the numbers of their prompts.
    """
    waiting = [batch for batch in batches(prompts, model, sampling) if any(map(wanted, batch))]
    while waiting:
        batch = waiting.pop(0)
        try:
            answers = _answer(model, tokenizer, [prompts[number] for number in batch], sampling)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(batch) // 2
            waiting[:0] = [batch[:half], batch[half:]]
            continue
        yield dict(zip(batch, answers, strict=True))


def _fitting(model: PreTrainedModel, length: int) -> int:
    """How many sequences of a length have room for their keys and values."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element = torch.finfo(model.dtype).bits // 8
    each: int = 2 * config.num_hidden_layers * heads * width * element * length
    room = _CPU_CACHE
    if model.device.type == "cuda":
        room = int(torch.cuda.mem_get_info(model.device)[0] * _GPU_SHARE)
    return max(1, min(_LARGEST_BATCH, room // each))


def _answer(
    model: PreTrainedModel, tokenizer: AxTokenizer, prompts: Sequence[Prompt], sampling: Sampling
) -> list[Generated]:
    width = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), tokenizer.pad_id)  # (prompts, tokens)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, width - len(prompt.ids) :] = 1
    margins = _Margins()
    processors: list[LogitsProcessor] = [margins]
    if sampling.temperature > 0:
        processors = [_Draw(sampling.temperature, [prompt.seed for prompt in prompts])]
    end = tokenizer.end_of_turn_id
    with torch.inference_mode():
        out = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=GenerationConfig(
                max_new_tokens=sampling.max_new_tokens,
                do_sample=False,  # `_Draw` makes the likeliest token the drawn one
                eos_token_id=end,
                pad_token_id=tokenizer.pad_id,
            ),
            logits_processor=LogitsProcessorList(processors),
        )
    led = torch.stack(margins.steps, dim=1).tolist() if margins.steps else [[]] * len(prompts)
    answers = []
    for said, lead in zip(out[:, width:].tolist(), led, strict=True):
        ended = end in said
        length = said.index(end) + 1 if ended else len(said)
        answers.append(Generated(said[:length], lead[:length], ended))
    return answers


class _Margins(LogitsProcessor):
    """Keeps by how much the best token leads; changes nothing."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        best = scores.float().topk(2, dim=-1).values  # (prompts, 2)
        self.steps.append((best[:, 0] - best[:, 1]).cpu())
        return scores


class _Draw(LogitsProcessor):
    """Makes the likeliest token one that is drawn, for each row by itself (the Gumbel-max trick).

    Maddison, Tarlow and Minka, A* Sampling, 2014: the greatest of logits / T + Gumbel noise is a
    draw from softmax(logits / T).
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self.temperature = temperature
        self.draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack(
            [torch.empty(scores.shape[-1]).exponential_(generator=draw) for draw in self.draws]
        )
        gumbel = -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()
        return scores.float() / self.temperature + gumbel.to(scores.device)
