"""The sections of a recipe that pass by name to a library: which names it takes, of which kinds.

``lora`` goes to PEFT's ``LoraConfig``, ``quantization`` to transformers' ``BitsAndBytesConfig``,
``training`` to the TRL configuration of the task, such as ``SFTConfig``. A name that the installed
version lacks is refused with the nearest one, before anything heavy is imported.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from axtune.config.objective import OBJECTIVES

_FORCE_CPU = "the machine decides; hide the GPUs with CUDA_VISIBLE_DEVICES= to force the CPU"

# Names of the libraries' configs that a recipe sets elsewhere, or that axtune decides.
_OWNED: dict[str, dict[str, str]] = {
    "training": {
        "output_dir": "set output_dir at the top of the recipe",
        "seed": "set seed at the top of the recipe",
        "data_seed": "set seed at the top of the recipe",
        "bf16": "set precision at the top of the recipe",
        "fp16": "set precision at the top of the recipe",
        "use_cpu": _FORCE_CPU,
        "max_length": "set data.max_length",
        "truncation_mode": "set data.truncate",
        "resume_from_checkpoint": "set resume at the top of the recipe",
        "save_strategy": "saving follows eval_strategy",
        "save_steps": "saving follows eval_steps",
        "load_best_model_at_end": "it is always on when data.eval or evaluate.best is set",
        "metric_for_best_model": "set evaluate.best, or leave it to the lowest eval_loss",
        "greater_is_better": "set evaluate.best, or leave it to the lowest eval_loss",
        "assistant_only_loss": "labels are always the assistant's turns, made before training",
        "completion_only_loss": "labels are always the assistant's turns, made before training",
        "chat_template_path": "the checkpoint's own template is always used",
        "eos_token": "the checkpoint's own end of turn is always used",
        "pad_token": "the checkpoint's own pad token is always used",
        "dataset_kwargs": "rows are prepared by axtune",
        "dataset_text_field": "rows are prepared by axtune",
        "dataset_num_proc": "rows are prepared by axtune",
        "model_init_kwargs": "set model, precision, attention or quantization",
        "trust_remote_code": "A.X models need no remote code, and axtune runs none; remove it",
        "precompute_ref_log_probs": "set preference.reference",
        "precompute_ref_batch_size": "set per_device_eval_batch_size",
        "sync_ref_model": "not offered: the reference is the model before this run",
        "ref_model_mixup_alpha": "not offered: the reference is the model before this run",
        "ref_model_sync_steps": "not offered: the reference is the model before this run",
        "padding_value": "the checkpoint's own pad token is always used",
        "max_completion_length": "set data.max_length",
        "generate_during_eval": "set the section evaluate",
        "is_encoder_decoder": "A.X models are decoders only; remove it",
        "packing": "set data.packing",
        "packing_strategy": "set data.packing; packs are made over the whole data set",
        "eval_packing": "set data.packing",
        "padding_free": "set data.packing",
        "activation_offloading": "set offload: [activations]",
        "remove_unused_columns": "rows are prepared by axtune",
        "disable_tqdm": "axtune shows its own progress",
        "prediction_loss_only": "evaluations always compute only the loss",
        "deepspeed": "not offered yet",
        "fsdp": "not offered yet",
        "fsdp_config": "not offered yet",
        "parallelism_config": "not offered yet",
        "accelerator_config": "axtune decides how batches are shared out; remove it",
        "debug": "not offered yet",
        "bf16_full_eval": "evaluations have the run's own precision",
        "fp16_full_eval": "evaluations have the run's own precision",
        "auto_find_batch_size": "it would change the batch; `axtune plan` says what fits",
        "dataloader_drop_last": "every sample is trained on; remove it",
        "ignore_data_skip": "a resumed run always goes on where it stopped; remove it",
        "enable_jit_checkpoint": "Ctrl-C and SIGTERM save a checkpoint already; remove it",
        "label_names": "rows are prepared by axtune",
        "length_column_name": "rows are prepared by axtune",
        "optim_target_modules": "it is for training all weights, and axtune trains adapters",
        "router_aux_loss_coef": "A.X models have no experts; remove it",
        "do_train": "a run always trains; remove it",
        "do_eval": "set data.eval",
        "do_predict": "a run makes no predictions; remove it",
        "local_rank": "the launcher sets it; remove it",
        "hub_token": "a token would travel with the run folder; use `hf auth login`",
        "push_to_hub_token": "a token would travel with the run folder; use `hf auth login`",
    },
    "lora": {
        "task_type": "it is always CAUSAL_LM; remove it",
        "peft_type": "it is always LORA; remove it",
        "base_model_name_or_path": "set model at the top of the recipe",
        "inference_mode": "it is not for training; remove it",
        "auto_mapping": "it is not for training; remove it",
        "revision": "set revision at the top of the recipe",
    },
    "quantization": {
        "load_in_8bit": "axtune trains on 4-bit bases; set load_in_4bit: true",
        "quant_method": "it is always bitsandbytes; remove it",
    },
}

# Names that other versions and other tools have, and what they are here.
_FORMER = {
    "warmup_ratio": "set warmup_steps: below 1 it is a fraction of all steps",
    "evaluation_strategy": "it is named eval_strategy",
    "group_by_length": "set train_sampling_strategy: group_by_length",
    "max_seq_length": "set data.max_length",
    "max_prompt_length": "set data.max_length",
    "num_epochs": "it is named num_train_epochs",
    "epochs": "it is named num_train_epochs",
    "lr": "it is named learning_rate",
    "batch_size": "it is named per_device_train_batch_size",
    "no_cuda": _FORCE_CPU,
    "overwrite_output_dir": "set another output_dir; a finished run is never overwritten",
    "logging_dir": "metrics.jsonl, report.html and TensorBoard's logs are in the run folder; "
    "remove it, or set TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always safetensors; remove it",
}

# So many known names are listed; of more, only those that are like the unknown one.
_FEW = 20

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}

# Module and class whose fields a section passes to, read from source: importing them costs seconds.
_PASSED: dict[str, tuple[tuple[str, str], ...]] = {
    "lora": (("peft.tuners.lora.config", "LoraConfig"), ("peft.config", "PeftConfig")),
    "training": (
        ("trl.trainer.base_config", "_BaseConfig"),
        ("transformers.training_args", "TrainingArguments"),
    ),
    "quantization": (("transformers.utils.quantization_config", "BitsAndBytesConfig"),),
}

SECTIONS = tuple(_PASSED)


@lru_cache
def passed_names(section: str, *configs: tuple[str, str]) -> dict[str, str]:
    """The names that the installed libraries accept in a pass-through section.

    Read from the libraries' source by `ast`, so that no torch is imported.

    Args:
        section: ``lora``, ``training`` or ``quantization``.
        configs: Of ``training``, module and class of the tasks' own configurations.

    Returns:
        Field names of the dataclass and its bases, or the parameters of its ``__init__``, each
        with its annotation; empty where there is none.
    """
    names: dict[str, str] = {}
    for module, class_name in configs + _PASSED[section]:
        package, _, rest = module.partition(".")
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # an axtune without its training packages
            return {}
        path = Path(spec.origin).parent.joinpath(*rest.split(".")).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        names.setdefault(item.target.id, ast.unparse(item.annotation))
                    elif isinstance(item, ast.FunctionDef) and item.name == "__init__":
                        names.update((arg.arg, "") for arg in item.args.args if arg.arg != "self")
    return {name: kind for name, kind in names.items() if not name.startswith("_")}


def check_passed(section: str, given: dict[str, Any], task: str) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the names and values of a section.

    Args:
        section: One of `SECTIONS`.
        given: Its keys and values.
        task: Whose section it is; for one that there is not, the names of every task will do.

    Yields:
        The key, a fault's code, and its message.
    """
    known = [OBJECTIVES[task]] if task in OBJECTIVES else OBJECTIVES.values()
    configs = (one.config for one in known) if section == "training" else ()
    names = passed_names(section, *configs)
    for name, value in given.items():
        if remedy := _OWNED[section].get(name):
            yield name, "not-here", f"{remedy}."
        elif names and name not in names:
            former = _FORMER.get(name) if section == "training" else None
            message = f"no such key; {former}." if former else nearest(name, names)
            yield name, "unknown-key", message
        elif wrong := _wrong_kind(value, names.get(name, "")):
            yield name, "bad-value", wrong


