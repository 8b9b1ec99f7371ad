"""What a row says of its turns is done, or the row is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.rows import chat, check_rows, codes

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.data.pipeline import RowChecker
from axtune.data.row_labels import held_out_split
from axtune.data.rows import Row

ROW = chat("질문", "나쁨", "다시", "좋음")


def learned(row: Any) -> list[str]:
    """What is labelled of a row that nothing is wrong with."""
    conversation, problems = read_row(row)
    assert problems == []
    assert isinstance(conversation, Conversation)
    return [conversation.messages[n]["content"] for n in conversation.learn]


@pytest.mark.parametrize(
    "mark",
    [
        {"train_on_turns": [False, True]}, {"trainOnTurns": ["no", "yes"]},
        {"loss_mask": [0, 0, 0, 1]}, {"loss_mask": "[0, 0, 0, 1]"}, {"weights": [0, 1]},
        {"loss_scale": [0.0, 1.0]}, {"masked": [True, False]}, {"metadata": {"loss_mask": [0, 1]}},
        {"loss_on_last": True}, {"mask_history": True}, {"train_on_last_turn": "true"},
        {"extra": {"maskHistory": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_turns_are_labelled_as_their_row_says(mark: dict[str, Any]) -> None:
    assert learned(ROW | mark) == ["좋음"]
    assert learned(ROW | {"system": "짧게."} | mark) == ["좋음"]
    wrapped = [
        {"type": {"user": "human"}.get(m["role"], "ai"), "data": {"content": m["content"]}}
        for m in ROW["messages"]
    ]
    assert learned({"messages": wrapped} | mark) == ["좋음"]
    exchanges = [{"human": "질문", "assistant": "나쁨"}, {"human": "다시", "assistant": "좋음"}]
    assert learned({"conversation": exchanges} | mark) == ["좋음"]


def test_earlier_answers_of_a_history_may_be_masked() -> None:
    row = {"instruction": "q", "output": "a", "history": [["b", "c"]]}
    assert learned(row) == ["c", "a"]
    assert learned(row | {"mask_history": True}) == ["a"]


@pytest.mark.parametrize(
    "mark",
    [
        {"mask_history": False}, {"train_on_inputs": False}, {"weight": 1}, {"train": True},
        {"loss": None}, {"mask": "User"}, {"skip": False}, {"metadata": {"label": 0, "weight": 2}},
    ],
    ids=str,
)  # fmt: skip
def test_a_mark_that_changes_nothing_is_silent(mark: dict[str, Any]) -> None:
    assert learned(ROW | mark) == ["나쁨", "좋음"]


@pytest.mark.parametrize(
    ("mark", "code", "key"),
    [
        ({"weight": 0}, "nothing-to-learn", "weight"),
        ({"Train": "false"}, "nothing-to-learn", "Train"),
        ({"ignore": True}, "nothing-to-learn", "ignore"),
        ({"exclude_from_loss": 1}, "nothing-to-learn", "exclude_from_loss"),
        ({"metadata": {"train": False}}, "nothing-to-learn", "metadata.train"),
        ({"mask": True}, "bad-weight", "mask"),
        ({"mask": [1, 0, 1, 0]}, "bad-weight", "mask"),
        ({"mask": "Assistant"}, "bad-weight", "mask"),
        ({"sft_mask": True}, "bad-weight", "sft_mask"),
        ({"loss_mask": [0, 1, 1]}, "bad-weight", "loss_mask"),
        ({"loss_mask": [0, 0.5]}, "bad-weight", "loss_mask"),
    ],
    ids=str,
)
def test_a_row_that_is_not_to_be_learned_as_it_stands_is_refused(
    tiny: AxTokenizer, mark: dict[str, Any], code: str, key: str
) -> None:
    for row in (ROW, {"prompt": "q", "completion": "a"}, {"text": "문서"}):
        if isinstance(mark.get(key), list) and row is not ROW and key != "mask":
            continue
        (checked,) = check_rows(tiny, [row | mark])
        assert code in codes(checked)
        assert any(fault.message.startswith(key) for fault in checked.faults)


def test_flags_contradict_what_a_turn_says_itself() -> None:
    row = chat("질문", {"role": "assistant", "content": "나쁨", "weight": 1}, "다시", "좋음")
    _, (problem,) = read_row(row | {"train_on_turns": [False, True]})
    assert problem.code == "bad-weight"
    assert "weight and train_on_turns contradict" in problem.message


def test_answers_that_are_judged_take_no_flags() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "loss_mask": [1, 0]}
    assert [problem.code for problem in read_row(row)[1]] == ["bad-weight"]


def test_questions_that_are_to_be_learned_are_named() -> None:
    for key in ("train_on_inputs", "train_on_prompt"):
        _, (problem,) = read_row(ROW | {"mask_history": True, key: True})
        assert (problem.code, key in problem.message) == ("unread-key", True)


def test_how_much_a_row_counts_is_named() -> None:
    for mark in ({"sample_weight": 0.2}, {"error": "timeout"}, {"quality_score": 0.1}):
        _, (problem,) = read_row(ROW | mark)
        assert problem.code == "unread-key"
    for mark in ({"loss": 0.73}, {"weight": 2}, {"train": "stage 2"}, {"use_loss": "later"}):
        _, (problem,) = read_row(ROW | mark)
        assert problem.code == "unread-key"


@pytest.mark.parametrize(
    ("beside", "key"),
    [
        ({"split": "test"}, "split"),
        ({"Split": " Validation "}, "Split"),
        ({"data_split": "dev"}, "data_split"),
        ({"split": "검증"}, "split"),
        ({"is_test": True}, "is_test"),
        ({"metadata": {"split": "held-out"}}, "metadata.split"),
        ({"split": "train"}, None),
        ({"split": "test_drive"}, None),
        ({"is_test": False, "usage": {"tokens": 3}}, None),
        ({"category": "test"}, None),
    ],
    ids=str,
)
def test_a_row_that_is_held_out_is_not_trained_on(
    tiny: AxTokenizer, beside: dict[str, Any], key: str | None
) -> None:
    row = ROW | beside
    assert held_out_split(row) == key
    for training in (True, False):
        checker = RowChecker(tiny, data_options(["rows"], max_length=4096), training=training)
        (checked,) = checker.check([Row("rows.jsonl", 1, row)])
        assert codes(checked) == (["held-out"] if key and training else [])


def test_what_is_no_row_is_of_no_split() -> None:
    assert held_out_split(["test"]) is None
