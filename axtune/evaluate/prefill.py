"""Keys and values of a batch's prompts: what comes before the first token of an answer.

What prompts begin with alike is computed once. The questions of one conversation are beginnings of
one another, and rows of a file often share their tools: the prompts are a radix tree over their
tokens. A node is computed behind the keys and values of those above it, together with others of
like length, so that hardly anything is computed for padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, PreTrainedModel

from axtune.evaluate.growing_cache import growing_cache, held

# Tokens that cost about what one more call does: sharing a beginning saves at least as many, and
# padding in one call adds no more.
_WORTH = 128
# Tokens that are computed at once: as many as keep a GPU busy, or make little of a call on a CPU.
_ON_GPU, _ON_CPU = 8192, 512
# Keys and values that are copied for one call, as a share of those of the whole batch.
_COPIED = 0.25


@dataclass(eq=False, slots=True)
class Node:
    """Tokens that some prompts have in common.

    Attributes:
        ids: The tokens.
        above: What stands before them, from the first token on.
        begin: How many tokens that is.
        longest: Tokens of the longest prompt that runs through here.
        ending: Numbers of the prompts that end here.
        below: How they go on.
        states: Keys and values of the tokens by layer, each (tokens, heads, width).
    """

    ids: list[int]
    above: list[Node]
    begin: int
    longest: int
    ending: list[int]
    below: list[Node] = field(default_factory=list)
    states: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


def tree(prompts: Sequence[Sequence[int]]) -> list[Node]:
    """The prompts by their beginnings, where sharing one is worth it.

    Args:
        prompts: Token ids, at least one, none empty.

    Returns:
        The nodes at which prompts begin.
    """
    same: dict[tuple[int, ...], list[int]] = {}
    for number, prompt in enumerate(prompts):
        same.setdefault(tuple(prompt), []).append(number)
    texts = sorted(same)
    common = [_in_common(*pair) for pair in pairwise(texts)]
    roots: list[Node] = []
    waiting: list[tuple[int, int, list[Node]]] = [(0, len(texts), [])]
    while waiting:
        first, last, above = waiting.pop()  # neighbours in the order of the texts
        begin = above[-1].begin + len(above[-1].ids) if above else 0
        end = min(common[first : last - 1], default=len(texts[first]))
        cuts = {place + 1 for place in range(first, last - 1) if common[place] == end}
        if last - first == 1 or (last - first - 1) * (end - begin) >= _WORTH:
            ends = len(texts[first]) == end
            node = Node(
                ids=list(texts[first][begin:end]),
                above=above,
                begin=begin,
                longest=max(map(len, texts[first:last])),
                ending=same[texts[first]] if ends else [],
            )
            (above[-1].below if above else roots).append(node)
            above, first = [*above, node], first + ends
        waiting += [(*run, above) for run in pairwise(sorted({first, *cuts, last}))]
    return roots


def by_beginning(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The numbers of the prompts: the longest first, each beside those with which it shares most.

    Args:
        prompts: Token ids, none empty.
    """
    order: list[int] = []
    waiting = sorted(tree(prompts), key=lambda node: -node.longest)
    while waiting:
        node = waiting.pop()
        order += node.ending
        waiting += sorted(node.below, key=lambda node: -node.longest)
    return order[::-1]


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, Cache]:
    """Compute prompts up to their last tokens.

    Args:
        model: In evaluation mode.
        prompts: Token ids, none empty.

    Returns:
        The logits of the last tokens, (prompts, vocabulary); where there is no padding, (prompts,
        tokens), 0 or 1; keys and values, padded on the left.
    """
    level = tree(prompts)
    nodes: list[Node] = []
    logits: dict[int, torch.Tensor] = {}
    copied = int(_COPIED * len(prompts) * max(map(len, prompts)))
    while level:
        for group in _groups(level, model.device, copied):
            for node, last in zip(group, _compute(model, group), strict=True):
                logits |= dict.fromkeys(node.ending, last)
        nodes += level
        level = [below for node in level for below in node.below]
    ends = {number: node for node in nodes for number in node.ending}
    numbers = range(len(prompts))
    paths = [[*ends[number].above, ends[number]] for number in numbers]
    cache = growing_cache()
    for layer in range(model.config.num_hidden_layers):
        cache.update(*_joined(paths, layer), layer)
        for node in nodes:  # or the batch would be held twice
            node.states[layer] = (torch.empty(0), torch.empty(0))
    mask = _left([torch.ones(len(prompt), dtype=torch.long) for prompt in prompts])
    return torch.stack([logits[number] for number in numbers]), mask.to(model.device), cache


def _groups(level: Sequence[Node], device: torch.device, copied: int) -> Iterator[list[Node]]:
    """Nodes of like length that are computed at once.

    Args:
        level: Nodes, those above them computed.
        device: That computes.
        copied: Positions whose keys and values may be copied for it, besides what is computed.
    """
    most = _ON_GPU if device.type == "cuda" else _ON_CPU
    group: list[Node] = []
    for node in sorted(level, key=lambda node: -len(node.ids)):
        more = [*group, node]
        new = len(more) * len(more[0].ids)
        copies = len(more) * (len(more[0].ids) + max(node.begin for node in more))
        padding = new - sum(len(node.ids) for node in more)
        if group and (new > most or copies > max(most, copied) or padding > _WORTH):
            yield group
            more = [node]
        group = more
    yield group


def _compute(model: PreTrainedModel, group: Sequence[Node]) -> torch.Tensor:
    """Compute nodes of one level, keep their keys and values; returns the last tokens' logits."""
    before = max(node.begin for node in group)
    width = max(len(node.ids) for node in group)
    cache = growing_cache()
    if before:
        paths = [node.above for node in group]
        for layer in range(model.config.num_hidden_layers):
            cache.update(*_joined(paths, layer), layer)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    mask = torch.zeros(len(group), before + width, dtype=torch.long)
    for row, node in enumerate(group):  # padded on the left, both what is above and what is new
        ids[row, width - len(node.ids) :] = torch.tensor(node.ids)
        mask[row, before - node.begin : before] = 1
        mask[row, before + width - len(node.ids) :] = 1
    positions = (mask.cumsum(dim=-1) - 1).clamp_min(0)[:, before:]
    out = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    for states in held(cache):
        keys, values = (side.transpose(1, 2) for side in states)
        for row, node in enumerate(group):
            new = slice(before + width - len(node.ids), None)
            node.states.append((keys[row, new].clone(), values[row, new].clone()))
    last: torch.Tensor = out.logits[:, -1]
    return last


def _joined(paths: Sequence[Sequence[Node]], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a layer along paths, each (paths, heads, longest, width)."""
    keys, values = (
        [torch.cat([node.states[layer][side] for node in path]) for path in paths]
        for side in (0, 1)
    )
    return _left(keys).transpose(1, 2), _left(values).transpose(1, 2)


def _left(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as one tensor, (rows, longest, …), zeros on their left."""
    return pad_sequence(list(rows), batch_first=True, padding_side="left")


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
