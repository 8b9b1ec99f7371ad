"""The names of what answers are judged by."""

from __future__ import annotations

import pytest

from axtune.config.metrics import FIGURE_OF, metric_name, metric_title
from axtune.config.recipe import FIGURES
from axtune.evaluate.figures import METRICS


def test_every_metric_has_a_name_by_which_runs_and_results_call_it() -> None:
    assert tuple(FIGURE_OF) == METRICS
    assert set(FIGURE_OF.values()) == set(FIGURES)
    names = [metric_name(metric) for metric in METRICS]
    assert len(set(names)) == len(names)
    assert names == [metric_name(figure) for figure in FIGURE_OF.values()]


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("chrf", "chrF"),
        ("tool_accuracy", "Everything right"),
        ("valid_json", "Valid JSON"),
        ("json", "JSON as asked"),
        ("kmmlu_acc", "Kmmlu acc"),
        ("perplexity", "Perplexity"),
        ("rewards/chosen", "Rewards, chosen"),
    ],
)
def test_titles_begin_with_a_capital_but_for_proper_names(metric: str, title: str) -> None:
    assert metric_title(metric) == title
