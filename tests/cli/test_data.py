"""`axtune data`: every fault has its file, line and code, and nothing of the row."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support import drafting, openai_server
from support.commands import Answer, axtune, axtune_forked, axtune_in_process
from support.rows import TEMPLATES, calls, chat, read_jsonl, tool, write_jsonl
from support.tiny import RECIPES

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.config.loader import load
from axtune.data.dataset import prepare

SECRET = "비밀XYZZY"


def check(*words: str, **environment: str) -> Answer:
    return axtune_forked("data", "check", *words, "--model", "tiny-ax-4.0", **environment)


def test_good_data_exits_0_with_a_table() -> None:
    done = check(str(TEMPLATES / "alpaca.jsonl"))
    assert (done.status, done.err) == (0, "")
    assert done.out.split()[:3] == ["rows", "8", "read"]


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
    assert done.status == 1
    assert "XYZZY" not in done.out + done.err
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
        assert f"{file}:{line}: {code}: " in done.out
    as_json = check(str(file), "--json")
    assert as_json.status == 1
    assert "XYZZY" not in as_json.out
    *faults, account = map(json.loads, as_json.out.splitlines())
    told = [f"{f['file']}:{f['line']}: {f['code']}: {f['message']}" for f in faults]
    assert told == done.out.splitlines()[: len(told)]
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
    assert done.status == 1
    assert "XYZZY" not in done.out + done.err
    told = [line.removeprefix(f"{file}:") for line in done.out.splitlines() if str(file) in line]
    wanted = [f"{line}: {code}: " for line, (_, code) in enumerate(rows, 1) if code]
    assert [line[: len(begin)] for line, begin in zip(told, wanted, strict=True)] == wanted


def test_warnings_exit_0(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a"), chat("q", "a")])
    done = check(str(file))
    assert done.status == 0
    assert f"{file}:2: warning: duplicate: " in done.out


def test_several_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("가.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, [chat(name, "a")])
    for words in (["가.jsonl", "b.jsonl"], ["."], ["*.jsonl"]):
        words = [str(tmp_path / word) for word in words]
        done = check(*words, "--json")
        assert json.loads(done.out)["account"]["rows_used"] == 2


def test_options_reach_the_check(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("a<|im_end|>b", "가나다 " * 30)])
    assert "control-token" in check(str(file)).out
    keep = [str(file), "--control-tokens", "keep"]
    assert check(*keep).status == 0
    assert "too-long" in check(*keep, "--max-length", "40").out
    assert "warning: truncated" in check(*keep, "--max-length", "40", "--truncate").out
    assert "unknown-shape" in check(*keep, "--format", "alpaca").out


def test_render_writes_a_line_for_every_row(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a"), {}, chat("r", "b")])
    out = tmp_path / "out.jsonl"
    words = ["data", "render", str(file), "--model", "tiny-ax-4.0", "--out", str(out)]
    done = axtune_forked(*words)
    assert done.status == 0
    assert "rows refused: 1;" in done.err
    written = read_jsonl(out)
    assert [(line["line"], "error" in line) for line in written] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    first = out.read_bytes()
    assert axtune_forked(*words).status == 0
    assert out.read_bytes() == first


def test_preview_in_a_pipe_and_on_a_poor_terminal(tmp_path: Path) -> None:
    words = ["data", "preview", str(TEMPLATES / "chat.jsonl"), "-n", "2", "--model", "tiny-ax-4.0"]
    done = axtune_forked(*words)
    assert done.status == 0
    assert done.out.count("labelled") == 2
    assert "⟦" in done.out
    assert "\x1b" not in done.out
    poor = axtune(*words, PYTHONIOENCODING="ascii")
    assert poor.returncode == 0
    assert "\\u27e6" in poor.stdout


def test_a_file_name_that_is_not_utf8_is_refused_as_a_run_refuses_it(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb0\xa1.jsonl"))
    file.write_bytes(b"oops\n")
    for given in (file, tmp_path, tmp_path / "*.jsonl"):
        done = check(str(given))
        assert done.status == 1
        assert done.err.count("\\xb0\\xa1.jsonl is no name that can be written down") == 1
        assert "convmv" in done.err


NUMBER = "010-8842-1177"


def test_scrub_counts_kinds_and_says_no_value(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat(f"제 번호 {NUMBER}", f"{NUMBER}요")])
    out = tmp_path / "b.jsonl"
    done = axtune_forked("data", "scrub", str(file), "--out", str(out))
    assert (done.status, done.err) == (0, "")
    assert done.out.split()[:2] == ["telephone", "2"]
    assert out.read_text("utf-8").count("<|telephone|>") == 2
    again = axtune_forked("data", "scrub", str(out), "--out", str(tmp_path / "c.jsonl"), "--json")
    assert json.loads(again.out)["personal_data"] == {}
    assert (tmp_path / "c.jsonl").read_bytes() == out.read_bytes()
    same = axtune_forked("data", "scrub", str(file), "--out", str(file))
    assert same.status == 1
    assert "Give --out another name." in same.err
    assert NUMBER not in done.out + again.out + same.err


def test_privacy_of_the_data_commands(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat(f"제 번호 {NUMBER}", "네")])
    refused = check(str(file), "--privacy", "refuse")
    assert refused.status == 1
    assert f"{file}:1: personal-data: " in refused.out
    assert "--privacy mask" in refused.out
    masked = check(str(file), "--privacy", "mask", "--json")
    assert masked.status == 0
    assert json.loads(masked.out)["account"]["personal_data"] == {"telephone": 1}
    words = ["data", "preview", str(file), "--model", "tiny-ax-4.0", "--privacy", "mask"]
    shown = axtune_forked(*words)
    assert "제 번호 <|telephone|>" in shown.out
    out = tmp_path / "ids.jsonl"
    axtune_forked("data", "render", *words[2:], "--out", str(out))
    (line,) = read_jsonl(out)
    assert line["samples"][0]["input_ids"].count(34) == 1
    assert NUMBER not in refused.out + masked.out + shown.out
    kinds = tmp_path / "kinds.yaml"
    kinds.write_text("kinds: [{name: a, pattern: '(a+)+$', mask: x}]\n")
    wrong = check(str(file), "--privacy", "mask", "--privacy-kinds", str(kinds))
    assert wrong.status == 1
    assert "backtracks" in wrong.err


def test_repeated_and_leaked_rows_of_data_check(tmp_path: Path) -> None:
    text = "고객님의 요금제를 변경하려면 홈페이지에 로그인한 다음 나의 서비스 메뉴를 여세요"
    rows = [chat(f"{SECRET} {text}", "네"), chat(f"{SECRET} {text}!", "네"), chat("가", text)]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    dropped = check(str(file), "--near-duplicates", "drop")
    assert dropped.status == 0
    assert f"{file}:2: warning: near-duplicate: the same row as {file}:1" in dropped.out
    named = check(str(file), "--near-duplicates", "warn", "--json")
    assert "--near-duplicates drop" in named.out
    account = json.loads(named.out.splitlines()[-1])["account"]
    assert (account["dropped"], account["warnings"]) == ({}, {"near-duplicate": 1})
    assert account["overlaps"] == {"a.jsonl": {"near-duplicate": 1}}
    notes = tmp_path / "시험.txt"
    notes.write_text(f"문항\n{text}\n", encoding="utf-8")
    leaked = check(str(file), "--not-in", str(notes), "--not-in", str(file))
    assert leaked.status == 1
    assert f"{file}:1: leaked: " in leaked.out
    assert "--leaked drop" in leaked.out
    only = check(str(file), "--not-in", str(notes), "--leaked", "drop")
    assert only.status == 0
    assert f"in the held-out {notes}:2 (100% of its 35); the row is dropped." in only.out
    missing = check(str(file), "--not-in", "none.txt")
    assert missing.status == 1
    assert "none.txt is no file" in missing.err
    assert "Traceback" not in missing.err
    for done in (dropped, named, leaked, only):
        assert SECRET not in done.out + done.err
        assert "요금제" not in done.out + done.err


def test_ask_drafts_and_accounts_for_all(tmp_path: Path) -> None:
    out = tmp_path / "drafts.jsonl"
    with openai_server.running() as server:
        server.reply = drafting.Drafter()
        words = ["data", "ask", str(drafting.corpus(tmp_path)), "--url", server.url]
        done = axtune_in_process(*words, "--out", str(out), "--json")
        assert done.status == 0
        assert json.loads(done.out)["pairs_kept"] == len(read_jsonl(out)) == 3
        again = axtune_in_process(*words, "--out", str(out))
        assert (again.status, "exists already" in again.err) == (1, True)
        server.reply = lambda request: drafting.says({"pairs": []})
        none = axtune_in_process(*words, "--out", str(tmp_path / "none.jsonl"))
        assert (none.status, "nothing was written" in none.out) == (1, True)
    gone = axtune_in_process(*words, "--out", str(tmp_path / "other.jsonl"))
    assert (gone.status, "No server answers" in gone.err) == (1, True)
    checked = axtune_in_process("data", "check", str(out), "--model", "tiny-ax-4.0")
    assert checked.out.count("warning: draft: ") == 3
    assert checked.status == 0


def recipe_of(tmp_path: Path, **data: object) -> Path:
    recipe = tmp_path / "job.yaml"
    job = {"task": "cpt", "model": "tiny-ax-4.0", "output_dir": str(tmp_path / "run"), "data": data}
    recipe.write_text(json.dumps(job), encoding="utf-8")  # which is YAML, too
    return recipe


def test_a_recipe_is_checked_with_an_account_by_source(tmp_path: Path) -> None:
    documents = [{"text": f"제{n}조 규정의 내용은 이러하다. " * 4} for n in range(20)]
    chats = [chat(f"질문 {n}", f"{SECRET} {n}") for n in range(9)]
    text, talk, held = (
        str(write_jsonl(tmp_path / f"{name}.jsonl", rows))
        for name, rows in (("규정", documents), ("대화", chats), ("평가", chats[:1]))
    )
    train = {"path": text, "weight": 2}
    replay = {"train": {"path": talk, "limit": 5}, "share": 0.1}
    recipe = recipe_of(tmp_path, train=train, replay=replay, eval=held)
    done = axtune_in_process("data", "check", str(recipe), "data.max_length=512", "--json")
    assert done.status == 0
    said = json.loads(done.out.splitlines()[-1])
    assert said["eval"]["rows_used"] == 1
    first, second = said["account"]["mixture"]
    assert (first["source"], first["read"], first["seen"]) == (text, 20, 2)
    assert (first["asked"], second["asked"]) == ("weight 2", "limit 5, replay 0.1")
    assert first["tokens"] + second["tokens"] == said["account"]["tokens"]

    # What the run itself says.
    job = load(recipe, ["data.max_length=512"])
    prepared = prepare(job, load_tokenizer("tiny-ax-4.0"), tmp_path, lambda _: None)
    digests = {"digests": {}}  # which a check does not take
    assert said["account"] | digests == prepared.account.to_json() | digests

    shown = axtune_in_process("data", "check", str(recipe))
    assert "weight 2" in shown.out
    assert "held out" in shown.out
    assert SECRET not in shown.out


def test_a_recipe_says_itself_what_options_would(tmp_path: Path) -> None:
    recipe = str(recipe_of(tmp_path, train=str(write_jsonl(tmp_path / "a.jsonl", [{"x": 1}]))))
    refused = axtune_in_process("data", "check", recipe)
    assert (refused.status, ":1: " in refused.out) == (1, True)
    told = axtune_in_process("data", "check", recipe, "--max-length", "99")
    assert (told.status, "data.max_length=…" in told.err) == (1, True)
    wrong = axtune_in_process("data", "check", recipe, "data.trian=x")
    assert (wrong.status, "did you mean train?" in wrong.err) == (1, True)


def test_each_stage_of_a_recipe_is_checked(tmp_path: Path) -> None:
    rows = str(write_jsonl(tmp_path / "rows.jsonl", [chat(f"질문 {n}", "답") for n in range(4)]))
    stages = {
        "sft": {"recipe": str(RECIPES / "sft_lora.yaml"), "data": {"train": rows, "eval": None}}
    }
    recipe = tmp_path / "stages.yaml"
    recipe.write_text(
        json.dumps({"model": "tiny-ax-4.0", "output_dir": "runs/a", "stages": stages})
    )
    done = axtune_in_process("data", "check", str(recipe), "--json")
    said = json.loads(done.out.splitlines()[-1])
    assert (done.status, said["stage"], said["account"]["rows_used"]) == (0, "sft", 4)


def test_a_yaml_file_that_is_no_recipe_is_a_document(tmp_path: Path) -> None:
    file = tmp_path / "설정.yaml"
    file.write_text("server:\n  port: 8080\n", encoding="utf-8")
    done = check(str(file))
    assert (done.status, done.out.split()[:3]) == (0, ["rows", "1", "read"])
