"""The certificate measures: right merges pass, wrong ones fail, and nothing is taken on trust."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.adapters import adapter_for, run_with, sharded_checkpoint
from support.rows import chat, write_jsonl
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint.locate import Checkpoint
from axtune.errors import AxtuneError
from axtune.export.export import export
from axtune.verify.certificate import Certificate, Check
from axtune.verify.verify import verify
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return run_with(adapter_for(base, folder / "adapter"), base, folder / "run")


def find(certificate: Certificate, part: str) -> dict[str, Check]:
    return {check.name: check for check in certificate.checks if check.part == part}


@pytest.mark.parametrize("to", ["merge", "vllm", "hf"])
def test_a_right_checkpoint_passes(base: Checkpoint, run: Path, to: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if to == "merge":
        merge([run], None, out)
    else:
        export(run, out, to=to)
    certificate = verify(out, adapter=run)
    assert certificate.passed
    logits = find(certificate, "logits")
    figures = logits["base + adapter"].figures
    assert figures["spread"] < figures["bound"] / 4
    # Random weights come near ties, which rounding to 16 bit may swap.
    assert figures["greedy_equal"] + figures["greedy_ties"] == figures["prompts"] == 4
    assert figures["greedy_equal"] >= 3
    assert logits["adapter"].status == "pass"
    assert json.loads((out / "certificate.json").read_text())["passed"] is True


def test_data_that_is_not_there_is_said(base: Checkpoint, run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    file = moved / "recipe.yaml"
    file.write_text(file.read_text().replace("rows.jsonl", "gone.jsonl"))
    export(moved, tmp_path / "out", to="vllm")
    (said,) = find(verify(tmp_path / "out", adapter=moved), "data").values()
    assert said.status == "skip"
    assert said.found.startswith("gone.jsonl cannot be found from here")
    assert not find(verify(tmp_path / "out", adapter=run), "data")


def test_in_float32_only_noise_is_left(base: Checkpoint, run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", to="vllm", dtype="float32")
    figures = find(verify(tmp_path / "out", adapter=run), "logits")["base + adapter"].figures
    assert figures["spread"] < 1e-5


def test_the_bare_base_and_another_adapter_fail(
    base: Checkpoint, run: Path, tmp_path: Path
) -> None:
    export(str(base.folder), tmp_path / "bare")
    assert verify(tmp_path / "bare", against=str(base.folder)).passed
    assert not verify(tmp_path / "bare", adapter=run).passed
    other = adapter_for(base, tmp_path / "other", seed=2)
    merge([other], str(base.folder), tmp_path / "merged")
    assert verify(tmp_path / "merged", against=str(base.folder), adapter=other).passed
    far = find(verify(tmp_path / "merged", adapter=run), "logits")["base + adapter"]
    assert far.status == "fail"
    assert "tie" not in far.found  # so far away, nothing is a matter of rounding


def test_one_changed_tensor_fails(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", to="vllm")
    name = "model.layers.1.mlp.up_proj.weight"
    files = (tmp_path / "out").glob("*.safetensors")
    shard = next(file for file in files if name in load_file(file))
    tensors = load_file(shard)
    save_file(tensors | {name: tensors[name] * 1.5}, shard)
    assert find(verify(tmp_path / "out", adapter=run), "logits")["base + adapter"].status == "fail"


def test_an_adapter_that_does_nothing_cannot_be_told(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(t) for name, t in load_file(file).items()}, file)
    merge([adapter], str(base.folder), tmp_path / "merged")
    certificate = verify(tmp_path / "merged", against=str(base.folder), adapter=adapter)
    assert certificate.passed
    assert find(certificate, "logits")["adapter"].status == "warn"


@pytest.mark.parametrize("into", ["16bit", "nf4"])
def test_of_a_qlora_run_both_are_measured(base: Checkpoint, into: Any, tmp_path: Path) -> None:
    run = run_with(adapter_for(base, tmp_path / "adapter"), base, tmp_path / "run", NF4)
    merge([run], None, tmp_path / "merged", into=into)
    certificate = verify(tmp_path / "merged", adapter=run)
    assert certificate.passed
    logits = find(certificate, "logits")
    near, far = "16-bit base + adapter", "nf4 base + adapter"
    if into == "nf4":
        near, far = far, near
    assert logits[near].figures["spread"] < logits[near].figures["bound"] / 4
    assert logits[far].figures["spread"] > 2 * logits[near].figures["spread"]
    assert "not what this was merged into" in logits[far].found


def test_broken_files_are_reported_and_not_run(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out", to="vllm")
    (tmp_path / "out" / "generation_config.json").write_text('{"eos_token_id": 0}')
    certificate = verify(tmp_path / "out", adapter=run)
    assert not certificate.passed
    assert find(certificate, "logits") == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"folder": "absent"}, "There is no folder absent"),
        ({"folder": "{run}/adapter"}, "is an adapter, not a checkpoint"),
        ({"adapter": "{base}"}, "is neither a run folder nor an adapter folder"),
        ({"against": "absent"}, "There is no model absent"),
        ({"data": ["absent.jsonl"]}, "absent.jsonl"),
        ({"vllm": "http://127.0.0.1:9"}, "No server answers"),
        ({"vllm": "start"}, "There is no vLLM on this machine"),
    ],
)
def test_mistakes(
    base: Checkpoint,
    run: Path,
    words: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("axtune.verify.verify.examine", None)  # all before the weights are read
    monkeypatch.setattr("axtune.verify.vllm._ENVIRONMENT", Path("nowhere"))
    monkeypatch.setenv("PATH", "")
    given: dict[str, Any] = {"folder": str(base.folder)} | words
    given = {
        key: value.format(run=run, base=base.folder) if isinstance(value, str) else value
        for key, value in given.items()
    }
    with pytest.raises(AxtuneError, match=message):
        verify(**given)
    assert not (base.folder / "certificate.json").exists()


def test_an_adapter_that_names_no_base(base: Checkpoint, tmp_path: Path) -> None:
    adapter = adapter_for(base, tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(AxtuneError, match=r"(?s)does not say which base.*--against"):
        verify(base.folder, adapter=adapter)


# --- a server that is wrong -------------------------------------------------------------------


class _Wrong(BaseHTTPRequestHandler):
    """Answers as a vLLM that took another tokenizer would."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "wrong"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"tokens": [1, 2, 3], "count": 3})

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def wrong_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Wrong)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_with_other_tokens_fails(run: Path, wrong_server: str, tmp_path: Path) -> None:
    export(run, tmp_path / "out", to="vllm")
    rows = write_jsonl(tmp_path / "rows.jsonl", [chat("안녕", "안녕하세요.")])
    certificate = verify(tmp_path / "out", adapter=run, data=[str(rows)], vllm=wrong_server)
    assert not certificate.passed
    assert find(certificate, "vllm")["prompts"].found.startswith("3 of 3 prompts have other ids")
    shutil.rmtree(tmp_path / "out")
