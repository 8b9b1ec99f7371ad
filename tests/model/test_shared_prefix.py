"""The shared prefix against TRL's own DPOTrainer on the same rows: same loss, same gradients."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from support.pairs import NF4, loss_and_gradients, pairs, stir, trainer, with_context
from support.tiny import LIBRARY_WARNINGS, checkpoint
from trl import DPOTrainer

from axtune.checkpoint import locate
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.model.shared_prefix import forward, install, pack

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.filterwarnings("ignore:.*MatMul8bitLt"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares float32 on a CPU"),
]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Stock(DPOTrainer):
    """TRL's trainer as released; only the rows are token ids already."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


def stock(base, ours, rows, quantization=None):
    """TRL's trainer with the arguments, the rows and the fresh adapter of one of ours."""
    tokenizer = load_tokenizer(base)
    model = load_model(base, tokenizer, precision="fp32", quantization=quantization)
    adapter = add_adapter(model, ours.run.recipe.lora, seed=ours.run.recipe.seed)
    before = {n: p.data for n, p in adapter.model.named_parameters() if p.requires_grad}
    made = Stock(
        model=adapter.model, args=ours.args, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer.to_transformers(),
    )  # fmt: skip
    for name, parameter in adapter.model.named_parameters():
        if name in before:
            parameter.data = before[name]  # TRL's bf16 would not compare
    for module in adapter.model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # as ours; with it there are no gradients
    return made


