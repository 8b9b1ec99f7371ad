from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rows import chat, check_rows, codes, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.data.overlap_gate import overlap_gate
from axtune.data.statistics import RowResult, StatsBuilder

QUESTION = "요금제를 바꾸고 싶은데 어디에서 어떻게 하면 되는지 자세히 알려 주세요"
ANSWER = (
    "고객님의 요금제를 변경하려면 홈페이지에 로그인한 다음 나의 서비스 메뉴에서 요금제 변경을 "
    "누르고 원하는 요금제를 고르시면 됩니다"
)
ROW = chat(QUESTION, ANSWER)
NEARLY = chat(QUESTION.replace("자세히", "친절하게"), ANSWER.replace("원하는", "바라는"))
OTHER = chat("환불은 언제 되나요", "신청하신 날부터 사흘 안에 카드로 돌려 드립니다")


def messages(checked: RowResult) -> str:
    return "\n".join(fault.message for fault in checked.faults)


def test_repeated_rows_are_dropped_and_the_first_is_named(tiny: AxTokenizer) -> None:
    rows = [ROW, OTHER, NEARLY, ROW]
    first, other, nearly, same = check_rows(tiny, rows, near_duplicates="drop")
    assert first.samples
    assert other.samples
    assert (nearly.dropped, same.dropped) == ("near-duplicate", "duplicate")
    assert not nearly.samples
    assert not nearly.refused
    assert codes(nearly, "warning") == ["near-duplicate"]
    assert codes(same, "warning") == ["duplicate"]
    assert "rows.jsonl:1 (0.7" in messages(nearly)
    assert "the same row as rows.jsonl:1, which is kept" in messages(same)
    assert "요금제" not in messages(nearly) + messages(same)


def test_repeated_rows_stay_with_a_warning_and_are_held_out_together(tiny: AxTokenizer) -> None:
    first, nearly = check_rows(tiny, [ROW, NEARLY], near_duplicates="warn")
    assert nearly.samples
    assert nearly.overlaps == ["near-duplicate"]
    assert nearly.key == first.key
    off = check_rows(tiny, [ROW, NEARLY])
    assert off[0].key != off[1].key
    assert not off[1].faults


def test_a_refused_row_is_nobodys_first(tiny: AxTokenizer) -> None:
    long = chat(QUESTION, ANSWER, *["가나다 " * 100, "네"])
    refused, kept = check_rows(tiny, [long, ROW], near_duplicates="drop", max_length=200)
    assert codes(refused) == ["too-long"]
    assert kept.samples


def test_rows_are_compared_before_they_are_masked(tiny: AxTokenizer) -> None:
    text = "{} 번으로 전화해 주시면 요금제 변경을 바로 도와드리겠습니다 {} 번도 됩니다"
    rows = [
        chat(text.format(one, one), f"네 {one} 번으로 {one} 하겠습니다 {one}")
        for one in ("010-2394-8571", "010-7746-1109")
    ]
    checked = check_rows(tiny, rows, near_duplicates="drop", privacy="mask")
    assert not any(row.dropped for row in checked)
    assert "same conversation" in messages(checked[1])  # masked they are the same


def test_rows_that_masks_make_alike_are_counted_by_their_own_text(tiny: AxTokenizer) -> None:
    row = chat("제 번호는 010-2394-8571 이고 요금제를 바꾸고 싶어요 어떻게 하나요", ANSWER)
    _, same = check_rows(tiny, [row, row], near_duplicates="drop", privacy="mask")
    assert same.dropped == "duplicate"
    assert same.personal_data == {"telephone": 1}


def test_preferences_of_one_prompt_stay_together(tiny: AxTokenizer) -> None:
    def pair(prompt: str, *answers: str) -> dict[str, str]:
        return dict(zip(("prompt", "chosen", "rejected"), (prompt, *answers), strict=True))

    one, two = QUESTION * 2, QUESTION * 2 + " 부탁해요"
    said, other = (ANSWER, "아니요, 그런 메뉴는 없습니다"), ("전화로 됩니다", "대리점에 오세요")
    for rows in (
        [pair(one, *said), pair(two, *said), pair(two, *other)],
        [pair(one, *said), pair(two, *other), pair(two, *said)],
    ):
        checked = check_rows(tiny, rows, near_duplicates="warn")
        assert sum("near-duplicate" in row.overlaps for row in checked) == 1
        assert checked[1].key == checked[2].key


