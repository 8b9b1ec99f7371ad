"""Conversations with calls that a tiny model can learn by heart, and asking whether it has."""

from __future__ import annotations

import json
from typing import Any

_TOOLS: dict[str, dict[str, Any]] = {
    "find_order": {"order_id": {"type": "string"}},
    "book_room": {"room": {"type": "string"}, "hour": {"type": "integer"}},
    "get_weather": {"city": {"type": "string"}, "days": {"type": "integer"}},
}

_ORDERS = [
    ("20240917", "모레 도착합니다."),
    ("57600", "배송이 완료되었습니다."),
    ("8812", "배송 준비 중입니다."),
    ("40013", "내일 출발합니다."),
]
_ROOMS = [("1층", 9), ("2층", 10), ("3층", 11), ("7층", 16)]
_CITIES = [
    ("서울", 3, "맑습니다."),
    ("부산", 2, "비가 옵니다."),
    ("대구", 1, "흐립니다."),
    ("광주", 5, "눈이 옵니다."),
]
_TEXTS = [
    ("영업 시간은?", "평일 9시부터 18시까지입니다."),
    ("환불은 며칠 걸려요?", "3일에서 5일 걸립니다."),
    ("주차가 되나요?", "지하 2층에 2시간 무료입니다."),
    ("대표 번호는?", "1588-2024입니다."),
]


def rows() -> list[dict[str, Any]]:
    """Sixteen conversations: 12 with a call, its result and an answer; 4 of text."""
    made = []
    for order, answer in _ORDERS:
        made.append(
            _called(f"주문 {order}번 어디쯤이에요?", "find_order", {"order_id": order}, answer)
        )
    for room, hour in _ROOMS:
        arguments = {"room": room, "hour": hour}
        made.append(
            _called(
                f"{room} 회의실 {hour}시에 잡아 줘",
                "book_room",
                arguments,
                f"{room} 회의실을 {hour}시에 예약했습니다.",
            )
        )
    for city, days, answer in _CITIES:
        arguments = {"city": city, "days": days}
        made.append(
            _called(
                f"{city} {days}일 뒤 날씨 알려 줘", "get_weather", arguments, f"{city}은 {answer}"
            )
        )
    for question, answer in _TEXTS:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        made.append({"messages": messages, "tools": _tools()})
    return made


def _called(question: str, name: str, arguments: dict[str, Any], answer: str) -> dict[str, Any]:
    text = json.dumps(arguments, ensure_ascii=False)
    call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": text}}
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_0", "content": json.dumps({"ok": True})},
            {"role": "assistant", "content": answer},
        ],
        "tools": _tools(),
    }


def _tools() -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": None,
                "parameters": {"type": "object", "properties": properties},
            },
        }
        for name, properties in _TOOLS.items()
    ]
