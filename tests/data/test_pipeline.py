"""The one pass over the data: no crash, no content in a message, every row accounted for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import TEMPLATES, calls, chat, check_rows, codes, read_jsonl, tool, write_jsonl
from support.strategies import (
    SECRET,
    wild_documents,
    wild_preferences,
    wild_rows,
    with_columns,
)

import axtune
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.loader import data_options
from axtune.config.objective import OBJECTIVES
from axtune.config.recipe import RowFormat, Task
from axtune.data.pipeline import RowChecker, check, render_row, write_rendered
from axtune.data.rows import Row
from axtune.data.samples import IGNORED, PairSample, Sample, UnpairedSample
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, DataError, RecipeError


@settings(max_examples=250)
@given(
    rows=st.lists(
        wild_rows | wild_preferences | wild_documents | with_columns(wild_rows | wild_preferences),
        min_size=1,
        max_size=3,
    ),
    options=st.fixed_dictionaries(
        {},
        optional={
            "control_tokens": st.just("keep"),
            "nfc": st.just(True),
            "truncate": st.just(True),
            "max_length": st.integers(16, 60),
            "format": st.sampled_from(sorted(set(get_args(RowFormat)) - {"auto"})),
        },
    ),
    task=st.sampled_from([None, None, *OBJECTIVES]),
)
def test_no_row_breaks_the_check(
    tiny: AxTokenizer, rows: list[Any], options: dict[str, Any], task: Task | None
) -> None:
    # check_rows sees that the account adds up
    for checked in check_rows(tiny, rows, task=task, **options):
        for fault in checked.faults:
            assert "XYZZY" not in str(fault)
            assert fault.file == "rows.jsonl"
            assert fault.message.endswith(".")
            assert "\n" not in fault.message
        for sample in checked.samples:
            columns = asdict(sample)
            for name in columns:
                if name.endswith("labels"):
                    ids = columns["input_ids" if name == "labels" else f"{name[:-7]}_ids"]
                    assert len(ids) == len(columns[name])
                    assert set(columns[name]) - {IGNORED}
            assert sample.length <= options.get("max_length", 16_384)


@pytest.mark.parametrize(
    ("wild", "kinds"),
    [
        (wild_rows, {Sample}),
        (wild_preferences, {PairSample, UnpairedSample}),
        (wild_documents, {Sample}),
        (with_columns(wild_rows), {Sample}),
    ],
    ids=["rows", "preferences", "documents", "columns"],
)
def test_wild_rows_are_not_all_refused(tiny: AxTokenizer, wild: Any, kinds: set[type]) -> None:
    """The strategies above reach the far end of the pass too."""
    used: list[RowResult] = []

    @settings(max_examples=200, database=None, derandomize=True)
    @given(wild)
    def collect(row: Any) -> None:
        used.extend(c for c in check_rows(tiny, [row], control_tokens="keep") if not c.refused)

    collect()
    assert {type(sample) for checked in used for sample in checked.samples} >= kinds


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("depth", [300, 900, 960, 985, 5000])
def test_deep_values_are_refused_or_read(
    tiny: AxTokenizer, tmp_path: Path, depth: int, nfc: bool
) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    plain = json.dumps(chat("q", calls(("f", "DEEP")), tools=[tool("f", {"x": "SCHEMA"})]))
    texts = [
        plain.replace('"DEEP"', deep),
        plain.replace("DEEP", deep.replace('"', '\\"')),
        plain.replace('"DEEP"', "{}").replace('"SCHEMA"', deep),
        plain.replace('"DEEP"', deep).replace('{"x": "SCHEMA"}', '{"properties": {"b": {}}}'),
        json.dumps(chat("q", f"<tool_call>{deep}</tool_call>")),
        json.dumps(chat("q", "<tool_call>{'name': 'f', 'arguments': " + deep + "}</tool_call>")),
        json.dumps({**chat("q", "a"), "other": "DEEP"}).replace('"DEEP"', deep),
    ]
    file = tmp_path / "deep.jsonl"
    file.write_text("\n".join(texts), encoding="utf-8")
    checked = list(RowChecker(tiny, data_options(["x"], nfc=nfc, max_length=16_384)).stream([file]))
    assert [c.line for c in checked] == [1, 2, 3, 4, 5, 6, 7]
    if depth >= 5000:
        assert all(c.refused for c in checked)


@pytest.mark.parametrize(
    "row",
    [
        chat("q", calls(("f", '{"a": "\\ud83d"}'))),
        chat("q", calls(("f", '{"\\ud83d": 1}')), tools=[tool("f", {"properties": {"b": {}}})]),
        chat("q", "a", tools='[{"name": "f", "description": "\\udc00"}]'),
        chat("q", '<tool_call>{"name": "f", "arguments": {"a": "\\ud83d"}}</tool_call>'),
        {"messages": json.dumps(chat("\ud83d", "a")["messages"])},
        chat("\ud83d", "a"),
    ],
)
def test_half_a_surrogate_pair_is_named_wherever_it_hides(tiny: AxTokenizer, row: Any) -> None:
    (checked,) = check_rows(tiny, [row])
    assert codes(checked) == ["lone-surrogate"]


def test_duplicates(tiny: AxTokenizer) -> None:
    rows = [
        chat("반품 되나요?", "네, 됩니다."),
        chat("반품 되나요?", "네, 됩니다."),
        chat("반품되나요", "네 됩니다!"),
        chat("반품 되나요?", "아니요."),
        {"instruction": "반품 되나요?", "output": "네, 됩니다."},
        chat("q", calls(("f", {"a": 1}))),
        chat("q", calls(("f", {"a": 2}))),
        chat("q", calls(("f", '{"a":1}'))),
    ]
    found = [
        [code for code in codes(c, "warning") if "duplicate" in code]
        for c in check_rows(tiny, rows)
    ]
    assert found == [
        [],
        ["duplicate"],
        ["near-duplicate"],
        [],
        ["duplicate"],
        [],
        [],
        ["duplicate"],
    ]


def pair(prompt: Any, chosen: str, rejected: str, **keys: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **keys}


def test_preferences_that_were_said_before(tiny: AxTokenizer) -> None:
    asked = [{"role": "user", "content": "반품 되나요?"}]
    rows = [
        (pair("반품 되나요?", "네, 됩니다.", "아니요."), []),
        (pair(asked, "네, 됩니다.", "아니요."), ["duplicate"]),
        (pair("반품되나요", "네 됩니다!", "아니요"), ["near-duplicate"]),
        (pair("반품 되나요?", "네, 됩니다.", "글쎄요."), []),
        (pair("반품 되나요?", "글쎄요.", "아니요."), []),
        (pair("반품 되나요?", "아니요.", "네, 됩니다."), ["contradiction"]),
        (pair("교환 되나요?", "아니요.", "네, 됩니다."), []),
        ({"prompt": asked, "completion": "네, 됩니다.", "label": True}, []),
        ({"prompt": asked, "completion": "네, 됩니다.", "label": True}, ["duplicate"]),
        ({"prompt": asked, "completion": "네, 됩니다.", "label": False}, ["contradiction"]),
        ({"prompt": asked, "completion": "네됩니다", "label": True}, ["near-duplicate"]),
        ({"prompt": asked, "completion": "됩니다", "label": False}, []),
        (chat("반품 되나요?", "네, 됩니다."), []),
    ]
    checked = check_rows(tiny, [row for row, _ in rows])
    assert [codes(c, "warning") for c in checked] == [wanted for _, wanted in rows]
    assert not any(codes(c) for c in checked)
    # Rows of one prompt share a key, which keeps them on one side of a split.
    keys = [c.key for c in checked]
    assert len(set(keys[:6] + keys[7:12])) == 1
    assert len({keys[0], keys[6], keys[12]}) == 3


def test_a_judged_answer_is_never_cut(tiny: AxTokenizer) -> None:
    rows = [
        pair("q", "네", "가나다라마바사 " * 30),
        pair("q", "가나다라마바사 " * 30, "네"),
        {"prompt": "q", "completion": "가나다라마바사 " * 30, "label": False},
    ]
    (size,) = {c.samples[0].length for c in check_rows(tiny, rows)}
    assert not any(codes(c) for c in check_rows(tiny, rows, max_length=size))
    for refused in check_rows(tiny, rows, max_length=size - 1, truncate=True):
        assert codes(refused) == ["too-long"]
        assert "truncate" not in refused.faults[-1].message
    for refused in check_rows(tiny, rows, max_length=size - 1, task="kto"):
        assert codes(refused) == ["too-long"]


@pytest.mark.parametrize(
    ("task", "refused"),
    [
        (None, ""),
        ("sft", "pud"),
        ("cpt", "pu"),
        ("dpo", "cud"),
        ("orpo", "cud"),
        ("kto", "cd"),
    ],
)
def test_rows_of_another_task(tiny: AxTokenizer, task: Task | None, refused: str) -> None:
    rows = {
        "c": chat("q", "a"),
        "p": pair("q", "a", "b"),
        "u": {"prompt": "q", "completion": "a", "label": True},
        "d": {"text": "문서"},
    }
    checked = dict(zip(rows, check_rows(tiny, rows.values(), task=task), strict=True))
    for kind, result in checked.items():
        assert codes(result) == (["wrong-task"] if kind in refused else [])
        learns = {"c": "task: sft", "d": "task: cpt"}.get(kind, "task: ")
        assert all(learns in fault.message for fault in result.faults)
    kinds = {"c": Sample, "p": UnpairedSample if task == "kto" else PairSample, "u": UnpairedSample}
    kinds["d"] = Sample
    for kind in rows.keys() - set(refused):
        assert {type(sample) for sample in checked[kind].samples} == {kinds[kind]}
    assert len(checked["p"].samples) == (0 if "p" in refused else 2 if task == "kto" else 1)


def test_a_named_format_learns_the_conversation_of_a_judged_row(tiny: AxTokenizer) -> None:
    row = pair("q", "a", "b") | chat("q", "a")
    assert codes(check_rows(tiny, [row], task="sft")[0]) == ["wrong-task"]
    (checked,) = check_rows(tiny, [row], task="sft", format="chat")
    assert checked.samples == check_rows(tiny, [chat("q", "a")])[0].samples


def test_too_long_and_truncated(tiny: AxTokenizer) -> None:
    row = chat("q", "가나다라마바사 " * 30)
    (whole,) = check_rows(tiny, [row])
    length = len(whole.samples[0].input_ids)
    assert not check_rows(tiny, [row], max_length=length)[0].faults
    (refused,) = check_rows(tiny, [row], max_length=length - 1)
    assert codes(refused) == ["too-long"]
    (cut,) = check_rows(tiny, [row], max_length=length - 1, truncate=True)
    assert codes(cut, "warning") == ["truncated"]
    assert cut.samples[0].input_ids == whole.samples[0].input_ids[:-1]
    assert cut.samples[0].labels == whole.samples[0].labels[:-1]
    (nothing,) = check_rows(tiny, [chat("가나다 " * 50, "네")], max_length=16, truncate=True)
    assert codes(nothing) == ["nothing-to-learn"]


def test_of_several_samples_those_with_nothing_to_learn_are_dropped(tiny: AxTokenizer) -> None:
    row = chat("q", "<think>음</think>답", "가나다 " * 50, "끝")
    (cut,) = check_rows(tiny, [row], max_length=40, truncate=True)
    assert len(cut.samples) == 1
    assert codes(cut, "warning") == ["truncated"]
    (refused,) = check_rows(tiny, [row], max_length=40)
    assert codes(refused) == ["too-long"]


def test_check_from_python(tiny: AxTokenizer, tmp_path: Path) -> None:
    good = write_jsonl(
        tmp_path / "a.jsonl", [chat("q", "a"), chat("r", "<think>x</think>y", "s", "b")]
    )
    bad = tmp_path / "b.jsonl"
    bad.write_text("oops\n\n{}\n", encoding="utf-8")
    account, faults = check([str(good), str(bad)], tiny)
    assert [(Path(f.file).name, f.line, f.code) for f in faults] == [
        ("b.jsonl", 1, "not-json"),
        ("b.jsonl", 3, "unknown-shape"),
    ]
    assert (account.rows_read, account.rows_used, account.rows_refused) == (4, 2, 2)
    assert (account.samples, account.refused) == (3, {"not-json": 1, "unknown-shape": 1})
    assert account.tokens > account.labelled_tokens > 0
    assert account.lengths["p50"] <= account.lengths["max"] < account.tokens
    assert axtune.check(str(good), "tiny-ax-4.0")[0].rows_used == 2
    with pytest.raises(RecipeError, match="max_length"):
        check(str(good), tiny, max_length=3)
    with pytest.raises(RecipeError, match="maxlen"):
        check(str(good), tiny, maxlen=300)
    with pytest.raises(AxtuneError, match="no file, folder or pattern"):
        check("none.jsonl", tiny)


def test_render_from_python(tiny: AxTokenizer) -> None:
    (sample,) = axtune.render_row(chat("q", "a"), tiny)
    assert tiny.decode(sample.input_ids).endswith("<|assistant|>a<|im_end|>")
    with pytest.raises(DataError, match="row: bad-role: messages"):
        render_row(chat({"role": "usr"}), tiny)
    with pytest.raises(DataError, match="lone-surrogate"):
        render_row(chat("\ud83d", "a"), tiny)


def test_render_a_preference_from_python(tiny: AxTokenizer, tmp_path: Path) -> None:
    (sample,) = axtune.render_row(pair("q", "네", "아니요"), tiny)
    assert isinstance(sample, PairSample)
    assert tiny.decode(sample.prompt_ids).endswith("q<|im_end|><|im_start|><|assistant|>")
    assert tiny.decode(sample.chosen_ids) == "네<|im_end|>"
    assert tiny.decode(sample.rejected_ids) == "아니요<|im_end|>"
    with pytest.raises(DataError, match="row: same-answers: chosen and rejected"):
        render_row(pair("q", "a", "a"), tiny)
    out = tmp_path / "out.jsonl"
    labelled = {"prompt": "q", "completion": "네", "label": False}
    assert write_rendered(check_rows(tiny, [pair("q", "네", "아니요"), labelled]), out) == 0
    first, second = read_jsonl(out)
    assert first == {"line": 1, "samples": [asdict(sample)]}
    assert second["samples"][0] == {
        "prompt_ids": sample.prompt_ids,
        "completion_ids": sample.chosen_ids,
        "completion_labels": sample.chosen_ids,
        "label": False,
    }


def test_every_line_is_written_with_samples_or_an_error(tiny: AxTokenizer, tmp_path: Path) -> None:
    rows = [chat("q", "a"), {}, chat("q", "<think>x</think>y", "r", "b"), chat("q", "a")]
    checked = check_rows(tiny, rows)
    out = tmp_path / "out.jsonl"
    assert write_rendered(checked, out) == 1
    written = read_jsonl(out)
    assert [line["line"] for line in written] == [1, 2, 3, 4]
    assert [sorted(line) for line in written] == [
        ["line", "samples"],
        ["error", "line"],
        ["line", "samples"],
        ["line", "samples"],
    ]
    assert written[1]["error"].startswith("unknown-shape: ")
    assert len(written[2]["samples"]) == 2
    assert written[0]["samples"][0] == {
        "input_ids": checked[0].samples[0].input_ids,
        "labels": checked[0].samples[0].labels,
    }


def test_what_is_written_appears_whole_or_not_at_all(tiny: AxTokenizer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before", encoding="utf-8")

    def broken() -> Any:
        yield from check_rows(tiny, [chat("q", "a")])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rendered(broken(), out)
    assert out.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [out]
    for place in (tmp_path, out / "under" / "a.jsonl", tmp_path / "none" / "a.jsonl"):
        with pytest.raises(AxtuneError, match="cannot be written"):
            write_rendered([], place)


@pytest.mark.parametrize("option", [{"control_tokens": "drop"}, {"format": "xml"}, {"nfc": 3}])
def test_wrong_options(option: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        data_options(["a"], **option)


def test_a_fault_of_the_file_is_a_refused_row(tiny: AxTokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json.dumps(chat(SECRET, "a")).encode("utf-16"))
    account, faults = check(str(tmp_path), tiny)
    assert [fault.code for fault in faults] == ["not-utf8"]
    assert (account.rows_read, account.rows_refused) == (1, 1)


def test_memory_does_not_grow_with_the_file(tiny: AxTokenizer, tmp_path: Path) -> None:
    """Rows come out before the file is read to its end."""
    file = write_jsonl(tmp_path / "a.jsonl", [chat(f"질문 {n}", "네") for n in range(1000)])
    seen: list[int] = []

    class Counting(RowChecker):
        def check(self, rows: Any) -> list[RowResult]:
            seen.append(len(rows))
            return super().check(rows)

    stream = Counting(tiny, data_options(["x"])).stream([file])
    next(stream)
    assert sum(seen) < 1000
    assert 1 + sum(1 for _ in stream) == sum(seen) == 1000


def test_a_row_is_the_same_in_any_batch(tiny: AxTokenizer) -> None:
    rows = read_jsonl(TEMPLATES / "chat.jsonl")
    together = check_rows(tiny, rows)
    alone = [
        RowChecker(tiny, data_options(["x"])).check([Row("rows.jsonl", n, row)])[0]
        for n, row in enumerate(rows, 1)
    ]
    assert [c.samples for c in together] == [c.samples for c in alone]
    assert not any(c.refused for c in together)


def test_what_a_row_lost_when_it_was_read_is_among_its_warnings(
    tiny: AxTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "택배는?", "completion": "여섯 시", "completion": "모름"}\n')
    account, faults = check(str(path), tiny)
    assert (account.rows_used, [fault.code for fault in faults]) == (1, ["duplicate-key"])
