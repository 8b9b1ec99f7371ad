"""The tokenizer is the one that tokenizer.json declares; templates render as transformers does."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import calls, chat, tool
from support.strategies import json_values
from tokenizers import Tokenizer

from axtune.checkpoint.locate import TOKENIZER_FILES, find
from axtune.checkpoint.tokenizer import (
    PROBES,
    AxTokenizer,
    Tool,
    disagreement_with_auto,
    load_tokenizer,
)
from axtune.data.conversation import Conversation
from axtune.data.parse import read_row
from axtune.errors import CheckpointError


def test_ids_are_those_of_the_declared_tokenizer(either_tiny: AxTokenizer) -> None:
    declared = Tokenizer.from_file(str(either_tiny.folder / "tokenizer.json"))
    for probe in PROBES:
        assert either_tiny.encode(probe) == declared.encode(probe, add_special_tokens=False).ids
        assert either_tiny.decode(either_tiny.encode(probe)) == probe  # NFD stays NFD


def test_special_tokens_stand_at_their_ids(either_tiny: AxTokenizer) -> None:
    text = "<|user|><|system|><|assistant|><|extra_id_13|><|im_start|><|im_sep|><|im_end|>"
    assert either_tiny.encode(text) == [8, 9, 10, 24, 25, 26, 27]
    text = "<think></think><tool_call></tool_call><tool_output></tool_output>"
    assert either_tiny.encode(text) == [23, 22, 40, 39, 38, 37]
    assert sorted(either_tiny.encode("".join(either_tiny.family.personal_data_tokens))) == list(
        range(28, 37)
    )
    assert (either_tiny.end_of_turn_id, either_tiny.end_of_turn) == (27, "<|im_end|>")
    assert either_tiny.bos_id == 0
    assert dataclasses.replace(either_tiny, config={}).bos_id is None
    assert either_tiny.pad_id == 1


def test_real_ids_of_a_digit_run(real: AxTokenizer) -> None:
    text = "57600원 2024년 12월"
    assert real.encode(text) == [6484, 6178, 501, 261, 644, 1980, 706, 261, 1144, 898]


def test_masks_for_personal_data_are_no_control_tokens(either_tiny: AxTokenizer) -> None:
    assert "<|im_end|>" in either_tiny.control_tokens
    assert "<tool_call>" in either_tiny.control_tokens
    assert not either_tiny.control_tokens & either_tiny.family.personal_data_tokens


def test_auto_tokenizer_is_wrong_for_the_qwen2_layout_only(
    tiny: AxTokenizer, tiny_31: AxTokenizer
) -> None:
    said = disagreement_with_auto(tiny)
    assert said is not None
    assert "\n" not in said
    assert said.startswith("AutoTokenizer of transformers")
    assert "tiny-ax-4.0" in said
    assert disagreement_with_auto(tiny_31) is None


def test_auto_tokenizer_is_wrong_for_the_real_qwen2_layout_only(real: AxTokenizer) -> None:
    layout = json.loads((real.folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    assert (disagreement_with_auto(real) is None) == (layout == "llama")


def test_as_a_transformers_object_it_is_the_same(either_tiny: AxTokenizer) -> None:
    theirs = either_tiny.to_transformers()
    for probe in (*PROBES, "<|im_start|><|user|>질문<|im_end|>"):
        assert theirs.encode(probe, add_special_tokens=False) == either_tiny.encode(probe)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (27, 1)


ROWS: list[dict[str, Any]] = [
    chat("안녕하세요", "네"),
    chat({"role": "system", "content": "너는 상담원이다."}, "a", "<think>\n음\n</think>\n\n답"),
    chat("q", calls(("f", {"날짜": "2026-03-14", "n": 10**30}), ("g", {})), tools=[tool("f")]),
    chat("q", calls(("f", {})), {"role": "tool", "content": "{}"}, "끝", tools=[tool("f", {})]),
    chat("q", "<think>a</think>b", "r", {"role": "assistant", "content": "c"}),
]


@pytest.mark.parametrize("add_generation_prompt", [False, True])
@pytest.mark.parametrize("row", ROWS)
def test_templates_render_as_in_transformers(
    either_tiny: AxTokenizer, row: dict[str, Any], add_generation_prompt: bool
) -> None:
    conversation = _read(row)
    ours = either_tiny.render(
        conversation.messages, conversation.tools, add_generation_prompt=add_generation_prompt
    )
    assert ours == _theirs(either_tiny, conversation, add_generation_prompt)


@pytest.mark.parametrize(
    "template",
    [
        "a\n  {% for m in messages %}\n   {% if m %}\n  {{ m }}\n   {% endif %}\n {% endfor %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m|tojson }}{% endfor %}",
        "{{ messages | tojson(indent=2) }}{{ {'나': 1, '가': '<'} | tojson(sort_keys=true) }}",
        "{{ {'가': 1} | tojson(ensure_ascii=true, separators=(',', ':')) }}",
        "{{ pad_token }}{{ eos_token }}{{ tools is none }}{{ documents }}{{ nothing is defined }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ strftime_now('%Y') }}",
        "{% set a = namespace(n=0) %}{% for m in messages %}{% set a.n = a.n + 1 %}{% endfor %}",
    ],
)
def test_any_template_renders_as_in_transformers(tiny: AxTokenizer, template: str) -> None:
    edited = dataclasses.replace(tiny, chat_template=template)
    messages = chat("안녕", "네 <b>", "또")["messages"]
    theirs = edited.to_transformers().apply_chat_template(messages, tokenize=False)
    assert edited.render(messages, None, add_generation_prompt=False) == theirs


@pytest.mark.parametrize("row", ROWS)
def test_the_embedded_template_is_the_real_one(
    real: AxTokenizer, tiny: AxTokenizer, row: dict[str, Any]
) -> None:
    conversation = _read(row)
    for opened in (False, True):
        texts = [
            t.render(conversation.messages, conversation.tools, add_generation_prompt=opened)
            for t in (real, tiny)
        ]
        assert texts[0] == texts[1] == _theirs(real, conversation, opened)


def _read(row: dict[str, Any]) -> Conversation:
    conversation, problems = read_row(row)
    assert conversation is not None, problems
    return conversation


_as_transformers: dict[str, Any] = {}  # the real ones take a second to build


def _theirs(tokenizer: AxTokenizer, conversation: Conversation, opened: bool) -> str:
    if tokenizer.name not in _as_transformers:
        _as_transformers[tokenizer.name] = tokenizer.to_transformers()
    text = _as_transformers[tokenizer.name].apply_chat_template(
        conversation.messages,
        tools=[dict(tool) for tool in conversation.tools or ()] or None,
        add_generation_prompt=opened,
        tokenize=False,
    )
    assert isinstance(text, str)
    return text


@given(st.text(max_size=8), json_values)
def test_a_tool_remembers_the_json_that_a_template_writes(name: str, value: Any) -> None:
    made = Tool({"name": name, "parameters": value})
    assert made.json == json.dumps(dict(made), ensure_ascii=False)


def test_files_are_copied_byte_for_byte(either_tiny: AxTokenizer, tmp_path: Path) -> None:
    written = either_tiny.copy_files(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {file.name for file in written}
    assert sorted(written) == sorted(tmp_path.iterdir())
    for file in written:
        assert file.read_bytes() == (either_tiny.folder / file.name).read_bytes()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An embedded checkpoint without its weights, to be damaged."""
    source = find("tiny-ax-3.1").folder
    for name in (*TOKENIZER_FILES, "config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, tmp_path / name)
    assert load_tokenizer(str(tmp_path)).pad_id == 1  # whole before it is damaged
    return tmp_path


PANICS = {"type": "Precompiled", "precompiled_charsmap": "/////wEAAAA="}
STRIPS = {"type": "Strip", "content": "5", "start": 1, "stop": 0}
TWICE = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {},
}  # fmt: skip


