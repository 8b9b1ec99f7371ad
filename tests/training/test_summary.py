"""What a run says of itself before and after."""

from __future__ import annotations

from support.events import EVENTS

from axtune.training.summary import summary


def test_summary():
    assert summary(EVENTS) == {
        "first_loss": 8.0,
        "last_loss": 2.0,
        "best_eval_loss": 3.0,
        "best_step": 4,
        "tokens_per_second": 1003,
    }
    assert summary([]) == {}
