"""The doors, as a user opens them: messages, exit codes, and how little they load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import axtune
from support.rows import ROOT, TEMPLATES, chat, write_jsonl

from axtune import __version__
from axtune.cli import main

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "matplotlib")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["data", "check", str(TEMPLATES / "chat.jsonl"), "--model", "tiny-ax-4.0"],
        ["data", "check", str(TEMPLATES / "alpaca.csv"), "--model", "tiny-ax-3.1", "--json"],
        ["data", "preview", str(TEMPLATES / "hermes.jsonl"), "--model", "tiny-ax-4.0"],
        ["data", "preview", str(TEMPLATES / "preference.jsonl"), "--model", "tiny-ax-4.0"],
        ["plan", "recipes/sft_qlora.yaml", "model=tiny-ax-4.0", "--gpu", "RTX 3060"],
        ["plan", "recipes/dpo_qlora.yaml", "model=tiny-ax-4.0", "--tokens", "2048", "--json"],
        [
            "data",
            "render",
            str(TEMPLATES / "hermes.jsonl"),
            "--model",
            "tiny-ax-4.0",
            "--out",
            "{out}",
        ],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_light_doors_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    words = [word.format(out=tmp_path / "out.jsonl") for word in words]
    code = (
        "import sys\nfrom axtune.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('loaded', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout or "render" in words
    assert done.stderr.splitlines()[-1] == "loaded []"


@pytest.mark.parametrize("words", [["report"], ["merge"], ["data", "check"], ["train"]], ids=str)
def test_a_name_that_is_not_utf8_is_refused_at_the_door(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words, "run\udcff"])
    assert end.value.code == 1
    assert "run\\xff is no name that can be written down" in capsys.readouterr().err


def test_a_folder_that_has_been_removed_is_said_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as end:
        main(["runs"])
    assert end.value.code == 1
    assert "The current folder has been removed." in capsys.readouterr().err


def test_import_axtune_is_light_and_its_names_are_functions() -> None:
    code = (
        "import sys, axtune\n"
        f"assert not set({(*HEAVY, 'tokenizers', 'jinja2', 'pydantic')!r}) & set(sys.modules)\n"
        "from axtune import cli\n"
        "from axtune.data import dataset, pipeline, preview\n"  # they import most of the others
        "for name in set(axtune.__all__) - {'train'}:\n"
        "    assert callable(getattr(axtune, name)), name\n"
        "    assert callable(getattr(axtune, name)), name\n"
        f"assert not set({HEAVY!r}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["data", "check", "none.jsonl", "--model", "tiny-ax-4.0"],
            1,
            "no file, folder or pattern",
        ),
        (["data", "check", "{file}", "--model", "tiny"], 1, "There is no model tiny"),
        (["data", "check", "{file}", "--model", "no such/name"], 1, "form of a Hub id"),
        (["data", "check", "{file}", "--model", "{folder}"], 1, "lacks tokenizer.json"),
        (
            ["data", "check", "{file}", "--model", "tiny-ax-4.0", "--max-length", "0"],
            1,
            "max_length",
        ),
        (["data", "check", "{file}", "--model", "tiny-ax-4.0", "--format", "xml"], 1, "format"),
        (
            ["data", "check", "{file}", "--model", "tiny-ax-4.0", "--control-tokens", "x"],
            2,
            "refuse",
        ),
        (["data", "check"], 2, "Missing argument"),
        (["data", "render", "{file}", "--model", "tiny-ax-4.0"], 2, "--out"),
        (
            ["data", "render", "{file}", "--model", "tiny-ax-4.0", "--out", "{file}"],
            1,
            "files to read",
        ),
        (
            ["data", "render", "{file}", "--model", "tiny-ax-4.0", "--out", "{folder}"],
            1,
            "no plain file",
        ),
        (
            ["data", "render", "{file}", "--model", "tiny-ax-4.0", "--out", "{file}/x"],
            1,
            "cannot be written",
        ),
        (["data", "preview", "{file}", "--model", "tiny-ax-4.0", "-n", "0"], 2, "rows"),
        (["train", "none.yaml"], 1, "none.yaml: unreadable: No such file"),
        (["none.yaml"], 1, "none.yaml: unreadable: No such file"),
        (["train", "recipes/sft_lora.yaml", "lora.rr=3"], 1, "did you mean r?"),
        (["train"], 2, "Missing argument"),
        (["teach"], 2, "No such command"),
    ],
)
def test_misuse_is_said_in_a_sentence(
    tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a")])
    before = file.read_bytes()
    done = axtune(*(word.format(file=file, folder=tmp_path) for word in words))
    assert done.returncode == status
    assert said in done.stderr
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{}] * 5000)
    command = f"{sys.executable} -m axtune data check {file} --model tiny-ax-4.0 | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_an_output_that_is_full_is_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "axtune", "--version"], stdout=full, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("axtune: What this command prints cannot be written: No space")
    assert "Traceback" not in done.stderr


# A system that is not Linux: what axtune would stumble over is not there, the libraries are.
ELSEWHERE = """
import sys, os, typer
sys.platform = {system!r}
del os.O_DIRECT
sys.modules["fcntl"] = None
sys.argv = ["axtune", "data", "check", "data_templates/chat.jsonl"]
"""


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("win32", "axtune: axtune runs on Linux, and this is Windows.\nInstall it in WSL2.\n"),
        (
            "darwin",
            "axtune: axtune runs on Linux, and this is macOS.\nStart it on a Linux machine.\n",
        ),
    ],
)
@pytest.mark.parametrize(
    "door",
    [
        "from axtune.cli import main; main()",
        "from axtune.launch import main; main('recipes/sft_lora.yaml')",
        "import runpy; runpy.run_module('axtune', run_name='__main__')",
    ],
)
def test_another_system_than_linux_is_said_in_a_sentence(system: str, said: str, door: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.format(system=system) + door],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_notebook_on_another_system_is_told_the_same() -> None:
    code = ELSEWHERE.format(system="darwin") + (
        "import axtune\ntry: axtune.check\nexcept axtune.AxtuneError as error: print(error.found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "axtune runs on Linux, and this is macOS.\n"


@pytest.mark.parametrize("group", [[], ["data"]], ids=["axtune", "data"])
def test_help_shows_every_summary_whole_at_80_columns(group, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main([*group, "--help"])
    assert stopped.value.code == 0
    summaries = capsys.readouterr().out.partition("Commands:\n")[2]
    assert summaries
    assert "..." not in summaries


def test_a_shell_completes_commands_and_values(monkeypatch, capsys):
    for typed, word, found in (
        ("", 1, "quantize"),
        ("data sc", 2, "scrub"),
        ("export --to ", 3, "gguf"),
        ("init --task o", 3, "orpo"),
        ("init --model t", 3, "tiny-ax-4.0"),
    ):
        monkeypatch.setenv("_AXTUNE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"axtune {typed}")
        monkeypatch.setenv("COMP_CWORD", str(word))
        monkeypatch.setattr("sys.argv", ["axtune"])
        with pytest.raises(SystemExit) as end:
            main([])
        assert end.value.code == 0
        assert found in capsys.readouterr().out.split()


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"axtune {__version__}\n"


COMMANDS = ("train", "plan", "chat", "quantize", "merge", "export", "verify", "doctor",
            "eval", "clean", "report", "data check", "data preview", "data render")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_names_it(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert f"Example: axtune {command} " in " ".join(capsys.readouterr().out.split())
