from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support import supervised
from support.tiny import LIBRARY_WARNINGS, checkpoint, write_rows

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.data.samples import IGNORED, Sample
from axtune.evaluate.losses import SampleLoss, measure_losses, sample_losses
from axtune.model.load import load_model

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module", params=["4.0", "3.1"])
def model(request, tmp_path_factory):
    base = checkpoint(tmp_path_factory.mktemp("base") / "m", request.param)
    return load_model(base, load_tokenizer(base), precision="fp32")


@pytest.fixture(scope="module")
def samples():
    """Of different lengths, with labels here and there; the fifth has more than a chunk of them."""
    rng = np.random.default_rng(0)
    made = []
    for length in (9, 40, 3, 17, 300, 1):
        ids = rng.integers(100, 1000, length).tolist()
        learned = rng.random(length) < (0.9 if length == 300 else 0.4)
        made.append(Sample(ids, [i if w else IGNORED for i, w in zip(ids, learned, strict=True)]))
    made.append(Sample([25, 8, 40], [IGNORED] * 3))
    made.append(Sample([25, 8, 40], [25, 8, 40]))
    return made


def by_hand(model, sample):
    with torch.no_grad():
        logits = model(torch.tensor([sample.input_ids])).logits[0]
    log_probabilities = logits.double().log_softmax(dim=-1)
    wanted = [(i, one) for i, one in enumerate(sample.labels[1:]) if one != IGNORED]
    return -sum(log_probabilities[i, one].item() for i, one in wanted), len(wanted)


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_the_loss_of_each_sample_is_what_the_logits_say(model, samples, batch_tokens):
    found = sample_losses(model, samples, batch_tokens=batch_tokens)
    for loss, sample in zip(found, samples, strict=True):
        nats, tokens = by_hand(model, sample)
        assert loss.tokens == tokens
        assert loss.nats == pytest.approx(nats, rel=1e-5)
    assert found[-1].tokens == 2  # nothing stands before the first token
    assert [loss.tokens for loss in found].count(0) >= 2


def test_progress_is_told_and_the_mode_of_the_model_stays(model, samples):
    told = []
    model.train()
    try:
        sample_losses(model, samples, batch_tokens=64, on_batch=told.append)
        assert model.training
    finally:
        model.eval()
    assert sum(told) == len(samples)
    assert told[0] == 1  # the longest is first, and alone
    assert len(told) > 2
    assert sample_losses(model, []) == []


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="checks the loss that a CPU run reports")
@pytest.mark.parametrize("rows", [1, 3])
def test_it_is_the_trainers_eval_loss_of_the_same_rows(tmp_path, rows):
    """Batches of three: the mean over tokens. Of one: the mean of the rows' means."""
    base = checkpoint(tmp_path / "m")
    write_rows(tmp_path / "rows.jsonl", 4)
    held = write_rows(tmp_path / "held.jsonl", 3, start=99)
    trainer = supervised.trainer(
        base,
        tmp_path,
        data={"eval": str(held), "packing": False},
        training={"max_steps": 4, "learning_rate": 0.05, "per_device_eval_batch_size": rows},
    )
    trainer.train()
    held_out = [Sample(row["input_ids"], row["labels"]) for row in trainer.eval_dataset]
    losses = sample_losses(trainer.model, held_out)  # with its adapter
    nats, tokens = (sum(column) for column in zip(*losses, strict=True))
    expected = nats / tokens if rows == 3 else np.mean([loss.nats / loss.tokens for loss in losses])
    assert len({loss.tokens for loss in losses}) > 1  # or the two are the same
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    with trainer.model.disable_adapter():
        base_losses = sample_losses(trainer.model, held_out)
    assert sum(loss.nats for loss in base_losses) > nats * 1.02


# --- By source ------------------------------------------------------------------------------------


def test_a_source_has_its_own_loss_and_perplexity():
    sources = ["규정", "매뉴얼", "규정", "매뉴얼"]
    losses = [SampleLoss(4.0, 2), SampleLoss(9.0, 3), SampleLoss(2.0, 4), SampleLoss(0.0, 0)]
    found = measure_losses(sources, losses)
    values = {(one.metric, one.category): (one.n, one.value.value) for one in found}
    assert values == {
        ("loss", "all"): (3, pytest.approx(15 / 9)),
        ("perplexity", "all"): (3, pytest.approx(math.exp(15 / 9))),
        ("loss", "규정"): (2, pytest.approx(1.0)),
        ("perplexity", "규정"): (2, pytest.approx(math.e)),
        ("loss", "매뉴얼"): (1, pytest.approx(3.0)),
        ("perplexity", "매뉴얼"): (1, pytest.approx(math.exp(3))),
    }


def test_one_source_is_not_said_twice_and_no_token_says_nothing():
    assert [one.category for one in measure_losses(["규정"] * 2, [SampleLoss(1.0, 1)] * 2)] == [
        "규정",
        "규정",
    ]
    assert measure_losses(["규정"], [SampleLoss(0.0, 0)]) == []
    assert measure_losses([], []) == []


def test_the_pieces_of_a_document_belong_together():
    losses = [SampleLoss(20.0 + n // 4, 10) for n in range(80)]
    plain = measure_losses(["문서"] * 80, losses)[0]
    found = measure_losses(["문서"] * 80, losses, rows=[("문서", n // 4) for n in range(80)])[0]
    assert (found.n, found.clusters, plain.clusters) == (80, 20, None)
    assert found.value.value == pytest.approx(plain.value.value)
    assert found.value.high - found.value.low > 1.8 * (plain.value.high - plain.value.low)


def test_a_lower_loss_is_better():
    rng = np.random.default_rng(0)
    before = [SampleLoss(float(10 * rng.uniform(2, 3)), 10) for _ in range(20)]
    after = [SampleLoss(loss.nats - 1.0 - rng.uniform(), 10) for loss in before]
    loss, perplexity = measure_losses(["문서"] * 20, after, before)
    assert (loss.verdict, perplexity.verdict) == ("better", "better")
    assert loss.difference is not None
    assert loss.difference.high < 0
    assert measure_losses(["문서"] * 20, before, after)[0].verdict == "worse"
