"""Answers to tasks are asked once, whatever becomes of the process that asked them."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from axtune.evaluate.task_answers import TASK_ANSWERS, KeptModel, open_task_answers

FACTS = {"model": {"weights": "a"}, "chat": False}
GREEDY, DRAWN = {"until": ["\n"]}, {"until": ["\n"], "do_sample": True}


class Library:
    """A model as lm-evaluation-harness has it: it tells its hook of every answer."""

    rank = 0

    def __init__(self, hook: Any) -> None:
        self.hook = hook
        self.asked: list[Any] = []

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[Any]:
        return [self.answer("loglikelihood", one, (-1.25, False)) for one in requests]

    def generate_until(self, requests: list[Any], **_: Any) -> list[Any]:
        return [self.answer("generate_until", one, f"답 {one.args[0]}") for one in requests]

    def answer(self, kind: str, request: Any, answer: Any) -> Any:
        self.asked.append(request.args)
        self.hook(kind, request.args, answer)
        return answer


def asking(*requests: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in requests]


def test_only_what_is_missing_is_asked_and_answers_keep_their_places(tmp_path: Path) -> None:
    likely, texts = asking(("질문", "가"), ("질문", "나")), asking(("하나", GREEDY), ("둘", GREEDY))
    for asked, told in ((2, 0), (2, 2)):
        with open_task_answers(tmp_path, FACTS) as answers:
            model = Library(answers.add)
            counted: list[int] = []
            kept = KeptModel(model, answers, lambda counted=counted: counted.append(1))
            part = [likely[0], texts[1]] if not told else [*likely, *texts]
            assert kept.loglikelihood([one for one in part if one in likely])[0] == (-1.25, False)
            said = kept.generate_until([one for one in part if one in texts], disable_tqdm=True)
            assert said == [f"답 {one.args[0]}" for one in part if one in texts]
            assert (len(model.asked), len(counted), kept.rank) == (asked, told, 0)
    assert stat.S_IMODE((tmp_path / TASK_ANSWERS).stat().st_mode) == 0o600


def test_another_model_and_a_drawn_answer_are_asked_again(tmp_path: Path) -> None:
    for facts, request in ((FACTS, GREEDY), ({**FACTS, "chat": True}, GREEDY), (FACTS, DRAWN)):
        with open_task_answers(tmp_path, facts) as answers:
            model = Library(answers.add)
            KeptModel(model, answers, lambda: None).generate_until(asking(("하나", request)))
            assert model.asked == [("하나", request)]
    assert (tmp_path / TASK_ANSWERS).read_text("utf-8").count("\n") == 2


def test_what_is_damaged_or_cut_short_is_asked_again(tmp_path: Path) -> None:
    requests = asking(("질문", "가"), ("질문", "나"), ("질문", "다"))
    with open_task_answers(tmp_path, FACTS) as answers:
        KeptModel(Library(answers.add), answers, lambda: None).loglikelihood(requests)
    file = tmp_path / TASK_ANSWERS
    first, second, third = file.read_bytes().splitlines()
    file.write_bytes(first.replace(b"-1.25", b"-1.26") + b"\n" + second + b"\n" + third[:40])
    for asked in (2, 0):
        with open_task_answers(tmp_path, FACTS) as answers:
            assert f"{file}:1 is damaged and not used" in answers.damaged_in_words()
            model = Library(answers.add)
            found = KeptModel(model, answers, lambda: None).loglikelihood(requests)
            assert found == [(-1.25, False)] * 3
            assert len(model.asked) == asked


def test_other_things_of_the_model_are_its_own(tmp_path: Path) -> None:
    with open_task_answers(tmp_path, FACTS) as answers:
        model = KeptModel(Library(answers.add), answers, lambda: None)
        with pytest.raises(AttributeError, match="nothing"):
            _ = model.nothing
