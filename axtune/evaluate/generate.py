"""Answers of a loaded model, in batches.

Prompts that begin alike stand in one batch, and otherwise those of like length, padded on the left.
An answer leaves its batch as it ends. It does not depend on what is beside it but for the rounding
of sums: sampling draws from a generator of its own for each answer, and batches are made from all
prompts, whether they are asked again or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from axtune.evaluate.prefill import by_beginning, prefill
from axtune.model.trained import stops_of
from axtune.training.memory_check import is_out_of_memory

_LARGEST_BATCH = 64
# Keys and values of one batch: as many bytes as the weights times this, or as these of a model so
# small that a call costs more than reading it; on a GPU at most this share of what is free.
_OF_WEIGHTS, _OF_SMALL, _GPU_SHARE = 2, 256 << 20, 0.5


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
    """The numbers of the prompts that are answered together, by `by_beginning`: the longest first.

    A batch that does not fit in memory fails at once, and not after an hour.
    """
    order = by_beginning([prompt.ids for prompt in prompts]) if prompts else []
    room = _room(model)
    found: list[list[int]] = []
    while order:
        batch = order[: sampling.batch_size or _LARGEST_BATCH]
        if sampling.batch_size is None:
            longest = accumulate((len(prompts[number].ids) for number in batch), max)
            held = (n * (width + sampling.max_new_tokens) for n, width in enumerate(longest, 1))
            batch = batch[: max(1, sum(each <= room for each in held))]
        found.append(batch)
        order = order[len(batch) :]
    return found


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[dict[int, Generated]]:
    """Answer prompts batch by batch, and hand over answers as they end.

    Args:
        model: In evaluation mode.
        prompts: All of them; none with `Sampling.max_new_tokens` longer than the model's context.
        sampling: How.
        wanted: Whether a prompt, by its number, is to be answered. A batch in which none is wanted
            is passed over. Of another those that are wanted are answered in float32, whose
            rounding turns no answer; in 16 bit all of them, as if none had been before.

    Yields:
        Answers that ended with one token, by the numbers of their prompts.
    """
    waiting = [batch for batch in batches(prompts, model, sampling) if any(map(wanted, batch))]
    if model.dtype == torch.float32:
        waiting = [[number for number in batch if wanted(number)] for batch in waiting]
    while waiting:
        batch = waiting.pop(0)
        left = dict.fromkeys(batch)
        try:
            for ended in _answer(model, [prompts[number] for number in batch], sampling):
                yield {batch[place]: answer for place, answer in ended.items()}
                for place in ended:
                    del left[batch[place]]
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(left) // 2
            waiting[:0] = filter(None, (list(left)[:half], list(left)[half:]))


def _room(model: PreTrainedModel) -> int:
    """How many tokens' keys and values are held at once.

    Every token reads the weights once for all of them, and the keys and values of each: when those
    are larger by far, more at once gains nothing.
    """
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    element = torch.finfo(model.dtype).bits // 8
    room = max(_OF_SMALL, _OF_WEIGHTS * sum(weight.nbytes for weight in model.parameters()))
    if model.device.type == "cuda":
        room = min(room, int(torch.cuda.mem_get_info(model.device)[0] * _GPU_SHARE))
    return int(room // (2 * config.num_hidden_layers * heads * width * element))


@torch.inference_mode()
def _answer(
    model: PreTrainedModel, prompts: Sequence[Prompt], sampling: Sampling
) -> Iterator[dict[int, Generated]]:
    """Answer the prompts of a batch; those that end leave it, by their places."""
    answers = [Generated([], [], ended=False) for _ in prompts]
    choose = _Choice(sampling.temperature, [prompt.seed for prompt in prompts])
    stops = stops_of(model)
    rows = list(range(len(prompts)))  # who is still answering
    logits, mask, cache = prefill(model, [prompt.ids for prompt in prompts])
    while True:
        tokens, margins = choose(logits, rows)
        ended, staying = {}, []
        for place, (row, token, margin) in enumerate(zip(rows, tokens, margins, strict=True)):
            said = answers[row]
            said.ids.append(token)
            said.margins.append(margin)
            if token in stops:
                ended[row] = replace(said, ended=True)
            elif len(said.ids) == sampling.max_new_tokens:
                ended[row] = said
            else:
                staying.append(place)
        if ended:
            yield ended
        if not staying:
            return
        ids = torch.tensor(tokens, device=model.device)[:, None]
        if len(staying) < len(rows):
            kept = torch.tensor(staying, device=model.device)
            cache.batch_select_indices(kept)
            ids, mask = ids[kept], mask[kept]
            rows = [rows[place] for place in staying]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=mask.sum(dim=-1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


class _Choice:
    """The next token of each row: the likeliest, or one that is drawn for that row by itself.

    The greatest of logits / T + Gumbel noise is a draw from softmax(logits / T): the Gumbel-max
    trick (Maddison, Tarlow and Minka, A* Sampling, 2014).
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> tuple[list[int], list[float]]:
        """The tokens, and by how much the logit of each leads the second best.

        Args:
            logits: (rows, vocabulary).
            rows: Whose they are.
        """
        scores = logits.float()
        if self._temperature > 0:
            noise = torch.stack(
                [
                    torch.empty(scores.shape[-1]).exponential_(generator=self._draws[row])
                    for row in rows
                ]
            )
            gumbel = -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()
            scores = scores / self._temperature + gumbel.to(scores.device)
        best = scores.topk(2, dim=-1)
        leads = best.values[:, 0] - best.values[:, 1]
        return best.indices[:, 0].tolist(), leads.tolist()
