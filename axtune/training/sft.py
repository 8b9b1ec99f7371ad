"""Supervised fine-tuning: TRL's trainer, fed with samples that are already token ids and labels.

TRL keeps what it does well (accumulation normalised by labelled tokens over all processes, NEFTune,
resuming, the fused head on a GPU). What differs here: samples arrive prepared, and packed over the
whole data set (`axtune.data.packing`); adapter weights stay float32 over 4-bit bases; a
checkpoint holds the original tokenizer files, no pickled arguments and no path of this machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPast
from trl import SFTTrainer

from axtune.data.dataset import tokens_of
from axtune.data.packing import arrange
from axtune.model import attention
from axtune.model.fused_loss import next_token_loss
from axtune.training.collators import PackedRows, collate_packs
from axtune.training.source_losses import SourceLosses, row_losses
from axtune.training.trainer import RunContext, RunTrainer
from axtune.training.trl_private import count_tokens, log_metric, telling_log_probs


class SftTrainer(RunTrainer, SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer on prepared samples: ``input_ids`` and ``labels``, -100 where unlabelled.

    With ``data.packing`` its batches are packs, and the arguments are changed so that a step still
    learns from as many samples as they say.

    Args:
        run: What the run is made of.
    """

    def __init__(self, run: RunContext) -> None:
        args, data, recipe = run.args, run.data, run.recipe
        base = run.adapter.model.get_base_model()
        self._kernel = recipe.attention
        further = {}
        if recipe.data.packing:
            self.packing = arrange(
                tokens_of(data.train),
                batch_size=args.per_device_train_batch_size,
                accumulation=args.gradient_accumulation_steps,
                max_length=recipe.data.max_length,
                processes=args.world_size,
                seed=recipe.seed,
            )
            args.per_device_train_batch_size = 1
            args.gradient_accumulation_steps = self.packing.per_step
            further["data_collator"] = collate_packs
            if self._kernel in ("auto", "sdpa"):
                attention.install(base)
        super().__init__(run, **further)
        if self.packing:
            self.train_dataset = PackedRows(data.train, self.packing.packs)
            if data.eval is not None:
                self.eval_dataset = PackedRows(
                    data.eval, [[index] for index in range(len(data.eval))]
                )
        plain = self.args.loss_type == "nll" and not self.args.label_smoothing_factor
        self._own_head = plain and self.args.device.type == "cpu"
        self._last_hidden: torch.Tensor | None = None
        self._by_source = SourceLosses(data.eval_sources)
        self._row_losses = torch.empty(0, 2)  # of the batch that was evaluated last
        if self._own_head:
            base.base_model.register_forward_hook(self._keep_hidden)

    def _micro_batch_sizes(self) -> NDArray[np.int64]:
        if self.packing is None:
            return super()._micro_batch_sizes()
        rows: Any = self.train_dataset
        lengths = tokens_of(rows.rows)
        return np.array([lengths[pack].sum() for pack in self.packing.packs])

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean loss of the labelled tokens.

        On a CPU the head is axtune's (`axtune.model.fused_loss`). TRL's fused head has kernels of
        its own for GPUs; elsewhere it projects unlabelled positions too, and each labelled one
        three times.
        """
        targets = inputs["labels"][:, 1:]  # (batch, tokens - 1): what position i has to say
        learned, lengths = targets != -100, inputs.get("lengths")
        inputs = self._with_layout(inputs)
        if not self._own_head or return_outputs:
            called: Any = model
            if not self.model.training:
                called = telling_log_probs(
                    model, lambda told: self._note_rows(-told[learned], learned, lengths)
                )
            return super().compute_loss(called, inputs, return_outputs, num_items_in_batch)
        del inputs["labels"]
        # The model's own head projects no position at all; the hook has the hidden states.
        nowhere = torch.empty(0, dtype=torch.long, device=targets.device)
        model(**inputs, logits_to_keep=nowhere, use_cache=False)
        assert self._last_hidden is not None
        hidden, self._last_hidden = self._last_hidden[:, :-1][learned], None
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        total, right, each = next_token_loss(hidden, head.weight, targets[learned])
        if not self.model.training:
            self._note_rows(each, learned, lengths)
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP averages gradients over processes
        padded = inputs.get("attention_mask")
        seen = torch.tensor(targets.numel() + len(targets)) if padded is None else padded.sum()
        self._count(right, learned.sum(), seen)
        return loss

    def _note_rows(
        self, token_losses: torch.Tensor, learned: torch.Tensor, lengths: torch.Tensor | None
    ) -> None:
        self._row_losses = row_losses(token_losses, learned, lengths)

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """As the trainer's own, and what its rows cost is counted by source."""
        files = torch.tensor([file for file, _ in inputs["places"]])
        result = super().prediction_step(model, inputs, *args, **kwargs)
        rows = torch.column_stack([files.to(self._row_losses), self._row_losses])
        self._by_source.add(self.accelerator.gather_for_metrics(rows))
        return result

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own, with the loss by source among its metrics."""
        self._by_source.take()  # what is left of an evaluation that was broken off
        output: Any = super().evaluation_loop(*args, **kwargs)
        output.metrics.update(self._by_source.take())
        return output

    def _with_layout(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """A batch as the model takes it: of a pack, what its attention has to know."""
        inputs = dict(inputs)
        lengths = inputs.pop("lengths", None)
        if lengths is None:
            return inputs
        if self._kernel in ("auto", "sdpa"):
            return inputs | {"documents": lengths.tolist()}
        if self._kernel == "flash_attention_2":
            return inputs | attention.for_flash_attention(lengths)
        return inputs  # transformers makes a mask of the positions

    def _keep_hidden(
        self, backbone: torch.nn.Module, args: Any, output: BaseModelOutputWithPast
    ) -> None:
        self._last_hidden = output.last_hidden_state

    def _count(self, right: torch.Tensor, learned: torch.Tensor, seen: torch.Tensor) -> None:
        """The metrics that TRL's own loss keeps: accuracy on learned tokens, tokens seen."""
        sums = torch.stack([right, learned, seen.to(right)])[None]
        hits, valid, tokens = self.accelerator.gather_for_metrics(sums).sum(0).tolist()
        log_metric(self, "mean_token_accuracy", hits / valid if valid else 0.0)
        count_tokens(self, tokens)
