"""What a trainer is fed with: mixture, held-out split without leaks, every row accounted for."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import chat, check_rows, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.recipe import EvaluateConfig, Recipe, Task
from axtune.data.dataset import Prepared, held_out_rows, prepare
from axtune.data.epoch import hold_out
from axtune.data.sources import digest
from axtune.errors import AxtuneError, CheckpointError, DataError, Fault


def rows(name: str, count: int) -> list[dict[str, Any]]:
    return [chat(f"{name} 질문 {n}번", f"{name} 대답 {n}번") for n in range(count)]


def recipe(train: Any, held_out: Any = None, *, task: str = "sft", **data: Any) -> Recipe:
    section = {"train": train, "eval": held_out, **data}
    return Recipe.model_validate(
        {"task": task, "model": "tiny-ax-4.0", "output_dir": "runs/a", "data": section}
    )


PAIR_COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids", "chosen_labels", "rejected_labels"]


class Told(list[Fault]):
    """Collects what is reported."""

    def codes(self) -> Counter[str]:
        return Counter(fault.code for fault in self)


def texts(tokenizer: AxTokenizer, samples: Any) -> Counter[str]:
    return Counter(tokenizer.decode(ids) for ids in samples["input_ids"])


def adds_up(prepared: Prepared) -> None:
    for account in filter(None, (prepared.account, prepared.eval_account)):
        assert account.rows_read == (
            account.rows_used
            + account.rows_refused
            + account.rows_left_out
            + sum(account.dropped.values())
        )


def test_weights_make_the_mixture(tiny: AxTokenizer, tmp_path: Path) -> None:
    paths = [
        {"path": str(write_jsonl(tmp_path / f"{name}.jsonl", rows(name, 40))), "weight": weight}
        for name, weight in [("반", 0.5), ("한", 1), ("두", 2), ("둘반", 2.5)]
    ]
    prepared = prepare(recipe(paths), tiny, tmp_path, Told().append)
    adds_up(prepared)
    seen = texts(tiny, prepared.train)
    times = {
        name: Counter(count for text, count in seen.items() if f"<|user|>{name} " in text)
        for name in ("반", "한", "두", "둘반")
    }
    assert times["한"] == {1: 40}
    assert times["두"] == {2: 40}
    assert set(times["반"]) == {1}
    assert 5 < times["반"][1] < 35
    assert set(times["둘반"]) == {2, 3}
    account = prepared.account
    assert (account.rows_read, account.rows_refused) == (160, 0)
    assert account.rows_left_out == 40 - times["반"][1]
    assert account.samples == len(prepared.train) == seen.total()
    assert account.tokens == sum(len(ids) for ids in prepared.train["input_ids"])
    again = prepare(recipe(paths), tiny, tmp_path, Told().append)
    assert again.train["input_ids"] == prepared.train["input_ids"]  # the seed decides


def test_digests_of_files_with_the_same_name(tiny: AxTokenizer, tmp_path: Path) -> None:
    for name in ("가", "나"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "a.jsonl", rows(name, 2))
    sources = [str(tmp_path / name) for name in ("가", "나")]
    digests = prepare(recipe(sources), tiny, tmp_path, Told().append).account.digests
    assert digests == {
        "a.jsonl": digest(tmp_path / "가" / "a.jsonl"),
        "a.jsonl (2)": digest(tmp_path / "나" / "a.jsonl"),
    }


LONG = (
    "{} 고객님의 요금제를 변경하려면 홈페이지에 로그인한 다음 나의 서비스 메뉴를 여시면 됩니다 {}"
)


def names(count: int) -> list[str]:
    draw = np.random.default_rng(0)
    return ["".join(map(chr, draw.integers(0xAC00, 0xD7A4, 60))) for _ in range(count)]


def test_repeated_rows_are_dropped_before_the_mixture_is_drawn(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    said = names(20)
    once = [chat(f"{one} 묻습니다", LONG.format(one, n)) for n, one in enumerate(said)]
    twice = [chat(f"{one} 물어봅니다", LONG.format(one, n)) for n, one in enumerate(said)]
    paths = [
        str(write_jsonl(tmp_path / "a.jsonl", once)),
        {"path": str(write_jsonl(tmp_path / "b.jsonl", twice)), "weight": 2},
    ]
    told = Told()
    prepared = prepare(recipe(paths, 0.2, near_duplicates="drop"), tiny, tmp_path, told.append)
    adds_up(prepared)
    account = prepared.account
    assert account.dropped == {"near-duplicate": 20}
    assert account.overlaps == {"b.jsonl": {"near-duplicate": 20}}
    assert (account.rows_read, account.rows_used) == (36, 16)
    assert prepared.eval_account is not None
    assert prepared.eval_account.rows_used == 4
    assert prepared.eval_account.dropped == {}
    assert told.codes() == {"near-duplicate": 4}  # three, and how many more
    held = held_out_rows(recipe(paths, 0.2, near_duplicates="drop"), tiny)
    drawn = Counter(tiny.decode(s.input_ids) for row in held for s in row.samples)
    assert drawn == texts(tiny, prepared.eval)


def test_nearly_the_same_rows_are_held_out_together(tiny: AxTokenizer, tmp_path: Path) -> None:
    said = names(20)
    pairs = [
        chat(f"{one} {ask}", LONG.format(one, "")) for one in said for ask in ("뭐죠", "뭔가요")
    ]
    train = str(write_jsonl(tmp_path / "a.jsonl", pairs))
    job = recipe(train, 0.2, near_duplicates="warn")
    prepared = prepare(job, tiny, tmp_path, Told().append)
    held = texts(tiny, prepared.eval)
    assert len(held) == 8
    for one in said:
        assert sum(one in text for text in held) in (0, 2)


def test_training_rows_are_held_against_held_out_files_and_benchmarks(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    said = names(4)
    train = str(write_jsonl(tmp_path / "a.jsonl", [chat(one, LONG.format(one, 1)) for one in said]))
    held_out = str(write_jsonl(tmp_path / "e.jsonl", [chat(f"{said[0]} 또", "네")]))
    bench = write_jsonl(tmp_path / "b.jsonl", [{"question": said[1]}])
    given: dict[str, Any] = {"not_in": str(bench)}
    with pytest.raises(DataError, match="2 of 4 rows cannot be trained on") as refused:
        prepare(recipe(train, held_out, **given), tiny, tmp_path, Told().append)
    places = [(fault.line, fault.code) for fault in refused.value.faults]
    assert places == [(1, "leaked"), (2, "leaked")]
    dropping = recipe(train, held_out, leaked="drop", **given)
    prepared = prepare(dropping, tiny, tmp_path, Told().append)
    adds_up(prepared)
    assert prepared.account.dropped == {"leaked": 2}
    assert prepared.digests["b.jsonl (not in)"] == digest(bench)
    assert prepared.eval_account is not None
    assert prepared.eval_account.rows_used == 1
    write_jsonl(tmp_path / "a.jsonl", [chat(said[1], "네")])
    with pytest.raises(DataError, match=r"none can be used \(leaked 1\)"):
        prepare(dropping, tiny, tmp_path, Told().append)


def test_questions_of_the_recipe_are_held_out_as_well(tiny: AxTokenizer, tmp_path: Path) -> None:
    said = names(3)
    train = str(write_jsonl(tmp_path / "a.jsonl", [chat(one, "네") for one in said]))
    asked = write_jsonl(tmp_path / "q.jsonl", [chat(said[2], "네")])
    job = recipe(train, near_duplicates="drop", leaked="drop")
    job = job.model_copy(update={"evaluate": EvaluateConfig.model_validate({"data": str(asked)})})
    prepared = prepare(job, tiny, tmp_path, Told().append)
    assert prepared.account.dropped == {"leaked": 1}


def test_personal_data_is_counted_once_and_its_kinds_are_a_file_of_the_data(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    numbered = [chat(f"{n}번 010-1234-{n:04}", f"대답 {n}번, SK{n:06}") for n in range(20)]
    train = str(write_jsonl(tmp_path / "a.jsonl", numbered))
    kinds = tmp_path / "kinds.yaml"
    kinds.write_text("kinds: [{name: staff, pattern: 'SK\\d{6}', mask: '[사번]'}]\n", "utf-8")
    job = recipe(train, 0.2, privacy="mask", privacy_kinds=str(kinds))
    prepared = prepare(job, tiny, tmp_path, Told().append)
    adds_up(prepared)
    assert prepared.account.personal_data == {"telephone": 20, "staff": 20}
    assert prepared.eval_account is not None
    assert prepared.eval_account.personal_data == {}
    assert prepared.digests["kinds.yaml"] == digest(kinds)
    for ids in [*prepared.train["input_ids"], *prepared.eval["input_ids"]]:
        assert "010-1234" not in tiny.decode(ids)
        assert "[사번]" in tiny.decode(ids)


def test_near_duplicates_do_not_leak_across_the_split(tiny: AxTokenizer, tmp_path: Path) -> None:
    data = []
    for n in range(30):
        data += [
            chat(f"질문 {n}번?", "네."),
            chat(f"질문  {n}번", "네"),
            chat(f"질문 {n}번!", "네!"),
        ]
    file = write_jsonl(tmp_path / "a.jsonl", data)
    prepared = prepare(recipe(str(file), 0.2), tiny, tmp_path, Told().append)
    adds_up(prepared)
    assert prepared.eval is not None
    assert prepared.eval_account is not None

    def numbers(samples: Any) -> set[str]:
        return {"".join(filter(str.isdigit, text)) for text in texts(tiny, samples)}

    assert not numbers(prepared.train) & numbers(prepared.eval)
    assert len(numbers(prepared.train) | numbers(prepared.eval)) == 30
    assert prepared.eval_account.rows_used == len(prepared.eval) == 18
    assert prepared.account.rows_read + prepared.eval_account.rows_read == 90


@given(
    groups=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_held_out_rows(groups: list[int], fraction: float, seed: int) -> None:
    owners = [owner for owner, count in enumerate(groups) for _ in range(count)]
    rows = np.arange(100, 100 + len(owners))
    held = hold_out(rows, np.array(owners, np.uint64), fraction, np.random.default_rng(seed))
    chosen = {int(row) - 100 for row in held}
    taken = {owners[row] for row in chosen}
    assert chosen == {row for row, owner in enumerate(owners) if owner in taken}  # whole groups
    assert 0 < len(chosen) < len(owners)
    wanted = max(1, round(len(owners) * fraction))
    assert len(chosen) <= wanted or (len(taken) == 1 and min(groups) > wanted)


def test_a_fraction_of_too_few_rows(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a"), chat("q!", "a")])
    with pytest.raises(DataError, match="too few different rows"):
        prepare(recipe(str(file), 0.5), tiny, tmp_path, Told().append)


def test_eval_file_and_a_row_that_stands_in_both(tiny: AxTokenizer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", rows("가", 5))
    held_out = write_jsonl(tmp_path / "eval.jsonl", [*rows("나", 3), rows("가", 1)[0]])
    told = Told()
    prepared = prepare(recipe(str(train), str(held_out)), tiny, tmp_path, told.append)
    adds_up(prepared)
    assert prepared.eval is not None
    assert prepared.eval_account is not None
    assert (len(prepared.train), len(prepared.eval)) == (5, 4)
    assert prepared.eval_account.rows_read == 4
    assert [(Path(f.file).name, f.line, f.code) for f in told] == [("eval.jsonl", 4, "duplicate")]


def test_errors_stop_or_are_skipped(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*rows("가", 3), {}, chat("q"), *rows("나", 2)])
    with pytest.raises(DataError) as caught:
        prepare(recipe(str(file)), tiny, tmp_path, Told().append)
    assert [(f.line, f.code) for f in caught.value.faults] == [
        (4, "unknown-shape"),
        (5, "no-assistant"),
    ]
    assert "2 of 7 rows" in caught.value.found
    assert "data.on_error=skip" in caught.value.remedy
    told = Told()
    prepared = prepare(recipe(str(file), 0.4, on_error="skip"), tiny, tmp_path, told.append)
    adds_up(prepared)
    assert told.codes() == {"unknown-shape": 1, "no-assistant": 1}
    assert prepared.eval_account is not None
    assert prepared.account.rows_refused == 2
    assert prepared.account.rows_used == 3
    assert prepared.eval_account.rows_used == 2
    assert prepared.account.rows_read + prepared.eval_account.rows_read == 7


def test_many_errors_are_listed_in_part_and_counted_in_full(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{}] * 80)
    with pytest.raises(DataError, match="80 of 80 rows") as caught:
        prepare(recipe(str(file)), tiny, tmp_path, Told().append)
    assert len(caught.value.faults) == 50
    assert "30 more" in caught.value.remedy


def test_warnings_are_told_a_few_times(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", "a")] * 20)
    told = Told()
    prepared = prepare(recipe(str(file)), tiny, tmp_path, told.append)
    assert prepared.account.warnings == {"duplicate": 19}
    assert len(told) == 4
    assert "16 more" in told[-1].message


@pytest.mark.parametrize("data", [[], [{}], [chat("q", "")]])
def test_nothing_to_train_on(tiny: AxTokenizer, tmp_path: Path, data: list[Any]) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", data)
    with pytest.raises(DataError, match="nothing to train on"):
        prepare(recipe(str(file), on_error="skip"), tiny, tmp_path, Told().append)


def test_nothing_to_evaluate_on(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", rows("가", 2))
    empty = write_jsonl(tmp_path / "b.jsonl", [])
    with pytest.raises(DataError, match="nothing to evaluate on"):
        prepare(recipe(str(file), str(empty)), tiny, tmp_path, Told().append)


def test_a_wrong_path_fails_before_anything_is_read(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{}])
    with pytest.raises(AxtuneError, match="no file, folder or pattern"):
        prepare(recipe([str(file), "none.jsonl"]), tiny, tmp_path, Told().append)


def test_a_template_that_differs_is_never_skipped(tiny: AxTokenizer, tmp_path: Path) -> None:
    import dataclasses

    edited = tiny.chat_template.replace("~ content -", "~ content | trim -")
    assert edited != tiny.chat_template
    file = write_jsonl(tmp_path / "a.jsonl", [chat("q", " 네 ")])
    tokenizer = dataclasses.replace(tiny, chat_template=edited)
    with pytest.raises(CheckpointError, match=r"a\.jsonl:1: template-differs"):
        prepare(recipe(str(file), on_error="skip"), tokenizer, tmp_path, Told().append)
    assert len(prepare(recipe(str(file)), tiny, tmp_path, Told().append).train) == 1


def test_what_is_prepared_is_loaded_equal(tiny: AxTokenizer, tmp_path: Path) -> None:
    data = [*rows("가", 30), chat("q", "<think>x</think>y", "r", "b")]
    file = write_jsonl(tmp_path / "a.jsonl", data)
    made = prepare(recipe([{"path": str(file), "weight": 1.5}], 0.1), tiny, tmp_path, Told().append)
    again = Prepared.load(tmp_path)
    assert again.eval is not None
    assert made.eval is not None
    for one, two in [(made.train, again.train), (made.eval, again.eval)]:
        assert one.to_dict() == two.to_dict()
        assert one.column_names == ["input_ids", "labels", "place"]
    assert (made.account, made.eval_account) == (again.account, again.eval_account)


def test_a_sample_says_where_its_row_stands(tiny: AxTokenizer, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "하나.jsonl", rows("가", 3))
    refused = {"messages": []}
    two = write_jsonl(tmp_path / "둘.jsonl", [refused, chat("q", "<think>x</think>y", "r", "b")])
    made = prepare(recipe([str(one), str(two)], on_error="skip"), tiny, tmp_path, Told().append)
    places = [made.where(place) for place in made.train["place"]]
    # The template cuts an earlier turn's thoughts out: two samples of one row.
    assert places == [f"{one}:1", f"{one}:2", f"{one}:3", f"{two}:2", f"{two}:2"]


def pairs(count: int, answers: int = 1) -> list[dict[str, Any]]:
    return [
        {"prompt": f"질문 {n}번", "chosen": f"대답 {n}번 {m}", "rejected": f"모름 {n}번 {m}"}
        for n in range(count)
        for m in range(answers)
    ]


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("dpo", PAIR_COLUMNS),
        ("orpo", PAIR_COLUMNS),
        ("kto", ["prompt_ids", "completion_ids", "completion_labels", "label"]),
    ],
)
def test_columns_of_preferences(
    tiny: AxTokenizer, tmp_path: Path, task: Task, columns: list[str]
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", pairs(6))
    prepared = prepare(recipe(str(file), task=task), tiny, tmp_path, Told().append)
    adds_up(prepared)
    wanted = [sample for c in check_rows(tiny, pairs(6), task=task) for sample in c.samples]
    assert prepared.train.column_names == [*columns, "place"]
    assert list(prepared.train.remove_columns("place")) == [asdict(sample) for sample in wanted]
    for column in columns:
        kind = str(prepared.train.features[column])
        assert ("bool" if column == "label" else "int32") in kind
    assert Prepared.load(tmp_path).account == prepared.account
    assert prepared.account.rows_used == 6
    assert prepared.account.samples == len(wanted) == (12 if task == "kto" else 6)
    assert prepared.account.prompt_tokens == sum(map(len, prepared.train["prompt_ids"]))


def test_labelled_answers_and_pairs_train_together_with_kto(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    labelled = [{"prompt": "q", "completion": f"대답 {n}", "label": n < 2} for n in range(3)]
    file = write_jsonl(tmp_path / "a.jsonl", [*pairs(2), *labelled])
    prepared = prepare(recipe(str(file), task="kto"), tiny, tmp_path, Told().append)
    assert list(prepared.train["label"]) == [True, False, True, False, True, True, False]
    answers = prepared.account.answers
    assert (answers["desirable"]["answers"], answers["undesirable"]["answers"]) == (4, 3)


@pytest.mark.parametrize("task", ["dpo", "kto"])
def test_no_prompt_leaks_across_the_split(tiny: AxTokenizer, tmp_path: Path, task: Task) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", pairs(20, answers=3))
    prepared = prepare(recipe(str(file), 0.2, task=task), tiny, tmp_path, Told().append)
    adds_up(prepared)
    assert prepared.eval is not None
    assert prepared.eval_account is not None
    train, held_out = (
        {tiny.decode(ids) for ids in samples["prompt_ids"]}
        for samples in (prepared.train, prepared.eval)
    )
    assert not train & held_out
    assert len(train | held_out) == 20
    assert prepared.eval_account.rows_used == 12
    assert len(prepared.eval) == (24 if task == "kto" else 12)
    assert prepared.account.answers.keys() == prepared.eval_account.answers.keys()


@pytest.mark.parametrize(
    ("task", "wrong"), [("sft", pairs(1)[0]), ("dpo", chat("q", "a")), ("kto", chat("q", "a"))]
)
def test_a_mixed_file_is_a_fault_of_the_row(
    tiny: AxTokenizer, tmp_path: Path, task: Task, wrong: Any
) -> None:
    right = rows("가", 2) if task == "sft" else pairs(2)
    file = write_jsonl(tmp_path / "a.jsonl", [*right, wrong])
    with pytest.raises(DataError) as caught:
        prepare(recipe(str(file), task=task), tiny, tmp_path, Told().append)
    assert [(fault.line, fault.code) for fault in caught.value.faults] == [(3, "wrong-task")]
    told = Told()
    mixed = recipe(str(file), task=task, on_error="skip")
    assert prepare(mixed, tiny, tmp_path, told.append).account.rows_used == 2
    assert told.codes() == {"wrong-task": 1}


def test_weights_repeat_preferences(tiny: AxTokenizer, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", pairs(3))
    sources = [{"path": str(file), "weight": 2}]
    prepared = prepare(recipe(sources, task="dpo"), tiny, tmp_path, Told().append)
    assert set(Counter(map(tuple, prepared.train["chosen_ids"])).values()) == {2}
    assert (prepared.account.samples, prepared.account.answers["chosen"]["answers"]) == (6, 6)


@pytest.mark.parametrize("held_out", [0.3, None], ids=["a share", "files"])
def test_held_out_rows_know_their_source(
    tiny: AxTokenizer, tmp_path: Path, held_out: float | None
) -> None:
    folder = tmp_path / "문서"
    folder.mkdir()
    paths = [
        {"path": str(folder)},
        {"path": str(write_jsonl(tmp_path / "대화.jsonl", rows("대화", 20)))},
    ]
    for name in ("a", "b"):
        write_jsonl(folder / f"{name}.jsonl", rows(name, 10))
    other = [str(write_jsonl(tmp_path / "다른.jsonl", rows("다른", 3)))]
    job = recipe(paths, held_out) if held_out else recipe(other, paths)
    prepared = prepare(job, tiny, tmp_path, Told().append)
    assert prepared.eval is not None
    said = {
        (prepared.eval_sources[place[0]], "대화 질문" in tiny.decode(ids))
        for place, ids in zip(prepared.eval["place"], prepared.eval["input_ids"], strict=True)
    }
    assert said == {("문서", False), ("대화.jsonl", True)}
