"""A text held against references: exact match, chrF, and JSON where JSON was asked for.

Exact match compares as `axtune.evaluate.score.plain_text` has it: NFC, without outer space. chrF is
sacrebleu's with its defaults (character 6-grams, beta 2, no word n-grams:
https://aclanthology.org/W15-3049), which suits Korean, where words hardly repeat. Several
references: the one that fits best counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import CHRF

from axtune.data.literals import parse_json
from axtune.data.validate import schema_validator, violations
from axtune.evaluate.score import plain_text


def is_exact(answer: str, references: Sequence[str]) -> bool:
    """Whether an answer is one of the references, but for composition and outer space."""
    return plain_text(answer) in map(plain_text, references)


# --- chrF -----------------------------------------------------------------------------------------


def chrf_counts(answer: str, references: Sequence[str]) -> NDArray[np.int64]:
    """What chrF is made of; the counts of several answers, added up, make that of all.

    Args:
        answer: Compared in NFC, as `references` are.
        references: At least one.

    Returns:
        (18,): for n-grams of 1 to 6 characters how many the answer has, how many the best reference
        has, and how many they share.
    """
    if not references:
        raise ValueError("chrF needs a reference")
    # As sacrebleu's own paired tests do; its public functions give a score, which does not add up.
    (counts,) = _CHRF._extract_corpus_statistics(
        [plain_text(answer)], [[plain_text(reference)] for reference in references]
    )
    return np.array(counts, dtype=np.int64)


def chrf(counts: NDArray[Any]) -> NDArray[np.float64]:
    """chrF of counts, from 0 to 100.

    Args:
        counts: (…, 18), of one answer, or the sum or the mean of those of many.

    Returns:
        (…,).
    """
    parts = np.asarray(counts, dtype=np.float64).reshape(*np.shape(counts)[:-1], -1, 3)
    said, wanted, shared = parts[..., 0], parts[..., 1], parts[..., 2]
    counted = (said > 0) & (wanted > 0)  # shorter texts have no n-grams of the higher orders
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.where(counted, shared / np.where(counted, said, 1), 0).sum(axis=-1) / orders
    recall = np.where(counted, shared / np.where(counted, wanted, 1), 0).sum(axis=-1) / orders
    weight = CHRF.BETA**2
    below = weight * precision + recall
    score: NDArray[np.float64] = np.where(
        below > 0, 100 * (1 + weight) * precision * recall / np.where(below > 0, below, 1), 0.0
    )
    return score


_CHRF = CHRF()


# --- JSON -----------------------------------------------------------------------------------------


class JsonVerdict(NamedTuple):
    """Whether an answer is the JSON that was asked for.

    Attributes:
        parses: The whole answer is one JSON value, as a client reads it: a fence around it or a
            word before it is not JSON.
        conforms: It keeps to the schema.
    """

    parses: bool
    conforms: bool


def wanted_schema(response_format: Any, references: Sequence[str] = ()) -> Any:
    """The JSON Schema that a request asks its answer to keep to.

    Args:
        response_format: Of the request, as OpenAI (``json_object``, or ``json_schema`` with the
            schema in it or beside it) and vLLM have it; None without one.
        references: Recorded answers, of which each that is a JSON object or list asks for such a
            one where the request says nothing.

    Returns:
        The schema; None where text is as good as JSON. A format of another kind asks for nothing.
    """
    if isinstance(response_format, Mapping):
        kind = response_format.get("type")
        if kind == "json_object":
            return {"type": "object"}
        if kind == "json_schema":
            inner = response_format.get("json_schema")
            holder = inner if isinstance(inner, Mapping) else response_format
            return holder.get("schema", True)
        return None
    kinds = {_container(reference) for reference in references}
    if not kinds or None in kinds:
        return None
    return {"type": sorted(filter(None, kinds))}


def judge_json(answer: str, schema: Any) -> JsonVerdict:
    """Hold an answer against a JSON Schema.

    Args:
        answer: As the client gets it.
        schema: Of `wanted_schema`; one that is itself broken says nothing, and is kept to.
    """
    try:
        value = parse_json(answer)
    except ValueError:
        return JsonVerdict(False, False)
    validator = schema_validator(schema)
    if validator is None:
        return JsonVerdict(True, True)
    try:
        return JsonVerdict(True, not violations(validator, value))
    except (UnicodeEncodeError, RecursionError):  # half a surrogate pair, or hundreds of levels
        return JsonVerdict(True, False)


def _container(text: str) -> str | None:
    """``object`` or ``array`` where a text is one; else None."""
    try:
        value = parse_json(text)
    except ValueError:
        return None
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else None
