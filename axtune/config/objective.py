"""What a task is: one record that says what it learns from, how, and who trains it.

A task of one's own is a record and a trainer, and touches nothing else::

    register(Objective(
        name="weighted",
        learns_from="conversation",
        config=("trl.trainer.sft_config", "SFTConfig"),
        trainer="my_package.weighted:WeightedTrainer",
    ))

From then on ``task: weighted`` in a recipe is checked, planned and trained like the built-in ones.
Imports no torch: a trainer is named, and imported when it is to train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from axtune.errors import AxtuneError

# What a row of data says: a document to go on with, a conversation to imitate, two answers of which
# one is preferred, or one answer that is wanted or not.
RowKind = Literal["document", "conversation", "pair", "judged"]
# Of tasks that learn from more than their own kind.
_FURTHER: dict[RowKind, tuple[RowKind, ...]] = {
    "document": ("document", "conversation"),
    "judged": ("judged", "pair"),
}


@dataclass(frozen=True)
class Objective:
    """A task.

    Attributes:
        name: What a recipe's ``task`` says.
        learns_from: The kind of its samples. Beside documents conversations can be learned, each
            with its own labels; and from pairs, answers that are judged one by one, each pair as
            two of them.
        config: Module and name of the TRL configuration that the ``training`` section passes to.
        trainer: Module and name, ``module:Class``, of an `axtune.training.trainer.RunTrainer`.
        decided: Training arguments that are not the user's to choose.
        packs: Whether its samples may share a sequence (``data.packing``).
        shares_prefixes: Whether a pair's prompt is computed once (``preference.shared_prefix``).
        has_reference: Whether it compares with the model before the run (``preference.reference``).
        offloads_activations: Whether its TRL trainer can keep activations in host memory.
        least_batch: Samples that a forward pass needs when its default loss is trained with.
        own_head: Whether its loss on a CPU is `axtune.model.fused_loss`, which projects labelled
            positions only and a few at a time.
    """

    name: str
    learns_from: RowKind
    config: tuple[str, str]
    trainer: str
    decided: dict[str, Any] = field(default_factory=dict)
    packs: bool = False
    shares_prefixes: bool = False
    has_reference: bool = False
    offloads_activations: bool = True
    least_batch: int = 1
    own_head: bool = False

    @property
    def judges(self) -> bool:
        """Whether it learns from preferences; such answers are judged as a whole and never cut."""
        return self.learns_from in ("pair", "judged")

    @property
    def learns_documents(self) -> bool:
        """Whether it learns documents, and so how they end."""
        return self.learns_from == "document"

    @property
    def accepts(self) -> tuple[RowKind, ...]:
        """The kinds of rows that it takes."""
        return _FURTHER.get(self.learns_from, (self.learns_from,))

    @property
    def answers(self) -> int:
        """Sequences that a sample makes: two of a pair, one of others."""
        return 2 if self.learns_from == "pair" else 1


OBJECTIVES: dict[str, Objective] = {}


def register(objective: Objective) -> None:
    """Make a task known to recipes.

    Args:
        objective: Its record.

    Raises:
        AxtuneError: When another task has the name.
    """
    if OBJECTIVES.get(objective.name, objective) != objective:
        raise AxtuneError(
            f"Another task is named {objective.name} already.", "Give the new one another name."
        )
    OBJECTIVES[objective.name] = objective


def objective_of(task: str) -> Objective:
    """The record of a task.

    Args:
        task: Its name.

    Raises:
        AxtuneError: When no task has that name, with those that there are.
    """
    if task not in OBJECTIVES:
        raise AxtuneError(f"There is no task {task}.", f"Set task to {listed(OBJECTIVES, 'or')}.")
    return OBJECTIVES[task]


def unknown_task(task: str) -> str:
    """What is wrong with the name of a task that is not registered."""
    return f"There is no task {task}; expected {listed(OBJECTIVES, 'or')}"


def tasks(that: Callable[[Objective], bool]) -> list[str]:
    """The names of the tasks of which something is true, in the order of their registration."""
    return [name for name, objective in OBJECTIVES.items() if that(objective)]


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names as in a sentence: ``dpo, kto and orpo``."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


register(
    Objective(
        name="sft",
        learns_from="conversation",
        config=("trl.trainer.sft_config", "SFTConfig"),
        trainer="axtune.training.sft:SftTrainer",
        decided={"dataset_kwargs": {"skip_prepare_dataset": True}},
        packs=True,
        own_head=True,
    )
)
register(
    Objective(
        name="cpt",
        learns_from="document",
        config=("trl.trainer.sft_config", "SFTConfig"),
        trainer="axtune.training.sft:SftTrainer",
        decided={"dataset_kwargs": {"skip_prepare_dataset": True}},
        packs=True,
        own_head=True,
    )
)
register(
    Objective(
        name="dpo",
        learns_from="pair",
        config=("trl.trainer.dpo_config", "DPOConfig"),
        trainer="axtune.training.preference:DpoTrainer",
        shares_prefixes=True,
        has_reference=True,
    )
)
register(
    Objective(
        name="kto",
        learns_from="judged",
        config=("trl.trainer.kto_config", "KTOConfig"),
        trainer="axtune.training.preference:KtoTrainer",
        has_reference=True,
        least_batch=2,
    )
)
register(
    Objective(
        name="orpo",
        learns_from="pair",
        config=("trl.experimental.orpo.orpo_config", "ORPOConfig"),
        trainer="axtune.training.preference:OrpoTrainer",
        shares_prefixes=True,
        offloads_activations=False,
    )
)
