"""The doors, as a user opens them: messages, exit codes, and how little they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import axtune
from support.rows import ROOT, TEMPLATES, calls, chat, read_jsonl, tool, write_jsonl

from axtune import __version__
from axtune.cli import main

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "matplotlib")
SECRET = "비밀XYZZY"


def check(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return axtune("data", "check", *words, "--model", "tiny-ax-4.0", **environment)


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


def test_good_data_exits_0_with_a_table() -> None:
    done = check(str(TEMPLATES / "alpaca.jsonl"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:3] == ["rows", "8", "read"]


def test_faults_exit_1_with_file_line_code_and_no_content(tmp_path: Path) -> None:
    rows = [
        chat(SECRET, SECRET),
        chat({"role": SECRET, "content": SECRET}),
        chat({"role": "usr", "content": SECRET}, SECRET),
        chat(SECRET, calls((SECRET, {SECRET: SECRET})), tools=[tool("f")]),
        chat(SECRET, calls((SECRET, SECRET))),
        chat(SECRET, calls(("f", {SECRET: 1})), tools=[tool("f", {"properties": {SECRET: False}})]),
        chat(SECRET + "<|im_end|>", "a"),
        chat("q", f"<tool_call>{SECRET}</tool_call>"),
        {SECRET: SECRET},
        {"conversations": [{"from": SECRET, "value": SECRET}]},
        {"prompt": {SECRET: SECRET}, "completion": SECRET},
    ]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with file.open("ab") as stream:
        stream.write(f'{{"{SECRET}": \n{SECRET}\n"{SECRET}\\x"\n'.encode())
        stream.write(json.dumps(chat(SECRET, SECRET), ensure_ascii=False).encode("cp949"))
    done = check(str(file))
    assert done.returncode == 1
    assert "XYZZY" not in done.stdout + done.stderr
    for line, code in enumerate(
        [
            "bad-role",
            "bad-role",
            "unknown-tool",
            "bad-arguments",
            "schema-violation",
            "control-token",
            "bad-hermes-call",
            "unknown-shape",
            "bad-role",
            "bad-role",
            "not-json",
            "not-json",
            "not-json",
            "cp949",
        ],
        2,
    ):
        assert f"{file}:{line}: {code}: " in done.stdout
    as_json = check(str(file), "--json")
    assert as_json.returncode == 1
    assert "XYZZY" not in as_json.stdout
    *faults, account = map(json.loads, as_json.stdout.splitlines())
    told = [f"{f['file']}:{f['line']}: {f['code']}: {f['message']}" for f in faults]
    assert told == done.stdout.splitlines()[: len(told)]
    assert account["account"]["rows_read"] == 15
    assert account["account"]["rows_used"] == 1
    assert sum(account["account"]["refused"].values()) == 14


def test_faults_of_preferences_exit_1_with_no_content(tmp_path: Path) -> None:
    asked, said = {"role": "user", "content": SECRET}, {"role": "assistant", "content": SECRET}
    other = {"role": "user", "content": SECRET + "2"}
    pair = {"prompt": SECRET, "chosen": SECRET, "rejected": SECRET + "2"}
    rows = [
        (pair, None),
        (pair | {"rejected": SECRET}, "same-answers"),
        (pair | {"rejected": ""}, "empty-answer"),
        ({"chosen": [asked, said], "rejected": [other, said]}, "prompt-differs"),
        (pair | {"prompt": [asked, said]}, "prompt-role"),
        (pair | {"chosen": [other, said]}, "answer-role"),
        (pair | {"prompt": ""}, "empty-prompt"),
        ({"prompt": SECRET, "completion": SECRET, "label": SECRET}, "bad-label"),
        (pair | {"rejected": [said, {SECRET: SECRET}]}, "bad-role"),
        (pair | {"rejected": [calls((SECRET, {}))], "tools": [tool("f")]}, "warning: unknown-tool"),
        (pair | {"chosen": SECRET + "2", "rejected": SECRET}, "warning: contradiction"),
        ({"prompt": SECRET, "completion": SECRET, "label": True}, None),
    ]
    file = write_jsonl(tmp_path / "a.jsonl", [row for row, _ in rows])
    done = check(str(file))
    assert done.returncode == 1
    assert "XYZZY" not in done.stdout + done.stderr
    told = [line.removeprefix(f"{file}:") for line in done.stdout.splitlines() if str(file) in line]
    wanted = [f"{line}: {code}: " for line, (_, code) in enumerate(rows, 1) if code]
    assert [line[: len(begin)] for line, begin in zip(told, wanted, strict=True)] == wanted


def test_warnings_exit_0(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a"), chat("q", "a")])
    done = check(str(file))
    assert done.returncode == 0
    assert f"{file}:2: warning: duplicate: " in done.stdout


def test_several_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("가.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, [chat(name, "a")])
    for words in (["가.jsonl", "b.jsonl"], ["."], ["*.jsonl"]):
        words = [str(tmp_path / word) for word in words]
        done = check(*words, "--json")
        assert json.loads(done.stdout)["account"]["rows_used"] == 2


def test_options_reach_the_check(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("a<|im_end|>b", "가나다 " * 30)])
    assert "control-token" in check(str(file)).stdout
    keep = [str(file), "--control-tokens", "keep"]
    assert check(*keep).returncode == 0
    assert "too-long" in check(*keep, "--max-length", "40").stdout
    assert "warning: truncated" in check(*keep, "--max-length", "40", "--truncate").stdout
    assert "unknown-shape" in check(*keep, "--format", "alpaca").stdout


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


def test_a_broken_recipe_says_every_fault_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "나의 레시피.yaml"
    recipe.write_text("task: sft\nmodle: x\noutput_dir: r\ndata: {train: a, evl: 1}\n", "utf-8")
    done = axtune("train", str(recipe), "lora.alpha=3")
    assert done.returncode == 1
    assert f"{recipe}:2: unknown-key: modle: no such key; did you mean model?" in done.stderr
    assert f"{recipe}:4: unknown-key: data.evl: no such key; did you mean eval?" in done.stderr
    assert "lora.alpha=3: unknown-key: lora.alpha: no such key" in done.stderr


@pytest.mark.parametrize("command", ["train", "plan"])
def test_an_unknown_key_and_a_missing_file_are_said_at_once(tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "task: sft\nmodel: tiny-ax-4.0\noutput_dir: r\nsead: 1\ndata:\n  train: none.jsonl\n",
        "utf-8",
    )
    done = axtune(command, str(recipe))
    assert done.returncode == 1
    assert done.stderr.startswith("axtune: The recipe has 2 faults.\n")
    assert f"{recipe}:4: unknown-key: sead: no such key; did you mean seed?" in done.stderr
    assert f"{recipe}:6: bad-path: data.train: none.jsonl is no file" in done.stderr


def test_render_writes_a_line_for_every_row(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a"), {}, chat("r", "b")])
    out = tmp_path / "out.jsonl"
    words = ["data", "render", str(file), "--model", "tiny-ax-4.0", "--out", str(out)]
    done = axtune(*words)
    assert done.returncode == 0
    assert "rows refused: 1;" in done.stderr
    written = read_jsonl(out)
    assert [(line["line"], "error" in line) for line in written] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    first = out.read_bytes()
    assert axtune(*words).returncode == 0
    assert out.read_bytes() == first


def test_preview_in_a_pipe_and_on_a_poor_terminal(tmp_path: Path) -> None:
    words = ["data", "preview", str(TEMPLATES / "chat.jsonl"), "-n", "2", "--model", "tiny-ax-4.0"]
    done = axtune(*words)
    assert done.returncode == 0
    assert done.stdout.count("labelled") == 2
    assert "⟦" in done.stdout
    assert "\x1b" not in done.stdout
    poor = axtune(*words, PYTHONIOENCODING="ascii")
    assert poor.returncode == 0
    assert "\\u27e6" in poor.stdout


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb0\xa1.jsonl"))
    file.write_bytes(b"oops\n")
    done = check(str(file))
    assert done.returncode == 1
    assert ":1: not-json: " in done.stdout
    as_json = check(str(file), "--json")
    assert json.loads(as_json.stdout.splitlines()[0])["file"] == str(file)


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{}] * 5000)
    command = f"{sys.executable} -m axtune data check {file} --model tiny-ax-4.0 | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


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


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"axtune {__version__}\n"


COMMANDS = ("train", "plan", "chat", "quantize", "merge", "export", "verify", "doctor",
            "data check", "data preview", "data render")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_names_it(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert f"Example: axtune {command} " in " ".join(capsys.readouterr().out.split())
