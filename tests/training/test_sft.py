from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch
from support import supervised
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe, write_rows
from transformers import TrainerCallback

from axtune.checkpoint.locate import TOKENIZER_FILES
from axtune.errors import RecipeError
from axtune.model import tiles
from axtune.plan import memory
from axtune.signals import Terminated
from axtune.training.arguments import training_arguments
from axtune.training.collators import PackedRows
from axtune.training.sft import SftTrainer

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="checks what a CPU run is set up as"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture
def make(base, tmp_path):
    """A trainer on four rows, and the recipe it was made from."""
    write_rows(tmp_path / "rows.jsonl", 4)

    def build(precision="fp32", **changes):
        return supervised.trainer(base, tmp_path, precision=precision, **changes)

    build.rows = tmp_path / "rows.jsonl"
    return build


def test_without_held_out_rows_saving_follows_the_cadence_alone(tmp_path):
    args = training_arguments(recipe(tmp_path), "fp32")
    assert (args.eval_strategy, args.save_strategy) == ("no", "epoch")
    assert not args.load_best_model_at_end
    job = recipe(tmp_path, training={"eval_strategy": "steps", "eval_steps": 3})
    args = training_arguments(job, "fp32")
    assert (args.eval_strategy, args.save_strategy, args.save_steps) == ("no", "steps", 3)


@pytest.mark.parametrize("cadence", [{}, {"eval_strategy": "steps", "eval_steps": 3}], ids=str)
def test_with_held_out_rows_the_best_checkpoint_is_saved_when_it_is_found(tmp_path, cadence):
    job = recipe(
        tmp_path, data={"train": str(tmp_path / "rows.jsonl"), "eval": 0.25}, training=cadence
    )
    args = training_arguments(job, "fp32")
    assert args.save_strategy == args.eval_strategy == cadence.get("eval_strategy", "epoch")
    assert args.save_steps == args.eval_steps
    assert args.load_best_model_at_end
    assert (args.metric_for_best_model, args.greater_is_better) == ("eval_loss", False)
    assert args.save_total_limit == 2


def test_what_axtune_decides(tmp_path):
    args = training_arguments(recipe(tmp_path, seed=7), "bf16")
    assert (args.bf16, args.fp16, args.use_cpu) == (True, False, True)
    assert (args.seed, args.data_seed) == (7, 7)
    assert (args.report_to, args.push_to_hub) == ([], False)
    assert (args.max_length, args.packing) == (None, False)
    assert args.gradient_checkpointing  # TRL's default stays


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", "fast"),
        ("num_train_epochs", 0),
        ("gradient_accumulation_steps", 0),
        ("max_steps", 0),
        ("optim", "nope"),
        ("lr_scheduler_type", "nope"),
        ("eval_strategy", "sometimes"),
        ("eval_strategy", "best"),
        ("logging_strategy", "nope"),
    ],
)
def test_a_value_that_the_library_refuses_names_its_key(tmp_path, name, value):
    with pytest.raises(RecipeError, match=rf"training\.{name}: "):
        training_arguments(recipe(tmp_path, training={name: value}), "fp32")


def test_what_only_the_trainer_refuses_names_its_key(make):
    with pytest.raises(RecipeError, match=r"training\.loss_type: "):
        make(training={"loss_type": "zzz"})


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_is_the_mean_over_the_labelled_tokens_of_the_whole_step(make, tmp_path, packing):
    write_rows(tmp_path / "rows.jsonl", 4, start=98)
    data = {"packing": packing, "eval": str(write_rows(tmp_path / "held.jsonl", 3, start=7))}
    trainer = make(data=data, training={"max_steps": 1, "per_device_train_batch_size": 1,
                                        "gradient_accumulation_steps": 4})  # fmt: skip
    model, total, count = trainer.model.get_base_model(), 0.0, 0
    rows = trainer.train_dataset.rows if packing else trainer.train_dataset
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            documents = {"documents": [ids.numel()]} if packing else {}
            logits = model(ids, **documents).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(
                logits, labels[1:], ignore_index=-100, reduction="sum"
            ).item()
            count += int((labels[1:] != -100).sum())
    trainer.train()  # through the trainer's own loaders
    assert trainer.run.run_dir.metrics()[0]["loss"] == pytest.approx(total / count, rel=1e-5)
    if packing:
        assert len(trainer.train_dataset) == 1
        assert len(trainer.eval_dataset) == 3


