"""TRL's configuration of a run: what the recipe says, what axtune decides, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS, recipe

from axtune.config.objective import OBJECTIVES
from axtune.errors import RecipeError
from axtune.training.arguments import training_arguments

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="checks what a CPU run is set up as"),
]


@pytest.mark.parametrize("task", OBJECTIVES)
def test_every_task_gets_its_own_configuration(task: str, tmp_path: Path) -> None:
    job = recipe(tmp_path, task=task, training={"learning_rate": 3e-5, "max_steps": 7})
    args = training_arguments(job, "fp32")
    assert type(args).__name__ == OBJECTIVES[task].config[1]
    assert (args.learning_rate, args.max_steps) == (3e-5, 7)
    assert args.output_dir == str(tmp_path / "run" / "checkpoints")
    assert (args.remove_unused_columns, args.disable_tqdm) == (False, True)
    assert not args.logging_nan_inf_filter  # a loss that is not a number is not hidden
    assert args.max_length is None  # rows are cut, or refused, before training


def test_one_loss_of_several_needs_no_brackets(tmp_path: Path) -> None:
    for loss in ("ipo", ["ipo"]):
        args = training_arguments(
            recipe(tmp_path, task="dpo", training={"loss_type": loss}), "fp32"
        )
        assert args.loss_type == ["ipo"]


@pytest.mark.parametrize(
    ("training", "steps"),
    [({"logging_steps": 5}, 5), ({"logging_steps": 5, "eval_steps": 2}, 2)],
)
def test_evaluations_are_as_often_as_logging_unless_told(
    training: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    training = {"eval_strategy": "steps", **training}
    args = training_arguments(recipe(tmp_path, training=training, data={"eval": 0.5}), "fp32")
    assert (args.eval_steps, args.save_steps) == (steps, steps)


def test_offloading_activations_is_for_cards(tmp_path: Path) -> None:
    args = training_arguments(recipe(tmp_path, offload=["activations"]), "fp32")
    assert not args.activation_offloading


def test_all_wrong_values_are_said_at_once(tmp_path: Path) -> None:
    training = {"learning_rate": "fast", "max_steps": 0, "eval_strategy": "sometimes"}
    with pytest.raises(RecipeError) as caught:
        training_arguments(recipe(tmp_path, training=training), "fp32")
    said = [fault.message.partition(":")[0] for fault in caught.value.faults]
    assert sorted(said) == [
        "training.eval_strategy", "training.learning_rate", "training.max_steps"
    ]  # fmt: skip


def test_a_value_that_is_refused_in_other_words_is_found_by_trying(tmp_path: Path) -> None:
    """A tf32 card that is not there is refused without the key's own name."""
    training = {"weight_decay": 0.1, "tf32": True}
    with pytest.raises(RecipeError, match=r"training\.tf32: "):
        training_arguments(recipe(tmp_path, training=training), "fp32")


@pytest.mark.parametrize(
    ("task", "training", "message"),
    [
        ("dpo", {"loss_type": "sigmoidd"}, r"loss_type: there is no sigmoidd; expected sigmoid, "),
        ("dpo", {"loss_type": ["sigmoid", "sfft"]}, r"no sfft; expected .* sft"),
        (
            "dpo",
            {"f_divergence_type": "kl"},
            r"f_divergence_type: there is no kl; expected reverse",
        ),
        ("sft", {"loss_type": "nnl"}, r"no nnl; expected dft or nll\."),
        ("kto", {"loss_type": "sigmoid"}, r"no sigmoid; expected kto or apo_zero_unpaired\."),
    ],
)
def test_a_loss_that_trl_lacks_is_refused_before_anything_is_loaded(
    task: str, training: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        training_arguments(recipe(tmp_path, task=task, training=training), "fp32")


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"optim": "adamw"}, r"training\.optim: there is no adamw; did you mean .*adamw"),
        (
            {"lr_scheduler_type": "zzz"},
            r"training\.lr_scheduler_type: there is no zzz; expected linear, cosine, .* or greedy",
        ),
        ({"logging_strategy": "step"}, r"there is no step; did you mean steps\?"),
        ({"report_to": "nope"}, r"training\.report_to: nope is not supported"),
        (
            {"report_to": ["tensorboard"]},
            r"report_to: the package of tensorboard .* pip install tensorboard;",
        ),
        ({"report_to": "comet_ml"}, r"report_to: the package of comet_ml .* pip install comet-ml"),
        ({"use_liger_kernel": True}, r"training\.use_liger_kernel: the package liger-kernel"),
        ({"torch_compile_backend": "x"}, r"training\.torch_compile_backend: there is no x;"),
        ({"torch_compile": True}, r"training\.torch_compile: it needs a C\+\+ compiler"),
        ({"ddp_backend": "gloo"}, r"training\.ddp_backend: it is for several processes"),
        ({"optim": "sgd", "optim_args": "lr"}, r"training\.optim_args: expected name=value"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, r"needs num_decay_steps"),
    ],
    ids=str,
)
def test_what_a_machine_or_a_library_lacks_is_said_first(
    training: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "axtune.training.arguments"
    monkeypatch.setattr(f"{module}.get_available_reporting_integrations", lambda: [])
    monkeypatch.setattr(f"{module}.is_liger_kernel_available", lambda: False)
    monkeypatch.setattr(f"{module}._has_compiler", lambda: False)
    with pytest.raises(RecipeError, match=message):
        training_arguments(recipe(tmp_path, training=training), "fp32")


@pytest.mark.parametrize(
    ("offline", "token", "reached", "reason"),
    [
        (True, "x", True, "HF_HUB_OFFLINE is set"),
        (False, None, True, "there is no token of the Hub"),
        (False, "x", False, "the Hub cannot be reached, or refuses the token: No route"),
        (False, "x", True, None),
    ],
)
def test_pushing_needs_the_hub_before_training_begins(
    offline: bool,
    token: str | None,
    reached: bool,
    reason: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def whoami() -> dict[str, str]:
        if not reached:
            raise ConnectionError("No route")
        return {"name": "me"}

    module = "axtune.training.arguments"
    monkeypatch.setattr(f"{module}.is_offline_mode", lambda: offline)
    monkeypatch.setattr(f"{module}.get_token", lambda: token)
    monkeypatch.setattr(f"{module}.whoami", whoami)
    job = recipe(tmp_path, training={"push_to_hub": True})
    if reason is None:
        assert training_arguments(job, "fp32").push_to_hub
        return
    with pytest.raises(RecipeError) as caught:
        training_arguments(job, "fp32")
    (fault,) = caught.value.faults
    assert fault.message.startswith("training.push_to_hub: ")
    assert reason in fault.message


def test_what_trackers_are_told(tmp_path: Path) -> None:
    """Nothing is reported anywhere, and trackio publishes nothing, unless the recipe says so."""
    silent = training_arguments(recipe(tmp_path), "fp32")
    assert (silent.report_to, silent.run_name) == ([], "run")
    assert silent.trackio_static_space_id is False
    said = {"run_name": "mine", "trackio_space_id": "me/ours"}
    args = training_arguments(recipe(tmp_path, training=said), "fp32")
    assert (args.run_name, args.trackio_space_id) == ("mine", "me/ours")
    assert args.trackio_static_space_id is None
