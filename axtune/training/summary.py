"""What a run comes to in a few figures."""

from __future__ import annotations

from collections.abc import Sequence

from axtune.training.plots import curve
from axtune.training.progress import Event


def summary(events: Sequence[Event]) -> dict[str, float]:
    """The run in a few numbers.

    Returns:
        Of those that the run has: first_loss, last_loss, best_eval_loss, best_step,
        tokens_per_second (the median).
    """
    result: dict[str, float] = {}
    if losses := curve(events, "loss"):
        result["first_loss"], result["last_loss"] = losses[0][1], losses[-1][1]
    if held_out := curve(events, "eval_loss"):
        result["best_step"], result["best_eval_loss"] = min(held_out, key=lambda pair: pair[1])
    if speeds := sorted(value for _, value in curve(events, "tokens_per_second")):
        result["tokens_per_second"] = speeds[len(speeds) // 2]
    return result
