"""What a server is asked, in Korean, and the JSON that it answers.

Whoever changes a text here changes `PROMPT_VERSION` too: rows name it, and drafts of two versions
are not mixed in a file.
"""

from __future__ import annotations

from typing import Any

PROMPT_VERSION = "1"

_DRAFT = """\
당신은 회사의 문서로 질문과 답변을 만드는 편집자입니다. 아래 지문만 읽고, 그 업무를 하는 사람이 \
실제로 물어볼 만한 질문과 답변을 {count}개까지 한국어로 만드세요.

규칙
- 답은 지문에 적힌 사실만으로 씁니다. 지문에 없는 것은 덧붙이지 않습니다.
- 질문은 지문을 보지 못한 사람도 뜻을 알 수 있게 씁니다. 무엇에 관한 것인지 이름을 분명히 적고, \
"이 문서", "위 글", "본문", "지문" 같은 말은 질문에도 답변에도 쓰지 않습니다.
- 숫자, 날짜, 이름은 지문에 적힌 그대로 옮깁니다.
- 서로 다른 내용을 묻습니다.
- 사람의 전화번호, 주민등록번호, 계좌번호 같은 개인정보와 <|…|>로 가려진 부분은 묻지도 답하지도 \
않습니다.
- 물어볼 만한 내용이 없으면 빈 목록을 냅니다.

다음 꼴의 JSON만 출력하세요.
{{"pairs": [{{"question": "질문", "answer": "답변"}}]}}

문서 제목: {title}
<지문>
{passage}
</지문>"""

_CHECK = """\
아래 지문만 근거로 질문에 한국어로 짧고 정확하게 답하세요. 지문에 적혀 있지 않은 지식은 쓰지 \
않습니다. 지문만으로 답할 수 없으면 answerable을 false로, answer를 "답할 수 없음"으로 합니다.

다음 꼴의 JSON만 출력하세요.
{{"answerable": true, "answer": "답변"}}

문서 제목: {title}
<지문>
{passage}
</지문>

질문: {question}"""

CHECK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answerable": {"type": "boolean"}, "answer": {"type": "string"}},
    "required": ["answerable", "answer"],
    "additionalProperties": False,
}


def draft_schema(count: int) -> dict[str, Any]:
    """The JSON Schema of up to `count` drafted pairs."""
    pair = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["question", "answer"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"pairs": {"type": "array", "items": pair, "maxItems": count}},
        "required": ["pairs"],
        "additionalProperties": False,
    }


def draft_prompt(passage: str, title: str, count: int) -> list[dict[str, Any]]:
    """The messages that ask for pairs; one message, for some templates know no system turn.

    Args:
        passage: What they are to be drafted from.
        title: Of its document.
        count: How many pairs at most.
    """
    text = _DRAFT.format(passage=passage, title=title or "(없음)", count=count)
    return [{"role": "user", "content": text}]


def check_prompt(passage: str, title: str, question: str) -> list[dict[str, Any]]:
    """The messages that ask a drafted question again, with the passage alone to answer from.

    Args:
        passage: What the question was drafted from.
        title: Of its document.
        question: The draft.
    """
    text = _CHECK.format(passage=passage, title=title or "(없음)", question=question)
    return [{"role": "user", "content": text}]
