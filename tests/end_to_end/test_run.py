"""Training runs end to end, on the embedded models; every one of them really trains."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.commands import ENVIRONMENT, losses, train_in_processes
from support.tiny import LIBRARY_WARNINGS, RECIPES, checkpoint, recipe, write_rows

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import RunDir
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config import loader
from axtune.data.pipeline import render_row
from axtune.errors import AxtuneError
from axtune.model.load import load_model
from axtune.plan.estimate import from_data, make_plan
from axtune.plan.memory import CPU
from axtune.run import train

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]


def words(job) -> list[str]:
    """The command-line words that make recipes/sft_lora.yaml this job."""
    dump = job.model_dump(mode="json")
    keys = {
        "model": dump["model"],
        "output_dir": dump["output_dir"],
        "precision": dump["precision"],
        "resume": dump["resume"],
        "data.train": dump["data"]["train"][0]["path"],
        "data.eval": dump["data"]["eval"],
        "data.max_length": dump["data"]["max_length"],
        **{f"training.{key}": value for key, value in dump["training"].items()},
        "training.warmup_steps": 0,
        "training.lr_scheduler_type": "linear",
        "training.gradient_checkpointing": True,
    }
    return [f"{key}={json.dumps(value)}" for key, value in keys.items()]


def reloaded(folder: Path, model: str):
    """Base and adapter as a stranger loads them: PEFT on the plain base."""
    found = locate.find(model)
    base = load_model(found, load_tokenizer(found), precision="fp32")
    return PeftModel.from_pretrained(base, str(folder / "adapter")).eval()


def mean_loss(model, rows: Path, tokenizer) -> float:
    """The mean of the rows' own mean losses, as the trainer's eval_loss with one row a batch."""
    total = 0.0
    lines = rows.read_text(encoding="utf-8").splitlines()
    for line in lines:
        (sample,) = render_row(json.loads(line), tokenizer)
        with torch.no_grad():
            ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
            total += model(input_ids=ids, labels=labels).loss.item()
    return total / len(lines)


@pytest.mark.parametrize("name", ["sft_lora", "sft_qlora"])
@pytest.mark.parametrize("model", ["tiny-ax-4.0", "tiny-ax-3.1"])
def test_the_main_job_learns(tmp_path, monkeypatch, model, name):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "chat.jsonl", 16)
    job = loader.load(
        RECIPES / f"{name}.yaml",
        [f"model={model}", "output_dir=out", "data.train=chat.jsonl", "data.eval=null",
         "training.learning_rate=5e-3", "training.gradient_accumulation_steps=4",
         "training.num_train_epochs=4"],
    )  # fmt: skip
    run = train(job)
    curve = losses(tmp_path / "out")
    assert len(curve) == 16
    assert sum(curve[-4:]) < 0.6 * sum(curve[:4])
    assert run.manifest["status"] == "finished"
    assert run.manifest["data"]["train"]["rows_read"] == run.manifest["counts"]["rows"] == 16
    assert {file.name for file in run.path.iterdir()} == {
        "adapter", "checkpoints", "recipe.yaml", "manifest.json", "metrics.jsonl", "loss.png",
        "report.html",
    }  # fmt: skip
    if name == "sft_qlora":
        found = locate.find(model)
        base = load_model(
            found, load_tokenizer(found), precision="bf16", quantization=job.quantization
        )
        kinds = {type(module).__name__ for module in base.modules()}
        assert "Linear4bit" in kinds


def test_a_run_folder_leaks_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", 8, start=7000)

    def refuse(self, address):
        raise AssertionError(f"a run connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    job = recipe(tmp_path, output_dir="out", data={"train": "rows.jsonl", "eval": 0.25})
    train(job)
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(tmp_path).encode() not in content, file
            assert str(Path.home() / ".cache").encode() not in content, file
            assert "비밀".encode() not in content or file.name == "tokenizer.json", file
    adapter = {file.name for file in (tmp_path / "out" / "adapter").iterdir()}
    source = locate.find("tiny-ax-4.0").folder
    tokenizer = {n for n in locate.TOKENIZER_FILES if (source / n).is_file()}
    assert adapter == {
        "adapter_config.json", "adapter_model.safetensors", "README.md", "axtune-files.json",
        *tokenizer,
    }  # fmt: skip
    for name in tokenizer:
        assert (tmp_path / "out" / "adapter" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(
    ("lora", "training"),
    [
        ({}, {}),
        ({"use_dora": True}, {}),
        ({"use_rslora": True}, {}),
        ({"init_lora_weights": "pissa"}, {}),
        ({}, {"neftune_noise_alpha": 5}),
    ],
    ids=["lora", "dora", "rslora", "pissa", "neftune"],
)
def test_the_adapter_on_the_plain_base_gives_the_loss_that_the_run_reports(
    tmp_path, lora, training
):
    rows = write_rows(tmp_path / "held_out.jsonl", 4, start=900)
    data = {"train": str(write_rows(tmp_path / "rows.jsonl", 16)), "eval": str(rows)}
    job = recipe(
        tmp_path, data=data, lora={"r": 8, **lora},
        training={"per_device_eval_batch_size": 1, "eval_strategy": "steps", "eval_steps": 2,
                  **training},
    )  # fmt: skip
    run = train(job)
    assert losses(run.path)[-1] < losses(run.path)[0]
    tokenizer = load_tokenizer("tiny-ax-4.0")
    trained = mean_loss(reloaded(run.path, job.model), rows, tokenizer)
    found = locate.find(job.model)
    before = mean_loss(load_model(found, tokenizer, precision="fp32"), rows, tokenizer)
    assert abs(before - trained) > 0.05  # the adapter changed something
    assert trained == pytest.approx(run.manifest["metrics"]["best_eval_loss"], rel=1e-4)


def test_early_stopping_keeps_the_best_checkpoint_on_disk(tmp_path):
    job = recipe(
        tmp_path,
        data={"train": str(write_rows(tmp_path / "rows.jsonl", 16)),
              "eval": str(write_rows(tmp_path / "held_out.jsonl", 4, start=900))},
        training={"learning_rate": 0.5, "lr_scheduler_type": "constant", "max_steps": 20,
                  "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 1},
        early_stopping_patience=2,
    )  # fmt: skip
    run = train(job)
    curve = losses(run.path, "eval_loss")
    best = min(range(len(curve)), key=curve.__getitem__) + 1
    assert len(curve) < 20  # it stopped, two evaluations after the best one
    assert run.manifest["metrics"]["best_step"] == best == len(curve) - 2
    kept = run.path / "checkpoints" / f"checkpoint-{best}"
    final = load_file(run.adapter / "adapter_model.safetensors")
    for name, tensor in load_file(kept / "adapter_model.safetensors").items():
        assert torch.equal(tensor, final[name])


def test_a_run_that_asks_makes_the_steps_of_one_that_does_not(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 32)
    held_out = write_rows(tmp_path / "held_out.jsonl", 6, start=30)
    changes = {"data": {"train": str(rows), "eval": str(held_out), "packing": True},
               "lora": {"lora_dropout": 0.1},
               "training": {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 6}}  # fmt: skip
    silent = train(recipe(tmp_path, output_dir=str(tmp_path / "silent"), **changes))
    section = {"every": 2, "best": "chrf", "max_new_tokens": 12}
    job = recipe(tmp_path, output_dir=str(tmp_path / "asking"), evaluate=section, **changes)
    asking = train(job)
    assert losses(asking.path) == losses(silent.path)
    assert losses(asking.path, "eval_loss") == losses(silent.path, "eval_loss")
    last = [run.path / "checkpoints" / "checkpoint-6" / "adapter_model.safetensors"
            for run in (silent, asking)]  # fmt: skip
    made, wanted = map(load_file, reversed(last))
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())

    events = [json.loads(line) for line in (asking.path / "metrics.jsonl").read_text().splitlines()]
    figures = {event["step"]: event for event in events if "eval_chrf" in event}
    assert list(figures) == [2, 4, 6]
    assert all(event["eval_exact"] <= 1 and event["eval_answers_seconds"] > 0
               for event in figures.values())  # fmt: skip
    assert all("tokens_per_second" in event for event in events if "loss" in event)
    best = max(figures, key=lambda step: (figures[step]["eval_chrf"], -step))
    metrics = asking.manifest["metrics"]
    assert (metrics["best_step"], metrics["best_eval_chrf"]) == (best, figures[best]["eval_chrf"])
    kept = asking.path / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors"
    final = load_file(asking.adapter / "adapter_model.safetensors")
    assert all(torch.equal(final[name], tensor) for name, tensor in load_file(kept).items())


def test_two_processes_share_the_questions(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 16)
    held_out = write_rows(tmp_path / "held_out.jsonl", 5, start=30)
    asked = {"every": 2, "best": "chrf", "max_new_tokens": 8, "data": str(held_out)}
    figures = []
    for processes, accumulation in ((1, 2), (2, 1)):
        folder = tmp_path / f"on_{processes}"
        job = recipe(
            tmp_path, output_dir=str(folder), data={"train": str(rows)},
            training={"gradient_accumulation_steps": accumulation, "max_steps": 2,
                      "learning_rate": 1e-9},
        )  # fmt: skip
        overrides = [*words(job), f"evaluate={json.dumps(asked)}"]
        if processes == 1:
            train(loader.load(RECIPES / "sft_lora.yaml", overrides))
        else:
            done = train_in_processes(processes, RECIPES / "sft_lora.yaml", overrides)
            assert done.status == 0, done.err
            assert "5 of 1 file" in done.out
        figures.append(losses(folder, "eval_chrf"))
    assert len(figures[0]) == 1
    assert figures[1] == pytest.approx(figures[0], rel=1e-3)


def test_ctrl_c_keeps_a_checkpoint_and_resume_goes_on_to_the_same_curve(tmp_path):
    data = {"train": str(write_rows(tmp_path / "rows.jsonl", 32)), "eval": 0.25}
    cadence = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4}
    whole = recipe(tmp_path, output_dir=str(tmp_path / "whole"), data=data, training=cadence)
    train(loader.load(RECIPES / "sft_lora.yaml", words(whole)))
    command = [sys.executable, "-m", "axtune", str(RECIPES / "sft_lora.yaml")]

    broken = recipe(tmp_path, output_dir=str(tmp_path / "broken"), data=data, training=cadence)
    process = subprocess.Popen(
        [*command, *words(broken)], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 1/8"):
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    folder = tmp_path / "broken"
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    (saved,) = (folder / "checkpoints").iterdir()
    assert str(saved) in output
    assert "resume=true" in output
    stopped = int(saved.name.partition("-")[2])
    assert stopped < 8

    resumed = subprocess.run(
        [*command, *words(broken), "resume=true"], env=ENVIRONMENT, check=True, timeout=200,
        capture_output=True, text=True,
    )  # fmt: skip
    assert f"{stopped} of them done" in resumed.stdout
    assert resumed.stderr == ""
    for name, count in (("loss", 8), ("eval_loss", 2)):
        assert len(losses(folder, name)) == count
        expected = losses(tmp_path / "whole", name)
        assert losses(folder, name) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(AxtuneError, match="already holds a run"):
        train(broken)


@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_give_the_curve_of_one_with_the_same_effective_batch(tmp_path, packing):
    data = {"train": str(write_rows(tmp_path / "rows.jsonl", 32)), "eval": 0.25,
            "packing": packing, "max_length": 40}  # fmt: skip
    curves = []
    for processes, accumulation in ((1, 4), (2, 2)):
        folder = tmp_path / f"on_{processes}"
        job = recipe(
            tmp_path, output_dir=str(folder), data=data,
            training={"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1,
                      "gradient_accumulation_steps": accumulation, "max_steps": 5,
                      "eval_strategy": "steps", "eval_steps": 5},
        )  # fmt: skip
        if processes == 1:
            train(loader.load(RECIPES / "sft_lora.yaml", words(job)))
        else:
            done = train_in_processes(
                processes, RECIPES / "sft_lora.yaml", words(job), loaded=packing
            )
            assert done.status == 0, done.err
            assert done.out.count("steps ") == 1  # one process speaks
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["counts"]["processes"] == processes
        assert manifest["counts"]["effective_batch"] == 4
        curves.append(losses(folder) + losses(folder, "eval_loss"))
    assert len(curves[0]) == 6
    assert curves[0][0] - curves[0][4] > 0.3  # the weights have moved
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_a_process_that_fails_takes_the_others_with_it(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{broken\n", encoding="utf-8")
    job = recipe(tmp_path)
    done = train_in_processes(2, RECIPES / "sft_lora.yaml", words(job))
    assert done.status != 0
    assert done.err.count("rows.jsonl:1: not-json") == 1
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_cannot_be_read_stops_no_run_at_its_end(tmp_path):
    run = train(recipe(tmp_path, training={"max_steps": 1}))
    adapter = (run.adapter / "adapter_model.safetensors").read_bytes()
    (run.path / "evaluation").mkdir()
    (run.path / "evaluation" / "result.json").write_text('{"a":', encoding="utf-8")
    job = recipe(tmp_path, resume=True, training={"max_steps": 1})
    with pytest.raises(AxtuneError, match="cannot be read as JSON") as caught:
        train(job)
    assert caught.value.remedy.startswith(f"Remove {run.path / 'evaluation'};")
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == adapter
    (run.path / "evaluation" / "result.json").unlink()
    assert (train(job).adapter / "adapter_model.safetensors").read_bytes() == adapter


def test_changed_rows_or_batch_are_not_resumed(tmp_path):
    base = str(checkpoint(tmp_path / "base").folder)
    job = recipe(tmp_path, model=base, training={"max_steps": 1})
    train(job)
    other = {"gradient_accumulation_steps": 1, "max_steps": 2}
    with pytest.raises(AxtuneError, match="effective batch: 4 → 2"):
        train(recipe(tmp_path, model=base, resume=True, training=other))
    write_rows(tmp_path / "rows.jsonl", 17)
    with pytest.raises(AxtuneError, match=r"rows\.jsonl has changed"):
        train(recipe(tmp_path, model=base, resume=True, training={"max_steps": 2}))


def test_a_run_that_breaks_says_so_in_its_manifest(tmp_path, monkeypatch):
    from axtune.training.sft import SftTrainer

    def out_of_memory(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(SftTrainer, "training_step", out_of_memory)  # no test fills a card's memory
    job = recipe(tmp_path)
    enough = r"not enough memory, though the plan.*\n.*load_in_4bit=true"
    with pytest.raises(AxtuneError, match=enough):
        train(job)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    assert train(job).manifest["status"] == "finished"  # the folder is free again


@pytest.mark.parametrize("plan", ["refuse", "warn"])
def test_a_run_that_cannot_fit_is_refused_before_its_model_is_loaded(
    tmp_path, monkeypatch, capsys, plan
):
    loaded = []

    def load(*args, **keys):
        loaded.append(args)
        raise AxtuneError("far enough")

    monkeypatch.setattr("axtune.run.load_model", load)
    rows = write_rows(tmp_path / "rows.jsonl", 16)
    job = recipe(
        tmp_path, plan=plan, data={"train": str(rows), "max_length": 256},
        training={"per_device_train_batch_size": 8, "gradient_checkpointing": False},
    )  # fmt: skip
    found = locate.find(job.model)
    known = from_data(job, found, load_tokenizer(found))
    room = make_plan(job, known, CPU).peak - 3e6  # a little more than what recomputing saves
    monkeypatch.setattr("axtune.training.memory_check.free_memory", lambda: room)
    with pytest.raises(AxtuneError) as raised:
        train(job)
    said = capsys.readouterr().out
    assert "by the plan" in said
    if plan == "warn":
        assert raised.value.found == "far enough"
        assert loaded
    else:
        assert not loaded
        said = str(raised.value)
    assert "The run does not fit: it needs" in said
    words = said.partition("with: ")[2].partition(". plan=warn")[0].split()
    assert any(word.startswith("training.per_device_train_batch_size=") for word in words)
    assert not (tmp_path / "run" / "manifest.json").exists()
    monkeypatch.undo()
    smaller = loader.changed(job, [*words, "training.max_steps=1"])
    monkeypatch.setattr("axtune.training.memory_check.free_memory", lambda: room)
    assert train(smaller).manifest["status"] == "finished"


@pytest.mark.parametrize("lora", [{}, {"init_lora_weights": "pissa"}], ids=["lora", "pissa"])
def test_a_run_that_is_made_longer_ends_where_a_long_one_does(tmp_path, lora):
    def job(steps, folder, **changes):
        steady = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": 2,
                  "lr_scheduler_type": "constant"}  # fmt: skip
        return recipe(tmp_path, output_dir=str(folder), training=steady, lora=lora, **changes)

    long, short = tmp_path / "long", tmp_path / "short"
    train(job(4, long))
    train(job(2, short))
    train(job(4, short, resume=True))
    assert losses(short) == pytest.approx(losses(long), rel=1e-5)
    expected = load_file(long / "adapter" / "adapter_model.safetensors")
    for name, tensor in load_file(short / "adapter" / "adapter_model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nobody can create another")
def test_a_folder_that_cannot_be_created_is_a_sentence(tmp_path):
    with pytest.raises(AxtuneError, match="/proc/run cannot be written: No such file"):
        train(recipe(tmp_path, output_dir="/proc/run"))


def test_a_run_whose_adapter_cannot_be_written_is_not_finished(tmp_path, monkeypatch):
    from axtune.model.adapter import Adapter

    def disk_full(self, folder, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Adapter, "save", disk_full)
    with pytest.raises(AxtuneError, match="No space left"):
        train(recipe(tmp_path))
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "failed"
    assert not (tmp_path / "run" / "adapter").exists()
    monkeypatch.undo()
    assert train(recipe(tmp_path, resume=True)).adapter.name == "adapter"


def test_prepared_rows_do_not_outlive_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    train(recipe(tmp_path, training={"max_steps": 1}))
    assert list((tmp_path / "scratch").glob("axtune-*")) == []


def test_tensorboard_logs_into_the_run_and_a_new_beginning_clears_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    training = {"report_to": "tensorboard", "eval_strategy": "steps", "eval_steps": 2}
    job = recipe(tmp_path, data={"eval": 0.25}, training=training)
    run = train(job)
    assert not (run.path / "checkpoints" / "runs").exists()
    (file,) = (run.path / "logs").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = events.EventAccumulator(str(file)).Reload()
    assert [one.step for one in written.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [one.step for one in written.Scalars("eval/loss")] == [2, 4]
    run_dir = RunDir(run.path, None)
    run_dir.begin(job, {})
    assert not (run.path / "logs").exists()
