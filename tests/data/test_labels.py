"""What is marked in the words of any tool is labelled or not; what cannot be kept is named."""

from __future__ import annotations

from typing import Any

import pytest
from support.turns import ANSWER, USER, read

from axtune.data import labels
from axtune.data.conversation import Conversation
from axtune.data.labels import as_context
from axtune.data.parse import read_row


def learned(*turns: Any) -> list[str]:
    """What is labelled of a row."""
    conversation, problems = read_row({"messages": list(turns)})
    assert problems == []
    assert isinstance(conversation, Conversation)
    return [conversation.messages[n]["content"] for n in conversation.learn]


@pytest.mark.parametrize("key", [*labels.LABELLED, *labels.MASKED])
@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0), ("true", "False"), (1.0, 0.0)])
def test_a_turn_that_is_marked_is_not_learned(key: str, yes: Any, no: Any) -> None:
    yes, no = (no, yes) if key in labels.MASKED else (yes, no)
    asked = {**USER, key: no}
    first, second = {**ANSWER, "content": "하나", key: no}, {**ANSWER, "content": "둘", key: yes}
    assert learned(asked, first, USER, second) == ["둘"]
    assert learned({**USER, key: None}, {**first, key: None}, USER, second) == ["하나", "둘"]


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({**ANSWER, "loss": 0.5}, "bad-weight: turns[0].loss: expected true or false"),
        ({**ANSWER, "weight": "자주"}, "bad-weight: turns[0].weight"),
        (
            {**ANSWER, "weight": 1, "loss": False},
            "bad-weight: turns[0]: weight and loss contradict",
        ),
        ({**ANSWER, "train": "later"}, "bad-weight: turns[0].train: expected true or false"),
        ({**ANSWER, "mask": True}, "bad-weight: turns[0].mask: it seems to say what is labelled"),
        ({**ANSWER, "mask": 0}, "bad-weight: turns[0].mask"),
        ({**ANSWER, "train_detail": [{"train": False}]}, "bad-weight: turns[0].train_detail"),
        ({**ANSWER, "loss_mask": [0, 1]}, "bad-weight: turns[0].loss_mask"),
        ({**ANSWER, "use_in_sft_loss": False}, "bad-weight: turns[0].use_in_sft_loss"),
        ({**ANSWER, "maskFromSft": True}, "bad-weight: turns[0].maskFromSft"),
        ({**ANSWER, "label": "quality:4"}, "unread-key: turns[0]: the key label"),
        ({**USER, "loss": True}, "unread-key: turns[0]: only an assistant's turn is labelled"),
    ],
)
def test_a_flag_that_cannot_be_kept_is_named(turn: Any, problem: str) -> None:
    (found,) = read(turn)[1]
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "mark",
    [
        {"Weight": 0}, {"exclude-from-loss": True}, {"excludeFromLoss": True}, {"do train": False},
        {"labels": -100}, {"label": False}, {"skip": True}, {"ignore": 1}, {"keep": "no"},
        {"loss_scale": [0.0]}, {"is_target": "off"},
        {"metadata": {"weight": 0}}, {"additional_kwargs": {"train": False}},
        {"extra": {"axolotl": 1, "training": {"enabled": 1, "loss": 0}}},
        {"meta": {"ignore": True}}, {"metadata": {"label": False}},
    ],
    ids=str,
)  # fmt: skip
def test_a_mark_is_read_however_it_is_written_and_wherever_it_stands(mark: dict[str, Any]) -> None:
    assert learned(USER, {**ANSWER, **mark}, USER, {**ANSWER, "content": "둘"}) == ["둘"]


@pytest.mark.parametrize(
    "beside",
    [
        {"train_id": 0}, {"train_step": 0}, {"loss_type": False}, {"training_set": False},
        {"metadata": {"label": 0}}, {"metadata": {"weight": 0.3}}, {"unmasked": True},
        {"target": "text"}, {"mask": None}, {"weight": float("nan")}, {"extra": [0]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_mark_keeps_no_turn_from_being_learned(beside: dict[str, Any]) -> None:
    assert learned(USER, {**ANSWER, **beside}) == [ANSWER["content"]]


def test_marks_on_the_parts_of_a_content_have_to_agree() -> None:
    off, on = ({"type": "text", "text": "가", "weight": weight} for weight in (0, 1))
    unsaid = {"type": "text", "text": "나"}
    last = {**ANSWER, "content": "둘"}
    assert learned(USER, {**ANSWER, "content": [off, off]}, USER, last) == ["둘"]
    assert len(learned(USER, {**ANSWER, "content": [on, unsaid]}, USER, last)) == 2
    _, (problem,) = read({**ANSWER, "content": [off, unsaid]})
    assert problem.startswith("bad-weight: turns[0].content: some of its parts")
    _, (problem,) = read({**ANSWER, "content": [{**on, "weight": 0.5}]})
    assert problem.startswith("bad-weight: turns[0].content[0].weight")
    assert read({**USER, "content": [off, unsaid]})[1] == []  # nobody learns it


def test_context_stays_context_unless_it_says_otherwise() -> None:
    assert as_context(ANSWER) == {**ANSWER, "weight": 0}
    assert as_context({**ANSWER, "weight": None}) == {**ANSWER, "weight": 0}
    assert as_context({**ANSWER, "loss": True}) == {**ANSWER, "loss": True}
    assert as_context("글") == "글"


def test_marks_in_korean() -> None:
    for mark in ({"학습": False}, {"제외": True}, {"학습 여부": "false"}):
        assert learned(USER, {**ANSWER, **mark}, USER, {**ANSWER, "content": "뒤"}) == ["뒤"]
    assert learned(USER, {**ANSWER, "제외": "중복 문장"}) == [ANSWER["content"]]
