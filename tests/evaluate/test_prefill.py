"""What prompts begin with alike is computed once, and comes out as each computed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import LIBRARY_WARNINGS
from transformers import PreTrainedModel

from axtune.evaluate import prefill as room
from axtune.evaluate.prefill import Node, by_beginning, prefill, tree
from axtune.model.trained import load_trained

pytestmark = LIBRARY_WARNINGS

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=["tiny-ax-4.0", "tiny-ax-3.1"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    loaded, _ = load_trained(request.param, print)
    return loaded


def text(seed: int, length: int) -> list[int]:
    return torch.randint(100, 1000, (length,), generator=torch.manual_seed(seed)).tolist()


def conversations() -> list[list[int]]:
    """Turns of two conversations with the same tools, one asked twice, and strangers."""
    tools = text(0, 90)
    first, second = tools + text(1, 40), tools + text(2, 75)
    later = first + text(3, 150)
    return [first, text(4, 7), second, later, later + text(5, 3), later + text(6, 33), first, [7]]


def every(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from every(node.below)


@given(PROMPTS, st.integers(1, 8))
def test_a_path_spells_each_prompt(prompts: list[list[int]], worth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_WORTH", worth)
        nodes = list(every(tree(prompts)))
    spelled = {
        number: [token for part in (*node.above, node) for token in part.ids]
        for node in nodes
        for number in node.ending
    }
    assert [spelled[number] for number in range(len(prompts))] == prompts
    assert sum(len(node.ending) for node in nodes) == len(prompts)
    for node in nodes:
        assert node.ids
        assert node.begin == sum(len(part.ids) for part in node.above)
        assert node.longest >= node.begin + len(node.ids)
        assert all(below.above == [*node.above, node] for below in node.below)


@given(PROMPTS)
def test_at_best_no_beginning_is_computed_twice(prompts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_WORTH", 1)
        nodes = every(tree(prompts))
    beginnings = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
    assert sum(len(node.ids) for node in nodes) == len(beginnings)


def test_little_in_common_is_not_shared() -> None:
    same = text(0, room._WORTH - 1)
    assert len(tree([[*same, 1], [*same, 2]])) == 2
    assert len(tree([[*same, 1], [*same, 2], [*same, 3]])) == 1


def test_many_turns_are_no_deep_recursion() -> None:
    turns = [text(0, 2 * length) for length in range(1, 3000)]
    assert by_beginning(turns) == list(range(len(turns)))[::-1]


def test_those_that_share_stand_together_the_longest_first() -> None:
    found = by_beginning(conversations())
    assert sorted(found) == list(range(8))
    assert found[:2] == [5, 4]
    assert set(found[:6]) == {0, 2, 3, 4, 5, 6}
    assert found[6:] == [1, 7]


@pytest.mark.parametrize("at_once", [1, 64, 10_000])
def test_it_is_what_each_is_alone(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(room, "_ON_CPU", at_once)
    prompts = conversations()
    with torch.inference_mode():
        logits, mask, cache = prefill(model, prompts)
        assert mask.sum(-1).tolist() == [len(prompt) for prompt in prompts]
        after = model(
            input_ids=torch.full((len(prompts), 1), 50),
            attention_mask=torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=-1),
            position_ids=mask.sum(-1, keepdim=True),
            past_key_values=cache,
        ).logits[:, -1]
        for row, prompt in enumerate(prompts):
            alone = model(torch.tensor([[*prompt, 50]])).logits[0]
            torch.testing.assert_close(logits[row], alone[-2], atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(after[row], alone[-1], atol=1e-3, rtol=1e-3)


def test_little_is_computed_beyond_what_differs(model: PreTrainedModel) -> None:
    computed = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        with torch.inference_mode():
            prefill(model, conversations())
    finally:
        hook.remove()
    differing = sum(len(node.ids) for node in every(tree(conversations())))
    assert differing < 0.4 * sum(map(len, conversations()))
    assert differing <= sum(computed) <= differing + room._WORTH * len(computed)


def test_a_group_keeps_to_what_may_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_ON_CPU", 10)
    above = Node(text(0, 30), [], 0, 40, [])
    level = [Node(text(seed, 3), [above], 30, 40, [seed]) for seed in range(7)]
    device = torch.device("cpu")
    assert [len(group) for group in room._groups(level, device, 66)] == [2, 2, 2, 1]
    assert [len(group) for group in room._groups(level, device, 1000)] == [3, 3, 1]
    assert [len(group) for group in room._groups(level, device, 0)] == [1] * 7


def test_padding_costs_less_than_another_call() -> None:
    level = [Node(text(seed, 300 >> seed), [], 0, 300, [seed]) for seed in range(7)]
    for most in (500, 5000):
        for group in room._groups(level, torch.device("cpu"), most):
            lengths = [len(node.ids) for node in group]
            assert max(lengths) * len(group) - sum(lengths) <= room._WORTH
