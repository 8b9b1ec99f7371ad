"""The one invariant, against what vLLM showed the models: recorded prompts, token by token.

The recorded data lie beside the checkout (`shared`); the second half holds the same invariants on
the project's own rows with the embedded models, so that they are held without it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rows import ROOT, TEMPLATES, check_rows, codes, read_jsonl, stretches, write_jsonl

from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.data.conversation import as_served
from axtune.data.native_calls import HERMES
from axtune.data.parse import read_row
from axtune.data.pipeline import check_rows as check_files
from axtune.data.pipeline import write_rendered
from axtune.data.render import prompt_ids
from axtune.data.statistics import RowResult
from axtune.errors import DataError

LONGEST = 131_072
REFUSED = {"bad-json-args", "array-args"}  # vLLM shows {} instead and hides the loss
CONTROL = {"literal-im-end-in-user", "literal-tool-call-tag"}
ANSWER = {"role": "assistant", "content": "네, 알겠습니다."}


def turns_of(checked: RowResult) -> dict[tuple[int, ...], list[int]]:
    """Every labelled stretch of a row's samples by the tokens before it; no two share them."""
    found: dict[tuple[int, ...], list[int]] = {}
    for sample in checked.samples:
        for begin, end in stretches(sample):
            before = tuple(sample.input_ids[:begin])
            assert before not in found
            found[before] = sample.input_ids[begin:end]
    return found


def says(tokenizer: AxTokenizer, ids: list[int], message: dict[str, Any]) -> None:
    """Ids are an assistant's message and its end of turn, and parse back to it."""
    assert ids[-1] == tokenizer.end_of_turn_id
    answer = HERMES.parse(tokenizer.decode(ids[:-1]))
    assert answer.content == (message.get("content") or "")
    wanted = [call["function"] for call in message.get("tool_calls") or ()]
    got = [call["function"] for call in answer.tool_calls]
    assert [call["name"] for call in got] == [call["name"] for call in wanted]
    for one, two in zip(got, wanted, strict=True):
        given = two["arguments"]
        given = json.loads(given) if isinstance(given, str) else given
        assert json.dumps(json.loads(one["arguments"])) == json.dumps(given)


def test_every_recorded_turn_is_learned_behind_its_served_prompt(
    shared: Path, real: AxTokenizer
) -> None:
    rows = read_jsonl(shared / "goldens" / "serve_prompts.jsonl")
    checked = check_rows(real, rows, max_length=LONGEST)
    turns = 0
    for row, result in zip(rows, checked, strict=True):
        assert not result.refused, result.faults
        learned = turns_of(result)
        for served in row["serve"]:
            ids = learned.pop(tuple(served["prompt_ids"]))
            says(real, ids, row["messages"][served["turn"]])
            assert (
                prompt_ids(real, row["messages"][: served["turn"]], row["tools"])
                == (served["prompt_ids"])
            )
            turns += 1
        assert learned == {}  # no other token carries a label
    assert (len(rows), turns) == (603, 738)


