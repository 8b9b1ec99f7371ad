"""Supervised fine-tuning: TRL's trainer, fed with samples that are already token ids and labels.

TRL keeps what it does well (the fused LM head, accumulation normalised by labelled tokens over all
processes, NEFTune, resuming). What differs here: samples arrive prepared, adapter weights stay
float32 over 4-bit bases, and a checkpoint holds the original tokenizer files, no pickled arguments
and no path of this machine.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer

from axtune.trainer import RunTrainer


class Trainer(RunTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer on prepared samples: ``input_ids`` and ``labels``, -100 where unlabelled.

    It takes what `axtune.trainer.RunTrainer` takes.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """TRL's loss; on a CPU the head projects labelled positions only.

        TRL's fused head leaves the others out where it has Triton, and elsewhere projects them
        all: with a vocabulary of 102,400 and 3% of the tokens labelled, many times the work.
        """
        plain = self.args.loss_type == "nll" and self.label_smoother is None and not return_outputs
        if self.args.device.type != "cpu" or not plain:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs["labels"][:, 1:]  # (batch, tokens - 1): what position i has to say
        learned = targets != -100
        positions = learned.any(dim=0).nonzero().flatten()
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=positions,
            use_cache=False,
        ).logits.float()  # (batch, positions, vocabulary)
        targets = targets[:, positions]
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients over processes
        self._count(logits.argmax(-1) == targets, learned, inputs["attention_mask"])
        return loss

    def _count(self, right: torch.Tensor, learned: torch.Tensor, seen: torch.Tensor) -> None:
        """The metrics that TRL's own loss keeps: accuracy on learned tokens, tokens seen."""
        sums = torch.stack([right.sum(), learned.sum(), seen.sum()])[None]
        hits, valid, tokens = self.accelerator.gather_for_metrics(sums).sum(0).tolist()
        mode = "train" if self.model.training else "eval"
        self._total_train_tokens += tokens if mode == "train" else 0
        self._metrics[mode]["mean_token_accuracy"].append(hits / valid if valid else 0.0)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
