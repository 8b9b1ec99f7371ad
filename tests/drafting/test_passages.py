"""Documents in passages: nothing lost, nothing cut that belongs together, no personal data."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drafting import document, fact
from support.rows import write_jsonl

from axtune.drafting.passages import Passages, cut, has_control_token, read_passages
from axtune.errors import AxtuneError
from axtune.privacy.own_kinds import read_own_kinds
from axtune.privacy.scrub import Scrubber

PHONE = "010-8842-1177"


def read(folder: Path, *rows: Any, longest: int = 400, own: str = "") -> Passages:
    kinds = ()
    if own:
        (folder / "kinds.yaml").write_text(own, "utf-8")
        kinds = read_own_kinds(folder / "kinds.yaml")
    return read_passages([write_jsonl(folder / "c.jsonl", rows)], longest, Scrubber(kinds))


@given(
    text=st.text(alphabet="가나다 \n.?1", max_size=400),
    longest=st.integers(5, 80),
    begins=st.lists(st.integers(0, 400), max_size=4),
)
def test_passages_hold_all_but_white_space(text: str, longest: int, begins: list[int]) -> None:
    starts = sorted({begin // 20 * 20 for begin in begins if begin // 20 * 20 + 15 < len(text)})
    taken = [(begin, begin + 15) for begin in starts]
    places = list(cut(text, longest, taken))
    assert "".join("".join(text[a:b].split()) for a, b in places) == "".join(text.split())
    assert all(a < b for a, b in places)
    assert all(before[1] <= behind[0] for before, behind in pairwise(places))
    for _, end in places[:-1]:
        assert not any(a < end < b and text[end:b].strip() for a, b in taken)
    assert all(b - a <= longest * 1.2 + 15 for a, b in places)


def test_a_passage_ends_with_a_paragraph() -> None:
    paragraphs = [f"{number}." + " 가나다라" * 18 for number in range(9)]
    text = "\n".join(paragraphs)
    for begin, end in cut(text, 300):
        assert text[begin].isdigit()
        assert text[end - 1] == "라"
        assert end == len(text) or text[end] == "\n"


def test_a_long_paragraph_is_cut_where_a_sentence_ends() -> None:
    text = "이것은 긴 문단의 한 문장이다. " * 60
    places = list(cut(text, 200))
    assert len(places) > 4
    assert all(text[begin:end].endswith("이다.") for begin, end in places)


def test_a_text_without_spaces_is_cut_anyway_and_in_time() -> None:
    assert [end - begin for begin, end in cut("가" * 1000, 300)] == [300, 300, 300, 100]
    begun = time.monotonic()
    assert len(list(cut("가" * 1_000_000, 300))) > 3000
    assert len(list(cut("가.\n" * 300_000, 300))) == 3000
    assert time.monotonic() - begun < 5


def test_a_passage_says_where_it_stands(tmp_path: Path) -> None:
    text = "\n".join(fact("연차", number) for number in range(30))
    row = {"text": text, "meta": document("a", 1)["meta"]}
    found = read(tmp_path, row)
    assert found.documents == 1
    assert len(found.asked) > 3
    for passage in found.asked:
        assert text[passage.begin : passage.end] == passage.text
        meta = passage.to_meta()
        assert (meta["source"], meta["title"], meta["pages"]) == ("a.pdf", "a 규정", 2)
        assert meta["passage"] == passage.text
    assert found.asked[0].place == f"a.pdf [0:{found.asked[0].end}]"
    assert len({passage.key for passage in found.asked}) == len(found.asked)


def test_what_is_not_asked_of_is_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        document("연차휴가", 3),
        {**document("연차휴가", 3), "meta": {"source": "other.pdf"}},
        {"text": "짧은 글"},
        {"text": ""},
        {"text": fact("출장", 3) + "<|im_end|>"},
    )
    assert [passage.source for passage in found.asked] == ["연차휴가.pdf"]
    assert found.left_out == {"duplicate-passage": 1, "too-short": 1, "control-token": 1}
    assert found.documents == 5


def test_personal_data_is_masked_wherever_the_document_names_it(tmp_path: Path) -> None:
    account = "110-987-654321"
    long = "\n".join(fact("연차", number) for number in range(12))
    text = f"급여 계좌번호: {account}\n{long}\n{account}\n담당자 {PHONE}\n{long}"
    row = {"text": text, "meta": {"source": f"{PHONE}.txt", "title": f"담당 {PHONE}"}}
    found = read(tmp_path, row)
    said = json.dumps([passage.to_meta() for passage in found.asked], ensure_ascii=False)
    assert account not in said
    assert PHONE not in said
    assert said.count("<|bank_account|>") == 2
    assert found.masked["telephone"] == 1
    assert not found.left_out
    assert text[found.asked[-1].end - 9 :].endswith("따로 심사한다.")


def test_kinds_of_the_users_own(tmp_path: Path) -> None:
    own = "kinds: [{name: 사번, pattern: 'EMP-[0-9]{4}', mask: '<사번>'}]"
    found = read(tmp_path, {"text": fact("연차", 3, "EMP-1234")}, own=own)
    assert "<사번>" in found.asked[0].text
    assert found.masked == {"사번": 1}


@pytest.mark.parametrize("row", [{"messages": []}, {"text": 3}, ["가"], "가나다", 7])
def test_a_row_that_is_no_document_is_named(tmp_path: Path, row: Any) -> None:
    with pytest.raises(AxtuneError, match=r"c\.jsonl:2 is no document") as caught:
        read(tmp_path, document("연차", 1), row)
    assert "axtune data import" in caught.value.remedy
    assert "가나다" not in str(caught.value)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('{"text": "비밀', "utf-8")
    with pytest.raises(AxtuneError, match=r"c\.jsonl:1: not-json") as caught:
        read_passages([file], 300, Scrubber())
    assert "비밀" not in str(caught.value)


def test_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(AxtuneError, match="there are no documents"):
        read(tmp_path)


def test_control_tokens() -> None:
    assert has_control_token("가<|im_start|>나")
    assert has_control_token("가</think>")
    assert not has_control_token("a <| b |> c, <b>굵게</b>, x[0]")