def _edit(file: Path, **keys: Any) -> None:
    value = json.loads(file.read_text(encoding="utf-8"))
    for key, new in keys.items():
        value.pop(key, None)
        if new is not None:
            value[key] = new
    file.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "keys", "said"),
    [
        ("tokenizer_config.json", {"pad_token": "<|im_end|>"}, "where to stop"),
        ("tokenizer_config.json", {"eos_token": "<|nothing|>"}, "eos_token"),
        ("tokenizer_config.json", {"eos_token": None}, "eos_token"),
        ("tokenizer_config.json", {"chat_template": None}, "no chat template"),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}, "no chat template"),
        ("config.json", {"vocab_size": 100}, "over 100 embeddings"),
        ("tokenizer.json", {"model": None}, "cannot be read"),
        ("tokenizer.json", {"normalizer": PANICS}, "cannot be read"),
        ("tokenizer.json", {"decoder": STRIPS}, "does not give text back as it was: '57600"),
        ("tokenizer.json", {"post_processor": TWICE}, "does not give text back as it was"),
        ("tokenizer_config.json", {"model_max_length": "1e400"}, "expected a number of tokens"),
        ("tokenizer_config.json", {"model_max_length": float("inf")}, "model_max_length is inf"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    copy: Path, file: str, keys: dict[str, Any], said: str
) -> None:
    _edit(copy / file, **keys)
    with pytest.raises(CheckpointError, match=said):
        load_tokenizer(str(copy))


def test_tokens_that_are_drawn_by_chance_are_refused(copy: Path) -> None:
    file = copy / "tokenizer.json"
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    _edit(file, model={**model, "dropout": 1e-6})
    with pytest.raises(CheckpointError, match=r"model.dropout is 1e-06; expected null"):
        load_tokenizer(str(copy))


def test_a_broken_template_says_its_line(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ messages }}\n{% if %}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="broken at line 2"):
        load_tokenizer(str(copy)).render([], None, add_generation_prompt=False)


def test_a_template_cannot_reach_out_of_its_sandbox(copy: Path) -> None:
    text = "{{ messages.__class__.__base__.__subclasses__() }}"
    (copy / "chat_template.jinja").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="unsafe"):
        load_tokenizer(str(copy)).render([], None, add_generation_prompt=False)


def test_added_tokens_as_objects_and_a_template_of_its_own_file(copy: Path) -> None:
    _edit(copy / "tokenizer_config.json", eos_token={"content": "<|im_end|>"}, chat_template=None)
    source = "{% generation %}{{ eos_token }}{% endgeneration %}{{ strftime_now('%Y') | length }}"
    (copy / "chat_template.jinja").write_text(source, encoding="utf-8")
    assert load_tokenizer(str(copy)).render([], None, add_generation_prompt=False) == "<|im_end|>4"


def test_what_ends_a_document_is_of_the_family(either_tiny: AxTokenizer) -> None:
    assert either_tiny.end_of_document_id == 0
    assert either_tiny.stop_ids == (27, 0)
    assert either_tiny.family.end_of_document == either_tiny.config["eod_token"]
    family = dataclasses.replace(either_tiny.family, end_of_document="<|none|>")
    other = dataclasses.replace(either_tiny, family=family)
    assert other.stop_ids == (27,)
    with pytest.raises(CheckpointError, match=r"has no <\|none\|>, which ends a document"):
        _ = other.end_of_document_id
