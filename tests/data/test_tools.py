"""Tools of every form are the same tools."""

from __future__ import annotations

from axtune.data.tools import row_tools


def test_a_row_without_tools_has_none() -> None:
    assert row_tools({"messages": []}) is None
    assert row_tools({"tools": []}) == []
