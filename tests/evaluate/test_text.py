from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from axtune.evaluate.text import chrf, chrf_counts, is_exact, judge_json, wanted_schema

SCHEMA = {
    "type": "object",
    "properties": {"도시": {"type": "string"}, "기온": {"type": "number"}},
    "required": ["도시", "기온"],
    "additionalProperties": False,
}
TEXT = st.text(alphabet="가나다라 마바사abc.\n", max_size=20)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("내일 도착합니다.", True),
        ("  내일 도착합니다.\n", True),
        (unicodedata.normalize("NFD", "내일 도착합니다."), True),
        ("모레 도착합니다.", True),
        ("내일  도착합니다.", False),
        ("내일 도착합니다", False),
        ("", False),
    ],
)
def test_exact_match_is_blind_to_composition_and_outer_space_alone(answer, right):
    assert is_exact(answer, ["내일 도착합니다.", "모레 도착합니다. "]) is right


def test_nothing_matches_where_there_is_no_reference():
    assert not is_exact("", [])


# --- chrF -----------------------------------------------------------------------------------------


@given(answer=TEXT, references=st.lists(TEXT, min_size=1, max_size=3))
def test_chrf_of_an_answer_is_sacrebleus(answer, references):
    stripped = [reference.strip() for reference in references]
    expected = CHRF().sentence_score(answer.strip(), stripped).score
    assert chrf(chrf_counts(answer, references)) == pytest.approx(expected)


@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_counts_of_answers_add_up_to_sacrebleus_score_of_the_corpus(pairs):
    counts = np.array([chrf_counts(answer, [reference]) for answer, reference in pairs])
    answers, references = zip(*[(a.strip(), r.strip()) for a, r in pairs], strict=True)
    expected = CHRF().corpus_score(list(answers), [list(references)]).score
    assert chrf(counts.sum(axis=0)) == pytest.approx(expected)
    assert chrf(counts.mean(axis=0)) == pytest.approx(expected)
    assert chrf(counts).shape == (len(pairs),)


def test_chrf_at_its_ends():
    assert chrf(chrf_counts("내일 도착합니다.", ["내일 도착합니다."])) == 100
    assert chrf(chrf_counts("예", ["예"])) == 100  # shorter than an n-gram of the higher orders
    assert chrf(chrf_counts("가나다", ["라마바"])) == chrf(chrf_counts("", ["가"])) == 0
    assert chrf(chrf_counts(unicodedata.normalize("NFD", "한국어"), ["한국어"])) == 100


def test_chrf_takes_the_reference_that_fits_best():
    counts = chrf_counts("내일 옵니다", ["전혀 다른 말", "내일 옵니다"])
    assert chrf(counts) == 100
    with pytest.raises(ValueError, match="reference"):
        chrf_counts("가", [])


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response_format", "references", "schema"),
    [
        ({"type": "json_schema", "json_schema": {"name": "날씨", "schema": SCHEMA}}, [], SCHEMA),
        ({"type": "json_schema", "name": "날씨", "schema": SCHEMA}, [], SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, [], True),
        ({"type": "json_object"}, [], {"type": "object"}),
        ({"type": "text"}, ['{"도시": "부산"}'], None),
        ({"type": "structural_tag"}, [], None),
        (None, ['{"도시": "부산"}'], {"type": ["object"]}),
        (None, [" [1, 2]\n"], {"type": ["array"]}),
        (None, ["[1]", '{"a": 1}'], {"type": ["array", "object"]}),
        (None, ["[1]", "하나"], None),
        (None, ["57600"], None),  # a number alone is a text as well
        (None, ["내일 도착합니다."], None),
        (None, [], None),
    ],
)
def test_what_a_request_asks_its_answer_to_be(response_format, references, schema):
    assert wanted_schema(response_format, references) == schema


@pytest.mark.parametrize(
    ("answer", "parses", "conforms"),
    [
        ('{"도시": "부산", "기온": 21.5}', True, True),
        (' {"기온": 21, "도시": "부산"}\n', True, True),
        ('{"도시": "부산"}', True, False),
        ('{"도시": "부산", "기온": "21.5"}', True, False),
        ('{"도시": "부산", "기온": 21, "습도": 3}', True, False),
        ("null", True, False),
        ('{"도시": "부산", "기온": NaN}', False, False),
        ('```json\n{"도시": "부산", "기온": 21.5}\n```', False, False),
        ("부산은 21.5도입니다.", False, False),
        ("", False, False),
        ("[" * 100_000, False, False),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_answer_is_held_against_its_schema(answer, parses, conforms):
    assert judge_json(answer, SCHEMA) == (parses, conforms)


def test_a_broken_schema_says_nothing():
    assert judge_json("[1]", {"type": 12}) == (True, True)
    assert judge_json("[1]", {"$ref": "https://example.com/schema"}) == (True, True)
    assert judge_json("[1", {"type": 12}) == (False, False)


def test_what_no_schema_can_be_held_against_does_not_conform():
    assert judge_json('"\\ud800"', {"type": "string"}) == (True, False)
    deep = "[" * 900 + "]" * 900
    assert judge_json(deep, {"type": "array"}).parses


@given(value=st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner)))
def test_a_value_keeps_to_the_schema_that_allows_all(value):
    assert judge_json(json.dumps(value), True) == (True, True)
