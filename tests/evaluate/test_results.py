"""What an evaluation found is read back as it was written."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from axtune.errors import AxtuneError, CheckpointError
from axtune.evaluate.results import (
    RESULT,
    Estimate,
    Measured,
    Result,
    clusters_in_words,
    read_result,
)


def result() -> Result:
    found = Measured(
        "accuracy", "simple", 86, Estimate(0.4, 0.3, 0.5), Estimate(0.1, 0.05, 0.2),
        Estimate(0.3, 0.2, 0.4), "better",
    )  # fmt: skip
    return Result(
        "runs/sft", "tiny-ax-4.0", {"samples": 1}, [{"file": "rows.jsonl", "rows": 3}], 86,
        {"too-long": 1}, [found, Measured("chrf", "all", 3, Estimate(40.0, 30.0, 50.0))],
        {"wrong-tool": 4},
    )  # fmt: skip


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result().write(tmp_path)
    assert read_result(tmp_path) == result()


def test_a_result_of_before_clusters_were_counted_is_read(tmp_path: Path) -> None:
    result().write(tmp_path)
    values = json.loads((tmp_path / RESULT).read_text())
    for one in values["measured"]:
        assert one.pop("clusters") is None
    (tmp_path / RESULT).write_text(json.dumps(values))
    assert read_result(tmp_path) == result()


def test_what_intervals_go_by_is_said_where_it_is_not_the_question() -> None:
    accuracy, chrf = result().measured
    assert list(clusters_in_words([accuracy, chrf])) == []
    loss = replace(chrf, metric="loss", n=340, clusters=12)
    assert list(
        clusters_in_words([replace(chrf, clusters=1), replace(accuracy, clusters=30), loss])
    ) == [
        "86 questions are of 30 conversations, which the intervals go by",
        "340 samples are of 12 rows, which the intervals go by",
    ]


@pytest.mark.parametrize("edit", [{"format": 2}, {"measured": [{"metric": 1}]}, {"seconds": "x"}])
def test_a_damaged_result_is_named(tmp_path: Path, edit: dict[str, object]) -> None:
    result().write(tmp_path)
    values = json.loads((tmp_path / RESULT).read_text())
    (tmp_path / RESULT).write_text(json.dumps(values | edit))
    with pytest.raises(CheckpointError, match=r"result\.json is no result of this version"):
        read_result(tmp_path)


def test_the_same_questions_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    assert result().put(tmp_path) == ""
    again = replace(result(), seconds=3.0)
    assert again.put(tmp_path) == ""
    assert read_result(tmp_path) == again


def test_a_comparison_is_not_lost_to_a_look_without_one(tmp_path: Path) -> None:
    result().put(tmp_path)
    assert "beside those of tiny-ax-4.0" in replace(result(), against=None).put(tmp_path)
    assert read_result(tmp_path) == result()


def test_a_comparison_with_one_model_is_not_lost_to_one_with_another(tmp_path: Path) -> None:
    plain = replace(result(), against=None)
    plain.put(tmp_path)
    assert result().put(tmp_path) == ""  # the same and more
    assert "The earlier result" in replace(result(), against="tiny-ax-3.1").put(tmp_path)
    assert "tiny-ax-4.0" in next(tmp_path.glob("result-*.json")).read_text()


def test_other_questions_keep_the_earlier_result(tmp_path: Path) -> None:
    first = replace(result(), created="2026-11-27T10:00:00+00:00")
    first.put(tmp_path)
    for number in range(3):
        other = replace(first, questions=number)
        assert "is " + str(tmp_path / "result-20261127100000") in other.put(tmp_path)
        assert read_result(tmp_path) == other
    kept = sorted(file.name for file in tmp_path.glob("result-*.json"))
    assert kept == [f"result-20261127100000{end}.json" for end in ("-1", "-2", "")]


def test_a_look_at_some_questions_stands_beside_those_of_more(tmp_path: Path) -> None:
    asked = {"data": ["rows.jsonl"]}
    first = replace(result(), settings={**asked, "limit": None})
    first.put(tmp_path)
    for limit, against in ((3, "tiny-ax-4.0"), (3, None), (5, None)):
        look = replace(
            first, settings={**asked, "limit": limit}, questions=limit, against=against,
            data=[{"file": "rows.jsonl", "rows": limit}],
        )  # fmt: skip
        said = look.put(tmp_path)
        assert f"those of this look are in result-limit-{limit}.json." in said
        assert read_result(tmp_path) == first
        kept = json.loads((tmp_path / f"result-limit-{limit}.json").read_text())
        assert kept["questions"] == limit
    other = replace(look, settings={"data": ["other.jsonl"], "limit": 3})  # no look at the first
    assert "The earlier result, of other questions" in other.put(tmp_path)
    assert read_result(tmp_path) == other
    more = replace(other, settings={"data": ["other.jsonl"], "limit": 4}, questions=4)
    assert "the report shows this one" in more.put(tmp_path)
    assert read_result(tmp_path) == more


def test_what_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr("axtune.evaluate.results.write_text", full)
    with pytest.raises(AxtuneError, match=r"result\.json cannot be written: File too large\."):
        result().put(tmp_path)
