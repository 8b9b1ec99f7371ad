"""What an evaluation found: ``result.json``, of which table, report and card are made."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from axtune.checkpoint.atomic import write_text
from axtune.checkpoint.locate import read_json
from axtune.errors import CheckpointError
from axtune.evaluate.answers import writing

RESULT = "result.json"
FORMAT = 1
_LOSSES = ("loss", "perplexity")

Verdict = Literal["better", "worse", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval.

    Attributes:
        value: A share from 0 to 1, or in the metric's own unit (chrF: 0 to 100; loss: nats).
        low: Of the interval.
        high: Of the interval; both are the value where the questions tell none.
    """

    value: float
    low: float
    high: float

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval: one question, or several alike, say nothing of a loss."""
        return self.low < self.high


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one category of questions.

    Attributes:
        metric: ``accuracy``, ``decision``, ``tool``, ``arguments``, ``valid_json``,
            ``schema_valid``, ``exact``, ``chrf``, ``json``, ``loss``, ``perplexity`` or one of
            lm-evaluation-harness.
        category: Of the questions; ``all`` for all that the metric is of.
        n: Questions.
        value: Of the model.
        before: Of what it is held against; None without.
        difference: `value` less `before`, with an interval of its own: the same questions.
        verdict: What the difference says at 95%: whether its interval leaves 0 out.
        clusters: How many conversations the questions are of, or rows the samples that a loss is
            of, where some have several: what the intervals go by. None where each has one, and in a
            result of an earlier version, which took them so.
    """

    metric: str
    category: str
    n: int
    value: Estimate
    before: Estimate | None = None
    difference: Estimate | None = None
    verdict: Verdict | None = None
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """An evaluation.

    Attributes:
        model: As the user named it.
        against: Likewise; None without.
        settings: Backend, precision, temperature, samples, longest answer, seed.
        data: ``file``, ``rows``, ``questions`` of each file.
        questions: How many were asked.
        left_out: Questions that were not asked, by why.
        measured: In the order in which they are shown.
        reasons: Why answers are not right, by code: how many of the model's.
        reasons_before: Likewise of `against`.
        cut: How many answers were cut at the longest that one may be, by who gave them.
        ties: Of two backends of the same weights: answers ``compared``, how many ``differ``, how
            many of those part ``at_a_tie`` (where the best token leads by at most ``bound``), and
            the ``widest`` lead where two part.
        seconds: That answers took; those kept from before cost none.
        created: When, in UTC, ISO 8601.
        versions: Of the packages that took part.
        personal_data: How much of each kind the gate of the run's recipe found in what was asked.
        keys: Of the answers that it counts, shortened (`axtune.evaluate.answers.short`): the file
            of answers may hold others. Empty in one of an earlier version.
    """

    model: str
    against: str | None
    settings: dict[str, Any]
    data: list[dict[str, Any]]
    questions: int
    left_out: dict[str, int]
    measured: list[Measured]
    reasons: dict[str, int]
    reasons_before: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    ties: dict[str, float] | None = None
    seconds: float = 0.0
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    personal_data: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)

    def put(self, folder: Path) -> str:
        """Write ``result.json``; what another evaluation left there is kept.

        The same questions to the same model take the place of what was there, unless that is held
        against a model and this is not: it says the same and more. A look at some of the
        questions (``limit``) stands beside an evaluation of more of them: ``result-limit-3.json``.

        Returns:
            What became of this result or an earlier one, a sentence; empty where there is nothing
            to say.

        Raises:
            AxtuneError: When it cannot be written.
        """
        file = folder / RESULT
        try:
            earlier = read_result(folder)
        except CheckpointError:  # none, or one that nobody can read
            self.write(folder)
            return ""
        same = self._asks() == earlier._asks()
        if same and self.against is None and earlier.against is not None:
            return f"{file} keeps the same figures beside those of {earlier.against}."
        if same and earlier.against in (self.against, None):
            self.write(folder)
            return ""
        if self._is_a_look_at(earlier):
            look = f"result-limit-{self.settings['limit']}.json"
            self.write(folder, look)
            return (
                f"{file} and the report keep the figures of more questions; those of this look are "
                f"in {look}."
            )
        stamp = re.sub(r"\D", "", earlier.created)[:14]
        kept = next(
            place
            for number in itertools.count()
            if not (place := folder / f"result-{stamp}{f'-{number}' * bool(number)}.json").exists()
        )
        with writing(file):
            file.rename(kept)
        self.write(folder)
        return (
            f"The earlier result, of other questions, settings or models, is {kept}; the report "
            "shows this one."
        )

    def _asks(self) -> tuple[Any, ...]:
        """What was asked, of whom and how."""
        settings = {name: one for name, one in self.settings.items() if name != "against_backend"}
        return self.model, self.data, self.questions, settings

    def _is_a_look_at(self, earlier: Result) -> bool:
        """Whether this asked some of the questions, or of the tasks', that the other one asked."""
        asked, of = (
            (one.model, one.settings.get("data"), one.settings.get("tasks"))
            for one in (self, earlier)
        )
        limit, before = (one.settings.get("limit") for one in (self, earlier))
        return asked == of and limit is not None and (before is None or limit < before)

    def text(self) -> str:
        """As it is written."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=2)
        return text + "\n"

    def write(self, folder: Path, name: str = RESULT) -> None:
        """Replace ``result.json``, or a file beside it.

        Raises:
            AxtuneError: When it cannot be written.
        """
        with writing(folder / name):
            write_text(folder / name, self.text())


def clusters_in_words(measured: Sequence[Measured]) -> Iterator[str]:
    """What intervals go by where that is not the question, by the figure of most questions."""
    for losses in (False, True):
        whole, part = ("samples", "rows") if losses else ("questions", "conversations")
        some = [one for one in measured if one.clusters and (one.metric in _LOSSES) is losses]
        if some:
            one = max(some, key=lambda each: each.n)
            yield f"{one.n:,} {whole} are of {one.clusters:,} {part}, which the intervals go by"


def read_result(folder: Path) -> Result:
    """An evaluation's ``result.json``.

    Raises:
        CheckpointError: When the file cannot be read, or is not what this version writes.
    """
    file = folder / RESULT
    values = read_json(file)
    if values.pop("format", None) == FORMAT:
        with suppress(ValidationError):
            return TypeAdapter(Result).validate_python(values)
    raise CheckpointError(
        f"{file} is no result of this version of axtune.",
        "Evaluate again: answers that are there already cost nothing.",
    )
