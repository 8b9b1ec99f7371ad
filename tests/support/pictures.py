"""Pictures of nothing: to draw the curves of a tiny run is a fifth of its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DRAWS = "matplotlib.backends.backend_agg.FigureCanvasAgg.print_png"


def blank(canvas: Any, file: str) -> None:
    """In place of DRAWS."""
    Path(file).write_bytes(b"\x89PNG")


def draw_nothing() -> None:
    """For the rest of a process."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg.print_png = blank