def test_the_loss_on_a_cpu_is_trls_own(make):
    trainer = make()
    rows = [trainer.train_dataset[index] for index in range(4)]
    rows[0] = {name: values[:-2] for name, values in rows[0].items()}  # lengths differ
    results = []
    for compute in (trainer.compute_loss, super(SftTrainer, trainer).compute_loss):
        trainer.model.zero_grad()
        loss = compute(trainer.model, trainer.data_collator.collate(rows))
        loss.backward()
        grads = [p.grad.clone() for p in trainer.model.parameters() if p.requires_grad]
        results.append((loss.detach(), torch.cat([g.flatten() for g in grads])))
    assert "compute_loss" in vars(SftTrainer)  # or both are the same one
    assert results[0][1].abs().max() > 0
    torch.testing.assert_close(results[0], results[1])
    accuracy, theirs = trainer._metrics["train"]["mean_token_accuracy"]
    assert accuracy == pytest.approx(theirs)
    tokens = sum(len(row["input_ids"]) for row in rows)
    assert trainer._metrics["train"]["num_tokens"] == [2 * tokens]


def test_padding_is_the_pad_token_and_carries_no_label(make):
    trainer = make()
    rows = [{"input_ids": [25, 8, 40, 27], "labels": [-100, -100, 40, 27]},
            {"input_ids": [25, 8], "labels": [-100, 8]}]  # fmt: skip
    batch = trainer.data_collator.collate(rows)
    assert batch["input_ids"].tolist() == [[25, 8, 40, 27], [25, 8, 1, 1]]
    assert batch["labels"].tolist() == [[-100, -100, 40, 27], [-100, 8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_an_evaluation_runs_one_forward_a_batch(make, tmp_path):
    trainer = make(data={"train": str(tmp_path / "rows.jsonl"), "eval": 0.5})
    calls = []
    trainer.model.get_base_model().model.register_forward_hook(lambda *_: calls.append(1))
    assert len(trainer.eval_dataset) == 2
    assert trainer.evaluate()["eval_loss"] > 0
    assert len(calls) == 1  # two rows, two a batch


def test_a_checkpoint_holds_the_original_tokenizer_and_no_path(make, base, tmp_path):
    data = {"train": str(tmp_path / "rows.jsonl"), "eval": 0.5}
    trainer = make(data=data, training={"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1})
    trainer.train()
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {folder.name for folder in checkpoints.iterdir()} == {"checkpoint-1", "checkpoint-2"}
    folder = checkpoints / "checkpoint-2"
    for name in TOKENIZER_FILES:
        original = base.folder / name
        assert (folder / name).is_file() == original.is_file()
        assert not original.is_file() or (folder / name).read_bytes() == original.read_bytes()
    names = {file.name for file in folder.iterdir()}
    assert "training_args.bin" not in names
    assert "README.md" not in names
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["best_global_step"] in (1, 2)
    assert str(tmp_path) not in (folder / "trainer_state.json").read_text()
    events = trainer.run.run_dir.metrics()
    assert [(e["step"], "loss" in e) for e in events] == [
        (1, True), (1, False), (2, True), (2, False)]  # fmt: skip
    assert events[0]["tokens_per_second"] > 0
    assert (tmp_path / "run" / "loss.png").is_file()


def test_the_adapter_over_a_4_bit_base_stays_float32(make):
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}
    trainer = make("bf16", quantization=nf4, training={"max_steps": 2})
    adapter = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in adapter.values()} == {torch.float32}
    first = next(p for n, p in adapter.items() if "lora_A" in n)
    before = first.detach().clone()
    trainer.train()
    assert not torch.equal(first, before)
    assert not torch.equal(first, first.to(torch.bfloat16).float())  # updates are not rounded


def test_an_evaluation_leaves_the_gradients_over_a_4_bit_base_as_they_are(make, tmp_path):
    """On some CPUs bitsandbytes repacks the weights at the first evaluation, and cuts them off."""
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}
    trainer = make(quantization=nf4, data={"train": str(tmp_path / "rows.jsonl"), "eval": 0.5})
    rows = [trainer.train_dataset[index] for index in range(2)]

    def gradients():
        trainer.model.train()
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, trainer.data_collator.collate(rows)).backward()
        learned = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
        return torch.cat(learned)

    before = gradients()
    assert before.abs().max() > 0
    trainer.evaluate()
    torch.testing.assert_close(gradients(), before)


