"""What answers are judged by: the one table of its names.

A metric is called in a result (``accuracy``), in the events of a run (``eval_tool_accuracy``), and
for people ("everything right").
"""

from __future__ import annotations

from axtune.config.recipe import Figure

# Metrics of a result, as a run's events name them.
FIGURE_OF: dict[str, Figure] = {
    "accuracy": "tool_accuracy",
    "decision": "decision_accuracy",
    "tool": "tool_name_accuracy",
    "arguments": "argument_accuracy",
    "valid_json": "valid_json",
    "schema_valid": "schema_valid",
    "published": "published",
    "exact": "exact",
    "chrf": "chrf",
    "json": "json",
}
_NAMES: dict[str, str] = {
    "accuracy": "everything right",
    "decision": "right decision",
    "tool": "right tool",
    "arguments": "right arguments",
    "valid_json": "valid JSON",
    "schema_valid": "schema-valid",
    "published": "right as published",
    "exact": "exact match",
    "chrf": "chrF",
    "json": "JSON as asked",
}
_BY_EITHER = _NAMES | {figure: _NAMES[metric] for metric, figure in FIGURE_OF.items()}


def metric_name(metric: str) -> str:
    """A metric's name for people, in the middle of a sentence.

    Args:
        metric: As results or the events of runs have it; another one is made readable.
    """
    return _BY_EITHER.get(metric, metric.replace("_", " "))


def metric_title(metric: str) -> str:
    """A metric's name where it stands first, such as above a chart."""
    name = metric_name(metric).replace("/", ", ")
    return name if name == _NAMES["chrf"] else name[0].upper() + name[1:]
