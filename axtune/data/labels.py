"""Whether a turn is labelled, in the words of any common tool.

A mark that can be read is kept: on the turn, in the objects that tools keep beside it, on the parts
of its content. One that cannot be read refuses the row; it is never learned all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from axtune.data.cells import says
from axtune.data.key_names import HOLDERS, is_name, plain, words
from axtune.data.messages import Message
from axtune.data.unread import NOTHING, unread_key
from axtune.errors import Problem

# Whether a turn is labelled: OpenAI, ms-swift and AgentInstruct, axolotl, LLaMA-Factory, XTuner.
# What follows are the names that people give it; case and what joins the words do not matter.
LABELLED = (
    "weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale",
    "output_with_loss", "with_loss", "compute_loss", "calculate_loss", "calc_loss", "apply_loss",
    "use_loss", "has_loss", "in_loss", "include_loss", "include_in_loss", "count_loss",
    "loss_enabled", "enable_loss", "backprop", "requires_grad",
    "learn", "learned", "learnable", "is_learned", "to_learn", "should_learn", "do_learn",
    "do_train", "is_train", "is_training", "is_trainable", "is_trained", "to_train",
    "should_train", "train_on", "train_on_this", "train_this", "train_on_turn", "train_turn",
    "train_weight", "training_weight", "include_in_training", "use_for_training", "for_training",
    "used_for_training", "enable_training", "train_on_turns", "train_turns", "turn_weights",
    "weights", "loss_weights", "loss_mask", "train_mask", "training_mask", "learn_mask",
    "assistant_mask", "assistant_masks", "completion_mask", "response_mask", "answer_mask",
    "supervised", "supervise", "is_supervised", "supervised_mask", "train_loss",
    "is_target", "is_label", "is_labeled", "is_labelled", "labeled", "labelled",
)  # fmt: skip
MASKED = (
    "masked",  # torchtune
    "is_masked", "mask_loss", "mask_out", "masked_out", "mask_turn", "mask_this", "loss_masked",
    "ignore_loss", "ignore_in_loss", "ignore_for_loss", "ignore_in_training", "loss_ignore",
    "skip_loss", "skip_training", "skip_train", "skip_in_loss", "no_loss", "no_train",
    "no_training", "no_grad", "no_learn", "not_trainable", "not_train", "untrainable",
    "do_not_train", "dont_train", "do_not_learn", "dont_learn", "exclude_loss",
    "exclude_from_loss", "excluded_from_loss", "exclude_from_training", "exclude_from_train",
    "exclude_in_loss", "drop_loss", "zero_loss", "omit_loss", "detach", "stop_gradient", "frozen",
    "freeze", "context_only", "is_context", "as_context", "history_only", "prompt_only",
    "mask_history",
)  # fmt: skip
# The same, where the value is one of a flag; else these are other things.
_PERHAPS_LABELLED = (
    "label", "labels", "target", "targets", "include", "included", "keep", "use", "used", "enabled",
    "trained", "supervision", "gradient", "backward", "학습", "학습여부", "학습대상",
)  # fmt: skip
_PERHAPS_MASKED = (
    "ignore", "ignored", "is_ignored", "skip", "skipped", "exclude", "excluded", "drop", "dropped",
    "discard", "omit", "omitted", "disabled", "제외", "학습제외", "제외여부", "마스킹",
)  # fmt: skip
# Tools differ in what these say, or they say it of a part of the turn.
_UNCLEAR = frozenset(
    map(plain, ("mask", "masks", "train_detail", "train_details", "training_detail",
                "training_details", "mask_detail", "label_mask", "labels_mask"))
)  # fmt: skip

# By the plain name of a key: whether true says that the turn is labelled.
_MARKS = {plain(key): True for key in LABELLED} | {plain(key): False for key in MASKED}
_PERHAPS = {plain(key): True for key in _PERHAPS_LABELLED}
_PERHAPS |= {plain(key): False for key in _PERHAPS_MASKED}

# Words that speak of learning in a name that is none of these, and words that make it another
# thing or turn it round.
_OF_LEARNING = frozenset(
    (
        *("train", "trains", "trained", "training", "trainable", "loss", "learn", "learned"),
        *("learning", "learnable", "supervise", "supervised", "supervision", "backprop"),
        *("gradient", "grad", "mask", "masked", "unmasked", "finetune", "sft"),
    )
)
_OF_ELSE = frozenset(
    (
        *("id", "ids", "step", "steps", "index", "idx", "set", "split", "data", "type", "kind"),
        *("name", "source", "epoch", "epochs", "size", "rate", "date", "time", "model", "token"),
        *("tokens", "count", "num", "version", "objective", "dataset", "corpus", "value", "file"),
    )
)
_REVERSING = frozenset(
    (
        *("no", "not", "non", "dont", "without", "ignore", "ignored", "exclude", "excluded"),
        *("skip", "skipped", "omit", "drop", "mask", "masked", "hide", "disable", "disabled"),
        *("zero", "stop", "never"),
    )
)
_FLAGS = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "y", "on", "t"), True),
    **dict.fromkeys(("false", "0", "0.0", "no", "n", "off", "f", "-100"), False),
}
_IGNORE_INDEX = -100
# What a turn consists of that says nothing beside its role, its content and its calls.
BARE = frozenset(("role", "from", "content", "value", "id", "tool_call_id", "tool_calls"))


class Mark(NamedTuple):
    """What a key says of whether a turn or a row is learned.

    Attributes:
        key: Where it stands, such as ``metadata.weight``.
        learned: What it says; None where that cannot be told.
        unclear: Whether it is the key that cannot be understood, whatever its value.
    """

    key: str
    learned: bool | None
    unclear: bool = False


def as_flag(value: Any) -> bool | None:
    """What a cell says as a flag, in numbers and texts of tables too; None when it is none.

    A list says what all its items say.
    """
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    if isinstance(value, list):
        said = {as_flag(item) for item in value}
        return said.pop() if len(said) == 1 else None
    if isinstance(value, (bool, int, float)) and value in (0, 1, _IGNORE_INDEX):
        return value == 1
    return None


def is_mark(key: str) -> bool:
    """Whether a key is one of those that say whether a turn is learned."""
    name = plain(key)
    return name in _MARKS or name in _UNCLEAR


def marks(holder: dict[str, Any], above: str = "") -> Iterator[Mark]:
    """What the keys of a turn or a row, and of the objects beside it, say of what is learned.

    Args:
        holder: The turn or the row.
        above: The key of the object inside it, as ``metadata.``.
    """
    for key, value in holder.items():
        name = plain(key)
        if isinstance(value, dict):
            if name in HOLDERS or name in _MARKS:
                yield from marks(value, f"{above}{key}.")
        elif says(value) and value == value:  # NaN: a table's empty cell
            yield from _mark(f"{above}{key}", name, value, inside=bool(above))


def _mark(key: str, name: str, value: Any, *, inside: bool) -> Iterator[Mark]:
    flag = as_flag(value)
    if name in _UNCLEAR:
        yield Mark(key, None, unclear=True)
    elif name in _MARKS:
        if flag is not None or not inside:
            yield Mark(key, None if flag is None else flag is _MARKS[name])
    elif name in _PERHAPS:
        # Inside of metadata a number is the class of some classifier.
        if flag is not None and (not inside or isinstance(value, bool) or value == _IGNORE_INDEX):
            yield Mark(key, flag is _PERHAPS[name])
    elif isinstance(value, bool) and is_name(key):
        said = words(key)
        denied = value is not said.isdisjoint(_REVERSING)
        if denied and said & _OF_LEARNING and not said & _OF_ELSE:
            yield Mark(key, None, unclear=True)


def as_context(turn: Any) -> Any:
    """A turn that is context unless it says itself that it is to be labelled."""
    if not isinstance(turn, dict) or (turn.keys() - BARE and any(True for _ in marks(turn))):
        return turn
    return {**turn, "weight": 0}


def read_label(place: str, turn: Message, message: Message, problems: list[Problem]) -> None:
    """Sets ``weight`` to 0 in the message of a turn that is context only.

    Args:
        place: Where the turn stands.
        turn: As a row has it.
        message: What becomes of it.
        problems: Appended to.
    """
    said: dict[str, bool] = {}
    answers = message["role"] == "assistant"
    found = list(marks(turn))
    for mark in found:
        if mark.learned is not None:
            said[mark.key] = mark.learned
        elif answers or not mark.unclear:
            problems.append(unreadable_mark(place, mark))
    if answers and isinstance(parts := turn.get("content"), list):
        _read_parts(place, parts, said, problems)
    if len(set(said.values())) > 1:
        text = f"{place}: {' and '.join(said)} contradict each other; keep one."
        problems.append(Problem("bad-weight", text))
    if answers:
        if said and not all(said.values()):
            message["weight"] = 0
    elif any(said.values()):
        first = next(key for key, learned in said.items() if learned)
        text = f"{place}: only an assistant's turn is labelled; {first} is not read."
        problems.append(Problem("unread-key", text, "warning"))
    if any(turn.get(key) not in NOTHING and key not in said for key in ("label", "labels")):
        problems.append(unread_key(place, "label" if "label" in turn else "labels"))


def _read_parts(
    place: str, parts: list[Any], said: dict[str, bool], problems: list[Problem]
) -> None:
    """Marks on the parts of a content, which have to agree: a turn is labelled wholly or not."""
    learned = set()
    for index, part in enumerate(parts):
        found = list(marks(part)) if isinstance(part, dict) else []
        for mark in found:
            if mark.learned is None:
                problems.append(unreadable_mark(f"{place}.content[{index}]", mark))
        learned.add(all(mark.learned is not False for mark in found))
    if learned == {False}:
        said["content"] = False
    elif False in learned:
        text = (
            f"{place}.content: some of its parts are marked not to be labelled; a turn is labelled "
            "wholly or not. Mark all parts, or the turn, with weight: 0, or leave the row out."
        )
        problems.append(Problem("bad-weight", text))


def unreadable_mark(place: str, mark: Mark) -> Problem:
    """The problem of a mark that cannot be kept."""
    where = f"{place}.{mark.key}" if place else mark.key
    if mark.unclear:
        text = (
            f"{where}: it seems to say what is labelled, in a way that is not read; write weight: "
            "0 (context only) or 1 (labelled) on the assistant's turns."
        )
    elif plain(mark.key) == "weight":
        text = f"{where}: expected 0 (context only) or 1 (labelled)."
    else:
        text = f"{where}: expected true or false; a turn is labelled wholly or not."
    return Problem("bad-weight", text)
