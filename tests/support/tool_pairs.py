"""Pairs about two tools, and preference runs on them."""

from __future__ import annotations

import json
from pathlib import Path

from axtune.checkpoint.run_dir import Run
from axtune.config import loader
from axtune.config.recipe import Recipe
from axtune.run import train
from support.rows import write_jsonl
from support.tiny import RECIPES

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "도시 이름"}},
                "required": ["city"],
            },
        },
    }
    for name, description in (
        ("get_weather", "날씨를 알려 줍니다"),
        ("get_time", "시각을 알려 줍니다"),
    )
]


CITIES = (
    "서울",
    "부산",
    "대구",
    "인천",
    "광주",
    "대전",
    "울산",
    "수원",
    "춘천",
    "전주",
    "강릉",
    "제주",
)


def call(name: str, city: str) -> dict:
    function = {"name": name, "arguments": json.dumps({"city": city}, ensure_ascii=False)}
    item = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [item]}


def rows(cities: tuple[str, ...]) -> list[dict]:
    """Pairs about two tools: chosen calls the one that was asked for, rejected the other one."""
    made = []
    for city in cities:
        for asked, right, wrong in (("날씨", "get_weather", "get_time"),
                                    ("시각", "get_time", "get_weather")):  # fmt: skip
            made.append({
                "prompt": [{"role": "user", "content": f"{city} {asked} 알려 줘"}],
                "chosen": [call(right, city)],
                "rejected": [call(wrong, city)],
                "tools": TOOLS,
            })  # fmt: skip
    return made


def job(folder: Path, name: str, *words: str) -> Recipe:
    return loader.load(RECIPES / f"{name}.yaml", [
        "model=tiny-ax-4.0", f"data.train={folder / 'rows.jsonl'}", "precision=fp32",
        "training.gradient_accumulation_steps=1", "training.per_device_train_batch_size=4",
        "training.gradient_checkpointing=false", f"output_dir={folder / 'run'}", *words,
    ])  # fmt: skip


def train_sft(folder: Path, train_rows: list[dict]) -> Run:
    """An SFT run that has learned to call, and not yet which tool."""
    chats = [
        {"messages": [*row["prompt"], row[side][0]], "tools": row["tools"]}
        for row in train_rows
        for side in ("chosen", "rejected")
    ]
    write_jsonl(folder / "rows.jsonl", chats)
    return train(job(folder, "sft_lora", "data.eval=null", f"output_dir={folder / 'sft'}",
                     "training.num_train_epochs=4", "training.learning_rate=2e-3"))  # fmt: skip


def train_dpo(
    folder: Path, start: Run, train_rows: list[dict], held_out: list[dict], *words: str
) -> Run:
    """A DPO run from `train_sft`'s adapter: it teaches which tool."""
    write_jsonl(folder / "rows.jsonl", train_rows)
    write_jsonl(folder / "held_out.jsonl", held_out)
    return train(job(
        folder, "dpo_lora", f"preference.start_from={start.path}",
        f"data.eval={folder / 'held_out.jsonl'}", "training.num_train_epochs=6",
        "training.learning_rate=1e-3", *words,
    ))  # fmt: skip
