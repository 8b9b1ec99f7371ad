from __future__ import annotations

import hashlib

import jsonschema_rs

from axtune.drafting.prompts import (
    CHECK_SCHEMA,
    PROMPT_VERSION,
    check_prompt,
    draft_prompt,
    draft_schema,
)


def test_whoever_changes_a_prompt_changes_its_version() -> None:
    said = str([draft_prompt("지문", "제목", 2), check_prompt("지문", "", "질문?")])
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    assert (PROMPT_VERSION, digest) == ("1", "c213ef83")


def test_braces_of_a_passage_stay() -> None:
    passage = '{"a": {passage} {0}}'
    (message,) = draft_prompt(passage, "{title}", 3)
    assert message["role"] == "user"
    assert passage in message["content"]
    assert "3개까지" in message["content"]
    assert check_prompt(passage, "", "{x}?")[0]["content"].endswith("질문: {x}?")


def test_schemas_take_what_the_prompts_ask_for() -> None:
    pair = {"question": "가", "answer": "나"}
    assert jsonschema_rs.is_valid(draft_schema(2), {"pairs": [pair, pair]})
    assert jsonschema_rs.is_valid(draft_schema(2), {"pairs": []})
    assert not jsonschema_rs.is_valid(draft_schema(1), {"pairs": [pair, pair]})
    assert jsonschema_rs.is_valid(CHECK_SCHEMA, {"answerable": False, "answer": "답할 수 없음"})
