"""Preference training: TRL's DPO, KTO and ORPO on rows that are already token ids.

The losses are TRL's own code. What differs here: a pair's prompt is computed once (see
`axtune.model.shared_prefix`), reference log-probabilities are computed once and kept (see
`axtune.training.reference_logps`), and no second copy of any weights stays in memory. With
``shared_prefix: false`` and ``reference: each_step`` the computation is TRL's.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from transformers import TrainingArguments
from trl import DPOTrainer, KTOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head, use_adapter

from axtune.checkpoint.catalog import Checkpoint
from axtune.checkpoint.provenance import base_digests
from axtune.checkpoint.run_dir import RunDir
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import bad_value, refused
from axtune.config.recipe import PreferenceConfig, Recipe
from axtune.data.dataset import Prepared
from axtune.model import shared_prefix
from axtune.model.adapter import Adapter
from axtune.model.load import Precision
from axtune.training.callbacks import ChosenWatch
from axtune.training.collators import (
    PairCollator,
    PreparedDataset,
    UnpairedCollator,
    WithPartners,
)
from axtune.training.progress import Report
from axtune.training.reference_logps import Numbers, WithReference, digest_tensors, obtain
from axtune.training.trainer import Rehearsal, RunTrainer

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*trl.experimental.*")
    from trl.experimental.orpo import ORPOTrainer


class _PreferenceTrainer(RunTrainer):
    """What the three objectives share; it takes what `axtune.training.trainer.RunTrainer` takes."""

    def __init__(
        self,
        adapter: Adapter,
        args: TrainingArguments,
        tokenizer: AxTokenizer,
        data: Prepared,
        run_dir: RunDir,
        report: Report,
        recipe: Recipe,
    ) -> None:
        self.recipe = recipe
        self.report = report
        self.preference = recipe.preference or PreferenceConfig.model_validate({})
        self.merged_first = adapter.merged
        self._require_known_losses(args)
        with _copied_plainly(adapter.model):
            super().__init__(
                adapter, args, tokenizer, data, run_dir, report, recipe,
                data_collator=self._collator(tokenizer.pad_id),
            )  # fmt: skip
        self.add_callback(ChosenWatch(report, self.args.beta, absolute=recipe.task == "orpo"))

    def _require_known_losses(self, args: Any) -> None:
        """TRL names its losses in its code alone, and refuses another one in the first step."""
        trl = next(kind for kind in type(self).__mro__ if kind.__module__.startswith("trl."))
        for key in ("loss_type", "f_divergence_type"):
            known = re.findall(rf'\b{key} == "(\w+)"', inspect.getsource(trl))
            given = getattr(args, key, None) or []
            for name in [given] if isinstance(given, str) else given:
                if known and name not in known:
                    message = f"there is no {name}; expected {', '.join(dict.fromkeys(known))}."
                    raise refused([bad_value(f"training.{key}", message)])

    def _collator(self, pad_id: int) -> Any:
        return PairCollator(pad_id, shared=self.preference.shared_prefix)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """Rows are prepared already."""
        return dataset

    def _outputs(self, model: Any, batch: dict[str, Any]) -> Any:
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


class _ReferenceTrainer(_PreferenceTrainer):
    """DPO and KTO: with a reference, which is the model before this run."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        # TRL has put a copy of the adapter beside it, for a reference in each step. An adapter
        # that adds nothing yet needs none: without it, the base is the reference.
        if _adds_nothing(self.model):
            self.model.delete_adapter("ref")

    def make_ready(self, checkpoint: Checkpoint, precision: Precision) -> None:
        """Compute the reference log-probabilities of all rows, or take them from the cache."""
        if self.preference.reference == "each_step":
            return
        identity = {
            "task": self.recipe.task,
            "base": base_digests(checkpoint.folder),
            "adapter": self._origin(),
            "precision": precision,
            "quantization": self.recipe.quantization,
            "attention": self.recipe.attention,
            "shared_prefix": self.preference.shared_prefix,
            "device": self.args.device.type,
        }
        self.model.eval()
        for name in ("train_dataset", "eval_dataset"):
            if (rows := getattr(self, name)) is None:
                continue
            numbers = obtain(
                rows,
                self._reference_of,
                identity=identity,
                batch_size=self.args.per_device_eval_batch_size,
                report=self.report,
            )
            setattr(self, name, WithReference(rows, numbers))
        if "ref" in self.model.peft_config:
            self.model.delete_adapter("ref")

    def _origin(self) -> str | None:
        """The digest of the adapter weights that the reference has; None for the base alone."""
        tensors = {
            f"{name}.{side}{n}": tensor
            for name, terms in self.merged_first.items()
            for n, term in enumerate(terms)
            for side, tensor in zip("ab", term, strict=True)
        }
        if "ref" in self.model.peft_config:
            tensors |= get_peft_model_state_dict(self.model, save_embedding_layers=False)
        return digest_tensors(tensors) if tensors else None

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        """The model as it was before this run; without gradients."""
        name = "ref" if "ref" in self.model.peft_config else None
        checkpointing = self.args.gradient_checkpointing_kwargs
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(self.model, checkpointing),
            use_adapter(self.model, name),
            self.accelerator.autocast(),
        ):
            yield

    def _reference_of(self, rows: list[dict[str, Any]]) -> Numbers:
        raise NotImplementedError


