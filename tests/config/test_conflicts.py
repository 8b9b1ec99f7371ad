"""Keys that contradict each other are said at the line of the one to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.recipe_text import PLAIN, faults_of, read, swap

from axtune.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (swap("learning_rate: 2e-4", "eval_strategy: 'no'"), 12),
        (swap("max_length: 2048", "truncate: true").replace("sft", "dpo"), 8),
        (swap("  eval: 0.1\n", "") + "early_stopping_patience: 2\n", 12),
        (swap("  eval: 0.1\n", "") + "evaluate: {}\n", 12),
        (swap("  eval: 0.1\n", "") + "after: [evaluate]\n", 12),
        (PLAIN + "after: [evaluate, verify]\n", 13),
        (PLAIN + "after: [verify]\n", 13),
        (swap("max_length: 2048", "privacy_kinds: kinds.yaml"), 8),
        (swap("max_length: 2048", "leaked: drop"), 8),
        (swap("data/상담.jsonl", "[{path: a, share: 0.2, weight: 2}, b]"), 6),
        (swap("data/상담.jsonl", "{path: a, share: 0.2}"), 6),
        (swap("data/상담.jsonl", "[{path: a, share: 0.6}, {path: b, share: 0.5}, c]"), 6),
        (swap("eval: 0.1", "eval: {path: a, share: 0.5}"), 7),
        (swap("max_length: 2048", "replay: {train: {path: a, share: 0.5}}"), 8),
        (swap("2e-4", "2e-4\n  neftune_noise_alpha: 5"), 13),
        (PLAIN + "preference: {start_from: runs/a}\n", 13),
        (swap("task: sft", "task: dpo") + "preference:\n  start_merged: true\n", 14),
        (swap("  r: 8", "  modules_to_save: [lm_head]") + "offload: [embeddings]\n", 13),
        (PLAIN + "evaluate:\n  every: end\n  best: exact\n", 15),
        (swap("2e-4", "2e-4\n  max_steps: 5") + "evaluate:\n  every: 6\n", 15),
        (
            swap("2e-4", "2e-4\n  lr_scheduler_type: greedy") + "evaluate:\n  best: exact\n",
            15,
        ),
    ],
)
def test_each_conflict_has_its_line(tmp_path: Path, text: str, line: int) -> None:
    assert ("recipe.yaml", line, "conflict") in faults_of(tmp_path, text)


def test_shares_that_can_be_had_together(tmp_path: Path) -> None:
    both = "[{path: a, share: 0.4}, {path: b, share: 0.5}]"
    read(tmp_path, swap("data/상담.jsonl", both), "data.replay={train: c}")
    with pytest.raises(RecipeError, match=r"together they are 0\.9 instead of 1"):
        read(tmp_path, swap("data/상담.jsonl", both))
    with pytest.raises(RecipeError, match=r"shares of 1\.1 leave nothing for the other sources"):
        read(tmp_path, PLAIN, "data.train=[{path: a, share: 0.6}, b]",
             "data.replay={train: c, share: 0.5}")  # fmt: skip


def test_the_shared_prefix_wants_its_own_attention(tmp_path: Path) -> None:
    words = ["task=dpo", "attention=eager", "preference.shared_prefix=true"]
    with pytest.raises(RecipeError, match="attention: auto"):
        read(tmp_path, PLAIN, *words)
    read(tmp_path, PLAIN, *words[:-1], "preference.shared_prefix=false")
