"""Shared prefix: a pair's prompt is computed once, its two answers behind it in one sequence.

A micro-batch of pairs becomes one sequence without padding. Of each pair it holds

    prompt[:-1] | prompt[-1], chosen[:-1] | prompt[-1], rejected[:-1]

Both branches begin at the position of the prompt's last token, so that every branch position
predicts exactly one answer token. A branch attends to the prefix and to itself, the prefix to
itself, nothing to another pair. With prompts many times longer than the answers this is about half
of the tokens that ``[prompt + chosen; prompt + rejected]`` has, and no attention mask grows with
the sequence: each pair is two calls of scaled dot-product attention, a plain causal one over prefix
and chosen branch, and one from the rejected branch to the prefix and to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from axtune.model.attention import AttentionCall, take_attention

# The name under which transformers' attention interface knows the function below.
ATTENTION = "axtune_shared_prefix"


@dataclass(frozen=True)
class SharedPrefixBatch:
    """A micro-batch of pairs as one sequence.

    Attributes:
        input_ids: (1, tokens), pair after pair.
        position_ids: (1, tokens), restarting with each pair and each branch.
        spans: Of each pair, the tokens of its prefix, chosen branch and rejected branch.
        answers: (learned tokens,); where in the sequence each one is predicted, those of all chosen
            answers first and then those of all rejected ones, as TRL stacks a batch.
        masks: Of each pair, (rejected, prefix + rejected), true where the rejected branch looks.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: tuple[tuple[int, int, int], ...]
    answers: torch.Tensor
    masks: tuple[torch.Tensor, ...]

    def to(self, device: torch.device, non_blocking: bool = False) -> SharedPrefixBatch:
        """The same on another device; accelerate's loaders call it."""
        return SharedPrefixBatch(
            self.input_ids.to(device, non_blocking=non_blocking),
            self.position_ids.to(device, non_blocking=non_blocking),
            self.spans,
            self.answers.to(device, non_blocking=non_blocking),
            tuple(mask.to(device, non_blocking=non_blocking) for mask in self.masks),
        )


def pack(pairs: Sequence[dict[str, Any]]) -> SharedPrefixBatch:
    """Lay a micro-batch of pairs out as one sequence.

    Args:
        pairs: Rows with ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``, none of them empty;
            with ``chosen_labels`` and ``rejected_labels`` where not all of an answer is learned.
    """
    ids: list[int] = []
    positions: list[int] = []
    spans, masks = [], []
    places: dict[str, list[int]] = {"chosen": [], "rejected": []}
    for pair in pairs:
        *prefix, last = pair["prompt_ids"]
        ids += prefix
        positions += range(len(prefix))
        lengths = []
        for side, answers in places.items():
            answer = pair[f"{side}_ids"]
            answers += [len(ids) + place for place, keep in enumerate(learned(pair, side)) if keep]
            ids += [last, *answer[:-1]]
            positions += range(len(prefix), len(prefix) + len(answer))
            lengths.append(len(answer))
        chosen, rejected = lengths
        spans.append((len(prefix), chosen, rejected))
        square = torch.ones(rejected, len(prefix) + rejected, dtype=torch.bool)
        masks.append(square.tril(diagonal=len(prefix)))
    return SharedPrefixBatch(
        torch.tensor([ids]),
        torch.tensor([positions]),
        tuple(spans),
        torch.tensor(places["chosen"] + places["rejected"]),
        tuple(masks),
    )


def learned(row: dict[str, Any], answer: str) -> list[bool]:
    """Which tokens of a row's answer are learned.

    Args:
        row: With ``ANSWER_ids`` and, unless all are, ``ANSWER_labels``, -100 where one is not.
        answer: The answer's name in the row's columns.
    """
    ids: list[int] = row[f"{answer}_ids"]
    return [label != -100 for label in row.get(f"{answer}_labels", ids)]


def install(model: PreTrainedModel) -> None:
    """Make a causal language model compute packed pairs, and nothing else, from now on.

    Its layers take the attention below, through transformers' attention interface; its backbone
    hands only the positions that predict answer tokens to the language-model head.

    Args:
        model: The base, under whatever adapters; changed in place.

    Raises:
        AxtuneError: When a layer's attention is not full.
    """
    take_attention(model, ATTENTION, "packed", _attend, "preference.shared_prefix=false")
    model.base_model.register_forward_hook(_keep_answers, with_kwargs=True)


def forward(model: Any, packed: SharedPrefixBatch, batch: dict[str, torch.Tensor]) -> Any:
    """Per-token log-probabilities of the answers, in the layout of TRL's own forward.

    Args:
        model: A model that `install` prepared and TRL gave its fused head, under any wrappers.
        packed: The pairs.
        batch: TRL's collated batch of the same pairs: ``input_ids`` and ``completion_mask``, both
            (2 × pairs, length), chosen above rejected.

    Returns:
        TRL's output of the fused head, each per-token field (2 × pairs, length - 1), zero where
        there is no answer token.
    """
    answers = batch["completion_mask"][:, 1:].bool()  # (2 × pairs, length - 1)
    labels = batch["input_ids"][:, 1:][answers]
    output = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        shift_labels=labels[None],
        packed=packed,
        use_cache=False,
        fused_lm_head=True,
    )
    for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
        if (flat := output.get(name)) is not None:  # (1, answer tokens)
            output[name] = flat.new_zeros(answers.shape).masked_scatter(answers, flat)
    return output


def _keep_answers(
    backbone: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: BaseModelOutputWithPast,
) -> BaseModelOutputWithPast:
    """A forward hook: of the last hidden states of pairs, those that predict answer tokens."""
    packed: SharedPrefixBatch | None = kwargs.get("packed")
    if packed is not None:
        hidden = output.last_hidden_state
        assert hidden is not None
        output.last_hidden_state = hidden[:, packed.answers]
    return output


def _attend(
    attend: AttentionCall,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packed: SharedPrefixBatch,
) -> torch.Tensor:
    """Attention over packed pairs: two calls for each."""
    outputs = []
    begin = 0
    for (prefix, chosen, rejected), mask in zip(packed.spans, packed.masks, strict=True):
        middle = begin + prefix + chosen
        end = middle + rejected
        q, k, v = (states[:, :, begin:middle] for states in (query, key, value))
        outputs.append(attend(q, k, v, None))
        k, v = (
            torch.cat([states[:, :, begin : begin + prefix], states[:, :, middle:end]], dim=2)
            for states in (key, value)
        )
        outputs.append(attend(query[:, :, middle:end], k, v, mask[None, None]))
        begin = end
    return torch.cat(outputs, dim=1)
