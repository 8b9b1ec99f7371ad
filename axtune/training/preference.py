"""Preference training: TRL's DPO, KTO and ORPO on rows that are already token ids.

The losses are TRL's own code. What differs here: a pair's prompt is computed once (see
`axtune.model.shared_prefix`), reference log-probabilities are computed once and kept (see
`axtune.training.reference_logps`), and no second copy of any weights stays in memory. With
``shared_prefix: false`` and ``reference: each_step`` the computation is TRL's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from trl import DPOTrainer, KTOTrainer

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.provenance import base_digests
from axtune.config.recipe import preference_of
from axtune.model import shared_prefix
from axtune.model.load import Precision
from axtune.model.sharding import is_sharded
from axtune.training import trl_private
from axtune.training.callbacks import ChosenWatch
from axtune.training.collators import (
    PairCollator,
    PreparedDataset,
    UnpairedCollator,
    WithPartners,
)
from axtune.training.reference_logps import Numbers, WithReference, digest_tensors, obtain
from axtune.training.trainer import Rehearsal, RunContext, RunTrainer

ORPOTrainer = trl_private.orpo_trainer()


class _Reference:
    """The model before this run, beside the one that is trained.

    Args:
        trainer: Initialised; TRL has put a copy of the adapter beside it, for a reference in each
            step. An adapter that adds nothing yet needs none: without it, the base is the
            reference.
        compute: Reference log-probabilities of a batch of rows.
    """

    def __init__(
        self, trainer: RunTrainer, compute: Callable[[list[dict[str, Any]]], Numbers]
    ) -> None:
        self._trainer = trainer
        self._compute = compute
        self._preference = preference_of(trainer.run.recipe)
        if _adds_nothing(trainer.model):
            trainer.model.delete_adapter("ref")
        self._origin = self._digest()  # while the weights are whole

    @property
    def cached(self) -> bool:
        """Whether it is computed once, before the first step."""
        return self._preference.reference == "cached"

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model as it was before this run; without gradients."""
        trainer = self._trainer
        name = "ref" if "ref" in trainer.model.peft_config else None
        checkpointing = trainer.args.gradient_checkpointing_kwargs
        with (
            torch.no_grad(),
            trl_private.disable_gradient_checkpointing(trainer.model, checkpointing),
            trl_private.use_adapter(trainer.model, name),
            trainer.accelerator.autocast(),
        ):
            yield

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """Compute the reference log-probabilities of all rows, or take them from the cache."""
        if not self.cached:
            return
        trainer, recipe = self._trainer, self._trainer.run.recipe
        identity = {
            "task": recipe.task,
            "base": base_digests(checkpoint.folder),
            "adapter": self._origin,
            "precision": precision,
            "quantization": recipe.quantization,
            "attention": recipe.attention,
            "shared_prefix": self._preference.shared_prefix,
            "device": trainer.args.device.type,
        }
        trainer.model.eval()
        for name in ("train_dataset", "eval_dataset"):
            if (rows := getattr(trainer, name)) is None:
                continue
            numbers = obtain(
                rows,
                self._compute,
                identity=identity,
                batch_size=trainer.args.per_device_eval_batch_size,
                report=trainer.run.report,
            )
            setattr(trainer, name, WithReference(rows, numbers))
        # A part of a sharded layer cannot be taken out of it any more.
        if "ref" in trainer.model.peft_config and not is_sharded(trainer.model):
            trainer.model.delete_adapter("ref")

    def _digest(self) -> str | None:
        """The digest of the adapter weights that the reference has; None for the base alone."""
        model = self._trainer.model
        tensors = {
            f"{name}.{side}{n}": tensor
            for name, terms in self._trainer.run.adapter.merged.items()
            for n, term in enumerate(terms)
            for side, tensor in zip("ab", term, strict=True)
        }
        if "ref" in model.peft_config:
            tensors |= get_peft_model_state_dict(model, save_embedding_layers=False)
        return digest_tensors(tensors) if tensors else None


