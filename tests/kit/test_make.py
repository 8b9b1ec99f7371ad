"""A kit holds what it says, is refused when a byte differs, and installs without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import kits
from support.kits import PYTHON

from axtune.errors import AxtuneError, UnreachableError
from axtune.kit import make as module
from axtune.kit import wheels
from axtune.kit.make import Kit, Wanted, make

WANTED = Wanted(PYTHON, cuda=False, vllm=True, models=("tiny-ax-4.0",), without=("beta",))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    kits.index(tmp_path, monkeypatch)
    return make(tmp_path / "kit", WANTED)


def install(
    kit: Path, target: Path, within: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*within, "bash", str(kit / "install.sh"), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHON": sys.executable, "QUICKSTART": "no"} | environment,
    )


def test_the_manifest_lists_every_file_with_its_digest(made: Kit) -> None:
    said = json.loads((made.folder / "manifest.json").read_text("utf-8"))
    assert said["python"] == PYTHON
    assert said["build"] == "CPU"
    assert said["without"] == ["beta"]
    assert said["models"] == [
        {"name": "tiny-ax-4.0", "folder": "models/tiny-ax-4.0", "commit": None}
    ]
    there = {str(one.relative_to(made.folder)) for one in made.folder.rglob("*") if one.is_file()}
    assert there == said["files"].keys() | {"manifest.json", "MANIFEST.sha256"}
    assert made.files == len(there)
    assert {"wheels/alpha-1.0-py3-none-any.whl", "wheels/axtune-0.1.0-py3-none-any.whl"} < there
    assert "wheels/beta-1.0-py3-none-any.whl" not in there
    for name, entry in said["files"].items():
        assert entry["sha256"] == wheels.sha256(made.folder / name)
    listed = (made.folder / "requirements" / "axtune.txt").read_text("utf-8")
    assert "alpha==1.0 \\\n" in listed
    assert "axtune==0.1.0 \\\n" in listed
    assert "beta" not in listed


def test_a_changed_and_a_missing_file_are_named_before_anything_is_installed(
    made: Kit, tmp_path: Path
) -> None:
    wheel = made.folder / "wheels" / "alpha-1.0-py3-none-any.whl"
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    (made.folder / "models/tiny-ax-4.0/config.json").unlink()
    done = install(made.folder, tmp_path / "there")
    assert done.returncode == 1
    assert "wheels/alpha-1.0-py3-none-any.whl has changed since the kit was made" in done.stderr
    assert "models/tiny-ax-4.0/config.json is missing" in done.stderr
    assert done.stderr.count("\n") == 4
    assert not (tmp_path / "there").exists()


def test_a_kit_for_another_python_says_which_it_needs(made: Kit, tmp_path: Path) -> None:
    script = made.folder / "install.sh"
    script.write_text(script.read_text("utf-8").replace(f"version={PYTHON}", "version=3.99"))
    manifest = made.folder / "MANIFEST.sha256"
    kept = [line for line in manifest.read_text("utf-8").splitlines() if "install.sh" not in line]
    manifest.write_text("\n".join(kept) + "\n")
    done = install(made.folder, tmp_path / "there")
    assert done.returncode == 1
    assert f"is of {PYTHON} Linux x86_64; the kit is for 3.99 Linux x86_64." in done.stderr


def test_a_folder_of_something_else_is_not_installed_into(made: Kit, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.docx").touch()
    done = install(made.folder, tmp_path / "there")
    assert done.returncode == 1
    assert "is there already and is not of a kit" in done.stderr


def test_without_a_home_it_asks_for_a_folder(made: Kit) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        ["bash", str(made.folder / "install.sh")], capture_output=True, text=True, env=bare,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "HOME: give a folder: bash install.sh FOLDER" in done.stderr


@pytest.mark.slow
def test_it_installs_where_there_is_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ("unshare", "--map-root-user", "--net")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives a user no network namespace")
    kits.index(tmp_path, monkeypatch)
    kit = make(tmp_path / "kit", Wanted(PYTHON, False, False, ("tiny-ax-4.0",), ()))
    shutil.rmtree(tmp_path / "index")
    target = tmp_path / "there and back"
    done = install(kit.folder, target, alone)
    assert done.returncode == 0, done.stderr
    assert f"model={target}/models/tiny-ax-4.0" in done.stdout
    subprocess.run([target / ".venv/bin/python", "-c", "import alpha, beta, axtune"], check=True)
    assert (target / "recipes/sft_lora.yaml").is_file()
    assert (target / "env.sh").is_file()


def test_what_was_downloaded_is_kept_when_the_index_fails_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kits.index(tmp_path, monkeypatch)
    monkeypatch.setattr(wheels, "_AT_ONCE", 1)
    beta = tmp_path / "index" / "beta-1.0-py3-none-any.whl"
    beta.rename(tmp_path / "beta")
    wanted = Wanted(PYTHON, cuda=False, vllm=False, models=(), without=())
    with pytest.raises(UnreachableError, match="beta"):
        make(tmp_path / "kit", wanted)
    assert not (tmp_path / "kit").exists()
    (tmp_path / "beta").rename(beta)
    (tmp_path / "index" / "alpha-1.0-py3-none-any.whl").unlink()
    assert make(tmp_path / "kit", wanted).folder == tmp_path / "kit"
    assert (tmp_path / "kit/wheels/alpha-1.0-py3-none-any.whl").is_file()


def test_what_an_interrupted_kit_of_more_left_is_not_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kits.index(tmp_path, monkeypatch)
    broken = UnreachableError("The index does not answer.", "Try again.")
    more = Wanted(PYTHON, False, True, ("tiny-ax-4.0",), ())

    def fail(folder: Path) -> None:
        raise broken

    with monkeypatch.context() as patch:
        patch.setattr(module.contents, "copy_pages", fail)
        with pytest.raises(UnreachableError):
            make(tmp_path / "kit", more)
    make(tmp_path / "kit", Wanted(PYTHON, False, False, (), ("beta",)))
    assert {file.name for file in (tmp_path / "kit/wheels").iterdir()} == {
        "alpha-1.0-py3-none-any.whl", "axtune-0.1.0-py3-none-any.whl",
    }  # fmt: skip
    assert [file.name for file in (tmp_path / "kit/requirements").iterdir()] == ["axtune.txt"]
    assert not list((tmp_path / "kit").glob("models/*"))


def test_a_package_that_no_lock_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kits.index(tmp_path, monkeypatch)
    with pytest.raises(AxtuneError, match="--without delta"):
        make(tmp_path / "kit", Wanted(PYTHON, False, False, (), ("delta",)))
    assert not (tmp_path / "kit").exists()
