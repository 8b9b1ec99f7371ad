"""What ``training`` can be run with: numbers in their limits, and keys with what they need."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.config.limits import LIMITS, outside_limits, unmet_needs
from axtune.config.objective import OBJECTIVES


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("learning_rate", -1, "a number greater than 0"),
        ("learning_rate", 0, "a number greater than 0"),
        ("learning_rate", math.nan, "a finite number"),
        ("learning_rate", math.inf, "a finite number"),
        ("weight_decay", -0.1, "a number greater than or equal to 0"),
        ("adam_beta1", 1, "a number less than 1"),
        ("adam_beta2", -0.1, "a number greater than or equal to 0"),
        ("adam_epsilon", -1e-8, "a number greater than or equal to 0"),
        ("adam_epsilon", 1e30, "a number less than or equal to 1"),
        ("max_grad_norm", -1, "a number greater than or equal to 0"),
        ("max_grad_norm", 1e-30, "1e-08 or more"),
        ("learning_rate", 1e-30, "1e-10 or more"),
        ("loss_weights", [0, 0.0], "a weight above 0"),
        ("loss_weights", [1, -1], "a number greater than or equal to 0"),
        ("warmup_steps", -1, "a number greater than or equal to 0"),
        ("label_smoothing_factor", 1, "a number less than 1"),
        ("neftune_noise_alpha", -5, "a number greater than or equal to 0"),
        ("num_train_epochs", 0, "a number greater than 0"),
        ("max_steps", 0, "a number greater than 0 or -1"),
        ("max_steps", -2, "a number greater than 0 or -1"),
        ("dataloader_num_workers", -1, "a number greater than or equal to 0"),
        ("per_device_train_batch_size", 10**11, "a number less than or equal to 1000000"),
        ("max_steps", 10**20, "a number less than or equal to 1000000000"),
        ("num_train_epochs", 1e30, "a number less than or equal to 1000000"),
        ("dataloader_num_workers", 10_000, "a number less than or equal to 128"),
        ("dataloader_prefetch_factor", 0, "a number greater than 0"),
        ("dataloader_multiprocessing_context", "x", "'fork', 'spawn' or 'forkserver'"),
        ("eval_strategy", "sometimes", "'epoch', 'steps' or 'no'"),
        ("eval_accumulation_steps", 0, "a number greater than 0"),
        ("train_sampling_strategy", "x", "'random', 'sequential' or 'group_by_length'"),
        ("pad_to_multiple_of", -3, "a number greater than 0 or 'auto'"),
        ("log_level", "loud", "'detail', 'debug'"),
        ("loss_type", [], "at least 1 item"),
        ("loss_weights", [1.0, math.nan], "a finite number"),
        ("beta", -0.1, "a number greater than or equal to 0"),
        ("label_smoothing", 0.5, "a number less than 0.5"),
        ("desirable_weight", -1, "a number greater than or equal to 0"),
        ("ld_alpha", 1.5, "a number less than or equal to 1"),
        ("discopop_tau", 0, "a number greater than 0"),
    ],
)
def test_a_value_outside_of_its_limits(key: str, value: Any, expected: str) -> None:
    ((found, message),) = outside_limits("training", {key: value})
    assert found == key
    assert message.startswith(f"found {value!r}; expected ")
    assert expected in message


@pytest.mark.parametrize(
    ("section", "given", "expected"),
    [
        ("lora", {"r": 0}, "found 0; expected a number greater than 0."),
        ("lora", {"lora_alpha": -1}, "found -1; expected a number greater than 0."),
        (
            "lora",
            {"alpha_pattern": {".*": 0}},
            "found {'.*': 0}; expected a number greater than 0.",
        ),
        ("lora", {"target_modules": "("}, "found '('; expected a regular expression."),
        ("lora", {"exclude_modules": "*"}, "found '*'; expected a regular expression."),
        ("lora", {"alpha_pattern": {"[": 1}}, "found {'[': 1}; expected a regular expression."),
        ("lora", {"rank_pattern": {"a": 0}}, "found {'a': 0}; expected a number greater than 0."),
        ("lora", {"lora_dropout": 1}, "found 1; expected a number less than 1."),
        ("quantization", {"bnb_4bit_quant_type": "x"}, "found 'x'; expected 'nf4' or 'fp4'."),
    ],
)
def test_the_other_sections(section: str, given: dict[str, Any], expected: str) -> None:
    ((key, message),) = outside_limits(section, given)
    assert ([key], message) == (list(given), expected)


def test_what_a_run_can_be_made_with() -> None:
    training = {
        "learning_rate": 2e-4, "max_steps": -1, "num_train_epochs": 0.01, "warmup_steps": 0.03,
        "max_grad_norm": 0, "logging_steps": 0.5, "adam_beta1": 0, "eval_strategy": "no",
        "include_num_input_tokens_seen": True, "pad_to_multiple_of": "auto", "loss_weights": None,
        "a_key": "of another kind",
    }  # fmt: skip
    assert list(outside_limits("training", training)) == []


def test_the_keys_are_the_libraries_own() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trl.experimental.*")
        from axtune.training.trl_private import imported

        configs = [imported(*objective.config) for objective in OBJECTIVES.values()]
    known = {field.name for config in configs for field in dataclasses.fields(config)}
    assert set(LIMITS["training"].model_fields) <= known


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(
    st.dictionaries(
        st.sampled_from(sorted(LIMITS["training"].model_fields)),
        plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=3), plain),
    )
)
def test_no_value_is_too_odd(training: dict[str, Any]) -> None:
    for key, message in outside_limits("training", training):
        assert key in training
        assert message


def test_questions_can_be_asked_before_the_first_step_without_held_out_rows() -> None:
    values: dict[str, Any] = {"task": "sft", "training": {"eval_on_start": True}, "data": {}}
    assert list(unmet_needs(values))
    assert not list(unmet_needs({**values, "evaluate": {"data": "a.jsonl"}}))


def needs(training: dict[str, Any], task: str = "sft", **data: Any) -> list[str]:
    values = {"task": task, "training": training, "data": data}
    return [f"{'.'.join(path)}: {message}" for path, message in unmet_needs(values)]


@pytest.mark.parametrize(
    ("training", "task", "said"),
    [
        ({"eval_on_start": True}, "sft", "training.eval_on_start: needs data.eval"),
        ({"lr_scheduler_type": "greedy"}, "sft", "training.lr_scheduler_type: greedy follows"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau"},
            "dpo",
            "training.lr_scheduler_type: reduce_lr_on_plateau follows the eval loss",
        ),
        ({"dataloader_prefetch_factor": 2}, "sft", "needs training.dataloader_num_workers"),
        ({"dataloader_persistent_workers": True}, "sft", "needs training.dataloader_num_workers"),
        (
            {"dataloader_multiprocessing_context": "fork", "dataloader_num_workers": 0},
            "sft",
            "needs training.dataloader_num_workers",
        ),
        ({"hub_model_id": "me/x"}, "sft", "training.hub_model_id: needs training.push_to_hub"),
        ({"optim": "galore_adamw"}, "sft", "training.optim: galore_adamw is for training all"),
        ({"optim": "lomo"}, "sft", "training.optim: lomo is for training all"),
        (
            {"optim": "schedule_free_adamw", "warmup_steps": 0.1},
            "sft",
            "training.warmup_steps: schedule_free_adamw warms up by itself",
        ),
        ({"beta": 0}, "dpo", "training.beta: 0 gives a preference no weight"),
        ({"loss_type": "exo_pair"}, "dpo", "loss_type: exo_pair needs training.label_smoothing"),
        ({"loss_type": ["ipo", "sft"], "loss_weights": [1]}, "dpo", "1 for 2 losses"),
        ({"loss_weights": [1, 2]}, "dpo", "2 for 1 loss of loss_type"),
        ({"loss_type": "aot", "use_weighting": True}, "dpo", "it is not for the loss aot"),
        ({"loss_type": ["apo_zero"], "f_divergence_type": "forward_kl"}, "dpo", "loss apo_zero"),
        (
            {"desirable_weight": 0, "undesirable_weight": 0.0},
            "kto",
            "undesirable_weight: with desirable_weight 0 too, nothing is learned",
        ),
        ({"per_device_train_batch_size": 1}, "kto", "compares the answers of a batch"),
        ({"train_sampling_strategy": "random"}, "kto", "needs sequential"),
    ],
    ids=str,
)
def test_a_key_that_lacks_another(training: dict[str, Any], task: str, said: str) -> None:
    (message,) = needs(training, task)
    assert said in message


@pytest.mark.parametrize(
    ("training", "task"),
    [
        ({"eval_on_start": True, "lr_scheduler_type": "greedy"}, "sft"),
        ({"dataloader_prefetch_factor": 2, "dataloader_num_workers": 1}, "sft"),
        ({"dataloader_persistent_workers": False}, "sft"),
        ({"hub_model_id": "me/x", "push_to_hub": True}, "sft"),
        ({"optim": "schedule_free_adamw", "warmup_steps": 10}, "sft"),
        ({"beta": 0}, "orpo"),
        ({"desirable_weight": 0}, "kto"),
        ({"loss_type": ["exo_pair"], "label_smoothing": 0.001, "loss_weights": [2]}, "dpo"),
        ({"use_weighting": True, "f_divergence_type": "js_divergence"}, "dpo"),
        ({"per_device_train_batch_size": 1, "loss_type": "apo_zero_unpaired"}, "kto"),
    ],
    ids=str,
)
def test_a_key_that_has_what_it_needs(training: dict[str, Any], task: str) -> None:
    assert needs(training, task, eval=0.1) == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("held", [lambda it: it, lambda it: [it], lambda it: {"a": [1, it]}])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(
    held: Any, value: float
) -> None:
    found = list(outside_limits("lora", {"bias": held(value), "r": 8}))
    assert [key for key, _ in found] == ["bias"]
    assert found[0][1].endswith("expected finite numbers.")
