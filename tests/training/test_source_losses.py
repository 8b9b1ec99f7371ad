"""The held-out loss by source: from the rows that an evaluation passes over anyway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import supervised
from support.commands import train_in_processes
from support.tiny import LIBRARY_WARNINGS, RECIPES, checkpoint, write_rows

from axtune.data.samples import Sample
from axtune.evaluate.losses import sample_losses
from axtune.model.load import load_model
from axtune.training.source_losses import SourceLosses, by_source, row_losses


@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=6), min_size=1, max_size=4))
def test_rows_cost_the_same_packed_and_padded(labelled: list[list[bool]]) -> None:
    """The first token of a row is never counted: nothing stands before it."""
    longest = max(map(len, labelled))
    padded = torch.tensor([[*row, *[False] * (longest - len(row))] for row in labelled])[:, 1:]
    packed = torch.tensor(
        [[one and bool(place) for row in labelled for place, one in enumerate(row)]]
    )
    packed = packed[:, 1:]
    lengths = torch.tensor([len(row) for row in labelled])
    token_losses = torch.arange(1.0, padded.sum() + 1)
    costs = row_losses(token_losses, padded, None)
    assert torch.equal(costs, row_losses(token_losses, packed, lengths))
    assert costs[:, 1].tolist() == [sum(row[1:]) for row in labelled]
    assert costs[:, 0].sum() == token_losses.sum()


def test_a_source_is_the_mean_of_its_tokens_and_one_alone_says_nothing() -> None:
    losses = SourceLosses(["규정.jsonl", "대화.jsonl", "규정.jsonl"])
    losses.add(torch.tensor([[0, 6.0, 2], [1, 1.0, 1], [2, 2.0, 2]]))
    assert losses.take() == {"eval_규정.jsonl_loss": 2.0, "eval_대화.jsonl_loss": 1.0}
    losses.add(torch.tensor([[0, 6.0, 2], [1, 0.0, 0]]))
    assert losses.take() == {}


def test_the_events_name_sources() -> None:
    event = {"step": 3, "eval_loss": 2.0, "loss": 1.0, "eval_a_loss.jsonl_loss": 3.0}
    assert by_source(event) == {"a_loss.jsonl": 3.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@LIBRARY_WARNINGS
@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [{}, {"loss_type": "dft"}],
    ids=["the head of a CPU", "TRL's head"],
)
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_an_evaluation_says_what_axtune_eval_says_afterwards(
    base: Any, tmp_path: Path, packing: bool, training: dict[str, Any]
) -> None:
    write_rows(tmp_path / "rows.jsonl", 4)
    files = [
        write_rows(tmp_path / f"{name}.jsonl", 3, start)
        for name, start in (("가", 10), ("나", 70_000))
    ]
    data = {
        "train": str(tmp_path / "rows.jsonl"),
        "eval": [str(file) for file in files],
        "packing": packing,
    }
    # A batch holds rows of both sources, and the last one fewer than the others.
    training = {"per_device_eval_batch_size": 4, "num_train_epochs": 1, **training}
    trainer = supervised.trainer(base, tmp_path, data=data, training=training)
    told = trainer.evaluate()
    samples = [Sample(row["input_ids"], row["labels"]) for row in trainer.run.data.eval]
    # The adapter adds nothing yet.
    model = load_model(base, trainer.run.tokenizer, precision="fp32")
    losses = sample_losses(model, samples)
    for name, own in (("가", losses[:3]), ("나", losses[3:])):
        nats, tokens = (sum(column) for column in zip(*own, strict=True))
        assert told[f"eval_{name}.jsonl_loss"] == pytest.approx(nats / tokens, rel=1e-4)
    events = map(json.loads, trainer.run.run_dir.metrics_file.read_text().splitlines())
    (event,) = [event for event in events if "eval_loss" in event]
    assert list(by_source(event)) == ["가.jsonl", "나.jsonl"]


@pytest.mark.slow
def test_how_many_processes_evaluate_changes_nothing(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "rows.jsonl", 8)
    held = [write_rows(tmp_path / f"{name}.jsonl", n, 10**n) for name, n in (("a", 3), ("b", 2))]
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        words = [
            "model=tiny-ax-4.0",
            f"output_dir={out}",
            f"data.train={train}",
            f"data.eval=[{','.join(map(str, held))}]",
            "precision=fp32",
            "training.per_device_eval_batch_size=2",  # the last batch of two processes is padded
            "training.eval_on_start=true",
            "training.max_steps=1",
        ]
        done = train_in_processes(processes, RECIPES / "sft_lora.yaml", words)
        assert done.status == 0, done.said
        first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
        found.append(by_source(first))
    assert list(found[0]) == ["a.jsonl", "b.jsonl"]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
