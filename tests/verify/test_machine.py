"""What `axtune doctor` says of a machine."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import bitsandbytes
import huggingface_hub
import pytest
import torch
from support.commands import axtune_in_process

from axtune.checkpoint import locate
from axtune.plan import estimate
from axtune.verify import machine
from axtune.verify.certificate import Check
from axtune.verify.machine import examine_machine


def named(name: str, part: str | None = None) -> Check:
    return next(
        check for check in examine_machine() if check.name == name and part in (None, check.part)
    )


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_driver", lambda: None)


def test_this_machine_is_fit(no_card: None) -> None:
    checks = examine_machine()
    assert not [check for check in checks if check.status == "fail"]
    assert {check.part for check in checks} == {
        "machine", "card", "host", "disk", "packages", "vLLM", "models", "network"
    }  # fmt: skip
    assert "computes on the CPU" in named("GPU").found
    assert named("4 bit").status == "pass"


def test_a_card_that_torch_does_not_see_is_a_failure(
    no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_driver", lambda: "RTX 4060, driver 560.1")
    found = named("GPU")
    assert found.status == "fail"
    assert "RTX 4060, driver 560.1" in found.found
    assert "pytorch.org" in found.remedy


def test_a_card_that_is_in_use_and_knows_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda n=0: (5_000_000_000, 15_000_000_000))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n=0: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda n=0: (7, 5))
    monkeypatch.setattr(machine, "_is_wsl", lambda: True)
    checks = list(machine._card())
    assert [check.status for check in checks] == ["warn", "warn", "pass", "warn"]
    assert "holds 10.00 GB" in checks[0].remedy
    assert "Sysmem" in checks[3].remedy


def test_bitsandbytes_that_computes_wrong_numbers(
    no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bitsandbytes.functional, "dequantize_4bit", lambda packed, state: torch.zeros(64, 64)
    )
    assert named("4 bit").status == "fail"
    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", lambda *_, **__: 1 / 0)
    assert named("4 bit").status == "warn"


def test_little_memory_and_little_room(no_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "free_memory", lambda: 3e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000_000))
    assert named("memory").status == "warn"
    assert named("here", "disk").status == "warn"
    assert "20.00 GB" in named("here", "disk").remedy


def test_a_place_that_cannot_be_looked_into_is_a_warning(
    no_card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(file))
    assert (named("models", "disk").status, named("cache").status) == ("warn", "skip")
    exists = Path.exists

    def barred(path: Path) -> bool:
        if path.name == "barred":
            raise PermissionError(13, "Permission denied")
        return exists(path)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "barred"))
    monkeypatch.setattr(Path, "exists", barred)
    assert str(tmp_path / "barred") in named("models", "disk").found

    def none_there() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", none_there)
    monkeypatch.setenv("TMPDIR", str(file))
    assert named("temporary").status == "warn"


def test_vllm_is_named_with_its_version(
    no_card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib/python3.12/site-packages/vllm-0.32.0+cpu.dist-info").mkdir(parents=True)
    monkeypatch.setattr("axtune.verify.vllm.find_vllm", lambda: tmp_path / "bin/vllm")
    assert named("program").found == f"vLLM 0.32.0+cpu at {tmp_path / 'bin/vllm'}"


@pytest.mark.parametrize(("offline", "said"), [("1", "needs a folder"), ("0", "downloads")])
def test_without_a_model_it_says_where_one_comes_from(
    no_card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: str, said: str
) -> None:
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path))
    for name in machine._OFFLINE:
        monkeypatch.setenv(name, offline)
    assert said in named("cache").found


def test_absent_packages_say_what_would_need_them(
    no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = machine.package_version
    monkeypatch.setattr(
        machine, "package_version", lambda name: None if name == "rensa" else known(name)
    )
    found = named("duplicates")
    assert found.status == "skip"
    assert "pip install 'axtune[duplicates]'" in found.found
    assert "data.near_duplicates" in found.found


def test_every_optional_set_of_packages_is_named() -> None:
    file = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    assert set(machine._EXTRAS) == set(project["optional-dependencies"]) - {"test"}


def test_models_in_the_cache_are_whole_or_not(
    no_card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = locate.find("tiny-ax-4.0").folder
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name, leave_out in (("A.X-4.0-Light", ()), ("A.X-3.1-Light", ("model.safetensors",))):
        held = tmp_path / f"models--skt--{name}"
        shutil.copytree(
            like, held / "snapshots" / commit, ignore=shutil.ignore_patterns(*leave_out)
        )
        (held / "refs").mkdir()
        (held / "refs/main").write_text(commit, encoding="utf-8")
        (held / "blobs").mkdir()
    scan, find = huggingface_hub.scan_cache_dir, locate.find
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path))

    def find_there(name: str) -> locate.Checkpoint:
        return find(str(tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / commit))

    monkeypatch.setattr(machine, "find", find_there)
    assert named("skt/A.X-4.0-Light").status == "pass"
    broken = named("skt/A.X-3.1-Light")
    assert broken.status == "warn"
    assert "hf download skt/A.X-3.1-Light" in broken.remedy


def test_switches_are_named_and_a_token_is_never_shown(
    no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary7f3a")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    checks = examine_machine()
    assert "canary7f3a" not in json.dumps([vars(check) for check in checks])
    assert named("token").found == "HF_TOKEN is set"
    assert "HF_HUB_OFFLINE" in named("offline").found
    assert "HF_HUB_DISABLE_TELEMETRY" in named("telemetry").found


def test_what_nvidia_smi_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = SimpleNamespace(stdout="NVIDIA GeForce RTX 4060, 560.35\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: said)
    assert machine._driver() == "NVIDIA GeForce RTX 4060, driver 560.35"


def test_the_command(no_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    done = axtune_in_process("doctor")
    assert done.status == 0
    assert "computes on the CPU" in " ".join(done.out.split())
    listed = json.loads(axtune_in_process("doctor", "--json").out)
    assert {"part", "name", "status", "found", "remedy"} <= listed[0].keys()
    wrong = axtune_in_process("doctor", "--base", "x")
    assert wrong.status == 1
    assert "need a checkpoint" in wrong.err
    monkeypatch.setattr(machine, "_driver", lambda: "RTX 4060, driver 1")
    assert axtune_in_process("doctor").status == 1
