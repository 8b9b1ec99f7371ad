"""Odd names, folders and environments: everything works, or is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.rows import ROOT
from support.signalled import Case, run
from support.tiny import write_rows

pytestmark = pytest.mark.slow

# The longest have 255 bytes with the ending that a file of rows needs, or without.
NAMES = [
    "두 단어", "it's", 'say "hi"', "a[1]*?", "-dash", "#hash", "100%", "$HOME", "{a: b}", "한글.v2",
    "가" * 83,
]  # fmt: skip
LONGEST = "가" * 85


def training(rows: Path | str, out: Path | str, recipe: str = "recipes/sft_lora.yaml") -> list[str]:
    return [
        "train", recipe, "model=tiny-ax-4.0", f"data.train={rows}", "data.eval=null", "lora.r=2",
        f"output_dir={out}", "training.max_steps=1", "training.gradient_accumulation_steps=1",
    ]  # fmt: skip


def quoted(path: Path) -> str:
    """A path as an override has it: YAML, so that no sign in it means anything."""
    return "'" + str(path).replace("'", "''") + "'"


def clean(case: Case) -> str:
    """What a command printed; never a traceback."""
    assert "Traceback" not in case.output, case.output
    return case.output


def test_names_that_people_give(tmp_path: Path) -> None:
    cases = []
    for number, name in enumerate(NAMES):
        place = tmp_path / str(number) / name
        place.mkdir(parents=True)
        rows = write_rows(place / f"{name}.jsonl", 4)
        words = [
            ["data", "check", "--model", "tiny-ax-4.0", "--", str(rows)],
            training(quoted(rows), quoted(place / "run" / name)),
            ["merge", "--out", str(place / "merged" / name), "--", str(place / "run" / name)],
            ["export", "--to", "vllm", "--out", str(place / "vllm" / name), "--",
             str(place / "merged" / name)],
        ]  # fmt: skip
        folder = tmp_path / f"out {number}"
        cases += [Case(words[n], folder / str(n)) for n in range(len(words))]
    statuses = run(*cases)
    wrong = [
        (case.words, clean(case)[-300:])
        for case, status in zip(cases, statuses, strict=True)
        if status
    ]
    assert wrong == []
    assert len(cases) == 44


def test_places_that_are_odd(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        '{"prompt": "비밀은?", "chosen": "여기.", "rejected": "몰라."}\n', encoding="utf-8"
    )
    recipe = (ROOT / "recipes" / "sft_lora.yaml").read_text(encoding="utf-8")
    (tmp_path / "crlf.yaml").write_bytes(recipe.replace("\n", "\r\n").encode())
    (tmp_path / "bom.yaml").write_bytes(recipe.encode("utf-8-sig"))
    (tmp_path / "link.yaml").symlink_to(ROOT / "recipes" / "sft_lora.yaml")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "file").write_text("")
    dpo = training(pairs, tmp_path / "d0", "recipes/dpo_lora.yaml")

    def job(number: int, out: Path | str | None = None, recipe: str = "recipes/sft_lora.yaml"):
        return training(rows, out or tmp_path / f"run{number}", recipe)

    # What is started, its environment, where, and whether it has to end well.
    tried: list[tuple[list[str], dict[str, str | None], Path, bool]] = [
        (dpo, {"HOME": None, "XDG_CACHE_HOME": None}, ROOT, True),
        ([*dpo[:-3], f"output_dir={tmp_path / 'd1'}", *dpo[-2:]],
         {"XDG_CACHE_HOME": str(tmp_path / "file")}, ROOT, True),
        (job(1), {"TMPDIR": str(tmp_path / "nowhere")}, ROOT, True),
        (job(2, None, str(ROOT / "recipes" / "sft_lora.yaml")), {}, tmp_path, True),
        (job(3, "relative/", str(ROOT / "recipes" / "sft_lora.yaml")), {}, tmp_path, True),
        (job(4, "./a/../b/.", str(ROOT / "recipes" / "sft_lora.yaml")), {}, tmp_path, True),
        (job(5, None, str(tmp_path / "crlf.yaml")), {}, ROOT, True),
        (job(6, None, str(tmp_path / "bom.yaml")), {}, ROOT, True),
        (job(7, None, str(tmp_path / "link.yaml")), {}, ROOT, True),
        (job(8, tmp_path / "linked" / "run8"), {}, ROOT, True),
        (job(9), {"COLUMNS": "40"}, ROOT, True),
        (job(10, tmp_path / LONGEST), {}, ROOT, True),
        (job(11, tmp_path / (LONGEST + "x")), {}, ROOT, False),
        (job(12, tmp_path / "file"), {}, ROOT, False),
        (job(13, tmp_path / "file" / "run"), {}, ROOT, False),
        (job(14, "/proc/run"), {}, ROOT, False),
        (["data", "check", str(tmp_path / (LONGEST + "x")), "--model", "tiny-ax-4.0"],
         {}, ROOT, False),
        (["merge", str(tmp_path / "run2"), "--out", str(tmp_path / "file" / "m")], {}, ROOT, False),
        (["plan", "recipes/sft_lora.yaml", "model=tiny-ax-4.0"], {"COLUMNS": "40"}, ROOT, True),
        (["doctor", "tiny-ax-4.0"], {"COLUMNS": "40", "HOME": None}, ROOT, True),
    ]  # fmt: skip
    cases = [
        Case(words, tmp_path / f"case {number}", environment=environment, cwd=cwd)
        for number, (words, environment, cwd, _) in enumerate(tried)
    ]
    statuses = run(*cases)
    for case, status, (*_, ends_well) in zip(cases, statuses, tried, strict=True):
        assert status == (0 if ends_well else 1), (case.words, clean(case))
        assert ends_well or "axtune: " in clean(case)
    assert len(cases) == 20


def axtune(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, with the interpreter in $P."""
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, errors="replace", cwd=ROOT,
        env=os.environ | {"P": f"{sys.executable} -m axtune"} | environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("$P data preview data_templates/chat.jsonl -n 96 --model tiny-ax-4.0 | head -1; "
         "exit ${PIPESTATUS[0]}", 1),  # rich's own way to end quietly
        ("$P data check data_templates/chat.jsonl --model tiny-ax-4.0 >&-", 0),
        ("$P data check data_templates/chat.jsonl --model tiny-ax-4.0 2>&-", 0),
        ("$P data check nowhere.jsonl --model tiny-ax-4.0 2>&-", 1),
        ("LANG=C LC_ALL=C $P data preview data_templates/chat.jsonl --model tiny-ax-4.0", 0),
        ("LANG=C LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "
         "$P data preview data_templates/chat.jsonl --model tiny-ax-4.0", 0),
        ("env -u HOME $P data check data_templates/chat.jsonl --model tiny-ax-4.0", 0),
        ("COLUMNS=40 $P --help", 0),
    ],
)  # fmt: skip
def test_shells_and_terminals(command: str, status: int) -> None:
    done = axtune(command)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