LOSSES = {
    "sigmoid": {},
    "ipo": {"loss_type": "ipo"},
    "apo_zero": {"loss_type": "apo_zero"},
    "sppo": {"loss_type": "sppo_hard", "beta": 0.01},
    "robust": {"loss_type": "robust", "label_smoothing": 0.1},
    "with an SFT term": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
    "f-divergence": {"f_divergence_type": "js_divergence"},
    "LD-DPO": {"ld_alpha": 0.4},
    "WPO": {"use_weighting": True},
}


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize("reference", ["cached", "each_step"])
@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
@pytest.mark.parametrize("bits", [16, 4])
def test_loss_and_gradients_are_trls(tmp_path, model, bits, reference, shared):
    base = locate.find(model)
    rows = pairs()
    quantization = NF4 if bits == 4 else None
    ours = trainer(base, tmp_path, rows, quantization=quantization,
                   preference={"reference": reference, "shared_prefix": shared})  # fmt: skip
    theirs = stock(base, ours, rows, quantization)
    for made in (ours, theirs):
        stir(made.model)
    examples = [ours.train_dataset[index] for index in range(len(rows))]
    loss, gradients = loss_and_gradients(ours, examples)
    expected, their_gradients = loss_and_gradients(theirs, rows)
    assert abs(expected.item() - 0.6931) > 0.01  # the adapter matters
    assert their_gradients.abs().max() > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    scale = their_gradients.abs().max().item()
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-3, atol=2e-5 * scale)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_trls(tmp_path, name):
    base = checkpoint(tmp_path / "base")
    rows = pairs(3)
    ours = trainer(base, tmp_path, rows, training=LOSSES[name])
    theirs = stock(base, ours, rows)
    for made in (ours, theirs):
        stir(made.model)
    examples = [ours.train_dataset[index] for index in range(len(rows))]
    loss, gradients = loss_and_gradients(ours, examples)
    expected, their_gradients = loss_and_gradients(theirs, rows)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    scale = their_gradients.abs().max().item()
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-3, atol=2e-5 * scale)
    for metric, (value,) in theirs._metrics["train"].items():
        assert ours._metrics["train"][metric][0] == pytest.approx(value, rel=1e-3, abs=1e-4), metric


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing_changes_nothing(tmp_path, checkpointing):
    base = checkpoint(tmp_path / "base")
    made = trainer(base, tmp_path)
    other = str(tmp_path / "plain")
    plain = trainer(base, tmp_path, output_dir=other, preference={"shared_prefix": False})
    if checkpointing:  # as the trainer does when it starts
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
        assert made.model.get_base_model().is_gradient_checkpointing
    for each in (made, plain):
        stir(each.model)
    examples = [made.train_dataset[index] for index in range(len(made.train_dataset))]
    ours, theirs = (loss_and_gradients(each, examples) for each in (made, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_tokens_of_an_answer_that_are_not_learned_are_context_only(tmp_path):
    base = checkpoint(tmp_path / "base")
    rows = with_context(pairs())
    results = []
    for name, shared in (("shared", True), ("plain", False)):
        made = trainer(base, tmp_path, rows, output_dir=str(tmp_path / name),
                       preference={"shared_prefix": shared})  # fmt: skip
        stir(made.model)
        examples = [made.train_dataset[index] for index in range(len(rows))]
        results.append(loss_and_gradients(made, examples))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
    whole = trainer(base, tmp_path, output_dir=str(tmp_path / "whole"))
    stir(whole.model)
    examples = [whole.train_dataset[index] for index in range(len(rows))]
    assert abs(results[0][0] - loss_and_gradients(whole, examples)[0]) > 1e-3
    batch = whole.data_collator.collate(rows)
    learned = [sum(label != -100 for label in row[f"{side}_labels"])
               for side in ("chosen", "rejected") for row in rows]  # fmt: skip
    assert batch["completion_mask"].sum(dim=1).tolist() == learned
    assert len(batch["packed"].answers) == sum(learned)


def logps(model, rows, collate):
    batch = collate(rows)
    with torch.no_grad():
        return forward(model, batch["packed"], batch).log_probs


def test_no_token_sees_beyond_its_own_pair_and_branch(tmp_path):
    made = trainer(checkpoint(tmp_path / "base"), tmp_path)
    stir(made.model)
    rows = pairs()
    before = logps(made.model, rows, made.data_collator.collate)
    count = len(rows)
    for which in range(count):
        for part, seen_by in (
            ("prompt_ids", {which, which + count}),
            ("chosen_ids", {which}),
            ("rejected_ids", {which + count}),
        ):
            changed = [dict(row) for row in rows]
            changed[which][part] = [(token + 7) % 900 + 45 for token in rows[which][part]]
            after = logps(made.model, changed, made.data_collator.collate)
            moved = (after != before).any(dim=1).nonzero().flatten().tolist()
            assert set(moved) == seen_by, (which, part)


def test_the_layout_of_a_pack():
    rows = [
        {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]},
        {"prompt_ids": [7], "chosen_ids": [8], "rejected_ids": [9, 10, 11]},
    ]
    packed = pack(rows)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 3, 7, 7, 9, 10]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 0, 1, 2]]
    assert packed.spans == ((2, 2, 1), (0, 1, 3))
    assert packed.answers.tolist() == [2, 3, 5, 4, 6, 7, 8]  # chosen, chosen; rejected, rejected
    assert packed.masks[0].tolist() == [[True, True, True]]
    assert packed.masks[1].tolist() == [
        [True, False, False], [True, True, False], [True, True, True]]  # fmt: skip


def test_the_head_sees_answers_only(tmp_path):
    made = trainer(checkpoint(tmp_path / "base"), tmp_path)
    seen = []
    made.model.get_base_model().model.norm.register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1])
    )
    made.model.get_base_model().model.register_forward_hook(
        lambda module, args, output: seen.append(output.last_hidden_state.shape[1])
    )
    rows = pairs()
    logps(made.model, rows, made.data_collator.collate)
    tokens = sum(len(row["prompt_ids"]) - 1 + len(row["chosen_ids"] + row["rejected_ids"])
                 for row in rows)  # fmt: skip
    answers = sum(len(row["chosen_ids"] + row["rejected_ids"]) for row in rows)
    assert seen == [tokens, answers]


def test_a_model_with_sliding_windows_is_refused(tmp_path):
    base = checkpoint(tmp_path / "base")
    model = load_model(base, load_tokenizer(base), precision="fp32")
    model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(AxtuneError, match=r"sliding_attention.*\n.*shared_prefix=false"):
        install(model)
