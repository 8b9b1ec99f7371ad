"""Masks: JSON stays JSON, keys stay, twice is once, and a number is masked wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from support.personal import cases

from axtune.privacy.own_kinds import OwnKind
from axtune.privacy.scrub import Scrubber

PHONE, ACCOUNT, RESIDENT = "<|telephone|>", "<|bank_account|>", "<|resident_reg|>"


def masked(text: str) -> str:
    return Scrubber().scrub(text).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("연락처 010-1234-5678요", f"연락처 {PHONE}요"),
        ('{"phone": "010-1234-5678"}', f'{{"phone": "{PHONE}"}}'),
        ('{"phone": 1012345678}', f'{{"phone": "{PHONE}"}}'),
        ('{"phone": 1012345678, "n": 2}', f'{{"phone": "{PHONE}", "n": 2}}'),
        ('{"계좌": -110705656304}', f'{{"계좌": "{ACCOUNT}"}}'),
        ('{"phones": [1012345678, 1012345679]}', f'{{"phones": ["{PHONE}", "{PHONE}"]}}'),
        ('[{"account": [[110705656304]]}]', f'[{{"account": [["{ACCOUNT}"]]}}]'),
        (r'{"arguments": "{\"rrn\": 8011262083197}"}',
         rf'{{"arguments": "{{\"rrn\": \"{RESIDENT}\"}}"}}'),
        ("계좌 [110705656304]", f'계좌 ["{ACCOUNT}"]'),
        ("계좌 [110-705-656304]", f"계좌 [{ACCOUNT}]"),
        ("말 [계좌 110705656304]", f"말 [계좌 {ACCOUNT}]"),
        (r'{"a": "[1, {\"계좌\": null}, [110705656304]]"}',
         rf'{{"a": "[1, {{\"계좌\": null}}, [\"{ACCOUNT}\"]]"}}'),
        ("계좌: 110705656304}", f"계좌: {ACCOUNT}}}"),
    ],
)  # fmt: skip
def test_masks(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize("half", [0, 1])
def test_twice_is_once_and_json_stays_json(half: int) -> None:
    scrubber = Scrubber()
    parsed = 0
    for case in cases(half, 1200, seed=11):
        text, counts = scrubber.scrub(case.text)
        assert scrubber.scrub(text) == (text, {})
        assert bool(counts) == (text != case.text)
        try:
            json.loads(case.text)
        except ValueError:
            continue
        json.loads(text)
        parsed += 1
    assert parsed > 150


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(10**9, 10**14)
    | st.floats(allow_nan=False)
    | st.sampled_from(["010-1234-5678", "110-123-456789", "M12345678", "김예시", '한 줄\n"둘" \\']),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["phone", "계좌", "rrn", "passport", "card_no", "a", "010-1234-5678"]),
            inner,
        )
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """A value without its leaves."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else None


@settings(max_examples=200)
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_stays_json_with_its_keys(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    scrubber = Scrubber()
    once = scrubber.scrub_json(text)
    assert shape(json.loads(once.text)) == shape(value)
    assert scrubber.scrub_json(once.text).text == once.text
    made, _ = scrubber.scrub_value(value)
    assert shape(made) == shape(value)
    assert scrubber.scrub_value(made)[0] == made
    nested = json.dumps({"arguments": text}, ensure_ascii=ascii_only)
    json.loads(json.loads(scrubber.scrub(nested).text)["arguments"])
    if isinstance(value, (dict, list)):
        call = scrubber.scrub(f"부릅니다 <tool_call>{text}</tool_call>").text
        json.loads(call.removeprefix("부릅니다 <tool_call>").removesuffix("</tool_call>"))


@settings(max_examples=200)
@given(st.text(alphabet='0123456789- .()계좌여권번호주민은:|,\n"{}[]\\au<>', max_size=80))
def test_any_text_twice_is_once(text: str) -> None:
    once = masked(text)
    assert masked(once) == once


def test_what_is_found_once_is_masked_everywhere() -> None:
    text = f"계좌번호 110-123-456789. {'아무 이름도 없이 이어지는 글 ' * 5}"
    assert masked(f"{text}110123456789, 220-123-456789").endswith(f" {ACCOUNT}, 220-123-456789")


def test_own_kinds_go_first() -> None:
    own = OwnKind("staff", regex.compile(r"SK\d{6}|\d{3}-\d{4}-\d{4}"), (), "[사번]")
    text, counts = Scrubber([own]).scrub("SK１２３４５６, 전화 010-1234-5678, 02-123-4567")
    assert text == f"[사번], 전화 [사번], {PHONE}"
    assert counts == {"staff": 2, "telephone": 1}
    assert Scrubber([own]).scrub(text) == (text, {})
