"""The smallest edits of a recipe that make its run fit, as ``key=value`` overrides to paste.

Edits are tried in the order of what they cost the user: first what changes nothing that is learned
(smaller micro-batches of the same effective batch, packs of fewer tokens, recomputation, an
optimiser in 8 bit, memory of the host), then a base in 4 bit, and last shorter samples, which leave
data out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from axtune.config.initialisation import initialisation
from axtune.config.loader import changed
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError, DataError
from axtune.plan.estimate import Plan, PlanInputs, in_words, make_plan
from axtune.plan.memory import Device
from axtune.plan.schedule import batching_of
from axtune.units import gigabytes, plural

_FOUR_BIT = (
    "quantization.load_in_4bit=true",
    "quantization.bnb_4bit_quant_type=nf4",
    "quantization.bnb_4bit_use_double_quant=true",
)
_SHORTEST = 16  # the least that data.max_length takes

# Words that belong together, and what they cost. A kind's cost exceeds that of all cheaper kinds.
_Option = tuple[float, tuple[str, ...]]


@dataclass(frozen=True)
class Edits:
    """A way to make a run fit.

    Attributes:
        words: Overrides to paste behind the recipe; empty when it fits as it is.
        plan: What the run is with them.
        left_out: Samples that they leave out.
    """

    words: tuple[str, ...]
    plan: Plan
    left_out: int


class Search:
    """Finds edits of one recipe for any amount of memory.

    Args:
        recipe: The job.
        known: Its checkpoint and data.
        device: Where it is to run.
    """

    def __init__(self, recipe: Recipe, known: PlanInputs, device: Device) -> None:
        self._recipe = recipe
        self._known = known
        self._device = device
        self.plan = make_plan(recipe, known, device)

    def fit(self, room: float) -> Edits | None:
        """The cheapest edits with which the run's peak is within some bytes; None without any."""
        for words, plan in self._by_cost:
            if plan.peak <= room:
                return Edits(words, plan, 0)
        return self._shorter(room)

    @property
    def leanest(self) -> tuple[tuple[str, ...], Plan]:
        """The edits with the lowest peak that leave no sample out, and the run with them."""
        return min(self._by_cost, key=lambda item: item[1].peak)

    @cached_property
    def _by_cost(self) -> list[tuple[tuple[str, ...], Plan]]:
        """All combinations of edits but those of lengths, the cheapest first."""
        found = []
        for options in itertools.product(*self._kinds()):
            words = tuple(word for _, group in options for word in group)
            found.append((sum(cost for cost, _ in options), words))
        found.sort(key=lambda item: item[0])
        return [(words, self._plan(words)) for _, words in found]

    def _plan(self, words: tuple[str, ...]) -> Plan:
        if not words:
            return self.plan
        return make_plan(changed(self._recipe, words), self._known, self._device)

    def _kinds(self) -> Iterator[list[_Option]]:
        """The alternatives of each kind of edit, no edit first."""
        recipe, training = self._recipe, self._recipe.training
        batching = batching_of(recipe)
        none: _Option = (0.0, ())
        if self.plan.evaluation is not None and batching.eval_batch > 1:
            yield [none, (1.0, ("training.per_device_eval_batch_size=1",))]
        least = recipe.objective.least_batch
        smaller = [size for size in range(least, batching.batch) if batching.batch % size == 0]
        if smaller:
            yield [none] + [
                (
                    2.0 + 0.9 * (1 - size / batching.batch),
                    (
                        f"training.per_device_train_batch_size={size}",
                        "training.gradient_accumulation_steps="
                        f"{batching.accumulation * batching.batch // size}",
                    ),
                )
                for size in reversed(smaller)
            ]
        limit = max(self._longest, _SHORTEST)  # of packs as well; no sample is longer
        if batching.packing and limit < recipe.data.max_length:
            yield [none, (3.0, (f"data.max_length={limit}",))]
        if training.get("gradient_checkpointing") is False:
            yield [none, (4.0, ("training.gradient_checkpointing=true",))]
        plain = training.get("optim", "adamw_torch_fused").startswith("adamw_torch")
        # FSDP shares out what an optimiser remembers, and the embeddings, and takes neither edit.
        sharded = self._known.sharded
        if self._device.kind == "gpu" and plain and not sharded:
            yield [none, (8.0, ("training.optim=paged_adamw_8bit",))]
        offers = recipe.objective.offloads_activations and self._device.kind == "gpu"
        if offers and not recipe.offload:
            activations: _Option = (16.0, ("offload=[activations]",))
            both: _Option = (32.0, ("offload=[activations,embeddings]",))
            yield [none, activations] if sharded else [none, activations, both]
        if recipe.quantization is None and not _moves_weights(recipe):
            compute = "float16" if recipe.precision == "fp16" else "bfloat16"
            yield [none, (64.0, (*_FOUR_BIT, f"quantization.bnb_4bit_compute_dtype={compute}"))]

    def _shorter(self, room: float) -> Edits | None:
        """Shorter samples, with as few other edits as that length leaves room for."""
        words, _ = self.leanest
        low = self._longest_that_fits(words, room)
        if low is None:
            return None
        for fewer, _ in self._by_cost:
            if set(fewer) <= set(words) and self._fits_at(fewer, low, room):
                words = fewer
                break
        while low >= _SHORTEST:
            kept = (word for word in words if not word.startswith("data.max_length="))
            whole = (*kept, *_limit_words(self._recipe, low))
            try:
                plan = self._plan(whole)
            except DataError:  # not one sample is as short
                return None
            if plan.peak <= room:
                return Edits(whole, plan, plan.left_out)
            low -= 1 + low // 32  # packs may come out fuller without the long samples
        return None

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest sample."""
        sizes = [part for part in (self._known.sizes, self._known.eval_sizes) if part]
        return max(int(part.lengths.max()) for part in sizes)

    def _longest_that_fits(self, words: tuple[str, ...], room: float) -> int | None:
        low, high = _SHORTEST, min(self._longest, self._recipe.data.max_length)
        if not self._fits_at(words, low, room):
            return None
        while high - low > 1:  # `low` fits, `high` does not
            middle = (low + high) // 2
            if self._fits_at(words, middle, room):
                low = middle
            else:
                high = middle
        return low

    def _fits_at(self, words: tuple[str, ...], limit: int, room: float) -> bool:
        """Whether samples of up to that many tokens would fit, whatever lengths the data has."""
        shorter = changed(self._recipe, (*words, f"data.max_length={limit}"))
        known = replace(
            self._known,
            sizes=self._known.sizes.cut(limit),
            eval_sizes=self._known.eval_sizes and self._known.eval_sizes.cut(limit),
        )
        return make_plan(shorter, known, self._device).peak <= room


def advice(search: Search, room: float) -> str:
    """How a run would fit into some bytes, in a sentence."""
    edits = search.fit(room)
    if edits is None:
        words, least = search.leanest
        less = f"; the least is {gigabytes(least.peak)}, with: {' '.join(words)}" if words else ""
        return f"No key of the recipe makes it fit: it needs more memory{less}."
    lost = f" ({plural(edits.left_out, 'longer sample')} left out)" if edits.left_out else ""
    return f"It would fit in {gigabytes(edits.plan.peak)} with: {' '.join(edits.words)}{lost}."


def refusal(search: Search, room: float) -> AxtuneError:
    """The error of a run that does not fit into some bytes."""
    return AxtuneError(
        f"The run does not fit: it needs {in_words(search.plan)}; there are {gigabytes(room)}.",
        f"{advice(search, room)} plan=warn starts it anyway.",
    )


def _moves_weights(recipe: Recipe) -> bool:
    """Whether a recipe changes the base's weights, which a base in 4 bit does not keep."""
    return recipe.start_merged or initialisation(recipe.lora).moves_base


def _limit_words(recipe: Recipe, limit: int) -> tuple[str, ...]:
    """The overrides that make samples shorter: what is longer is cut where the recipe cuts, else
    left out."""
    words = (f"data.max_length={limit}",)
    if recipe.data.truncate or recipe.data.on_error == "skip":
        return words
    return (*words, "data.on_error=skip")
