"""The events of a short run, as metrics.jsonl has them."""

from __future__ import annotations

TRAIN = [
    {"step": step, "loss": 8 / step, "learning_rate": 1e-4, "tokens_per_second": 1000 + step}
    for step in range(1, 5)
]

EVENTS = [
    *TRAIN[:2],
    {"step": 2, "eval_loss": 5.0},
    *TRAIN[2:],
    {"step": 4, "eval_loss": 3.0},
]
