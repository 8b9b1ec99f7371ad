"""What a recipe asks while it trains: which questions, and what their answers are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.rows import write_jsonl
from support.tiny import LIBRARY_WARNINGS, recipe, write_rows
from support.tool_pairs import CITIES, TOOLS, call

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.metrics import FIGURE_OF
from axtune.config.recipe import FIGURES
from axtune.data.native_calls import Answer
from axtune.errors import AxtuneError, RecipeError
from axtune.evaluate.figures import METRICS
from axtune.evaluate.in_training import TrainingQuestions, settings_of
from axtune.model.trained import load_trained

pytestmark = LIBRARY_WARNINGS


@pytest.fixture(scope="module")
def tokenizer() -> AxTokenizer:
    return load_tokenizer("tiny-ax-4.0")


def weather(folder: Path) -> str:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{city} 날씨 알려줘"},
                call("get_weather", city),
            ],
            "tools": TOOLS,
        }
        for city in CITIES[:4]
    ]
    return str(write_jsonl(folder / "weather.jsonl", rows))


def test_every_metric_has_a_name_that_a_recipe_takes() -> None:
    assert tuple(FIGURE_OF) == METRICS
    assert tuple(FIGURE_OF.values()) == FIGURES


def test_the_held_out_rows_are_asked_unless_files_are_given(
    tmp_path: Path, tokenizer: AxTokenizer
) -> None:
    held_out = TrainingQuestions(recipe(tmp_path, data={"eval": 0.25}, evaluate={}), tokenizer)
    assert len(held_out) == 4
    assert held_out.files == 1
    assert set(held_out.figures(dict.fromkeys(range(4), Answer("", [])))) == {"exact", "chrf"}
    files = {"data": [weather(tmp_path), str(write_rows(tmp_path / "more.jsonl", 3))], "limit": 5}
    given = TrainingQuestions(recipe(tmp_path, evaluate=files), tokenizer)
    assert len(given) == 5
    assert given.left_out == {"limit": 2}
    again = TrainingQuestions(recipe(tmp_path, evaluate=files), tokenizer)
    assert again._asked == given._asked
    other = TrainingQuestions(recipe(tmp_path, evaluate=files, seed=1), tokenizer)
    assert other._asked != given._asked


def test_answers_are_worth_what_axtune_eval_says(tmp_path: Path, tokenizer: AxTokenizer) -> None:
    questions = TrainingQuestions(recipe(tmp_path, evaluate={"data": weather(tmp_path)}), tokenizer)
    right = [Answer("", [call("get_weather", city)["tool_calls"][0]]) for city in CITIES[:4]]
    wrong = Answer("", [call("get_time", CITIES[3])["tool_calls"][0]])
    figures = questions.figures(dict(enumerate([*right[:3], wrong])))
    assert figures["tool_accuracy"] == 0.75
    assert figures["tool_name_accuracy"] == 0.75
    assert figures["decision_accuracy"] == figures["schema_valid"] == 1.0
    assert questions.figures(dict(enumerate(right)))["tool_accuracy"] == 1.0


def test_an_answer_that_is_not_wanted_is_no_right_one(
    tmp_path: Path, tokenizer: AxTokenizer
) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"{city} 날씨 알려줘"}],
         "completion": [call(name, city)], "label": name == "get_weather", "tools": TOOLS}
        for city in CITIES[:3]
        for name in ("get_weather", "get_time")
    ]  # fmt: skip
    held_out = str(write_jsonl(tmp_path / "unpaired.jsonl", rows))
    job = recipe(tmp_path, task="kto", data={"train": held_out}, evaluate={"data": held_out})
    questions = TrainingQuestions(job, tokenizer)
    right = [Answer("", call("get_weather", city)["tool_calls"]) for city in CITIES[:3]]
    assert questions.figures(dict(enumerate(right)))["tool_accuracy"] == 1.0


def test_what_no_question_tells_cannot_choose(tmp_path: Path, tokenizer: AxTokenizer) -> None:
    section = {"best": "tool_accuracy"}
    with pytest.raises(RecipeError) as caught:
        TrainingQuestions(recipe(tmp_path, data={"eval": 0.25}, evaluate=section), tokenizer)
    (fault,) = caught.value.faults
    assert fault.message == (
        "evaluate.best: no question tells tool_accuracy; these tell exact and chrf."
    )
    told = recipe(tmp_path, evaluate={**section, "data": weather(tmp_path)})
    assert len(TrainingQuestions(told, tokenizer)) == 4


def test_answers_that_find_no_room_are_said_before_training(
    tmp_path: Path, tokenizer: AxTokenizer
) -> None:
    endless = {"max_new_tokens": 10**6}
    with pytest.raises(AxtuneError, match="too-long 4"):
        TrainingQuestions(recipe(tmp_path, data={"eval": 0.25}, evaluate=endless), tokenizer)


def test_some_questions_are_answered_by_their_numbers(tmp_path: Path) -> None:
    model, tokenizer = load_trained("tiny-ax-4.0", print)
    section = {"max_new_tokens": 4, "data": str(write_rows(tmp_path / "q.jsonl", 5))}
    questions = TrainingQuestions(recipe(tmp_path, evaluate=section), tokenizer)

    def said(numbers: Any) -> dict[int, Answer]:
        found: dict[int, Answer] = {}
        for batch in questions.answers(model, numbers):
            found |= batch
        return found

    everything = said(range(5))
    assert sorted(everything) == [0, 1, 2, 3, 4]
    assert said(range(1, 5, 2)) == {1: everything[1], 3: everything[3]}


def test_after_training_the_same_is_asked(tmp_path: Path) -> None:
    section = {"data": "q.jsonl", "limit": 7, "max_new_tokens": 9}
    settings = settings_of(recipe(tmp_path, evaluate=section, seed=3), against="base")
    assert (settings.data, settings.limit, settings.seed) == (["q.jsonl"], 7, 3)
    assert (settings.against, settings.sampling.max_new_tokens) == ("base", 9)
    assert settings_of(recipe(tmp_path)).data == ()
