"""What axtune takes from TRL beyond its documented interface is there: these tests name what moved.

pyproject.toml pins TRL to the minor version for which they passed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import trl
from support.rows import ROOT
from support.tiny import LIBRARY_WARNINGS

from axtune.training import trl_private

pytestmark = LIBRARY_WARNINGS

ORPO = trl_private.orpo_trainer()


def test_trl_is_of_the_version_that_is_pinned() -> None:
    pinned = re.search(r'"trl>=(\d+\.\d+),<', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned is not None
    assert trl.__version__.startswith(f"{pinned[1]}.")


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("trl.models.utils", "disable_gradient_checkpointing",
         ["model", "gradient_checkpointing_kwargs"]),
        ("trl.trainer.utils", "use_adapter", ["model", "adapter_name"]),
        ("trl.trainer.utils", "add_fused_lm_head",
         ["model", "temperature", "cast_lm_head_to_fp32", "outputs"]),
        ("trl.trainer.dpo_trainer", "DataCollatorForPreference", ["pad_token_id"]),
        ("trl.trainer.kto_trainer", "DataCollatorForUnpairedPreference", ["pad_token_id"]),
        ("trl.experimental.orpo", "ORPOTrainer", ["model", "args", "data_collator"]),
    ],
)  # fmt: skip
def test_a_name_that_is_imported_takes_what_it_is_given(
    module: str, name: str, parameters: list[str]
) -> None:
    found = trl_private.imported(module, name)
    assert set(parameters) <= set(inspect.signature(found).parameters)


@pytest.mark.parametrize(
    ("trainer", "method", "parameters"),
    [
        (trl.DPOTrainer, "_compute_loss", ["self", "model", "inputs", "return_outputs"]),
        (trl.KTOTrainer, "compute_ref_log_probs", ["self", "model", "inputs"]),
        (ORPO, "concatenated_forward", ["self", "model", "batch"]),
    ],
)
def test_a_method_that_is_called_or_replaced_has_its_parameters(
    trainer: type, method: str, parameters: list[str]
) -> None:
    assert list(inspect.signature(getattr(trainer, method)).parameters) == parameters


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (trl.SFTTrainer, ["self._metrics = ", "self._total_train_tokens = ",
                          "self.maybe_activation_offload_context", '"skip_prepare_dataset"',
                          '["num_tokens"] = [self._total_train_tokens]']),
        (trl.DPOTrainer, ["self._metrics = ", "self._prepare_dataset(", "self.ld_alpha = ",
                          "if self.precompute_ref_logps:", 'inputs["ref_chosen_logps"]',
                          "self.maybe_activation_offload_context"]),
        (trl.KTOTrainer, ["self._metrics = ", "self._prepare_dataset(", "self.calculate_KL = ",
                          "self.precompute_ref_logps", "KL_completion_ids",
                          "self.maybe_activation_offload_context"]),
        (ORPO, ["self._stored_metrics = ", "self.use_dpo_data_collator = ",
                "self.concatenated_forward("]),
    ],
)  # fmt: skip
def test_an_attribute_that_is_read_or_set_is_still_trls(trainer: type, words: list[str]) -> None:
    source = inspect.getsource(importlib.import_module(trainer.__module__))
    assert [word for word in words if word not in source] == []


def test_losses_are_named_in_trls_code() -> None:
    assert {"sigmoid", "ipo", "sft"} <= set(trl_private.loss_names(trl.DPOTrainer, "loss_type"))
    assert "js_divergence" in trl_private.loss_names(trl.DPOTrainer, "f_divergence_type")
    names = trl_private.loss_names(trl.KTOTrainer, "loss_type")
    assert names == ["kto", "apo_zero_unpaired"]  # each once


def reaches(file: Path) -> list[str]:
    """What a file of axtune takes from TRL that is none of its documented interface."""
    private = {*trl_private.COUNTERS, "_compute_loss", "_prepare_dataset"}
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trl."):
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and node.attr in private:
            found.append(node.attr)
        elif isinstance(node, ast.FunctionDef) and node.name in private:
            found.append(node.name)
    return found


def test_no_other_module_reaches_into_trl() -> None:
    files = sorted((ROOT / "axtune").rglob("*.py"))
    assert [file.name for file in files if reaches(file)] == ["trl_private.py"]