class DpoTrainer(_ReferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """TRL's DPOTrainer, its loss fed with log-probabilities that are computed once a prompt.

    Beside TRL's metrics it logs ``kl_k3``: the mean over the answers' tokens of Schulman's third
    estimator, exp(d) - 1 - d with d = log p_ref - log p (http://joschu.net/blog/kl-approx.html).
    For tokens drawn from the model its mean is the KL divergence from the reference. These tokens
    are the data's, so it tells how far the model has moved on the data, and is never negative.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.precompute_ref_logps = True  # for its loss: compute_loss brings them along
        if self.preference.shared_prefix:
            shared_prefix.install(self.model.get_base_model())

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
            with self._as_reference():
                reference = self._outputs(self.model, inputs).log_probs
        output = self._outputs(model, inputs)
        chosen, rejected = self._summed(reference, answers)
        known = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        names = ("input_ids", "attention_mask", "completion_mask")
        batch = {name: inputs[name] for name in names} | known
        result = self._compute_loss(lambda **_: output, batch, return_outputs)
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
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["kl_k3"].append(total / max(count, 1))

    def _reference_of(self, rows: list[dict[str, Any]]) -> Numbers:
        batch = self._prepare_inputs(self.data_collator(rows))
        if "packed" in batch:
            batch["packed"] = batch["packed"].to(self.args.device)
        with self._as_reference():
            logps = self._outputs(self.model, batch).log_probs.float().cpu()
        answers = batch["completion_mask"][:, 1:].bool().cpu()
        values = [row[mask].numpy() for row, mask in zip(logps, answers, strict=True)]
        return {
            "chosen_reference": values[: len(rows)],
            "rejected_reference": values[len(rows) :],
        }


class KtoTrainer(_ReferenceTrainer, KTOTrainer):  # type: ignore[misc]
    """TRL's KTOTrainer on labelled answers: ``prompt_ids``, ``completion_ids``, ``label``.

    Its KL term pairs each prompt with the answer of the row before, within a batch in fixed order;
    so the rows are shuffled here, once, and TRL goes through them as they lie.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.precompute_ref_logps = self.preference.reference == "cached"

    def _collator(self, pad_id: int) -> Any:
        return UnpairedCollator(pad_id)

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        rows = dataset.shuffle(seed=self.recipe.seed)
        size = args.per_device_train_batch_size if self.calculate_KL else 1
        return WithPartners(rows, size) if self.calculate_KL else rows

    def rehearse(self) -> Rehearsal:
        """As for other trainers, with a reference computed on the spot: none is cached yet."""
        cached, self.precompute_ref_logps = self.precompute_ref_logps, False
        try:
            return super().rehearse()
        finally:
            self.precompute_ref_logps = cached

    def _reference_of(self, rows: list[dict[str, Any]]) -> Numbers:
        batch = self._prepare_inputs(self.data_collator(rows))
        sums = self.compute_ref_log_probs(self.model, batch)
        names = ("ref_logps", "ref_KL_logps")
        return {
            name: list(values.float().cpu().numpy()[:, None])
            for name, values in zip(names, sums, strict=True)
            if values is not None
        }


class OrpoTrainer(_PreferenceTrainer, ORPOTrainer):  # type: ignore[misc]
    """TRL's ORPOTrainer: its odds-ratio loss, plus the chosen answers' negative log-likelihood.

    TRL's own takes that likelihood over the prompt as well. As everywhere in axtune, only answers
    are learned here.
    """

    def __init__(
        self,
        adapter: Adapter,
        args: TrainingArguments,
        tokenizer: AxTokenizer,
        data: Prepared,
        *rest: Any,
    ) -> None:
        held_out: Any = data.eval and PreparedDataset(data.eval)
        rows: Any = PreparedDataset(data.train)
        data = replace(data, train=rows, eval=held_out)
        super().__init__(adapter, args, tokenizer, data, *rest)
        base = self.model.get_base_model()
        self.use_dpo_data_collator = True  # ours is one, for TRL's evaluation
        add_fused_lm_head(base, outputs=("log_probs", "mean_logits"))
        if self.preference.shared_prefix:
            shared_prefix.install(base)

    def concatenated_forward(self, model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        """What TRL's loss takes, from our forward.

        Returns:
            Mean log-probability a token of each chosen and each rejected answer, (pairs,) each;
            their mean logits; and the mean negative log-likelihood of the chosen tokens.
        """
        output = self._outputs(model, batch)
        answers = batch["completion_mask"][:, 1:].bool()
        chosen, rejected = (output.log_probs.sum(dim=1) / answers.sum(dim=1)).chunk(2)
        logits = [
            values[mask]
            for values, mask in zip(output.mean_logits.chunk(2), answers.chunk(2), strict=True)
        ]
        tokens = answers.chunk(2)[0].sum()
        return chosen, rejected, *logits, -output.log_probs.chunk(2)[0].sum() / tokens


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


TRAINERS = {"dpo": DpoTrainer, "kto": KtoTrainer, "orpo": OrpoTrainer}
