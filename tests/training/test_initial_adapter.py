from __future__ import annotations

import io
import math

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from support.pairs import NF4, loss_and_gradients, pairs, stir, trainer
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe, write_rows

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.errors import AxtuneError
from axtune.model.adapter import Adapter
from axtune.model.load import load_model
from axtune.run import train
from axtune.training.initial_adapter import start_adapter
from axtune.training.progress import Report

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares float32 on a CPU"),
]

IDS = torch.tensor([[25, 8, 300, 301, 302, 27, 25, 10, 400]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def plain(base, **keys):
    return load_model(base, load_tokenizer(base), precision="fp32", **keys)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def start(base, tmp_path):
    """The folder of an adapter that has been trained, and its logits."""

    def build(**lora):
        made = trainer(base, tmp_path, output_dir=str(tmp_path / "sft"), task="orpo",
                       preference={"shared_prefix": False}, lora={"r": 4, **lora})  # fmt: skip
        stir(made.model, seed=5)
        folder = tmp_path / "start"
        folder.mkdir()
        Adapter(made.model, None).save(folder)
        return folder

    return build


def job(tmp_path, base, **changes):
    return recipe(tmp_path, model=str(base.folder), task="dpo", **changes)


def begun(tmp_path, base, said=None, **changes):
    report = Report(Console(file=said or io.StringIO(), width=300))
    quantization = changes.get("quantization")
    return start_adapter(
        plain(base, quantization=quantization), job(tmp_path, base, **changes), base, report
    )


@pytest.mark.parametrize("merged", [False, True], ids=["further", "merged"])
@pytest.mark.parametrize("shared", [False, True], ids=["plain", "shared"])
@pytest.mark.parametrize("reference", ["cached", "each_step"])
def test_the_reference_is_the_model_that_the_run_begins_with(
    base, tmp_path, start, merged, shared, reference
):
    preference = {"shared_prefix": shared, "reference": reference}
    made = trainer(
        base, tmp_path, start_from=str(start()), start_merged=merged, preference=preference
    )
    rows = [made.train_dataset[index] for index in range(len(made.train_dataset))]
    loss, _ = loss_and_gradients(made, rows)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    stir(made.model)
    assert abs(loss_and_gradients(made, rows)[0].item() - math.log(2)) > 1e-3
    fresh = trainer(base, tmp_path, pairs(), output_dir=str(tmp_path / "fresh"))
    other = fresh.train_dataset[0]["chosen_reference"]
    if reference == "cached":
        assert abs(rows[0]["chosen_reference"] - other).max() > 0.01  # and not the base alone
        assert set(made.model.peft_config) == {"default"}  # no copy stays


def test_an_adapter_is_trained_further_as_it_is(base, tmp_path, start):
    folder, said = start(), io.StringIO()
    adapter = begun(tmp_path, base, said, start_from=str(folder), lora={"r": 8})
    expected = logits(PeftModel.from_pretrained(plain(base), str(folder)))
    torch.testing.assert_close(logits(adapter.model), expected)
    assert "r 4" in said.getvalue()
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    assert trained
    assert {p.dtype for p in trained} == {torch.float32}
    assert adapter.model.peft_config["default"].r == 4


@pytest.mark.parametrize(
    "lora",
    [{"r": 4}, {"r": 8, "lora_alpha": 8}, {"r": 8, "use_rslora": True},
     {"r": 2, "target_modules": ["q_proj", "down_proj"]},
     {"r": 4, "rank_pattern": {"q_proj": 6}, "alpha_pattern": {"q_proj": 3}}],
    ids=str,
)  # fmt: skip
def test_a_merged_start_and_what_was_trained_are_handed_on_as_one_adapter(
    base, tmp_path, start, lora
):
    folder = start(target_modules=["q_proj", "k_proj", "up_proj"], lora_alpha=6)
    adapter = begun(tmp_path, base, start_from=str(folder), start_merged=True, lora=lora)
    began = logits(PeftModel.from_pretrained(plain(base), str(folder)))
    torch.testing.assert_close(logits(adapter.model), began, rtol=1e-4, atol=1e-4)
    stir(adapter.model)
    expected = logits(adapter.model)
    assert (expected - began).abs().max() > 0.01
    out = tmp_path / "out"
    out.mkdir()
    adapter.save(out)
    handed_on = logits(PeftModel.from_pretrained(plain(base), str(out)))
    torch.testing.assert_close(handed_on, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("lora", "changes", "reason"),
    [
        ({}, {"quantization": NF4}, "4-bit"),
        ({"use_dora": True}, {}, "DoRA"),
        ({}, {"lora": {"use_dora": True}}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, {}, "more than LoRA"),
        ({}, {"lora": {"init_lora_weights": "pissa"}}, "init_lora_weights"),
    ],
    ids=["4 bit", "dora start", "dora", "head", "pissa"],
)
def test_what_does_not_merge_is_refused_with_the_way_round(
    base, tmp_path, start, lora, changes, reason
):
    merged = {"start_from": str(start(**lora)), "start_merged": True}
    with pytest.raises(AxtuneError, match=rf"{reason}.*\n.*axtune merge"):
        begun(tmp_path, base, **merged, **changes)


def test_a_place_without_an_adapter_is_refused(base, tmp_path):
    with pytest.raises(AxtuneError, match="neither a run folder nor an adapter folder"):
        begun(tmp_path, base, start_from=str(tmp_path))


def test_an_adapter_of_another_shape_is_refused(tmp_path, start):
    other = checkpoint(tmp_path / "other", "3.1")
    shape = {"start_from": str(start())}
    model = load_model(other, load_tokenizer(other), precision="fp32")
    model.model.layers = model.model.layers[:1]
    for layer in model.model.layers:
        layer.self_attn.q_proj = torch.nn.Linear(64, 32)
    with pytest.raises(AxtuneError, match="does not fit the base: size mismatch of"):
        start_adapter(model, job(tmp_path, other, **shape), other, Report(enabled=False))


@pytest.mark.slow
def test_a_run_of_another_base_is_refused(base, tmp_path):
    write_rows(tmp_path / "rows.jsonl", 8)
    run = train(recipe(tmp_path, model=str(base.folder), output_dir=str(tmp_path / "sft"),
                       training={"max_steps": 1}))  # fmt: skip
    adapter = begun(tmp_path, base, start_from=str(run.path))
    assert adapter.model.peft_config["default"].r == 16
    other = checkpoint(tmp_path / "other", "3.1")
    with pytest.raises(AxtuneError, match="was trained on"):
        begun(tmp_path, other, start_from=str(run.path))
