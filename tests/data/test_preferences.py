"""Every shape in which tools write judged answers."""

from __future__ import annotations

from typing import Any

import pytest
from support.judged import ASKED, BAD, GOOD, MENU, SYSTEM, TEXT, as_turns, bad, good, said, whole
from support.rows import calls

from axtune.data.parse import read_row
from axtune.data.preferences import as_label

Q, A, B = ASKED["content"], GOOD["content"], BAD["content"]
ASIDE = {"role": "user", "content": f"{Q}\n"}
HUMAN = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]
TRANSCRIPT = {
    "chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}",
    "rejected": f"\n\nHuman: {Q}\n\nAssistant: {B}",
}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, GOOD], "rejected_response": B},
        {"messages": [ASKED, GOOD], "rejected_response": [BAD]},
        {"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]},
        {"conversations": HUMAN, "rejected_response": B},
        {"query": Q, "response": A, "rejected_response": B},
        {"instruction": Q, "input": "", "output": A, "rejected_response": B},
        {"question": Q, "chosen_response": A, "rejected_response": B},
        {"prompt": Q, **whole([ASKED])},
        {"prompt": f" {Q}\n", **whole([ASKED])},
        {"prompt": Q, "prompt_id": "1", "messages": [ASKED, GOOD], **whole([ASKED])},
        {"messages": [ASKED, GOOD], **whole([ASKED])},
        {"conversation": [{"input": Q, "output": A}], "source": "x", **whole([ASKED])},
        {"system": "", "question": Q, **TEXT},
        {"system": None, "question": Q, **TEXT},
        {"instruction": Q, "input": None, "output": None, **TEXT},
        {"prompt": Q, "completion": None, "label": None, **TEXT},
        {"prompt": [ASKED], "chosen": [A], "rejected": [B]},
        {"prompt": Q, "response": A, **TEXT},
        TRANSCRIPT,
        {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", **TEXT},
        {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", **TRANSCRIPT},
    ],
    ids=lambda row: "+".join(row),
)
def test_pairs_of_other_tools(row: Any) -> None:
    _, problems = read_row(row)
    assert problems == []
    preference = good(row)
    assert preference.prompt == 1
    assert said(preference.chosen) == as_turns(ASKED, GOOD)
    assert said(preference.rejected) == as_turns(ASKED, BAD)
    assert preference.chosen is not None
    assert preference.chosen.learn == [1]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, GOOD], "rejected_response": B},
        {"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]},
        {"prompt": [ASKED], **TEXT},
        {"prompt": Q, **TEXT},
        {"prompt": Q, **whole([ASKED])},
        {"instruction": Q, **TEXT},
        {"messages": [ASKED], **TEXT},
        whole([ASKED]),
        TRANSCRIPT,
        whole([SYSTEM, ASKED]),
    ],
    ids=lambda row: "+".join(row),
)
@pytest.mark.parametrize("key", ["system", "system_prompt"])
def test_a_system_prompt_beside_any_pair(row: Any, key: str) -> None:
    preference = good(row | {key: SYSTEM["content"]})
    assert said(preference.chosen) == as_turns(SYSTEM, ASKED, GOOD)
    assert said(preference.rejected) == as_turns(SYSTEM, ASKED, BAD)
    assert preference.prompt == 2


def test_spaces_of_the_conversations_are_kept() -> None:
    preference = good({"prompt": Q, **whole([ASIDE])})
    assert said(preference.chosen) == as_turns(ASIDE, GOOD)


@pytest.mark.parametrize(
    ("row", "codes"),
    [
        ({"instruction": Q, "accepted": A, "rejected": B}, ["unknown-shape"]),
        ({"messages": [ASKED, GOOD], "rejected": B}, ["unknown-shape"]),
        ({"prompt": Q, "chosen": A}, ["unknown-shape"]),
        ({"prompt": Q, "rejected_response": B}, ["unknown-shape"]),
        ({"prompt": Q, "chosen": [A], "rejected": [B, B]}, ["bad-content"]),
        ({"messages": [ASKED, GOOD], "rejected_messages": [SYSTEM, BAD]}, ["prompt-differs"]),
        ({"messages": [ASKED, GOOD], "rejected_response": A}, ["same-answers"]),
        ({"messages": [ASKED], "rejected_response": B}, ["empty-prompt", "answer-role"]),
        ({"prompt": "다른 질문", **whole([ASKED])}, ["prompt-differs"]),
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, ["empty-answer"] * 2),
        ({**TRANSCRIPT, "chosen": f"\n\nHuman: {Q}\n\nHuman: x\n\nAssistant: y"}, ["bad-messages"]),
    ],
    ids=lambda value: "+".join(value),
)
def test_half_a_pair_or_two_openings(row: Any, codes: list[str]) -> None:
    assert bad(row) == codes


def test_a_rejected_answer_of_several_turns_stands_for_all_after_the_question() -> None:
    called = calls(("menu", {"site": "창원"}))
    result = {"role": "tool", "content": A}
    row = {"messages": [ASKED, called, result, GOOD], "tools": [MENU]}
    several = good(row | {"rejected_response": [called, result, BAD]})
    assert several.prompt == 1
    last = good(row | {"rejected_response": B})
    assert last.prompt == 3
    for preference in (several, last):
        assert said(preference.rejected)[-1] == ("assistant", B)
        assert len(said(preference.rejected)) == len(said(preference.chosen)) == 4


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *((value, True) for value in (True, 1, 1.0, "1", "true", " True ", "1.0")),
        *((value, False) for value in (False, 0, 0.0, "0", "FALSE", "0.0")),
        *((value, None) for value in (2, -1, 0.5, "", "yes", "billing", None, [], float("nan"))),
    ],
)
def test_labels_as_tables_write_them(value: Any, label: bool | None) -> None:
    assert as_label(value) is label


@pytest.mark.parametrize("label", [True, False, 1, 0, "1", "False"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": Q, "completion": A},
        {"prompt": Q, "completion": [ASKED, GOOD]},
        {"completion": [ASKED, GOOD]},
        {"completion": TRANSCRIPT["chosen"]},
        {"query": Q, "response": A},
        {"messages": [ASKED, GOOD]},
        {"conversations": HUMAN},
        {"conversation": [{"human": Q, "assistant": A}]},
        {"instruction": Q, "input": "", "output": A},
        {"prompt": Q, "completion": A, "chosen": None, "rejected": None},
    ],
    ids=lambda row: "+".join(row) if isinstance(row, dict) else None,
)
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_a_label_beside_any_answer(row: Any, key: str, label: Any) -> None:
    _, problems = read_row(row | {key: label})
    assert problems == []
    ((name, conversation),) = good(row | {key: label}).answers
    assert name == ("chosen" if as_label(label) else "rejected")
    assert said(conversation) == as_turns(ASKED, GOOD)
    assert conversation.learn == [1]
