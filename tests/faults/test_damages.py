"""Damaged files of a run: each is named before it is used, and the next older one is taken."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.broken_runs import FULL, outcome
from support.tiny import LIBRARY_WARNINGS, checkpoint, recipe

from axtune.checkpoint import locate
from axtune.checkpoint.record import RECORD
from axtune.checkpoint.run_dir import claim, open_run
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config.recipe import Recipe
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.adapter import load_adapter
from axtune.model.load import load_model
from axtune.run import train
from axtune.training import reference_logps
from axtune.weights.lora_delta import open_adapter
from axtune.weights.merge import merge
from axtune.weights.quantized_base import quantize

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

LEAST = 100
ROUNDS = 2 if FULL else 1  # flips and cuts at other places


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def blank(file: Path, draw: random.Random) -> None:
    """A block that was never written, as after a power cut."""
    content = bytearray(file.read_bytes())
    start = draw.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    content[start] ^= 1
    file.write_bytes(content)


def lose(file: Path, draw: random.Random) -> None:
    file.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": flip, "cut": cut, "blank": blank, "lose": lose
}  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A finished run with three checkpoints."""
    made = recipe(
        tmp_path_factory.mktemp("damages"), data={"eval": 0.25},
        training={"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "save_total_limit": 3},
    )  # fmt: skip
    train(made)
    return made


@pytest.fixture
def broken(job: Recipe, tmp_path: Path) -> Recipe:
    """A copy of it that may be damaged; it had not yet finished."""
    shutil.copytree(job.output_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapter")
    restate(tmp_path / "run", "interrupted")
    return job.model_copy(update={"output_dir": str(tmp_path / "run"), "resume": True})


def restate(run: Path, status: str) -> None:
    """Let a run's manifest say that it ended otherwise."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    text = json.dumps({**manifest, "status": status}, ensure_ascii=False, indent=2)
    (run / "manifest.json").write_text(text + "\n", encoding="utf-8")


def files_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != "README.md")


def damages(names: list[str]) -> list[tuple[str, str, int]]:
    return [(name, kind, turn) for name in names for kind in DAMAGES for turn in range(ROUNDS)]


def test_every_damage_of_a_checkpoint_is_named_and_the_older_one_taken(broken: Recipe) -> None:
    checkpoints = Path(broken.output_dir) / "checkpoints"
    newest, older = checkpoints / "checkpoint-3", checkpoints / "checkpoint-2"
    assert claim(broken).resumes_from == newest
    tried = damages(files_of(newest))
    for name, kind, turn in tried:
        file, draw = newest / name, random.Random(f"{name} {kind} {turn}")
        whole = file.read_bytes()
        DAMAGES[kind](file, draw)
        claimed = claim(broken)
        if name == RECORD and kind == "flip" and claimed.resumes_from == newest:
            pass  # white space, which says nothing
        else:
            assert claimed.resumes_from == older, (name, kind)
            assert name in claimed.notes[0], (name, kind)
            with pytest.raises(AxtuneError, match=name):
                open_run(broken.output_dir)
        file.write_bytes(whole)
    assert len(tried) >= 11 * 4 * ROUNDS
    for name in ("adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json"):
        whole = (newest / name).read_bytes()
        shutil.copyfile(older / name, newest / name)  # another step's
        assert name in claim(broken).notes[0]
        (newest / name).write_bytes(whole)
    shutil.rmtree(newest)
    shutil.copytree(older, newest)  # another step's, all of it
    assert "of step 2" in claim(broken).notes[0]


def test_a_damaged_run_goes_on_to_the_bits_of_a_whole_one(job: Recipe, broken: Recipe) -> None:
    folder = Path(broken.output_dir)
    flip(folder / "checkpoints" / "checkpoint-3" / "adapter_model.safetensors", random.Random(1))
    (folder / "checkpoints" / "checkpoint-2" / "trainer_state.json").write_text("{")
    train(broken)
    assert outcome(folder) == outcome(Path(job.output_dir))
    assert {entry.name for entry in (folder / "checkpoints").iterdir()} >= {
        "checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-3.damaged"
    }  # fmt: skip


def test_a_damaged_adapter_is_neither_merged_nor_trained_nor_chatted_with(
    job: Recipe, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(Path(job.output_dir) / "adapter", adapter)
    for name, kind, turn in damages(files_of(adapter)):
        file, draw = adapter / name, random.Random(f"{name} {kind} {turn}")
        whole = file.read_bytes()
        DAMAGES[kind](file, draw)
        # Without its record a folder is taken as it is, like any of PEFT's own.
        if not (name == RECORD and kind in ("lose", "flip")):
            for use in (open_adapter, lambda folder: load_adapter(torch.nn.Module(), folder)):
                with pytest.raises(AxtuneError, match=name):
                    use(adapter)
        file.write_bytes(whole)


@pytest.mark.parametrize("how", ["merged", "nf4"])
def test_a_damaged_folder_is_neither_loaded_nor_written_from(tmp_path: Path, how: str) -> None:
    base = checkpoint(tmp_path / "base")
    folder = tmp_path / how
    if how == "merged":
        merge([], base.name, folder)
    else:
        quantize(base.name, folder)
    found = locate.find(str(folder))
    tokenizer = load_tokenizer(found)
    load_model(found, tokenizer, precision="fp32" if how == "merged" else "bf16")
    for kind in ("flip", "blank"):
        file = folder / "model.safetensors"
        whole = file.read_bytes()
        DAMAGES[kind](file, random.Random(kind))
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was written"):
            load_model(found, tokenizer, precision="fp32" if how == "merged" else "bf16")
        if how == "merged":
            with pytest.raises(CheckpointError, match=r"model\.safetensors is not what"):
                merge([], str(folder), tmp_path / "again")
            assert not (tmp_path / "again").exists()
        file.write_bytes(whole)


def test_damaged_files_beside_the_checkpoints_end_in_no_traceback(broken: Recipe) -> None:
    folder = Path(broken.output_dir)
    for name, kind, turn in damages(["manifest.json", "metrics.jsonl", "recipe.yaml"]):
        file, draw = folder / name, random.Random(f"{name} {kind} {turn}")
        whole = file.read_bytes()
        DAMAGES[kind](file, draw)
        try:
            run_dir = claim(broken)
        except AxtuneError as error:
            said = str(error)
        else:
            assert run_dir.resumes_from is not None  # of these files the checkpoint needs none
            run_dir.metrics()
            said = name
        assert name in said
        file.write_bytes(whole)


def test_a_damaged_cache_of_reference_log_probabilities_is_computed_anew(tmp_path: Path) -> None:
    numbers = {"chosen": [torch.rand(n).numpy() for n in (3, 5)]}
    file = tmp_path / "cache.safetensors"
    reference_logps._write(file, numbers)
    assert reference_logps._read(file, 2) is not None
    whole = file.read_bytes()
    for turn in range(20 * ROUNDS):
        for kind in ("flip", "cut"):
            DAMAGES[kind](file, random.Random(turn))
            assert reference_logps._read(file, 2) is None
            file.write_bytes(whole)


def test_the_damages_are_as_many_as_promised(job: Recipe) -> None:
    folder = Path(job.output_dir)
    names = [*files_of(folder / "checkpoints" / "checkpoint-3"), *files_of(folder / "adapter")]
    assert len(damages(names)) + 40 * ROUNDS >= LEAST
