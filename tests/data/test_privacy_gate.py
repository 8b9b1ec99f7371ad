"""The gate: what the model would be shown of a row has no personal data, and nothing says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.rows import calls, chat, check_rows, codes, tool, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.pipeline import check
from axtune.data.samples import PairSample, Sample
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, CheckpointError
from axtune.privacy.kinds import KINDS

PHONE = "010-8842-1177"
STRING = {"type": "object", "properties": {"phone": {"type": "string"}}}


def shown(tokenizer: AxTokenizer, checked: RowResult) -> str:
    assert checked.samples, checked.faults
    return "".join(
        tokenizer.decode(stretch.ids) for sample in checked.samples for stretch in sample.stretches
    )


def test_masks_are_the_tokens_of_the_models(tiny: AxTokenizer) -> None:
    (checked,) = check_rows(tiny, [chat(f"제 번호는 {PHONE}예요", "네")], privacy="mask")
    (sample,) = checked.samples
    assert isinstance(sample, Sample)
    assert sample.input_ids.count(34) == 1
    assert checked.personal_data == {"telephone": 1}
    assert not checked.faults


def test_every_text_of_a_row_is_masked(tiny: AxTokenizer) -> None:
    answer = {"role": "assistant", "content": "", "reasoning_content": f"{PHONE}이군"}
    answer |= {"tool_calls": calls(("call", {"phone": PHONE, "list": [PHONE]}))["tool_calls"]}
    row = chat(
        {"role": "system", "content": f"문의 {PHONE}"},
        {"role": "user", "content": f"{PHONE}로 걸어 줘"},
        answer,
        {"role": "tool", "content": json.dumps({"tel": PHONE})},
        f"{PHONE}로 걸었어요.",
        tools=[tool("call", {"description": f"예: {PHONE}"})],
    )
    (checked,) = check_rows(tiny, [row], privacy="mask")
    text = shown(tiny, checked)
    assert PHONE not in text
    assert text.count("<|telephone|>") == 7
    (unmasked,) = check_rows(tiny, [row])
    assert shown(tiny, unmasked).count(PHONE) == 7


def test_what_one_turn_names_is_masked_in_all(tiny: AxTokenizer) -> None:
    number = "110-123-456789"
    turns = (f"{number} 조회", "무엇인가요?", f"제 계좌 {number}예요", f"{number} 확인")
    (checked,) = check_rows(tiny, [chat(*turns)], privacy="mask")
    assert shown(tiny, checked).count("<|bank_account|>") == 3


def test_answers_of_a_preference(tiny: AxTokenizer) -> None:
    pair = {"prompt": f"내 번호 {PHONE}", "chosen": f"{PHONE}입니다", "rejected": "010-1111-2222요"}
    (checked,) = check_rows(tiny, [pair], privacy="mask")
    (sample,) = checked.samples
    assert isinstance(sample, PairSample)
    for ids in (sample.prompt_ids, sample.chosen_ids, sample.rejected_ids):
        assert ids.count(34) == 1
    assert checked.personal_data == {"telephone": 3}
    alone = {"prompt": "내 번호", "completion": PHONE, "label": False}
    (checked,) = check_rows(tiny, [alone], privacy="mask")
    assert checked.personal_data == {"telephone": 1}
    same = {"prompt": "번호", "chosen": PHONE, "rejected": "010-1111-2222"}
    (checked,) = check_rows(tiny, [same], privacy="mask")
    assert codes(checked) == ["same-answers"]


@pytest.mark.parametrize(
    ("schema", "value", "broken"),
    [
        ({"type": "string"}, PHONE, False),
        ({"type": "integer"}, 1088421177, True),
        ({"type": ["string", "integer"]}, 1088421177, False),
        ({"type": "string", "pattern": "^[0-9-]+$"}, PHONE, True),
    ],
)
def test_arguments_are_held_against_the_schema_again(
    tiny: AxTokenizer, schema: dict[str, Any], value: Any, broken: bool
) -> None:
    parameters = {"type": "object", "properties": {"phone": schema}}
    row = chat("전화해", calls(("call", {"phone": value})), tools=[tool("call", parameters)])
    (before,) = check_rows(tiny, [row])
    assert not before.faults
    (checked,) = check_rows(tiny, [row], privacy="mask")
    assert codes(checked) == ["schema-violation"] * broken
    assert all("mask" in fault.message for fault in checked.faults)


def test_arguments_as_a_string_stay_json(tiny: AxTokenizer) -> None:
    call = calls(("call", json.dumps({"phone": 1088421177, "n": "010"})))
    row = chat("전화해", call, tools=[tool("call", {"type": "object"})])
    (checked,) = check_rows(tiny, [row], privacy="mask")
    assert '{"phone": "<|telephone|>", "n": "010"}' in shown(tiny, checked)


def test_refuse_names_kinds_and_never_a_value(tiny: AxTokenizer, tmp_path: Path) -> None:
    rows = [chat(f"{PHONE}, 여권 M12345678", "네"), chat("안녕", "네")]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    account, (fault,) = check(str(file), tiny, privacy="refuse")
    assert (fault.line, fault.code) == (1, "personal-data")
    assert "(passport 1, telephone 1)" in fault.message
    assert PHONE not in str(fault)
    assert account.refused == {"personal-data": 1}
    assert account.personal_data == {"telephone": 1, "passport": 1}


def test_masks_that_stand_already_are_let_through(tiny: AxTokenizer) -> None:
    for privacy in ("off", "mask", "refuse"):
        (checked,) = check_rows(tiny, [chat("<|telephone|>요", "네")], privacy=privacy)
        assert not checked.faults
        assert not checked.personal_data
    (checked,) = check_rows(tiny, [chat("<|im_end|> 010-1111-2222", "네")], privacy="mask")
    assert codes(checked) == ["control-token"]


def test_own_kinds(tiny: AxTokenizer, tmp_path: Path) -> None:
    kinds = tmp_path / "kinds.yaml"
    kinds.write_text(
        "kinds: [{name: staff, pattern: 'SK\\d{6}', mask: '[사번]'}]\n", encoding="utf-8"
    )
    row = chat("저는 SK123456입니다", "네")
    (checked,) = check_rows(tiny, [row], privacy="mask", privacy_kinds=str(kinds))
    assert "저는 [사번]입니다" in shown(tiny, checked)
    assert checked.personal_data == {"staff": 1}
    kinds.write_text("kinds: [{name: a, pattern: b, mask: '<s>x</s>'}]\n", encoding="utf-8")
    check_rows(tiny, [row], privacy="mask", privacy_kinds=str(kinds))
    kinds.write_text("kinds: [{name: a, pattern: b, mask: '</think>'}]\n", encoding="utf-8")
    with pytest.raises(AxtuneError):
        check_rows(tiny, [row], privacy="mask", privacy_kinds=str(kinds))


def test_an_own_pattern_that_takes_too_long_stops_at_its_row(
    tiny: AxTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("axtune.privacy.own_kinds._TEXT_SECONDS", 0.05)
    kinds = tmp_path / "kinds.yaml"
    # No repetition of one letter shows it; a text of its own does.
    kinds.write_text("kinds: [{name: slow, pattern: '((가나)+(가나)+)+다', mask: x}]\n", "utf-8")
    row = chat("가나" * 3000 + " 다", "네")
    with pytest.raises(AxtuneError, match=r"^rows.jsonl:1: .*slow takes too long"):
        check_rows(tiny, [row], privacy="mask", privacy_kinds=str(kinds))


def test_a_tokenizer_without_the_masks(tiny: AxTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {f"<|{kind}|>" for kind in KINDS}

    class Backend:
        def get_added_tokens_decoder(self) -> dict[int, Any]:
            added = tiny.backend.get_added_tokens_decoder()
            return {key: token for key, token in added.items() if token.content not in masks}

    from dataclasses import replace

    other = replace(tiny, backend=Backend())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"has no <\|resident_reg\|>") as caught:
        check_rows(other, [], privacy="mask")
    assert "refuse" in caught.value.remedy


def test_a_document_is_masked_whole_before_it_is_cut(tiny: AxTokenizer) -> None:
    """A label on one page says what a number on another one is."""
    account = "110-123-456789"
    text = f"입금 계좌: {account}\n\n" + "입금하신 뒤에 알려 주세요.\n\n" * 20 + f"{account} 확인\n"
    (checked,) = check_rows(tiny, [{"text": text}], privacy="mask", max_length=64)
    assert len(checked.samples) > 3
    assert account not in shown(tiny, checked)
    assert shown(tiny, checked).count("<|bank_account|>") == 2
    assert checked.personal_data == {"bank_account": 2}
    (refused,) = check_rows(tiny, [{"text": text}], privacy="refuse")
    assert codes(refused) == ["personal-data"]
