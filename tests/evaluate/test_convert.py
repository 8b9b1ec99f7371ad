"""A benchmark in two parts: rows that train without a fault, questions that they do not hold."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from axtune.cli import app
from axtune.data.native_calls import Answer
from axtune.data.pipeline import check
from axtune.errors import AxtuneError, DataError
from axtune.evaluate.benchmarks import read_questions
from axtune.evaluate.convert import NO_TOOL_FITS, Split, answer_of, convert, held_out_of
from axtune.evaluate.evaluate import Settings, evaluate
from axtune.evaluate.generate import Sampling
from axtune.evaluate.questions import Question
from axtune.evaluate.score import score
from axtune.training.progress import Report

Json = dict[str, Any]

BFCL = ("simple_python", "multiple", "parallel", "irrelevance", "live_simple")


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return file


def read_lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def area(**schema: Any) -> Json:
    properties = {
        "base": {"type": "integer", "description": "Base."},
        "unit": {"type": "string", "description": "Unit."},
    }
    return {
        "name": "area",
        "description": "Area.",
        "parameters": {
            "type": "dict",
            "properties": properties | schema,
            "required": ["base"],
        },
    }


def bfcl(folder: Path, category: str, rows: list[tuple[str, Any]], **schema: Any) -> Path:
    """A file of questions with their right answers; None is none."""
    file = folder / f"BFCL_v4_{category}.json"
    asked, answers = [], []
    for number, (text, truth) in enumerate(rows):
        identity = f"{category}_{number}"
        question = [[{"role": "user", "content": text}]]
        asked.append({"id": identity, "question": question, "function": [area(**schema)]})
        if truth is not None:
            answers.append({"id": identity, "ground_truth": truth})
    write_lines(file, asked)
    if answers:
        write_lines(folder / "possible_answer" / file.name, answers)
    return file


def right(base: int) -> list[Json]:
    return [{"area": {"base": [base], "unit": ["", "cm"]}}]


def dialog(number: int, said: list[str]) -> Json:
    """A dialog of FunctionChat-Bench: each text is answered with one."""
    turns: list[Json] = []
    query: list[Json] = []
    for place, text in enumerate(said, 1):
        query = [*query, {"role": "user", "content": text}]
        truth = {"role": "assistant", "content": f"{text}에 답합니다."}
        turns.append(
            {
                "turn_num": place,
                "query": query,
                "ground_truth": truth,
                "type_of_output": "relevance",
                "acceptable_arguments": None,
            }
        )
        query = [*query, truth]
    return {"dialog_num": number, "tools": [], "turns": turns}


def user_texts(messages: list[Json]) -> set[str]:
    said = (message["content"] for message in messages if message["role"] == "user")
    return {"".join(filter(str.isalnum, text.casefold())) for text in said}


def asked_in(out: Path) -> list[Question]:
    files = sorted(file for file in (out / "test").iterdir() if file.is_file())
    return [question for file in files for question in read_questions(file)]


def require_never_both(out: Path) -> None:
    learned = [user_texts(row["messages"]) for row in read_lines(out / "train.jsonl")]
    asked = [user_texts(question.messages) for question in asked_in(out)]
    assert not set().union(*learned) & set().union(*asked)


def require_no_fault(out: Path, *, longest: int = 1 << 20) -> None:
    account, faults = check(str(out / "train.jsonl"), "tiny-ax-4.0", max_length=longest)
    assert not faults
    assert account.samples == account.rows_read == len(read_lines(out / "train.jsonl"))


# --- any files ------------------------------------------------------------------------------------

TEXTS = st.text("가나다라ab 1.", min_size=1, max_size=12).filter(str.strip)
ROWS = st.lists(st.tuples(st.sampled_from(BFCL), TEXTS, st.integers(0, 9)), max_size=12)
DIALOGS = st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=4)


@settings(max_examples=15)
@given(ROWS, DIALOGS, st.integers(0, 3), st.sampled_from([0.2, 0.5, 2]))
def test_no_question_is_on_both_sides(
    rows: list[tuple[str, str, int]], dialogs: list[list[str]], seed: int, held_out: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for category in BFCL:
            some = [
                (text, None if category == "irrelevance" else right(base))
                for kind, text, base in rows
                if kind == category
            ]
            if some:
                bfcl(folder / "in", category, some)
        if dialogs:
            file = folder / "in" / "FunctionChat-Dialog.jsonl"
            write_lines(file, [dialog(number, said) for number, said in enumerate(dialogs)])
        out = folder / "out"
        try:
            split = convert([str(folder / "in")], out, held_out=held_out, seed=seed)
        except AxtuneError:  # one group, or nothing at all
            assert not out.exists()
            return
        require_never_both(out)
        require_no_fault(out)
        assert split.test == dict(Counter(question.category for question in asked_in(out)))
        assert sum(split.train.values()) == len(read_lines(out / "train.jsonl"))
        whole = len(rows) + sum(map(len, dialogs))
        left_out = sum(split.left_out.values())
        assert sum(split.train.values()) + sum(split.test.values()) + left_out == whole


_LATE = "물건이 언제쯤 올지 궁금해서 그러는데"


@pytest.mark.parametrize(
    "texts",
    [
        (f"{_LATE} 5678번 주문 상태 추적할 수 있을까?", f"{_LATE}, 주문 상태 추적할 수 있을까"),
        ("콘서트 티켓 VIP 좌석으로 예매해줘", "콘서트 티켓 VIP 좌석으로 2장 예매해줘"),
        (
            "주택 청소 업체를 비교해줄래",
            "다음 주 화요일 제주도 서귀포에서 주택 청소 업체를 비교해줄래",
        ),
    ],
    ids=["a number", "a slot", "the slots before"],
)
def test_nearly_the_same_text_is_one_group(tmp_path: Path, texts: tuple[str, str]) -> None:
    others = [f"{word} 요리법을 알려 주세요" for word in ("된장찌개", "비빔밥", "잡채")]
    bfcl(tmp_path / "in", "simple_python", [(text, right(1)) for text in (*texts, *others)])
    for seed in range(5):
        out = tmp_path / str(seed)
        split = convert([str(tmp_path / "in")], out, held_out=0.5, seed=seed)
        sides = [sum(text in line for text in texts) for line in _sides(out)]
        assert sorted(sides) == [0, 2]
        assert split.groups < 5


def _sides(out: Path) -> list[str]:
    return [
        (out / "train.jsonl").read_text("utf-8"),
        (out / "test" / "BFCL_v4_simple_python.json").read_text("utf-8"),
    ]


# --- rows -----------------------------------------------------------------------------------------


def converted(tmp_path: Path, rows: list[tuple[str, Any]], **schema: Any) -> tuple[Split, Path]:
    """A file of these rows and of others; the rows themselves are trained on by every seed."""
    category = "simple_python" if rows[0][1] else "irrelevance"
    bfcl(tmp_path / "in", category, rows, **schema)
    if category == "simple_python":
        bfcl(tmp_path / "in", "multiple", [(f"다른 질문 {n * 1111}", right(n)) for n in range(8)])
    out = tmp_path / "out"
    return convert([str(tmp_path / "in")], out, held_out=0.4), out


def test_a_row_has_the_first_right_values(tmp_path: Path) -> None:
    truth = [{"area": {"base": [5, 6], "unit": ["cm", "", "centimetre"]}}]
    split, out = converted(tmp_path, [("넓이는?", truth)])
    assert split.train["simple_python"] == 1
    (row,) = [
        row for row in read_lines(out / "train.jsonl") if "넓이" in row["messages"][0]["content"]
    ]
    (call,) = row["messages"][-1]["tool_calls"]
    assert call["function"] == {"name": "area", "arguments": '{"base": 5}'}
    assert row["tools"][0]["function"]["parameters"]["type"] == "object"


@pytest.mark.parametrize(
    ("truth", "why"),
    [
        ([{"area": {"base": [""]}}], "no-right-answer"),
        ([{"area": {"base": [5], "unit": ["inch"]}}], "schema-violation"),
        ([{"area": {"base": [5], "depth": [1]}}], "no-right-answer"),
    ],
)
def test_an_answer_that_cannot_be_right_stays_out(
    tmp_path: Path, truth: list[Json], why: str
) -> None:
    unit = {"type": "string", "enum": ["cm"], "description": "Unit."}
    split, out = converted(tmp_path, [("넓이는?", truth)], unit=unit)
    assert split.left_out == {why: 1}
    assert "simple_python" not in split.train
    require_no_fault(out)


def test_where_no_tool_fits_the_row_says_so(tmp_path: Path) -> None:
    _, out = converted(tmp_path, [(f"{word} 날씨는?", None) for word in ("서울의", "부산에서")])
    (row,) = read_lines(out / "train.jsonl")
    assert row["messages"][-1] == {"role": "assistant", "content": NO_TOOL_FITS}


def test_each_turn_of_a_dialog_is_learned_once(tmp_path: Path) -> None:
    file = tmp_path / "FunctionChat-Dialog.jsonl"
    write_lines(file, [dialog(1, ["안녕하세요", "도와주세요"])])
    single = bfcl(tmp_path, "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(4)])
    convert([str(file), str(single)], tmp_path / "out", held_out=1)
    rows = [row for row in read_lines(tmp_path / "out" / "train.jsonl") if "tools" not in row]
    rows.sort(key=lambda row: len(row["messages"]))
    assert [len(row["messages"]) for row in rows] == [2, 4]
    weights = [m.get("weight") for m in rows[1]["messages"] if m["role"] == "assistant"]
    assert weights == [0, None]


# --- what is written ------------------------------------------------------------------------------


def test_the_test_files_have_the_benchmarks_own_lines(tmp_path: Path) -> None:
    file = bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(9)])
    lines = file.read_bytes().replace(b'": ', b'" :  ')  # as no other program would write it
    file.write_bytes(lines)
    convert([str(tmp_path / "in")], tmp_path / "out", seed=4)
    test = tmp_path / "out" / "test" / file.name
    kept = test.read_bytes().splitlines()
    assert len(kept) == 3
    assert set(kept) <= set(lines.splitlines())
    answers = read_lines(test.parent / "possible_answer" / file.name)
    assert [row["id"] for row in answers] == [json.loads(line)["id"] for line in kept]


def test_a_list_becomes_lines(tmp_path: Path) -> None:
    file = tmp_path / "dialogs.json"
    said = ["안녕하세요", "회의를 잡아 줘"]
    file.write_text(json.dumps([dialog(n, [text]) for n, text in enumerate(said)], indent=1))
    convert([str(file)], tmp_path / "out", held_out=1)
    assert len(asked_in(tmp_path / "out")) == 1


def test_the_same_seed_makes_the_same_parts(tmp_path: Path) -> None:
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(20)])
    parts = []
    for number, seed in enumerate((1, 1, 2)):
        out = tmp_path / str(number)
        split = convert([str(tmp_path / "in")], out, seed=seed)
        assert YAML(typ="safe").load(out / "split.yaml") == asdict(split)
        assert split.seed == seed
        parts.append((out / "train.jsonl").read_bytes())
    assert parts[0] == parts[1] != parts[2]


def test_a_number_of_questions(tmp_path: Path) -> None:
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(20)])
    split = convert([str(tmp_path / "in")], tmp_path / "out", held_out=7)
    assert (split.train, split.test) == ({"multiple": 13}, {"multiple": 7})


@pytest.mark.parametrize(
    ("text", "held_out"), [("0.3", 0.3), ("200", 200), ("1", 1), ("1.0", 1.0), (".5", 0.5)]
)
def test_a_number_with_a_point_is_a_share(text: str, held_out: float) -> None:
    found = held_out_of(text)
    assert (found, type(found)) == (held_out, type(held_out))
    with pytest.raises(AxtuneError, match=r"--held-out a third is no number\.\nGive a share"):
        held_out_of("a third")


@pytest.mark.parametrize(
    "held_out", [1.0, 2.0, 0.0, -0.5, 1.5, 20, 100, float("nan"), float("inf"), 0.001]
)
def test_what_leaves_a_side_empty_is_refused(tmp_path: Path, held_out: float) -> None:
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(20)])
    with pytest.raises(AxtuneError, match="--held-out"):
        convert([str(tmp_path / "in")], tmp_path / "out", held_out=held_out)
    assert not (tmp_path / "out").exists()


def test_categories_that_are_not_scored_are_on_neither_side(tmp_path: Path) -> None:
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(9)])
    write_lines(tmp_path / "in" / "BFCL_v4_memory.json", [{"id": "memory_0", "question": [[]]}])
    split = convert([str(tmp_path / "in")], tmp_path / "out")
    assert split.unscored == {"memory": 1}
    assert split.train.keys() == split.test.keys() == {"multiple"}


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", [{"messages": []}])
    with pytest.raises(AxtuneError, match=r"no file of BFCL"):
        convert([str(rows)], tmp_path / "out")
    unanswered = bfcl(tmp_path / "a", "multiple", [("비밀", None)])
    with pytest.raises(DataError) as refused:
        convert([str(unanswered)], tmp_path / "out")
    assert "비밀" not in str(refused.value)
    files = [str(bfcl(tmp_path / name, "multiple", [("질문", right(1))])) for name in "bc"]
    with pytest.raises(AxtuneError, match="same name"):
        convert(files, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(AxtuneError, match="exists already"):
        convert([files[0]], tmp_path / "out")


def test_the_other_side_is_asked_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(9)])
    bfcl(tmp_path / "in", "irrelevance", [(f"{n * 1111}번 날씨", None) for n in range(9)])
    split = convert([str(tmp_path / "in")], tmp_path / "out")
    few = Sampling(max_new_tokens=2)
    asked = Settings(data=[str(tmp_path / "out" / "test")], sampling=few)
    result, _ = evaluate("tiny-ax-4.0", asked, Report(enabled=False))
    assert {one.category: one.n for one in result.measured if one.metric == "accuracy"} == {
        "all": 6,
        **split.test,
    }


def test_a_model_says_how_long_rows_may_be(tmp_path: Path) -> None:
    rows = [(f"{n * 1111}번 질문", right(n)) for n in range(9)]
    rows += [(f"{word} " * 20_000, right(1)) for word in ("가나다", "라마바", "사아자")]
    bfcl(tmp_path / "in", "multiple", rows)
    split = convert([str(tmp_path / "in")], tmp_path / "out", held_out=1, model="tiny-ax-3.1")
    assert split.left_out["too-long"] >= 2
    split = convert([str(tmp_path / "in")], tmp_path / "whole", held_out=1)
    assert not split.left_out


def test_the_command(tmp_path: Path) -> None:
    bfcl(tmp_path / "in", "multiple", [(f"{n * 1111}번 질문", right(n)) for n in range(9)])
    data = ["--data", str(tmp_path / "in")]

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["eval", *words])

    done = run("--convert", str(tmp_path / "out"), *data, "--held-out", "2", "--seed", "3")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "drawn with seed 3" in done.stdout
    said = run("--convert", str(tmp_path / "json"), *data, "--held-out", "2", "--json")
    assert json.loads(said.stdout)["test"] == {"multiple": 2}
    for words in ([], ["tiny-ax-4.0", "--held-out", "0.3"], ["--convert", str(tmp_path / "x")]):
        refused = run(*words)
        assert isinstance(refused.exception, AxtuneError)
    assert not (tmp_path / "x").exists()


# --- the benchmarks as they are published ---------------------------------------------------------


def published(shared: Path, name: str) -> list[str]:
    if name == "functionchat":
        folder, files = shared / name, sorted((shared / name).glob("*.jsonl"))
    else:  # as tests/evaluate/test_benchmarks.py unpacks it
        default = Path(tempfile.gettempdir()) / "bfcl" / "x"
        folder = Path(os.environ.get("AXTUNE_BFCL", default)) / "bfcl_eval" / "data"
        files = [folder / f"BFCL_v4_{category}.json" for category in BFCL]
    if not all(file.is_file() for file in files) or not files:
        pytest.skip(f"there are no files of {name} in {folder}")
    return list(map(str, files))


@pytest.mark.parametrize("name", ["functionchat", "bfcl"])
def test_published_files(tmp_path: Path, shared: Path, name: str) -> None:
    files = published(shared, name)
    split = convert(files, tmp_path / "out", seed=3)
    require_never_both(tmp_path / "out")
    require_no_fault(tmp_path / "out")
    asked, learned = sum(split.test.values()), sum(split.train.values())
    assert 0.25 < asked / (asked + learned) < 0.35
    assert sum(split.left_out.values()) < 0.03 * learned


@pytest.mark.parametrize("name", ["functionchat", "bfcl"])
def test_the_answers_that_are_trained_on_are_right(shared: Path, name: str) -> None:
    judged: Counter[str | None] = Counter()
    for question in (one for file in published(shared, name) for one in read_questions(Path(file))):
        answer = answer_of(question)
        if answer is None:
            judged["none"] += 1
            continue
        said = Answer(answer["content"] or "", answer.get("tool_calls", []))
        judged[score(said, question.wanted, question.tools, question.rules).reason] += 1
    assert judged["none"] < 5
    assert set(judged) <= {None, "not-judged", "none"}
