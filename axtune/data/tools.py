"""The tools of a row, in the form of any common tool."""

from __future__ import annotations

from typing import Any


def row_tools(row: dict[str, Any]) -> Any:
    """The tools that a row holds, not normalised yet; None of a row without."""
    return row.get("tools")
