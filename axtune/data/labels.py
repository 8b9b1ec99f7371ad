"""Whether a turn is labelled, in the words of any common tool."""

from __future__ import annotations

from typing import Any

from axtune.data.messages import Message
from axtune.data.unread import unread_key
from axtune.errors import Problem

# Whether a turn is labelled: OpenAI, ms-swift and AgentInstruct, axolotl, LLaMA-Factory, XTuner.
LABELLED = (
    "weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale",
    "output_with_loss",
)  # fmt: skip
MASKED = ("masked",)  # torchtune


def as_context(turn: Any) -> Any:
    """A turn that is context unless it says itself that it is to be labelled."""
    if not isinstance(turn, dict) or any(turn.get(key) is not None for key in LABELLED + MASKED):
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
    for key in LABELLED + MASKED:
        value = turn.get(key)
        if isinstance(value, str):  # tables without booleans
            value = {"true": True, "false": False, "1": True, "0": False, "": None}.get(
                value.strip().lower(), value
            )
        if value is None:
            continue
        if value in (0, 1):
            said[key] = bool(value) is not (key in MASKED)
        elif key == "weight":
            text = f"{place}.weight: expected 0 (context only) or 1 (labelled)."
            problems.append(Problem("bad-weight", text))
        elif isinstance(value, (int, float)):
            text = f"{place}.{key}: expected true or false; a turn is labelled wholly or not."
            problems.append(Problem("bad-weight", text))
        else:
            problems.append(unread_key(place, key))
    if len(set(said.values())) > 1:
        text = f"{place}: {' and '.join(said)} contradict each other; keep one."
        problems.append(Problem("bad-weight", text))
    if message["role"] == "assistant":
        if said and not all(said.values()):
            message["weight"] = 0
    elif any(said.values()):
        text = f"{place}: only an assistant's turn is labelled; {next(iter(said))} is not read."
        problems.append(Problem("unread-key", text, "warning"))