@pytest.mark.parametrize("task", ["dpo", "kto"])
def test_preferences_are_repeated_with_both_answers(tiny: AxTokenizer, task: Any) -> None:
    pair = {"prompt": QUESTION * 2, "chosen": ANSWER, "rejected": "아니요, 그런 메뉴는 없습니다"}
    contrary = pair | {"chosen": pair["rejected"], "rejected": ANSWER}
    another = pair | {"rejected": "대리점에 방문하셔야만 합니다"}
    rows = [pair, contrary, another, pair | {"prompt": QUESTION * 2 + "!"}]
    checked = check_rows(tiny, rows, task=task, near_duplicates="drop")
    assert [row.dropped for row in checked] == ["", "", "", "near-duplicate"]
    assert codes(checked[1], "warning") == ["contradiction"]


def test_leaked_rows_are_refused_or_dropped(tiny: AxTokenizer, tmp_path: Path) -> None:
    bench = write_jsonl(tmp_path / "b.jsonl", [{"question": "가"}, {"question": QUESTION}])
    given = {"not_in": str(bench)}
    first, nearly, other = check_rows(tiny, [ROW, NEARLY, OTHER], **given)
    assert codes(first) == codes(nearly) == ["leaked"]
    assert "30 letters and digits in a row" in messages(first)
    assert f"{bench}:2 (100% of its 30)" in messages(first)
    assert "22 letters" in messages(nearly)
    assert other.samples
    dropped, _, _ = check_rows(tiny, [ROW, NEARLY, OTHER], **given, leaked="drop")
    assert dropped.dropped == "leaked"
    assert not dropped.refused


def test_a_leaked_row_is_nobodys_first(tiny: AxTokenizer, tmp_path: Path) -> None:
    bench = write_jsonl(tmp_path / "b.jsonl", [{"question": f"{QUESTION} {QUESTION}"}])
    options = {"not_in": str(bench), "leaked": "drop", "near_duplicates": "drop"}
    leaked, kept = check_rows(tiny, [chat(f"{QUESTION} {QUESTION}", ANSWER), OTHER], **options)
    assert leaked.dropped == "leaked"
    assert kept.samples


def test_held_out_rows_of_the_recipe_are_items_too(tmp_path: Path) -> None:
    held_out = str(write_jsonl(tmp_path / "e.jsonl", [ROW]))
    assert overlap_gate(data_options(["t"], eval=held_out)) is None
    gate = overlap_gate(data_options(["t"], eval=held_out, near_duplicates="warn"))
    assert gate is not None
    assert gate.files == []
    asked = str(write_jsonl(tmp_path / "q.jsonl", [ROW]))
    gate = overlap_gate(data_options(["t"], eval=held_out, not_in=[asked]), [asked])
    assert gate is not None
    assert gate.files == [Path(asked)]


def test_other_facts_are_a_warning(tiny: AxTokenizer, tmp_path: Path) -> None:
    form = "접수번호 {}로 신청하신 결합할인과 부가서비스의 처리 상태를 {}일까지 알려 주세요"
    bench = write_jsonl(tmp_path / "b.jsonl", [{"question": form.format(48_213, 14)}])
    row = chat(form.format(90_755, 25), "네")
    (checked,) = check_rows(tiny, [row], not_in=str(bench), leaked="drop")
    assert codes(checked, "warning") == ["same-form"]
    assert checked.samples


def test_the_account_counts_by_file_what_was_found(tiny: AxTokenizer) -> None:
    ledger = StatsBuilder()
    for folder in ("a", "b"):
        for checked in check_rows(tiny, [ROW, NEARLY, ROW], near_duplicates="drop"):
            checked.file = f"/data/{folder}/rows.jsonl"
            ledger.add(checked)
    account = ledger.account()
    assert account.dropped == {"near-duplicate": 2, "duplicate": 2}
    assert account.rows_read == account.rows_used + sum(account.dropped.values())
    assert account.rows_left_out == 0
    assert account.warnings == {}
    assert account.overlaps["a/rows.jsonl"] == {"near-duplicate": 1, "duplicate": 1}
    assert sorted(account.overlaps) == ["a/rows.jsonl", "b/rows.jsonl"]
