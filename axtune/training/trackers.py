"""Trackers that a recipe names in ``training.report_to``: where they log, and when they fail."""

from __future__ import annotations

from collections.abc import Sequence
from traceback import walk_tb

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
)

from axtune.checkpoint.run_dir import LOGS, RunDir


def log_into(run_dir: RunDir, callbacks: Sequence[TrainerCallback]) -> None:
    """Let TensorBoard's logs be in the run's folder, unless the environment names another place.

    transformers would put them among the checkpoints, in a folder named after the machine.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(run_dir.path / LOGS)


def failed(error: BaseException) -> str | None:
    """The tracker in whose code an error was raised; None for every other error."""
    for frame, _ in walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if package in INTEGRATION_TO_CALLBACK:
            return package
    return None
