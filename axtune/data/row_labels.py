"""What a row says of which of its turns are labelled: a flag for all, or a list of flags.

What it says is written on the turns, where `axtune.data.labels` reads it together with what they
say themselves. A row that is not to be learned at all is refused.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from axtune.data.cells import parse_list, says
from axtune.data.key_names import HOLDERS, plain
from axtune.data.labels import as_flag, is_mark, marks, unreadable_mark
from axtune.data.messages import Placed, known_role
from axtune.data.turns import unwrapped, written_role
from axtune.errors import Problem

# Only the last answer is labelled (LLaMA-Factory's mask_history, ms-swift's last_round).
_LAST_ONLY = frozenset(
    map(plain, ("mask_history", "train_last", "train_on_last", "train_last_only", "last_turn_only",
                "train_on_last_turn", "train_last_turn", "train_on_last_turn_only", "learn_last",
                "train_last_turn_only", "only_last_turn", "last_round_only", "loss_on_last_turn",
                "last_only", "only_last", "loss_on_last", "loss_on_last_only", "learn_last_turn",
                "last_turn_loss", "supervise_last_turn"))
)  # fmt: skip
# These judge an answer (`axtune.data.preferences`), or are an answer, in a row.
_NO_ROW_MARKS = frozenset(("label", "labels", "target", "targets"))
# Says of questions whether they are learned too; false is what is done.
ON_QUESTIONS = frozenset(
    map(plain, ("train_on_inputs", "train_on_input", "train_on_prompt", "train_on_prompts",
                "train_on_user", "train_on_question", "train_prompt", "learn_prompt"))
)  # fmt: skip
_SPLITS = frozenset(
    ("split", "splits", "subset", "partition", "datasplit", "datasetsplit", "fold", "usage")
)
_HELD_OUT = frozenset(
    (
        *("test", "testing", "validation", "valid", "val", "dev", "development", "eval"),
        *("evaluation", "heldout", "holdout", "testset", "validationset", "devset", "evalset"),
        *("테스트", "검증", "평가", "시험"),
    )
)
_IS_HELD_OUT = frozenset(
    map(plain, ("is_test", "is_validation", "is_val", "is_valid_set", "is_dev", "is_eval",
                "held_out", "is_held_out", "holdout", "is_holdout"))
)  # fmt: skip


@dataclass(slots=True)
class RowMarks:
    """What a row says of its turns.

    Attributes:
        last_only: The key that says that only the last answer is labelled; empty where none does.
        lists: Flags for each turn, or each answer, by their keys.
    """

    last_only: str = ""
    lists: dict[str, list[bool]] = field(default_factory=dict)


def take_marks(fields: dict[str, Any], problems: list[Problem]) -> RowMarks:
    """Take what a row says of what is labelled.

    Args:
        fields: The row's cells that are not null; what is read is taken out.
        problems: Appended to.
    """
    found = RowMarks()
    for key, value in list(fields.items()):
        if isinstance(value, dict) and plain(key) in HOLDERS:
            for inner, said in value.items():
                _read(f"{key}.{inner}", said, found, problems)
        elif _read(key, value, found, problems):
            del fields[key]
    return found


def _read(key: str, value: Any, found: RowMarks, problems: list[Problem]) -> bool:
    """Whether a cell is a mark, and has been read or reported."""
    own = key.rpartition(".")[2]
    name = plain(own)
    if name in _NO_ROW_MARKS or not says(value) or isinstance(value, dict):
        return False
    if name in _LAST_ONLY or name in ON_QUESTIONS:
        flag = as_flag(value)
        if flag and name in _LAST_ONLY:
            found.last_only = key
        return flag is False or (flag is True and name in _LAST_ONLY)
    if name == "mask" and isinstance(value, str) and _masks_others(value):
        return True
    if isinstance(value, str) and is_mark(own):
        with suppress(ValueError):  # of a table
            value = parse_list(value)
    (mark,) = (*marks({own: value}), None)[:1]
    if isinstance(value, list) and is_mark(own) and not (mark and mark.unclear):
        flags = [as_flag(item) for item in value]
        found.lists[own] = [flag for flag in flags if flag is not None]
        if None in flags:
            problems.append(Problem("bad-weight", f"{key}: expected true or false for each turn."))
        return True
    if mark is None or (mark.learned is None and not mark.unclear):  # how much the row counts
        return False
    if mark.unclear:
        problems.append(unreadable_mark("", mark._replace(key=key)))
    elif not mark.learned:
        text = f"{key}: the row is marked not to be learned; leave it out, or remove the mark."
        problems.append(Problem("nothing-to-learn", text))
    return True


def _masks_others(value: str) -> bool:
    """Whether who is masked, as NeMo names him, is somebody whose turns are never labelled."""
    role = known_role(value.strip())
    return role is not None and role not in ("assistant", "tool_call")


def mark_turns(marked: RowMarks, turns: list[Placed], problems: list[Problem]) -> list[Placed]:
    """Turns with what the row says of them.

    Args:
        marked: By `take_marks`.
        turns: As a row has them, without a system prompt that stands beside them.
        problems: Appended to.
    """
    if not marked.last_only and not marked.lists:
        return turns
    plain_turns = [unwrapped(turn) if isinstance(turn, dict) else {} for _, turn in turns]
    answers = [
        index
        for index, turn in enumerate(plain_turns)
        if written_role(turn)[1] in ("assistant", "tool_call")
    ]
    out = list(turns)
    for key, flags in marked.lists.items():
        if len(flags) == len(turns):
            flags = [flags[index] for index in answers]
        if len(flags) != len(answers):
            text = (
                f"{key}: {len(flags)} flags, and the row has {len(turns)} turns, {len(answers)} of "
                "them the assistant's; write one for each, or weight: 0 on the turns."
            )
            problems.append(Problem("bad-weight", text))
            continue
        for index, flag in zip(answers, flags, strict=True):
            out[index] = (out[index][0], {**_turn(out[index]), key: flag})
    for index in answers[:-1] if marked.last_only else ():
        out[index] = (out[index][0], {**_turn(out[index]), "mask_history": True})
    return out


def _turn(placed: Placed) -> dict[str, Any]:
    turn: dict[str, Any] = unwrapped(placed[1])
    return turn


def held_out_split(row: Any) -> str | None:
    """The key with which a row says that it is held out: for tests, not for training.

    Args:
        row: A parsed JSON value.
    """
    if not isinstance(row, dict):
        return None
    key: str
    for key, value in row.items():
        name = plain(key)
        if name in HOLDERS and isinstance(value, dict):
            if inside := held_out_split(value):
                return f"{key}.{inside}"
            continue
        named = name in _SPLITS and isinstance(value, str) and plain(value) in _HELD_OUT
        if named or (name in _IS_HELD_OUT and as_flag(value)):
            return key
    return None
