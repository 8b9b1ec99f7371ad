"""Numbers that are none: the run stops before the step, keeps what is sound, and names the rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support import pairs, supervised
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe, write_rows
from transformers import TrainerControl, TrainerState, TrainingArguments

from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.run_dir import RunDir
from axtune.errors import AxtuneError
from axtune.training.divergence import DivergenceWatch, WithPlaces
from axtune.training.progress import Report

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


def poison(model: Any, token: int) -> None:
    """A base with a broken value that one token alone meets."""
    model.get_input_embeddings().weight.data[token, 0] = float("nan")


def with_marked_row(file: Path, count: int, marked: int) -> str:
    """Rows of which one, by its line, has a word that no other has."""
    write_rows(file, count)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[marked - 1]["messages"][0]["content"] = "특별한 §은?"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    return "§"


@pytest.mark.parametrize("packing", [False, True], ids=["rows", "packs"])
def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_rows(
    base: Checkpoint, tmp_path: Path, packing: bool
) -> None:
    sign = with_marked_row(tmp_path / "rows.jsonl", 8, marked=6)
    made = supervised.trainer(
        base,
        tmp_path,
        data={"packing": packing},
        training={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2,
                  "max_steps": 8, "save_strategy": "steps"},
    )  # fmt: skip
    poison(made.model, made.run.tokenizer.encode(sign).pop())
    message = r"Step \d: the loss is not finite; its rows: "
    with pytest.raises(AxtuneError, match=message) as error:
        made.train()
    assert f"{tmp_path}/rows.jsonl:6" in error.value.found
    trained = [p for p in made.model.parameters() if p.requires_grad]
    assert all(torch.isfinite(p).all() for p in trained)
    for file in (tmp_path / "run").rglob("adapter_model.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())


def test_rows_of_a_preference_are_named_too(base: Checkpoint, tmp_path: Path) -> None:
    rows = pairs.pairs()
    rows[2]["chosen_ids"] = [1999, *rows[2]["chosen_ids"]]
    made = pairs.trainer(
        base,
        tmp_path,
        rows,
        training={"per_device_train_batch_size": 1, "max_steps": len(rows)},
    )
    poison(made.model, 1999)
    with pytest.raises(AxtuneError, match=r"the loss is not finite; its rows: rows\.jsonl:3\."):
        made.train()


@pytest.mark.parametrize("packing", [False, True], ids=["rows", "packs"])
def test_weights_that_overflow_are_never_saved(
    base: Checkpoint, tmp_path: Path, packing: bool
) -> None:
    made = supervised.trainer(
        base,
        tmp_path,
        data={"packing": packing},
        training={"learning_rate": 1e30, "max_steps": 2, "lr_scheduler_type": "constant"},
    )
    with pytest.raises(AxtuneError, match="Step 1: the weights after it are not finite"):
        made.train()
    assert not list((tmp_path / "run").rglob("adapter_model.safetensors"))


def test_the_last_step_is_looked_at_as_well(base: Checkpoint, tmp_path: Path) -> None:
    made = supervised.trainer(
        base,
        tmp_path,
        training={"learning_rate": 1e30, "max_steps": 1, "lr_scheduler_type": "constant",
                  "save_strategy": "no"},
    )  # fmt: skip
    with pytest.raises(AxtuneError, match="Step 1: the weights after it are not finite"):
        made.train()


def test_a_broken_model_is_refused_before_the_first_step(base: Checkpoint, tmp_path: Path) -> None:
    made = supervised.trainer(base, tmp_path)
    weight = made.model.get_base_model().model.layers[1].mlp.up_proj.base_layer.weight
    weight.data[3, 5] = float("inf")
    message = r"model\.layers\.1\.mlp\.up_proj\.weight holds 1 of [\d,]+ values that are not finite"
    with pytest.raises(AxtuneError, match=message):
        made.rehearse()


class Steps:
    """Drives a watch with losses, as the trainer would."""

    def __init__(self, folder: Path, scaler: Any = None) -> None:
        self.model = torch.nn.Linear(2, 1)
        self.args = TrainingArguments(output_dir=str(folder / "out"), use_cpu=True, report_to=[])
        self.said = io.StringIO()
        self.run_dir = RunDir(folder / "run", None)
        self.run_dir.begin(recipe(folder), {})
        self.watch = DivergenceWatch(
            self.model,
            lambda place: f"rows.jsonl:{place[1]}",
            Report(Console(file=self.said, width=400)),
            self.run_dir,
        )
        self.watch.scaler = scaler
        self.made = 0

    def step(self, *losses: float, gradient: float = 1.0) -> None:
        for number, loss in enumerate(losses):
            self.watch.note(torch.tensor(loss), [(0, 10 * self.made + number)])
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        state = TrainerState(global_step=self.made, max_steps=1000)
        self.watch.on_pre_optimizer_step(self.args, state, TrainerControl())
        self.made += 1


def test_a_loss_that_leaps_is_named_with_its_rows_and_kept(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    for number in range(12):
        steps.step(0.5, 0.5 + 0.01 * (number % 3))
    steps.step(0.5, 9.0)
    assert "The loss of step 13 leaps to 9.500, from 1.010" in steps.said.getvalue()
    assert "its rows: rows.jsonl:121." in steps.said.getvalue()
    assert steps.run_dir.metrics() == [{"step": 13, "loss_spike": 9.5, "rows": ["rows.jsonl:121"]}]


@pytest.mark.parametrize(
    "losses",
    [
        [2.0 - 0.01 * n for n in range(60)],  # learns
        [1.0 + 0.3 * (-1) ** n for n in range(60)],  # noisy batches
        [0.001 * (1 + n % 2 * 0.4) for n in range(60)],  # learned by heart
        [9.0] * 5 + [20.0],  # too early to tell
    ],
    ids=["falling", "noisy", "tiny", "early"],
)
def test_losses_that_differ_as_they_do_are_no_leap(tmp_path: Path, losses: list[float]) -> None:
    steps = Steps(tmp_path)
    for loss in losses:
        steps.step(loss)
    assert steps.said.getvalue() == ""


def test_many_leaps_are_said_a_few_times_and_all_kept(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    for number in range(400):
        steps.step(50.0 if number % 20 == 19 else 1.0)
    assert steps.said.getvalue().count("leaps") == 5
    assert "further ones stand in metrics.jsonl" in steps.said.getvalue()
    assert len(steps.run_dir.metrics()) == 20


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_gradients_that_are_no_numbers_stop_the_run(tmp_path: Path, wrong: float) -> None:
    steps = Steps(tmp_path)
    with pytest.raises(
        AxtuneError, match=r"the gradients are not finite; its rows: rows\.jsonl:0, "
    ):
        steps.step(1.0, 1.0, gradient=wrong)


def test_a_scaler_that_can_still_give_way_handles_overflows(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))  # it is made at first use
    steps = Steps(tmp_path, scaler)
    steps.step(1.0, gradient=float("inf"))
    scaler.update(1.0)
    with pytest.raises(AxtuneError, match="the gradients are not finite"):
        steps.step(1.0, gradient=float("inf"))


def test_held_out_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    state = TrainerState(global_step=7, max_steps=10)
    steps.watch.on_evaluate(steps.args, state, TrainerControl(), {"eval_loss": 1.0})
    with pytest.raises(AxtuneError, match="Step 7: eval_loss is not finite"):
        steps.watch.on_evaluate(steps.args, state, TrainerControl(), {"eval_loss": float("nan")})


def test_places_stand_beside_a_batch_of_rows_and_of_packs() -> None:
    collate = WithPlaces(lambda rows: {"input_ids": torch.tensor([row["id"] for row in rows])})
    batch = collate([{"id": 5, "place": [0, 1]}, {"id": 6, "place": [[0, 3], [1, 4]]}])
    assert batch["input_ids"].tolist() == [5, 6]
    assert batch["places"] == [[0, 1], [0, 3], [1, 4]]
