"""A family that axtune has never seen, from one record to a served file.

It has Llama's layout, an end of turn of another name and number, special tokens at other ids,
another parser of calls in vLLM and another pre-tokenizer's name in llama.cpp.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import gguf
import pytest
from support.rows import calls, chat, tool, write_jsonl
from support.tiny import LIBRARY_WARNINGS, recipe, with_weights

from axtune import check, train
from axtune.checkpoint import families, locate
from axtune.checkpoint.families import A_X_3_1, Family, register
from axtune.checkpoint.locate import Checkpoint
from axtune.export.export import export
from axtune.verify.doctor import examine, repair
from axtune.verify.verify import verify
from axtune.weights.merge import merge

pytestmark = [pytest.mark.slow, LIBRARY_WARNINGS]

END, END_ID = "<|over|>", 8


def invented(folder: Path) -> Checkpoint:
    """A checkpoint whose end of turn is END, with END_ID; what had that id has 27 now."""
    found = with_weights(locate.find("tiny-ax-3.1").folder, folder)
    for file in folder.glob("*token*.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("<|im_end|>", END), encoding="utf-8")
    file = folder / "tokenizer.json"
    declared = json.loads(file.read_text(encoding="utf-8"))
    swapped = {27: END_ID, END_ID: 27}
    for token in declared["added_tokens"]:
        token["id"] = swapped.get(token["id"], token["id"])
    declared["added_tokens"].sort(key=lambda token: token["id"])
    words = declared["model"]["vocab"]
    declared["model"]["vocab"] = {word: swapped.get(id, id) for word, id in words.items()}
    file.write_text(json.dumps(declared, ensure_ascii=False), encoding="utf-8")
    ends = found.generation_config | {"eos_token_id": END_ID}
    (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    return locate.find(str(folder))


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Family]:
    """The one entry."""
    checkpoint = invented(tmp_path / "invented")
    template = checkpoint.chat_template()
    assert template is not None
    with mock.patch.dict(families.FAMILIES):  # as it was, afterwards
        yield register(
            Family(
                name="B.Y 1",
                line="B.Y",
                layout="llama",
                reference=str(checkpoint.folder),
                context=512,
                gguf_pre_tokenizer="gpt-2",
                tool_parser="by_json",
                pre_tokenizer=A_X_3_1.pre_tokenizer,
                tokenizers=(
                    hashlib.sha256((checkpoint.folder / "tokenizer.json").read_bytes()).hexdigest(),
                ),
                templates=(hashlib.sha256(template.encode()).hexdigest(),),
                personal_data_tokens=frozenset({"<|passport|>"}),
                end_of_document="<|endoftext|>",
            )
        )


def test_one_record_takes_a_family_from_check_to_gguf(record: Family, tmp_path: Path) -> None:
    model = record.reference
    row = chat("날씨는?", calls(("weather", {"city": "서울"})), tools=[tool("weather")])
    stats, faults = check(str(write_jsonl(tmp_path / "call.jsonl", [row])), model)
    assert (stats.rows_used, faults) == (1, [])

    run = train(recipe(tmp_path, model=model))
    merged = merge([run.path], None, tmp_path / "merged").folder
    assert locate.find(str(merged)).family is record

    served = export(run.path, tmp_path / "served", to="vllm")
    assert served.command is not None
    assert served.command.endswith("--tool-call-parser by_json")
    assert "`by_json` is the parser of the calls that B.Y models" in (
        served.folder / "SERVING.md"
    ).read_text(encoding="utf-8")
    adapter = export(run.path, tmp_path / "adapter-out", to="adapter")
    assert "--tool-call-parser by_json" in str(adapter.command)

    for folder in (merged, served.folder):
        certificate = verify(folder, against=model, adapter=run.path)
        assert [c for c in certificate.checks if c.status == "fail"] == []
        checks = examine(locate.find(str(folder)))
        assert {c.status for c in checks} == {"pass"}
        assert f"byte for byte that of {model}" in [c.found for c in checks]
        assert "as B.Y models were trained: ByteLevel, no normaliser" in [c.found for c in checks]

    file = merged / "tokenizer.json"
    damaged = json.loads(file.read_text(encoding="utf-8")) | {"normalizer": {"type": "NFC"}}
    file.write_text(json.dumps(damaged), encoding="utf-8")
    repair(locate.find(str(merged)), tmp_path / "repaired")  # known by its template still
    assert locate.find(str(tmp_path / "repaired")).family is record

    out = export(run.path, tmp_path / "llama-cpp", to="gguf").folder
    fields = gguf.GGUFReader(next(out.glob("*.gguf"))).fields
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == END_ID
    assert fields["general.architecture"].contents() == "llama"
    assert f'PARAMETER stop "{END}"' in (out / "Modelfile").read_text(encoding="utf-8")


def test_another_families_control_token_is_text_to_it(record: Family, tmp_path: Path) -> None:
    """And its own end of turn is not; nor is a mask of A.X that its record does not name."""
    found = {}
    for token in ("<|im_end|>", END, "<|passport|>", "<|telephone|>"):
        rows = write_jsonl(tmp_path / "rows.jsonl", [chat(f"a{token}b", "c")])
        found[token] = check(str(rows), record.reference)[0].rows_used
    assert found == {"<|im_end|>": 1, END: 0, "<|passport|>": 1, "<|telephone|>": 0}
