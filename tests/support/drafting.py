"""Documents with facts that a server can ask of, and a server that does."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.openai_server import completion
from support.rows import write_jsonl

NAMES = (
    "연차휴가", "출장비", "법인카드", "재택근무", "교육훈련", "정보보안", "구매계약", "자산관리",
    "회의실예약", "경조사비", "건강검진", "차량운행", "방문증발급", "비밀번호변경", "설비점검",
    "하자보수", "채용면접", "퇴직연금", "문서보존", "감사대응",
)  # fmt: skip
_FACT = re.compile(r"(\S+) 신청은 사유가 생긴 날부터 (\d+)일 안에 (\S+)에 낸다")
_PASSAGE = re.compile(r"<지문>\n(.*)\n</지문>", re.DOTALL)
_QUESTION = re.compile(r"\n질문: (.*)\Z", re.DOTALL)


def fact(name: str, days: int, place: str = "총무팀") -> str:
    return (
        f"{name} 신청은 사유가 생긴 날부터 {days}일 안에 {place}에 낸다. "
        "늦으면 부서장의 확인을 받아 따로 심사한다."
    )


def document(name: str, days: int, **meta: Any) -> dict[str, Any]:
    """A row of a corpus that gives one passage with one fact."""
    known = {"source": f"{name}.pdf", "title": f"{name} 규정", "pages": 2, "sha256": f"{days:064}"}
    return {"text": fact(name, days), "meta": {**known, **meta}}


def corpus(folder: Path, count: int = 3) -> Path:
    rows = [document(name, number) for number, name in enumerate(NAMES[:count], 3)]
    return write_jsonl(folder / "corpus.jsonl", rows)


def passage_of(request: dict[str, Any]) -> str:
    found = _PASSAGE.search(request["messages"][-1]["content"])
    assert found is not None
    return found[1]


def question_of(request: dict[str, Any]) -> str | None:
    """What is asked with the passage; None where pairs are to be drafted."""
    found = _QUESTION.search(request["messages"][-1]["content"])
    return found[1] if found else None


def says(value: Any, finish_reason: str = "stop") -> tuple[int, Any]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return 200, completion({"role": "assistant", "content": text}, finish_reason)


def pairs(*of: Sequence[str]) -> dict[str, Any]:
    return {"pairs": [{"question": question, "answer": answer} for question, answer in of]}


class Drafter:
    """Drafts a pair of each fact, and answers it from the passage.

    Args:
        seconds: That an answer takes.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.drafted: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, request: dict[str, Any]) -> tuple[int, Any]:
        time.sleep(self.seconds)
        text, question = passage_of(request), question_of(request)
        facts = _FACT.findall(text)
        if question is None:
            with self.lock:
                self.drafted.append(text)
            return says(pairs(*(_pair(*one) for one in facts)))
        for name, days, place in facts:
            if question.startswith(name):
                return says({"answerable": True, "answer": f"{days}일 안에 {place}에 냅니다."})
        return says({"answerable": False, "answer": "답할 수 없음"})


def _pair(name: str, days: str, place: str) -> tuple[str, str]:
    return (
        f"{name} 신청은 언제까지 어디에 내야 하나요?",
        f"사유가 생긴 날부터 {days}일 안에 {place}에 냅니다.",
    )
