"""Numbers that are none: a run that diverges stops before the step, and names the rows.

A loss, a gradient or a weight that is not finite never leaves a step: what is trained stays what
the last sound checkpoint says. A loss that leaps is only named; training may recover from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import nested_gather

from axtune.checkpoint.run_dir import RunDir
from axtune.errors import AxtuneError
from axtune.model.sharding import whole
from axtune.training.progress import Report

# A sample's file and line, as `axtune.data.dataset.Prepared.where` takes it.
Place = tuple[int, int]

_NAMED = 5  # rows that a message names
_WINDOW = 32  # steps that a loss is compared with
_KNOWN = 8  # steps before a leap can be told from how losses differ anyway
_LEAP = 10.0  # mean deviations above the median
_RISE = 1.5  # and so many times the median: small losses of a learned data set jump about
_LEAPS_SHOWN = 5
_SMALLEST_SCALE = 1.0  # of fp16's losses; below it every step overflowed


class WithPlaces:
    """A collator that keeps beside its batch where the rows come from.

    Args:
        collate: Makes a batch of rows; it does not see their places.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, with ``places`` of its rows."""
        batch = dict(self.collate(rows))
        batch["places"] = [place for row in rows for place in _places(row)]
        return batch


def _places(row: dict[str, Any]) -> Iterator[Place]:
    """Of a row; a pack has those of its samples."""
    given = row["place"]
    yield from given if isinstance(given[0], list) else [given]


class DivergenceWatch(TrainerCallback):
    """Stops a run at a number that is none, before the step is taken.

    The trainer calls `note` for each micro-batch.

    Args:
        model: What is trained.
        where: ``file:line`` of a place.
        report: Told of losses that leap.
        run_dir: Keeps a record of them.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        where: Callable[[Place], str],
        report: Report,
        run_dir: RunDir,
    ) -> None:
        self.scaler: torch.amp.GradScaler | None = None
        self._model = model
        self._where = where
        self._report = report
        self._run_dir = run_dir
        self._batches: list[tuple[torch.Tensor, list[Place]]] = []
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._leaps = 0

    def note(self, loss: torch.Tensor, places: list[Place]) -> None:
        """A micro-batch's share of the step's loss, without a graph, and where its rows are."""
        self._batches.append((loss, places))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        batches, self._batches = self._batches, []
        gradients = [p.grad for p in self._trained() if p.grad is not None]
        norms = torch.stack([_norm(gradients), _norm(self._trained())])
        # One transfer from the card: the losses, the norm of the gradients, that of the weights.
        *losses, gradient, weight = torch.cat(
            [torch.stack([loss.float() for loss, _ in batches]), norms.float()]
        ).tolist()
        wrong = [not _is_finite(loss) for loss in losses]
        overflowed = not _is_finite(gradient) and not self._scaled_down()
        if not self._any(args, any(wrong) or overflowed or not _is_finite(weight)):
            self._watch_leap(state, losses, [places for _, places in batches])
            return
        if not _is_finite(weight):
            raise _diverged(state.global_step, "the weights after it are")
        # Where no process has such a loss, the rows of all of them may be to blame.
        blamed = wrong if self._any(args, any(wrong)) else [True] * len(batches)
        rows = [p for (_, places), bad in zip(batches, blamed, strict=True) if bad for p in places]
        if args.world_size > 1:
            rows = gather_object(rows)
        what = "the gradients are" if all(blamed) and not any(wrong) else "the loss is"
        raise _diverged(state.global_step + 1, what, map(self._where, rows))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if control.should_save or ends:
            self._check_weights(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if control.should_save:
            self._check_weights(state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is not None and not _is_finite(loss):
            raise _diverged(state.global_step, "eval_loss is")

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self._model.parameters() if p.requires_grad]

    def _scaled_down(self) -> bool:
        """Whether fp16's scaler takes care of gradients that overflow: it skips such a step."""
        return self.scaler is not None and self.scaler.get_scale() > _SMALLEST_SCALE

    def _any(self, args: TrainingArguments, found: bool) -> bool:
        """Whether any process found something; all of them must stop at the same step."""
        if args.world_size == 1:
            return found
        flags = nested_gather(torch.tensor(float(found), device=args.device), args.parallel_mode)
        return bool(flags.max() > 0)

    def _check_weights(self, state: TrainerState) -> None:
        """Nothing that is not finite is saved."""
        if not _is_finite(_norm(self._trained()).item()):
            raise _diverged(state.global_step, "the weights after it are")

    def _watch_leap(
        self,
        state: TrainerState,
        losses: list[float],
        batches: list[list[Place]],
    ) -> None:
        """Name the rows of a step whose loss stands far above the steps before it."""
        loss, before = sum(losses), list(self._losses)
        self._losses.append(loss)
        if len(before) < _KNOWN:
            return
        middle = median(before)
        spread = sum(abs(value - middle) for value in before) / len(before)
        if loss <= middle + _LEAP * spread or loss <= _RISE * middle:
            return
        step = state.global_step + 1
        if not state.is_world_process_zero:
            return
        worst = batches[max(range(len(losses)), key=losses.__getitem__)]
        rows = [self._where(place) for place in worst]
        self._run_dir.log({"step": step, "loss_spike": loss, "rows": rows[:_NAMED]})
        self._leaps += 1
        if self._leaps <= _LEAPS_SHOWN:
            last = "; further ones stand in metrics.jsonl" if self._leaps == _LEAPS_SHOWN else ""
            self._report.say(
                f"The loss of step {step} leaps to {loss:.3f}, from {middle:.3f} in the middle of "
                f"the {len(before)} steps before it; its rows: {_listed(rows)}{last}.",
                "yellow",
            )


def check_rehearsal(loss: float, model: torch.nn.Module, rows: Iterable[str]) -> None:
    """Refuse to train what gives a loss that is no number before the first step.

    Args:
        loss: Of the largest micro-batch.
        model: What would be trained.
        rows: ``file:line`` of its rows.

    Raises:
        AxtuneError: With the first tensor that holds such a number, if one does.
    """
    if _is_finite(loss):
        return
    for name, share in model.state_dict().items():
        tensor = whole(share)
        if tensor.is_floating_point() and (bad := int((~torch.isfinite(tensor)).sum())):
            plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            raise AxtuneError(
                f"The model is broken before the first step: {plain} holds {bad:,} of "
                f"{tensor.numel():,} values that are not finite.",
                "Give a sound copy of it: axtune doctor MODEL compares a model's files.",
            )
    raise AxtuneError(
        f"The loss of {_listed(rows)} is not finite before the first step.",
        "Look at these rows: axtune data preview; or set precision=fp32.",
    )


def _diverged(step: int, what: str, rows: Iterable[str] = ()) -> AxtuneError:
    """The error of a run that cannot go on.

    Args:
        step: The optimiser step, counted from 1.
        what: Such as "the loss is".
        rows: ``file:line`` of what the step was learning from.
    """
    named = _listed(rows)
    return AxtuneError(
        f"Step {step}: {what} not finite" + (f"; its rows: {named}." if named else "."),
        "Nothing of it was saved, and earlier checkpoints are sound. Train with a smaller "
        "learning_rate" + (", or without these rows." if named else "."),
    )


def _listed(rows: Iterable[str]) -> str:
    """The first few of some rows, each once."""
    several = list(dict.fromkeys(rows))
    more = f" and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
    return ", ".join(several[:_NAMED]) + more


def _norm(tensors: list[Any]) -> torch.Tensor:
    """Of all numbers of some tensors, sharded or not."""
    return whole(get_total_norm(tensors))


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
