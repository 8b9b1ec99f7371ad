"""Ctrl-C, SIGTERM and SIGHUP wherever they come: exit status, a line, nothing half-written."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest
from support.signalled import Case, run
from support.tiny import write_rows

pytestmark = pytest.mark.slow

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
SIGNALS = list(STATUS)

# Before the first step there is nothing to go on from.
BEFORE = {
    "data": "axtune.data.pipeline:RowChecker.check",
    "model": "axtune.run:load_model",
    "trial step": "axtune.training.trainer:RunTrainer.rehearse",
}
# From the first step on there is a checkpoint; the calls are those of the second step or epoch.
WITHIN = {
    "step": ("axtune.training.trainer:RunTrainer.training_step", 3),
    "evaluation": ("axtune.training.trainer:RunTrainer.prediction_step", 4),
    "adapter": ("axtune.checkpoint.run_dir:RunDir.write_adapter", 1),
}


def training(folder: Path, out: Path, *more: str) -> list[str]:
    rows = write_rows(folder / "rows.jsonl", 8)
    return [
        "train", "recipes/sft_lora.yaml", "model=tiny-ax-4.0", f"data.train={rows}",
        "data.eval=0.5", "data.packing=false", f"output_dir={out}", "lora.r=4",
        "training.per_device_train_batch_size=2", "training.per_device_eval_batch_size=1",
        "training.gradient_accumulation_steps=1", "training.num_train_epochs=2", *more,
    ]  # fmt: skip


def test_before_the_first_step_nothing_is_left(tmp_path: Path) -> None:
    cases = {}
    for place, function in BEFORE.items():
        for number in SIGNALS:
            folder = tmp_path / f"{place} {number}"
            folder.mkdir()
            cases[place, number] = Case(training(folder, folder / "run"), folder, number, function)
    statuses = run(*cases.values())
    for ((place, number), case), status in zip(cases.items(), statuses, strict=True):
        assert status == STATUS[number], (place, case.output)
        assert case.output.rstrip().endswith(f"axtune: stopped by {NAMES[number]}.")
        assert "Traceback" not in case.output
        assert not list(case.scratch.iterdir())


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES.values())
def test_within_training_a_checkpoint_is_kept_and_the_run_goes_on(
    tmp_path: Path, number: int
) -> None:
    cases, resumed = [], []
    for place, (function, call) in WITHIN.items():
        folder, again = tmp_path / place, tmp_path / f"{place} resumed"
        folder.mkdir()
        again.mkdir()
        words = training(folder, folder / "run")
        cases.append(Case(words, folder, number, function, call))
        resumed.append(Case([*words, "resume=true"], again))
    statuses = run(*cases, *resumed)
    assert statuses == [STATUS[number]] * len(cases) + [0] * len(cases), cases[0].output
    for case, again in zip(cases, resumed, strict=True):
        assert "Traceback" not in case.output + again.output
        assert "Go on with the same command and resume=true" in case.output
        assert case.output.rstrip().endswith(f"axtune: stopped by {NAMES[number]}.")
        assert not list(case.scratch.iterdir())
        assert (case.folder / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_merging_and_exporting_leave_nothing_behind(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    base = Case(training(made, made / "run"), made)
    cases = []
    for number in SIGNALS:
        for command in (["merge"], ["export", "--to", "vllm"], ["export", "--to", "gguf"]):
            folder = tmp_path / f"{' '.join(command)} {number}"
            folder.mkdir()
            words = [*command, str(made / "run"), "--out", str(folder / "out" / "it")]
            cases.append(Case(words, folder, number, "os:pwrite", 3))
    assert run(base, *cases) == [0, *(STATUS[case.number] for case in cases)]
    for case in cases:
        assert case.output.rstrip().endswith(f"axtune: stopped by {NAMES[case.number]}.")
        assert "Traceback" not in case.output
        assert not list((case.folder / "out").iterdir())


def test_a_rounding_export_says_from_which_layer_the_same_command_goes_on(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    cases, again = [], []
    kinds = {"4 bit": ["--to", "vllm", "--bits", "4"]}
    if importlib.util.find_spec("llama_cpp"):
        kinds["q4_k_m"] = ["--to", "gguf", "--dtype", "q4_k_m"]
    for number in SIGNALS:
        for kind, how in kinds.items():
            folder = tmp_path / f"{kind} {number}"
            words = ["export", "tiny-ax-4.0", *how, "--calibrate", str(rows)]
            words += ["--out", str(folder / "out")]
            place = "axtune.weights.decoder:Decoder.layer"
            cases.append(Case(words, folder, number, place, 3))
            again.append(Case(words, folder / "again"))
    assert run(*cases) == [STATUS[case.number] for case in cases]
    assert run(*again) == [0] * len(again)
    for case, after in zip(cases, again, strict=True):
        assert case.output.splitlines()[-3:] == [
            "It was at layer 3 of 4.",
            f"What was done is kept in {case.folder / '.out.partial'}; the same command goes on.",
            f"axtune: stopped by {NAMES[case.number]}.",
        ]
        assert "from layer 3 of 4 computed in" in after.output
        assert not list(case.scratch.iterdir())
