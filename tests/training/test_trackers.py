"""Where trackers log, and what is said when one fails."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from transformers.integrations.integration_utils import TensorBoardCallback

from axtune.checkpoint.run_dir import RunDir
from axtune.training.trackers import failed, log_into


def raised(code: str, module: str) -> BaseException:
    """What code of a module raises when it is called."""
    made = ModuleType(module)
    exec(code, made.__dict__)
    try:
        made.__dict__["fail"]()
    except Exception as error:
        return error
    raise AssertionError


def test_an_error_in_a_trackers_code_has_its_name() -> None:
    code = "def fail():\n    raise ValueError('not logged in')"
    assert failed(raised(code, "mlflow.store.tracking")) == "mlflow"
    assert failed(raised(code, "axtune.training")) is None
    assert failed(ValueError()) is None
    through = "import json\ndef fail():\n    json.loads('{')"
    assert failed(raised(through, "trackio.run")) == "trackio"


def test_tensorboard_logs_into_the_run_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.integrations.integration_utils.is_tensorboard_available", lambda: True
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("x"))
    sys.modules["torch.utils.tensorboard"].SummaryWriter = object  # type: ignore[attr-defined]
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    inside = TensorBoardCallback()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "elsewhere")
    outside = TensorBoardCallback()
    log_into(RunDir(tmp_path / "run", None), [inside, outside])
    assert inside.logging_dir == str(tmp_path / "run" / "logs")
    assert outside.logging_dir == "elsewhere"