class DpoTrainer(RunTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, its loss fed with log-probabilities that are computed once a prompt.

    Beside TRL's metrics it logs ``kl_k3``: the mean over the answers' tokens of Schulman's third
    estimator, exp(d) - 1 - d with d = log p_ref - log p (http://joschu.net/blog/kl-approx.html).
    For tokens drawn from the model its mean is the KL divergence from the reference. These tokens
    are the data's, so it tells how far the model has moved on the data, and is never negative.
    """

    def __init__(self, run: RunContext) -> None:
        shared = preference_of(run.recipe).shared_prefix
        with _copied_plainly(run.adapter.model):
            super().__init__(run, data_collator=PairCollator(run.tokenizer.pad_id, shared=shared))
        self.add_callback(ChosenWatch(run.report, self.args.beta))
        self.reference = _Reference(self, self._reference_of)
        self.precompute_ref_logps = True  # for its loss: compute_loss brings them along
        if shared:
            shared_prefix.install(self.model.get_base_model())

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """Compute the reference log-probabilities of all rows, or take them from the cache."""
        self.reference.make_ready(checkpoint, precision)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """TRL's loss on our forward.

        Args:
            model: As accelerate wrapped it.
            inputs: Of `PairCollator`.
            return_outputs: As TRL has it.
            num_items_in_batch: Not used; DPO's loss is a mean over pairs.
        """
        answers = inputs["completion_mask"][:, 1:].bool()
        reference = inputs.get("reference_logps")
        if reference is None:
            with self.reference.in_place():
                reference = pair_outputs(self.model, inputs).log_probs
        output = pair_outputs(model, inputs)
        chosen, rejected = self._summed(reference, answers)
        known = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        names = ("input_ids", "attention_mask", "completion_mask")
        batch = {name: inputs[name] for name in names} | known
        result = trl_private.dpo_loss(self, output, batch, return_outputs)
        self._log_kl(output.log_probs.detach()[answers], reference[answers])
        return result

    def _summed(self, logps: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Log-probabilities of whole answers as TRL sums them, LD-DPO's discount included.

        Args:
            logps: (2 × pairs, length - 1).
            answers: Of the same shape, true at answer tokens.

        Returns:
            Of the chosen and of the rejected answers, (pairs,) each.
        """
        if self.ld_alpha is not None:  # tokens beyond the shorter answer's length count less
            lengths = answers.sum(dim=1)
            shared = torch.minimum(*lengths.chunk(2)).repeat(2)
            beyond = answers.cumsum(dim=1) > shared[:, None]
            logps = torch.where(beyond, self.ld_alpha * logps, logps)
        return logps.sum(dim=1).chunk(2)

    def _log_kl(self, logps: torch.Tensor, reference: torch.Tensor) -> None:
        difference = reference - logps
        sums = torch.stack(
            [(difference.exp() - 1 - difference).sum(), logps.new_tensor(len(logps))]
        )
        total, count = self.accelerator.gather(sums[None]).sum(0).tolist()
        trl_private.log_metric(self, "kl_k3", total / max(count, 1))

    def _reference_of(self, rows: list[dict[str, Any]]) -> Numbers:
        batch = self._prepare_inputs(self.data_collator.collate(rows))
        if "packed" in batch:
            batch["packed"] = batch["packed"].to(self.args.device)
        with self.reference.in_place():
            logps = pair_outputs(self.model, batch).log_probs.float().cpu()
        answers = batch["completion_mask"][:, 1:].bool().cpu()
        values = [row[mask].numpy() for row, mask in zip(logps, answers, strict=True)]
        return {
            "chosen_reference": values[: len(rows)],
            "rejected_reference": values[len(rows) :],
        }


class KtoTrainer(RunTrainer, KTOTrainer):  # type: ignore[misc]
    """TRL's KTOTrainer on labelled answers: ``prompt_ids``, ``completion_ids``, ``label``.

    Its KL term pairs each prompt with the answer of the row before, within a batch in fixed order;
    so the rows are shuffled here, once, and TRL goes through them as they lie.
    """

    def __init__(self, run: RunContext) -> None:
        with _copied_plainly(run.adapter.model):
            super().__init__(run, data_collator=UnpairedCollator(run.tokenizer.pad_id))
        self.add_callback(ChosenWatch(run.report, self.args.beta))
        self.reference = _Reference(self, self._reference_of)
        self.precompute_ref_logps = self.reference.cached

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """Compute the reference log-probabilities of all rows, or take them from the cache."""
        self.reference.make_ready(checkpoint, precision)

    def rows_of(self, dataset: Any) -> Any:
        """Rows in the order of training, each with its partner where the loss wants one."""
        rows = dataset.shuffle(seed=self.run.recipe.seed)
        size = self.run.args.per_device_train_batch_size
        return WithPartners(rows, size) if self.calculate_KL else rows

    def rehearse(self) -> Rehearsal:
        """As for other trainers, with a reference computed on the spot: none is cached yet."""
        cached, self.precompute_ref_logps = self.precompute_ref_logps, False
        try:
            return super().rehearse()
        finally:
            self.precompute_ref_logps = cached

    def _reference_of(self, rows: list[dict[str, Any]]) -> Numbers:
        batch = self._prepare_inputs(self.data_collator.collate(rows))
        sums = self.compute_ref_log_probs(self.model, batch)
        names = ("ref_logps", "ref_KL_logps")
        return {
            name: list(values.float().cpu().numpy()[:, None])
            for name, values in zip(names, sums, strict=True)
            if values is not None
        }


class OrpoTrainer(RunTrainer, ORPOTrainer):  # type: ignore[misc, valid-type]
    """TRL's ORPOTrainer: its odds-ratio loss, plus the chosen answers' negative log-likelihood.

    TRL's own takes that likelihood over the prompt as well. As everywhere in axtune, only answers
    are learned here.
    """

    def __init__(self, run: RunContext) -> None:
        shared = preference_of(run.recipe).shared_prefix
        held_out: Any = run.data.eval and PreparedDataset(run.data.eval)
        rows: Any = PreparedDataset(run.data.train)
        run = replace(run, data=replace(run.data, train=rows, eval=held_out))
        with _copied_plainly(run.adapter.model):
            super().__init__(run, data_collator=PairCollator(run.tokenizer.pad_id, shared=shared))
        self.add_callback(ChosenWatch(run.report, self.args.beta, absolute=True))
        base = self.model.get_base_model()
        self.use_dpo_data_collator = True  # ours is one, for TRL's evaluation
        trl_private.add_fused_lm_head(base, outputs=("log_probs", "mean_logits"))
        if shared:
            shared_prefix.install(base)

    def concatenated_forward(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        """What TRL's loss takes, from our forward.

        Returns:
            Mean log-probability a token of each chosen and each rejected answer, (pairs,) each;
            their mean logits; and the mean negative log-likelihood of the chosen tokens.
        """
        output = pair_outputs(model, batch)
        answers = batch["completion_mask"][:, 1:].bool()
        chosen, rejected = (output.log_probs.sum(dim=1) / answers.sum(dim=1)).chunk(2)
        logits = [
            values[mask]
            for values, mask in zip(output.mean_logits.chunk(2), answers.chunk(2), strict=True)
        ]
        tokens = answers.chunk(2)[0].sum()
        return chosen, rejected, *logits, -output.log_probs.chunk(2)[0].sum() / tokens


def pair_outputs(model: Any, batch: dict[str, Any]) -> Any:
    """TRL's per-token output for a batch of pairs, computed the way the recipe says."""
    if "packed" in batch:
        return shared_prefix.forward(model, batch["packed"], batch)
    mask = batch["completion_mask"]
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        labels=batch["input_ids"].masked_fill(mask == 0, -100),
        use_cache=False,
        fused_lm_head=True,
    )


def _adds_nothing(model: PeftModel) -> bool:
    """Whether an adapter is still without effect: every B is zero."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    outer = [tensor for name, tensor in state.items() if "lora_B" in name]
    whole = any("lora_embedding" in name for name in state)
    return not whole and not any(bool(tensor.any()) for tensor in outer)


@contextmanager
def _copied_plainly(model: PeftModel) -> Iterator[None]:
    """While TRL copies the adapter: an initialisation must not move base weights once more."""
    config = model.peft_config["default"]
    assert isinstance(config, LoraConfig)
    before = config.init_lora_weights
    config.init_lora_weights = True
    try:
        yield
    finally:
        config.init_lora_weights = before
