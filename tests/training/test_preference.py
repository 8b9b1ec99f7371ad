"""Preference trainers beside TRL's own, on rows that are token ids already."""

from __future__ import annotations

import io
import math

import pytest
import torch
from datasets import Dataset
from rich.console import Console
from support.pairs import labelled, loss_and_gradients, pairs, stir, trainer
from support.tiny import LIBRARY_WARNINGS, checkpoint
from transformers import TrainerControl, TrainerState
from trl import DPOTrainer, KTOTrainer

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.plan import memory
from axtune.training.callbacks import ChosenWatch
from axtune.training.preference import pair_outputs
from axtune.training.progress import Report

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares float32 on a CPU"),
]

STEPS = {"max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Samples of several tiles, beside TRL's own trainers, which have none."""
    monkeypatch.setattr(memory, "TILE", 16)


def losses(made):
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def stock(kind, base, ours, rows):
    """A TRL trainer as released, with the arguments and the fresh adapter of one of ours."""
    tokenizer = load_tokenizer(base)
    model = load_model(base, tokenizer, precision="fp32")
    adapter = add_adapter(model, ours.run.recipe.lora, seed=ours.run.recipe.seed)
    ours.args.output_dir += "_theirs"
    return kind(
        model=adapter.model, args=ours.args, train_dataset=rows,
        processing_class=tokenizer.to_transformers(),
    )  # fmt: skip


class StockDpo(DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset


class StockKto(KTOTrainer):
    """Its own preparation after tokenising: each batch's answers rotated by one."""

    def _prepare_dataset(self, dataset, tokenizer, args, name):
        def rotate(batch):
            answers = batch["completion_ids"]
            return batch | {"KL_completion_ids": [answers[-1], *answers[:-1]]}

        return dataset.map(rotate, batched=True, batch_size=args.per_device_train_batch_size)


@pytest.mark.parametrize("reference", ["cached", "each_step"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
def test_dpo_has_the_curve_of_trls_trainer(base, tmp_path, shared, reference):
    rows = pairs(1) + pairs(2)
    ours = trainer(base, tmp_path, rows, training=STEPS,
                   preference={"shared_prefix": shared, "reference": reference})  # fmt: skip
    ours.train()
    theirs = stock(StockDpo, base, ours, Dataset.from_list(rows))
    theirs.train()
    assert losses(ours)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(losses(ours)[-1] - math.log(2)) > 0.01
    assert losses(ours) == pytest.approx(losses(theirs), rel=2e-4)
    for mine, other in zip(ours.state.log_history, theirs.state.log_history, strict=True):
        for name in set(other) - {"total_flos"}:
            if name.startswith("train_"):
                continue
            assert mine[name] == pytest.approx(other[name], rel=2e-2, abs=2e-3), name


@pytest.mark.parametrize("reference", ["cached", "each_step"])
@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
def test_kto_has_the_curve_of_trls_trainer(base, tmp_path, loss, reference):
    rows = labelled(count=13)  # the last batch is a short one
    training = {**STEPS, "loss_type": loss, "per_device_train_batch_size": 3}
    ours = trainer(base, tmp_path, rows, task="kto", training=training,
                   preference={"reference": reference})  # fmt: skip
    ours.train()
    order = Dataset.from_list(rows).shuffle(seed=ours.run.recipe.seed)
    theirs = stock(StockKto, base, ours, order.flatten_indices())
    theirs.train()
    assert losses(ours)[0] == pytest.approx(0.5, abs=1e-6)
    assert abs(losses(ours)[-1] - 0.5) > 1e-3
    assert losses(ours) == pytest.approx(losses(theirs), rel=2e-4)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
def test_orpo_is_trls_odds_ratio_and_the_likelihood_of_the_chosen_answers(base, tmp_path, shared):
    rows = pairs()
    made = trainer(base, tmp_path, rows, task="orpo", preference={"shared_prefix": shared})
    stir(made.model)
    tokenizer = load_tokenizer(base)
    plain = add_adapter(load_model(base, tokenizer, precision="fp32"), {"r": 4}, seed=42).model
    stir(plain)
    sums, lengths = {}, {}
    for side in ("chosen", "rejected"):
        sums[side], lengths[side] = [], []
        for row in rows:
            prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
            logits = plain(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            sums[side].append(logits.log_softmax(-1)[range(len(answer)), answer].sum())
            lengths[side].append(len(answer))
    means = {side: torch.stack(sums[side]) / torch.tensor(lengths[side]) for side in sums}
    odds, *_ = made.odds_ratio_loss(means["chosen"], means["rejected"])
    expected = -torch.stack(sums["chosen"]).sum() / sum(lengths["chosen"]) - odds.mean()
    expected.backward()
    gradients = torch.cat(
        [p.grad.flatten() for _, p in sorted(plain.named_parameters()) if p.requires_grad]
    )
    loss, ours = loss_and_gradients(made, rows)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, gradients, rtol=1e-3, atol=2e-5 * gradients.abs().max().item())


@pytest.mark.parametrize("task", ["dpo", "kto", "orpo"])
def test_a_run_evaluates_saves_and_resumes_as_sft_does(base, tmp_path, task):
    rows = labelled(3) if task == "kto" else pairs(3)
    cadence = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-2,
               "lr_scheduler_type": "constant"}  # fmt: skip
    data = {"train": "rows", "eval": 0.5}
    said = io.StringIO()

    def make(folder, **changes):
        return trainer(base, tmp_path, held_out=rows, task=task, data=data, output=said,
                       output_dir=str(tmp_path / folder), **changes)  # fmt: skip

    whole = make("whole", training=cadence)
    whole.train()
    short = make("short", training={**cadence, "max_steps": 2})
    short.train()
    saved = tmp_path / "short" / "checkpoints" / "checkpoint-2"
    resumed = make("resumed", training=cadence)
    resumed.train(resume_from_checkpoint=str(saved))
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-4)
    names = {file.name for file in saved.iterdir()}
    assert "adapter_model.safetensors" in names
    assert not names & {"ref", "training_args.bin", "README.md"}
    evaluated = [event for event in whole.run.run_dir.metrics() if "eval_loss" in event]
    assert len(evaluated) == 2
    assert whole.state.best_global_step in (2, 4)
    wanted = {"eval_rewards/chosen", "eval_rewards/rejected", "eval_rewards/margins",
              "eval_logps/chosen", "eval_logps/rejected"}  # fmt: skip
    assert wanted <= set(evaluated[0])
    assert "margin" in said.getvalue()
    assert (tmp_path / "whole" / "loss.png").is_file()


def test_kl_is_schulmans_third_estimator_over_the_answers_tokens(base, tmp_path):
    made = trainer(base, tmp_path)
    rows = [made.train_dataset[index] for index in range(len(made.train_dataset))]
    loss_and_gradients(made, rows)
    assert made._metrics["train"]["kl_k3"] == [pytest.approx(0, abs=1e-6)]
    stir(made.model)
    batch = made.data_collator.collate(rows)
    mask = batch["completion_mask"][:, 1:].bool()
    with torch.no_grad():
        now = pair_outputs(made.model, batch).log_probs
        before = batch["reference_logps"]
    loss_and_gradients(made, rows)
    ratio = (before - now)[mask]
    expected = (ratio.exp() - 1 - ratio).mean().item()
    assert expected > 0.01
    assert made._metrics["train"]["kl_k3"][1] == pytest.approx(expected, rel=1e-4)


def watched(values, beta=0.1, *, absolute=False):
    said = io.StringIO()
    watch = ChosenWatch(Report(Console(file=said, width=400)), beta, absolute=absolute)
    for value in values:
        logs = {"rewards/chosen": beta * value}
        watch.on_log(None, TrainerState(), TrainerControl(), logs)
    return said.getvalue()


def test_a_long_fall_of_the_chosen_answers_is_said_with_its_figure():
    assert "lost 3.0 nats" in watched([-3.0] * 20)
    assert watched([-3.0] * 19) == ""  # not for long yet
    assert watched([-3.0, 3.0] * 20) == ""  # up and down
    assert watched([4.0] * 40) == ""
    assert watched([-3.0] * 100).count("lost") == 1
    assert watched([-3.0] * 20 + [-9.0] * 20).count("lost") == 2  # twice as bad: once more
    assert watched([-7.0] * 60, absolute=True) == ""  # log-probabilities themselves
    assert "lost 2.0 nats" in watched([-7.0] * 20 + [-9.0] * 20, absolute=True).replace(
        "2.0", "2.0"
    )


def test_an_initialisation_that_moves_base_weights_moves_them_once(base, tmp_path):
    """TRL copies the adapter it is given, which would initialise it anew over the base."""
    made = trainer(base, tmp_path, lora={"r": 4, "init_lora_weights": "pissa"})
    tokenizer = load_tokenizer(base)
    model = load_model(base, tokenizer, precision="fp32")
    lora = {"r": 4, "init_lora_weights": "pissa"}
    expected = add_adapter(model, lora, seed=made.run.recipe.seed).model.state_dict()
    for name, tensor in made.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert made.model.peft_config["default"].init_lora_weights == "pissa"
    rows = [made.train_dataset[index] for index in range(len(made.train_dataset))]
    loss, _ = loss_and_gradients(made, rows)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
