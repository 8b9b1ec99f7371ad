"""Damaged files of checkpoints and adapters: a sentence or an answer, never a traceback or a hang.

Each case damages one file of a sound folder and gives it to what opens such files. As many cases as
the environment variable AXTUNE_FUZZ_CASES says are tried; every seventh goes through the slow
commands as well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.adapters import adapter_for, sharded_checkpoint
from support.fuzz import damaged_header, damaged_json
from support.tiny import LIBRARY_WARNINGS, RECIPES, checkpoint

from axtune.checkpoint import locate
from axtune.checkpoint.base import find_base
from axtune.checkpoint.provenance import base_facts, original_digests, unquantized
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config import loader
from axtune.errors import AxtuneError
from axtune.export.export import export
from axtune.model.adapter import load_adapter
from axtune.model.load import load_model, quantization_of
from axtune.model.shapes import skeleton
from axtune.plan.architecture import read_architecture, trained_by
from axtune.plan.estimate import as_quantized, from_length
from axtune.verify.doctor import examine
from axtune.weights.lora_delta import open_adapter
from axtune.weights.merge import merge, plan
from axtune.weights.quantized_base import quantize
from axtune.weights.safetensors_file import read_checkpoint

pytestmark = LIBRARY_WARNINGS

CASES = int(os.environ.get("AXTUNE_FUZZ_CASES", "400"))

SLOW_EVERY = 7

Step = Callable[[], object]


class Folders:
    """A sound checkpoint, one in shards, a quantised one, and an adapter; files of all are damaged.

    Attributes:
        root: Where they lie.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = checkpoint(root / "base").folder
        self.sharded = sharded_checkpoint(root / "sharded").folder
        self.adapter = adapter_for(locate.find(str(self.base)), root / "adapter")
        self.quantized = root / "quantized"
        quantize(str(self.base), self.quantized)
        self.out = root / "out"
        self.recipe = loader.load(
            RECIPES / "sft_lora.yaml", [f"model={self.base}"], check_paths=False
        )

    def targets(self) -> list[tuple[Path, Callable[[], Iterator[Step]]]]:
        """Files, and what opens them."""
        return [
            (self.adapter / "adapter_config.json", self._adapter),
            (self.adapter / "adapter_model.safetensors", self._adapter),
            (self.base / "config.json", self._checkpoint),
            (self.base / "generation_config.json", self._checkpoint),
            (self.base / "model.safetensors", self._checkpoint),
            (self.sharded / "model.safetensors.index.json", self._shards),
            (self.quantized / "config.json", self._quantized),
            (self.quantized / "axtune.json", self._quantized),
        ]

    def _adapter(self) -> Iterator[Step]:
        yield lambda: open_adapter(self.adapter)
        yield lambda: find_base(None, None, self.adapter)
        yield lambda: plan([self.adapter], str(self.base))
        yield lambda: export(self.adapter, self.out, to="adapter", base=str(self.base))
        yield lambda: merge([self.adapter], str(self.base), self.out)
        yield lambda: load_adapter(self._model(self.base), self.adapter)

    def _checkpoint(self) -> Iterator[Step]:
        yield lambda: locate.find(str(self.base))
        yield lambda: read_checkpoint(self.base)
        yield self._planned
        yield lambda: plan([self.adapter], str(self.base))
        yield lambda: merge([self.adapter], str(self.base), self.out)
        yield lambda: skeleton(locate.find(str(self.base)))
        yield lambda: examine(locate.find(str(self.base)))
        yield lambda: self._model(self.base)
        yield lambda: export(str(self.base), self.out, to="vllm")
        yield lambda: export(str(self.base), self.out, to="gguf")
        yield lambda: quantize(str(self.base), self.out)

    def _shards(self) -> Iterator[Step]:
        yield lambda: locate.find(str(self.sharded))
        yield lambda: read_checkpoint(self.sharded)
        yield lambda: plan([], str(self.sharded))
        yield lambda: export(str(self.sharded), self.out, to="hf")
        yield lambda: examine(locate.find(str(self.sharded)))
        yield lambda: self._model(self.sharded)

    def _quantized(self) -> Iterator[Step]:
        yield lambda: original_digests(locate.find(str(self.quantized)))
        yield lambda: base_facts(locate.find(str(self.quantized)), None)
        yield lambda: quantization_of(locate.find(str(self.quantized)), None, "bf16")
        yield lambda: as_quantized(self.recipe, locate.find(str(self.quantized)))
        yield lambda: unquantized(locate.find(str(self.quantized)))
        yield lambda: merge([self.adapter], str(self.quantized), self.out)
        yield lambda: self._model(self.quantized)

    def _planned(self) -> None:
        found = locate.find(str(self.base))
        trained_by(read_architecture(found.config, found.name), self.recipe.lora)
        from_length(self.recipe, found, 64)

    def _model(self, folder: Path) -> object:
        found = locate.find(str(folder))
        return load_model(found, load_tokenizer(found), precision="bf16")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("fuzz"))


@contextmanager
def limit(seconds: int, case: str) -> Iterator[None]:
    """Fails what takes longer."""

    def too_long(*_: object) -> None:
        pytest.fail(f"{case} takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_damaged_files_are_a_sentence_or_an_answer(folders: Folders) -> None:
    found = folders.targets()
    refused = answered = 0
    for case in range(CASES):
        draw = random.Random(case)
        file, steps = found[case % len(found)]
        sound = file.read_bytes()
        damage = damaged_header if file.suffix == ".safetensors" else _json
        file.write_bytes(damage(sound, draw))
        fast = 3 if (case // len(found)) % SLOW_EVERY else None
        try:
            for number, step in enumerate(list(steps())[:fast]):
                with limit(60, f"case {case}, {file.name}, step {number}"):
                    try:
                        step()
                        answered += 1
                    except AxtuneError:
                        refused += 1
                        assert not folders.out.exists(), f"case {case} left a folder"
                    except Exception as error:
                        kept = Path(os.environ.get("AXTUNE_FUZZ_KEEP", str(folders.root))) / "case"
                        kept.write_bytes(file.read_bytes())
                        error.add_note(f"case {case}: {file.name}, step {number}; kept as {kept}")
                        raise
                shutil.rmtree(folders.out, ignore_errors=True)
        finally:
            file.write_bytes(sound)
    left = {path.name for path in folders.root.iterdir()}
    assert left == {"base", "sharded", "adapter", "quantized"}
    print(f"{CASES} damaged files: {refused} refusals, {answered} answers, no traceback")
    assert refused


def _json(raw: bytes, draw: random.Random) -> bytes:
    return damaged_json(raw.decode(), draw)


def test_sound_files_are_answered(folders: Folders) -> None:
    for _, steps in folders.targets():
        for step in steps():
            step()
            shutil.rmtree(folders.out, ignore_errors=True)