def test_both_answers_of_a_pair_stand_behind_the_served_prompt(
    shared: Path, real: AxTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every recorded turn as a pair: its prompt as served, its answers as they would be learned."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from make_pairs import make_pairs

    rows = read_jsonl(shared / "goldens" / "serve_prompts.jsonl")
    served = {
        f"{row['id']}:{turn['turn']}": turn["prompt_ids"] for row in rows for turn in row["serve"]
    }
    pairs = list(make_pairs(rows))
    assert len(pairs) == len(served) == 738
    assert {pair["kind"] for pair in pairs} == {"wrong_tool", "wrong_argument", "guess"}
    whole = [
        {key: [*pair["prompt"], *pair[key]] for key in ("chosen", "rejected")}
        | {"tools": pair["tools"]}
        for pair in pairs
    ]
    explicit, implicit, apart = (
        check_rows(real, given, max_length=LONGEST, task=task)
        for given, task in ((pairs, "dpo"), (whole, "orpo"), (pairs, "kto"))
    )
    for pair, one, two, three in zip(pairs, explicit, implicit, apart, strict=True):
        prompt = served.pop(pair["id"])
        ((sample,), (again,), answers) = one.samples, two.samples, three.samples
        assert sample == again
        assert sample.prompt_ids == prompt
        assert [answer.prompt_ids for answer in answers] == [prompt, prompt]
        assert [answer.label for answer in answers] == [True, False]
        for key, answer in zip(("chosen", "rejected"), answers, strict=True):
            ids = getattr(sample, f"{key}_ids")
            says(real, ids, pair[key][0])
            assert ids == getattr(sample, f"{key}_labels") == answer.completion_ids
    assert served == {}


def test_a_wrong_tokenizer_would_be_seen(
    shared: Path, real_checkpoint: Callable[[str], Path]
) -> None:
    """The comparison above has teeth: what transformers loads for the Qwen2 layout fails it."""
    from transformers import AutoTokenizer

    folder = str(real_checkpoint("4.0"))
    auto = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    case = json.loads((shared / "goldens" / "serve_normalisation.json").read_text("utf-8"))[0]
    assert auto.encode(case["rendered"], add_special_tokens=False) != case["prompt_ids"]
    assert load_tokenizer(folder).encode(case["rendered"]) == case["prompt_ids"]


def test_recorded_normalisations(shared: Path, real: AxTokenizer) -> None:
    cases = json.loads((shared / "goldens" / "serve_normalisation.json").read_text("utf-8"))
    assert len(cases) == 27
    assert {case["id"] for case in cases} >= REFUSED | CONTROL
    rows = [{"messages": [*c["messages"], ANSWER], "tools": c["tools"]} for c in cases]
    strict = check_rows(real, rows)
    keeping = check_rows(real, rows, control_tokens="keep")
    for case, refused, kept in zip(cases, strict, keeping, strict=True):
        if case["id"] in REFUSED:
            assert codes(refused) == codes(kept) == ["bad-arguments"]
            with pytest.raises(DataError, match="bad-arguments"):
                prompt_ids(real, case["messages"], case["tools"])
            continue
        assert prompt_ids(real, case["messages"], case["tools"]) == case["prompt_ids"]
        assert real.encode(case["rendered"]) == case["prompt_ids"]
        assert codes(refused) == (["control-token"] if case["id"] in CONTROL else [])
        learned = turns_of(kept)
        says(real, learned[tuple(case["prompt_ids"])], ANSWER)


def test_recorded_normalisations_through_the_door(
    shared: Path, real: AxTokenizer, tmp_path: Path
) -> None:
    """What `axtune data render` writes for the same cases, line by line."""
    cases = json.loads((shared / "goldens" / "serve_normalisation.json").read_text("utf-8"))
    rows = [{"messages": [*c["messages"], ANSWER], "tools": c["tools"]} for c in cases]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = data_options([str(file)], control_tokens="keep", max_length=real.context)
    out = tmp_path / "out.jsonl"
    assert write_rendered(check_files([file], real, data), out) == 2
    written = read_jsonl(out)
    assert [line["line"] for line in written] == list(range(1, 28))
    for case, line in zip(cases, written, strict=True):
        assert ("error" in line) == (case["id"] in REFUSED)
        if "samples" in line:
            prompt = case["prompt_ids"]
            (sample,) = [s for s in line["samples"] if s["input_ids"][: len(prompt)] == prompt]
            answer = real.encode(ANSWER["content"] + "<|im_end|>")
            assert sample["input_ids"] == prompt + answer
            assert sample["labels"][len(prompt) :] == answer


def test_prompts_that_an_engine_showed(shared: Path, real: AxTokenizer) -> None:
    file = shared / "goldens" / "engine_prompts_ax31_light.json"
    cases = json.loads(file.read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 10
    for case in cases:
        assert prompt_ids(real, case["messages"]) == case["prompt_ids"]
        assert real.decode(case["prompt_ids"]) == case["rendered"]


def test_embedded_templates_render_the_recorded_text(
    shared: Path, real_checkpoint: Callable[[str], Path], either_tiny: AxTokenizer
) -> None:
    real = load_tokenizer(str(real_checkpoint("4.0")))
    for row in read_jsonl(shared / "goldens" / "serve_prompts.jsonl")[::3]:
        last = row["serve"][-1]
        prompt = prompt_ids(either_tiny, row["messages"][: last["turn"]], row["tools"])
        assert either_tiny.decode(prompt) == real.decode(last["prompt_ids"])


# --- the same on the project's own rows -------------------------------------------------------


def embedded_rows() -> list[Any]:
    files = [read_jsonl(file) for file in sorted(TEMPLATES.glob("*.jsonl"))]
    others = {"chosen", "label", "text"}  # preferences and documents
    rows = [row for file in files for row in file if not row.keys() & others]
    thought = {"role": "assistant", "content": "<think>\n재고를 본다.\n</think>\n\n재고 3개입니다."}
    asked = {"role": "user", "content": "HB-NB-2047 재고는요?"}
    developer = {"role": "developer", "content": "존댓말로."}
    return [
        *rows,
        {"messages": [asked, thought, asked, thought, asked, ANSWER]},
        {
            "messages": [
                {"role": "system", "content": "상담원"},
                asked,
                ANSWER,
                developer,
                asked,
                thought,
            ]
        },
        {"messages": [asked, {**ANSWER, "weight": 0}, asked, ANSWER]},
    ]


def test_every_learned_turn_has_its_served_prompt(either_tiny: AxTokenizer) -> None:
    rows = embedded_rows()
    checked = check_rows(either_tiny, rows, max_length=LONGEST)
    several = 0
    for row, result in zip(rows, checked, strict=True):
        assert not result.refused, result.faults
        conversation, _ = read_row(row)
        assert conversation is not None
        learned = turns_of(result)
        several += len(result.samples) > 1
        for index in conversation.learn:
            before = conversation.messages[:index]
            served = tuple(prompt_ids(either_tiny, before, conversation.tools))
            rendered = either_tiny.render(
                as_served(before), conversation.tools, add_generation_prompt=True
            )
            assert list(served) == either_tiny.encode(rendered)
            says(either_tiny, learned.pop(served), conversation.messages[index])
        assert learned == {}
    assert several == 2


def test_labels_of_a_changed_row_change(tiny: AxTokenizer) -> None:
    """Mutations that have to show in the ids, in the labels, or in neither."""
    row = next(r for r in read_jsonl(TEMPLATES / "chat.jsonl") if r.get("tools"))

    def pair(changed: Any) -> tuple[list[list[int]], list[list[int]]]:
        (checked,) = check_rows(tiny, [changed])
        return [s.input_ids for s in checked.samples], [s.labels for s in checked.samples]

    def edited(**keys: Any) -> Any:
        return json.loads(json.dumps(row)) | keys

    ids, labels = pair(row)
    assert pair(edited(id="다른 것", source=[1])) == (ids, labels)
    first = edited()
    user = next(m for m in first["messages"] if m["role"] == "user")
    user["content"] += " 부탁드립니다."
    assert pair(first)[0] != ids
    assert [n for s in pair(first)[1] for n in s if n != -100] == [
        n for s in labels for n in s if n != -100
    ]
    last = edited()
    last["messages"][-1]["content"] += "!"
    assert pair(last)[1] != labels
    tools = edited()
    tools["tools"][0] = {"function": dict(reversed(tools["tools"][0]["function"].items()))}
    assert pair(tools) == (ids, labels)  # key order is the engine's, not the row's
