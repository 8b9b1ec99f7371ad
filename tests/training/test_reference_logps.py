from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from support.pairs import NF4, labelled, pairs, stir, trainer, with_context
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.training.reference_logps import cache_folder, digest_rows, digest_tensors

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares float32 on a CPU"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def numbers(made):
    return {name: np.concatenate(v) for name, v in made.train_dataset.numbers.items()}


def files():
    return sorted(cache_folder().glob("*")) if cache_folder().is_dir() else []


@pytest.mark.parametrize("task", ["dpo", "kto"])
@pytest.mark.parametrize("quantization", [None, NF4], ids=["16 bit", "4 bit"])
def test_the_cached_reference_is_the_computed_one_bit_by_bit(base, tmp_path, task, quantization):
    first, second = io.StringIO(), io.StringIO()
    made = trainer(base, tmp_path, task=task, output=first, quantization=quantization)
    computed = numbers(made)
    assert "computed in" in first.getvalue()
    assert len(files()) == 1
    again = trainer(base, tmp_path, task=task, output=second, quantization=quantization,
                    output_dir=str(tmp_path / "again"))  # fmt: skip
    assert "from the cache" in second.getvalue()
    for name, values in numbers(again).items():
        assert values.any()
        assert np.array_equal(values, computed[name])


def test_the_reference_is_the_model_without_its_adapter(base, tmp_path):
    made = trainer(base, tmp_path)
    rows = pairs()
    stir(made.model)  # whatever is trained, the reference stays
    model = made.model
    with torch.no_grad(), model.disable_adapter():
        made.model.get_base_model().set_attn_implementation("eager")
        for index, row in enumerate(rows):
            for side in ("chosen", "rejected"):
                prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
                ids = torch.tensor([prompt + answer])
                base_model = made.model.get_base_model()
                hooks = base_model.model._forward_hooks.copy()
                base_model.model._forward_hooks.clear()
                logits = base_model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
                base_model.model._forward_hooks.update(hooks)
                expected = logits.log_softmax(-1)[range(len(answer)), answer]
                found = made.train_dataset[index][f"{side}_reference"]
                np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"preference": {"shared_prefix": False}},
        {"quantization": NF4},
        {"training": {"per_device_eval_batch_size": 3}},
    ],
    ids=str,
)
def test_what_changes_the_numbers_changes_the_name(base, tmp_path, changes):
    trainer(base, tmp_path)
    trainer(base, tmp_path, output_dir=str(tmp_path / "other"), **changes)
    assert len(files()) == 2


def test_other_rows_have_another_name(base, tmp_path):
    trainer(base, tmp_path, pairs(1))
    trainer(base, tmp_path, pairs(2), output_dir=str(tmp_path / "other"))
    assert len(files()) == 2


def test_another_learning_rate_or_rank_or_loss_takes_the_same_numbers(base, tmp_path):
    trainer(base, tmp_path)
    other = {"learning_rate": 1e-6, "loss_type": "ipo", "beta": 0.3, "ld_alpha": 0.5}
    trainer(base, tmp_path, output_dir=str(tmp_path / "other"), lora={"r": 8}, training=other)
    assert len(files()) == 1


def test_an_adapter_that_is_trained_further_is_part_of_the_name(base, tmp_path):
    made = trainer(base, tmp_path)
    stir(made.model)
    start = tmp_path / "start"
    start.mkdir()
    made.model.save_pretrained(start)
    for mode in (False, True):
        begin = {"start_from": str(start), "start_merged": mode}
        trainer(base, tmp_path, output_dir=str(tmp_path / f"o{mode}"), **begin)
    assert len(files()) == 3


def test_the_file_holds_numbers_only_and_is_named_by_a_digest(base, tmp_path):
    trainer(base, tmp_path)
    (file,) = files()
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header.pop("__metadata__").keys() == {"sha256"}
    assert {key.partition(".")[2] for key in header} == {"lengths", "values"}
    assert str(tmp_path).encode() not in content
    assert len(file.stem) == 64


@pytest.mark.parametrize(
    "damaged",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"nonsense" * 100,
        lambda whole: whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],  # one bit of one number
    ],
    ids=["cut", "broken", "bit"],
)
def test_a_damaged_file_is_computed_anew(base, tmp_path, damaged):
    computed = numbers(trainer(base, tmp_path))
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    said = io.StringIO()
    again = trainer(base, tmp_path, output=said, output_dir=str(tmp_path / "again"))
    assert "computed in" in said.getvalue()
    assert file.read_bytes() == whole
    assert np.array_equal(numbers(again)["chosen_reference"], computed["chosen_reference"])


def test_a_cache_that_cannot_be_written_stops_nothing(base, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = io.StringIO()
    assert numbers(trainer(base, tmp_path, output=said))["chosen_reference"].any()
    assert "cannot be kept" in said.getvalue()


def test_reference_in_each_step_leaves_the_cache_alone(base, tmp_path):
    made = trainer(base, tmp_path, preference={"reference": "each_step"})
    made.train()
    assert files() == []


def test_only_ids_are_digested_in_their_order():
    rows = pairs()
    noted = [row | {"kind": n} for n, row in enumerate(rows)]
    assert digest_rows(rows) == digest_rows(noted)
    assert digest_rows(rows) != digest_rows(with_context(rows))
    assert digest_rows(rows) != digest_rows(rows[::-1])
    moved = [dict(rows[0], prompt_ids=rows[0]["prompt_ids"][:-1],
                  rejected_ids=rows[0]["prompt_ids"][-1:] + rows[0]["rejected_ids"])]  # fmt: skip
    assert digest_rows(rows[:1]) != digest_rows(moved)
    assert digest_rows(labelled()) != digest_rows(labelled(3))


def test_tensors_are_digested_by_name_type_and_bit():
    one = {"a": torch.tensor([1.0, 2.0])}
    assert digest_tensors(one) == digest_tensors({"a": torch.tensor([1.0, 2.0])})
    others = [{"b": one["a"]}, {"a": one["a"].half()}, {"a": one["a"][:, None]},
              {"a": torch.tensor([1.0, 2.0000002])}]  # fmt: skip
    assert digest_tensors(one) not in [digest_tensors(other) for other in others]
