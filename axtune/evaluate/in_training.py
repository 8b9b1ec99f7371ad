"""A recipe's ``evaluate``: the questions that its model answers while it trains, and after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from transformers import PreTrainedModel

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import bad_value, refused
from axtune.config.metrics import FIGURE_OF
from axtune.config.objective import listed
from axtune.config.recipe import Recipe, best_figure, evaluate_of
from axtune.data.native_calls import Answer, form_of
from axtune.evaluate.evaluate import Settings
from axtune.evaluate.figures import figures, scored
from axtune.evaluate.generate import Prompt, Sampling, generate
from axtune.evaluate.sources import select


def settings_of(recipe: Recipe, against: str | None = None) -> Settings:
    """What a recipe asks, as `axtune.evaluate.evaluate.evaluate` takes it.

    Args:
        recipe: Its ``evaluate`` section, or the defaults of one.
        against: What the model is held against.
    """
    given = evaluate_of(recipe)
    return Settings(
        data=given.data or (),
        against=against,
        sampling=Sampling(max_new_tokens=given.max_new_tokens),
        seed=recipe.seed,
        limit=given.limit,
    )


class TrainingQuestions:
    """The questions of a recipe's ``evaluate`` (`axtune.training.asking.Questions`).

    Args:
        recipe: The job.
        tokenizer: The checkpoint's.

    Attributes:
        left_out: How many were not taken, by why.
        files: How many files the others are of.
        personal_data: How much of each kind was masked in them.

    Raises:
        AxtuneError: When there is nothing to ask, or a file cannot be read.
        RecipeError: When the questions do not tell what is to choose the best checkpoint.
    """

    def __init__(self, recipe: Recipe, tokenizer: AxTokenizer) -> None:
        settings = settings_of(recipe)
        room = settings.sampling.max_new_tokens
        selected = select(
            tokenizer, recipe, settings.data, room=room, limit=settings.limit, seed=settings.seed
        )
        if not selected.questions:
            message = (
                "asks nothing: the held-out rows are documents, whose loss is evaluated anyway; "
                "name questions (evaluate.data), or remove evaluate."
            )
            raise refused([bad_value("evaluate", message)])
        self._tokenizer = tokenizer
        self._sampling = settings.sampling
        self._asked = selected.questions
        self.left_out = dict(selected.left_out)
        self.files = len(selected.files)
        self.personal_data = dict(selected.personal_data)
        # What answers are worth hangs on them; which figures there are hangs on the questions.
        told = self.figures(dict.fromkeys(range(len(self)), Answer("", [])))
        best = best_figure(recipe)
        if best is not None and best not in told:
            message = f"no question tells {best}; these tell {listed([*told], 'and')}."
            raise refused([bad_value("evaluate.best", message)])

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""
        return sum(len(prompt) for _, prompt in self._asked)

    def answers(
        self, model: PreTrainedModel, numbers: Sequence[int]
    ) -> Iterator[dict[int, Answer]]:
        """Let a model answer some of the questions, greedily, in batches.

        Args:
            model: In evaluation mode.
            numbers: Of the questions.

        Yields:
            Answers, as a client gets them, by the numbers of their questions.
        """
        form = form_of(self._tokenizer.family)
        prompts = [Prompt(self._asked[number][1]) for number in numbers]
        for batch in generate(model, prompts, self._sampling):
            yield {
                numbers[place]: form.parse(
                    self._tokenizer.decode(made.ids[:-1] if made.ended else made.ids)
                )
                for place, made in batch.items()
            }

    def figures(self, answers: Mapping[int, Answer]) -> dict[str, float]:
        """What the answers to all questions are worth, by `axtune.config.recipe.FIGURES`."""
        judged = [
            scored(question, [answers[number]]) for number, (question, _) in enumerate(self._asked)
        ]
        found: dict[str, float] = {}
        for measured in figures(judged):  # the first of a metric is that of all questions
            found.setdefault(FIGURE_OF[measured.metric], measured.value.value)
        return found
