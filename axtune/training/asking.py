"""When a run asks its model questions, and what it needs of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from axtune.config.recipe import FIGURES, EvaluateConfig
from axtune.training.callbacks import Stopper, epoch_is_whole, was_logged


class Questions(Protocol):
    """What a model is asked while it trains; how answers are judged is not training's concern.

    Attributes:
        left_out: How many were not taken, by why.
        files: How many files the others are of.
        personal_data: How much of each kind was masked in them.
    """

    left_out: dict[str, int]
    files: int
    personal_data: dict[str, int]

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""

    def __len__(self) -> int:
        """How many there are."""

    def answers(
        self, model: PreTrainedModel, numbers: Sequence[int]
    ) -> Iterator[Mapping[int, Any]]:
        """Let a model answer some of the questions, in batches.

        Args:
            model: As `axtune.model.answering.answering` makes it.
            numbers: Of the questions.

        Yields:
            Answers, which can be pickled, by the numbers of their questions.
        """

    def figures(self, answers: Mapping[int, Any]) -> dict[str, float]:
        """What the answers to all questions are worth: of `FIGURES` those that they tell."""


class Asking(TrainerCallback):
    """Marks the steps after which questions are asked; the trainer evaluates there.

    Args:
        config: Of the recipe.
        stopper: Knows whether the run was interrupted.
        loss_due: Whether an evaluation before the first step has a loss to compute.

    Attributes:
        loss_due: Whether the held-out loss is due where the trainer evaluates.
    """

    def __init__(self, config: EvaluateConfig, stopper: Stopper, *, loss_due: bool) -> None:
        self._config = config
        self._stopper = stopper
        self.loss_due = loss_due
        self._due = True  # training.eval_on_start

    def is_due(self, state: TrainerState, control: TrainerControl) -> bool:
        """Whether questions are due where the trainer evaluates, its loss computed."""
        stopped_early = control.should_training_stop and not self._stopper.interrupted
        last = self._config.every == "end" and stopped_early and not was_asked(state)
        return self._due or last

    def was_missed(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether a run goes on from a step after which it should have asked and was stopped."""
        whole = self._config.every == "epoch" and epoch_is_whole(state)
        due = state.global_step > 0 and (whole or self._is_step(state))
        return due and not was_asked(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._mark(control, self._is_step(state))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The trainer ends the epoch when it stops inside one.
        broken = self._stopper.interrupted and not epoch_is_whole(state)
        self._mark(control, self._config.every == "epoch" and not broken)

    def _is_step(self, state: TrainerState) -> bool:
        """Whether the number of the step alone makes questions due; the last one does."""
        every = self._config.every
        if every == "epoch":
            return False
        last = state.global_step >= state.max_steps
        return last if every == "end" else last or state.global_step % every == 0

    def _mark(self, control: TrainerControl, due: bool) -> None:
        self._due, self.loss_due = due, control.should_evaluate
        if due:
            control.should_evaluate = True
            if self._config.best:  # what may be the best has to be kept
                control.should_save = True


def was_asked(state: TrainerState) -> bool:
    """Whether the questions of the step that a run is at were answered."""
    return was_logged(state, [f"eval_{figure}" for figure in FIGURES])