def nearest(name: str, known: Iterable[str]) -> str:
    """A message for an unknown key, with the known one that it is most like."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"no such key; did you mean {close[0]}?"
    few = len(names) <= _FEW
    return f"no such key; {'known: ' + ', '.join(names) if few else 'remove it'}."


def _wrong_kind(value: Any, annotation: str) -> str | None:
    """What is wrong with a passed value, as far as a plain annotation such as ``int | None`` says.

    The libraries' dataclasses take any value, and fail on a wrong one long after.
    """
    if isinstance(value, (list, dict)):
        items = value.values() if isinstance(value, dict) else value
        if any(_wrong_kind(item, "") for item in items):
            return "expected strings, numbers, true, false or null."
    elif not isinstance(value, (str, int, float, type(None))):
        return "expected a string, a number, true, false or null."
    kinds = annotation.removeprefix("Optional[").removesuffix("]").split(" | ")
    if isinstance(value, str) and any(kind.startswith("dict") for kind in kinds):
        return "expected a mapping of keys."  # never the file's name that the libraries take too
    if not all(kind in (*_KINDS, "None") for kind in kinds):
        return None
    if value is None and ("None" in kinds or annotation.startswith("Optional[")):
        return None
    if any(isinstance(value, _KINDS[k]) for k in kinds if k != "None") and (
        "bool" in kinds or not isinstance(value, bool)
    ):
        return None
    expected = " or ".join(kind for kind in kinds if kind != "None")
    return f"expected {expected}{'; remove the key for its default' if value is None else ''}."