def test_a_head_that_is_trained_whole_learns(make):
    trainer = make(lora={"modules_to_save": ["lm_head"]}, training={"max_steps": 2})
    head = next(p for n, p in trainer.model.named_parameters() if "modules_to_save" in n)
    before = head.detach().clone()
    trainer.train()
    assert not torch.equal(head, before)


class Signal(TrainerCallback):
    """Sends this process a signal at the end of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(make, tmp_path, number):
    trainer = make(callbacks=[Signal(number, 2)], training={"num_train_epochs": 9, "max_steps": 9})
    before = signal.getsignal(number)
    with trainer.stopper.watching():
        trainer.train()
    assert signal.getsignal(number) is before
    assert trainer.stopper.interrupted
    assert trainer.state.global_step == 2
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-2" / "optimizer.safetensors").is_file()


class InEvaluation(TrainerCallback):
    """Sends this process a signal within one evaluation of several."""

    def __init__(self, which):
        self.left = which

    def on_evaluate(self, args, state, control, **kwargs):
        self.left -= 1

    def on_prediction_step(self, args, state, control, **kwargs):
        if self.left == 0:
            self.left = -1
            signal.raise_signal(signal.SIGTERM)


def test_an_evaluation_that_a_signal_broke_off_is_made_up_for_on_resuming(make, base, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 8)
    job = {
        "data": {"eval": 0.5, "packing": False},
        "training": {"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1,
                     "learning_rate": 0.05, "save_total_limit": 5},
    }  # fmt: skip
    whole = make(output_dir=str(tmp_path / "whole"), **job)
    whole.train()
    broken = make(callbacks=[InEvaluation(1)], **job)
    with broken.stopper.watching(), pytest.raises(Terminated):
        broken.train()
    saved = tmp_path / "run" / "checkpoints" / "checkpoint-2"
    assert broken.stopper.interrupted
    assert (saved / "adapter_model.safetensors").is_file()
    again = make(output_dir=str(tmp_path / "again"), **job)
    moved = shutil.copytree(saved, tmp_path / "again" / "checkpoints" / saved.name)
    again.train(resume_from_checkpoint=str(moved))
    assert again.state.best_metric == whole.state.best_metric
    assert again.state.best_global_step == whole.state.best_global_step
    losses = [
        [(event["step"], event["eval_loss"]) for event in made.state.log_history
         if "eval_loss" in event]
        for made in (whole, again)
    ]  # fmt: skip
    assert losses[0] == losses[1]


def test_a_second_signal_stops_at_once(make, monkeypatch):
    trainer = make()
    with trainer.stopper.watching():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same one, passed on by a launcher
        later = trainer.stopper._signalled_at + 5
        monkeypatch.setattr("axtune.training.trainer.time.monotonic", lambda: later)
        signal.raise_signal(signal.SIGHUP)  # a launcher that ended of the first one
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def gradients(trainer, batches, count):
    """Loss and gradients of some batches, accumulated, over a given number of labelled tokens."""
    trainer.model.train()
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(count))
        loss.backward()
        total += loss.item()
    grads = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
    return total, torch.cat(grads)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("bits", [16, 4])
def test_packed_and_unpacked_gradients_are_equal(make, tmp_path, bits, checkpointing):
    quantization = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if bits == 4 else None
    training = {"gradient_checkpointing": checkpointing}
    # B is zero at the start, and no gradient reaches A: a Gaussian start has one for both.
    further = {"quantization": quantization, "training": training,
               "lora": {"r": 4, "init_lora_weights": False}}  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", 6, start=98)  # lengths differ
    packed = make(data={"packing": True}, **further)
    assert isinstance(packed.train_dataset, PackedRows)
    rows = list(packed.train_dataset.rows)
    assert len({len(row["input_ids"]) for row in rows}) > 1
    count = sum(label != -100 for row in rows for label in row["labels"])
    batches = [
        packed.data_collator.collate([packed.train_dataset[i]])
        for i in range(len(packed.train_dataset))
    ]
    assert len(batches) < len(rows)
    together = gradients(packed, batches, count)
    shutil.rmtree(packed.run.run_dir.path)
    unpacked = make(data={"packing": False}, **further)
    alone = gradients(unpacked, [unpacked.data_collator.collate([row]) for row in rows], count)
    assert together[1].abs().max() > 1e-3
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)


def test_a_packed_run_takes_as_many_samples_a_step_and_counts_its_tokens(make, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 24)
    training = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    training |= {"max_steps": 12}
    trainer = make(data={"packing": True, "max_length": 40}, training=training)
    assert trainer.packing.per_step > 1
    assert trainer.args.gradient_accumulation_steps == trainer.packing.per_step
    trainer.train()
    epochs = trainer.state.epoch
    assert epochs * 24 / 12 == pytest.approx(4, rel=0.1)
    metrics = trainer.run.run_dir.metrics()
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert trainer._total_train_tokens == pytest.approx(epochs * trainer.packing.tokens, rel=0.1)


def test_packing_leaves_the_eval_loss_as_it_is(make, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 24, start=95)
    data = {"train": str(tmp_path / "rows.jsonl"), "eval": 0.3}
    losses = []
    for packing in (True, False):
        trainer = make(data={**data, "packing": packing})
        losses.append(trainer.evaluate()["eval_loss"])
        shutil.rmtree(trainer.run.run_dir.path)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_label_smoothing_reads_whole_logits_of_packs_too(make):
    training = {"label_smoothing_factor": 0.1}
    packed = make(data={"packing": True}, training=training)
    rows = list(packed.train_dataset.rows)
    packs = [packed.train_dataset[index] for index in range(len(packed.train_dataset))]
    one = packed.compute_loss(packed.model, packed.data_collator.collate(packs))
    shutil.rmtree(packed.run.run_dir.path)
    unpacked = make(data={"packing": False}, training=training)
    two = unpacked.compute_loss(unpacked.model, unpacked.data_collator.collate(rows))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("packing", [True, False])
def test_a_rehearsal_takes_the_largest_micro_batch_and_leaves_no_trace(make, tmp_path, packing):
    write_rows(tmp_path / "rows.jsonl", 9, start=95)
    trainer = make(data={"packing": packing}, lora={"r": 4, "lora_dropout": 0.5})
    seen = []
    compute = trainer.compute_loss

    def watched(model, batch, *args, **keys):
        assert model.training
        seen.append(
            int(batch["position_ids"].numel() if packing else batch["attention_mask"].sum())
        )
        return compute(model, batch, *args, **keys)

    trainer.compute_loss = watched
    weights = [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]
    random = torch.get_rng_state()
    rehearsal = trainer.rehearse()
    lengths = sorted(
        len(row["input_ids"])
        for row in getattr(trainer.train_dataset, "rows", trainer.train_dataset)
    )
    assert seen == [rehearsal.tokens]
    assert rehearsal.tokens == (trainer.packing.longest if packing else sum(lengths[-2:]))
    assert torch.equal(torch.get_rng_state(), random)
    after = [p for p in trainer.model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert all(p.grad is None for p in after)
    assert trainer._total_train_tokens == 0
    assert not trainer._metrics["train"]
    assert trainer.optimizer is None


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("four_bit", [False, True], ids=["LoRA", "QLoRA"])
def test_a_run_in_tiles_learns_what_a_run_without_them_learns(make, monkeypatch, packing, four_bit):
    quantization = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"} if four_bit else None
    training = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}

    def learned(name):
        trainer = make(
            data={"train": str(make.rows), "packing": packing}, quantization=quantization,
            training=training, output_dir=str(make.rows.parent / name),
        )  # fmt: skip
        trainer.train()
        return torch.cat([p.flatten() for p in trainer.model.parameters() if p.requires_grad])

    monkeypatch.setattr(memory, "TILE", 16)
    in_tiles = learned("tiles")
    monkeypatch.setattr(tiles, "install", lambda model: None)
    assert (in_tiles - learned("whole")).abs().max() < 1e-5  # steps are of 5e-3
