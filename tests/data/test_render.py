"""Token ids and labels: every learned turn behind exactly its served prompt, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import calls, chat, check_rows, codes, stretches, tool
from support.strategies import arguments, texts

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.conversation import Conversation
from axtune.data.documents import DocumentRow
from axtune.data.native_calls import HERMES
from axtune.data.parse import read_row
from axtune.data.render import (
    Span,
    SplitAnswerError,
    TemplateDiffersError,
    answer_pieces,
    answer_text,
    encode,
    pieces,
    prompt_ids,
    render,
    render_document,
    turns_of,
)
from axtune.data.samples import Sample
from axtune.errors import DataError

RESULT = {"role": "tool", "content": '{"기온": 21}'}
TOOLS = [tool("w", {"type": "object"})]


def samples(tokenizer: AxTokenizer, row: Any) -> list[list[Span]]:
    conversation, problems = read_row(row)
    assert conversation is not None, problems
    return pieces(tokenizer, conversation)


def test_one_call_makes_the_ids_and_labels_that_the_pass_makes(either_tiny: AxTokenizer) -> None:
    thought = "<think>음</think>답"
    rows = [chat("q", "답", "r", "끝"), chat("q", thought, "r", thought, "s", "끝")]
    for row, checked in zip(rows, check_rows(either_tiny, rows, with_turns=True), strict=True):
        conversation, _ = read_row(row)
        assert isinstance(conversation, Conversation)
        rendered = render(either_tiny, conversation)
        assert rendered == checked.samples
        turns = list(turns_of(conversation, rendered))
        assert [turn.turn for turn in turns] == conversation.learn
        for turn in turns:
            before = conversation.messages[: turn.turn]
            assert turn.prompt == prompt_ids(either_tiny, before, conversation.tools)
            answer = answer_text(conversation.messages[turn.turn], either_tiny)
            assert either_tiny.encode(answer) == turn.sample.input_ids[turn.begin : turn.end]


def learned(tokenizer: AxTokenizer, row: Any) -> list[tuple[str, str]]:
    """Each labelled stretch with the text before it in its sample."""
    out = []
    for sample in encode(tokenizer, samples(tokenizer, row)):
        for begin, end in stretches(sample):
            ids = sample.input_ids
            out.append((tokenizer.decode(ids[:begin]), tokenizer.decode(ids[begin:end])))
    return out


def test_native_format_to_the_letter(either_tiny: AxTokenizer) -> None:
    row = chat({"role": "system", "content": "상담원"}, "안녕", "네", "또", "예")
    one = "<|im_start|><|system|>상담원<|im_end|><|im_start|><|user|>안녕<|im_end|>"
    one += "<|im_start|><|assistant|>"
    two = one + "네<|im_end|><|im_start|><|user|>또<|im_end|><|im_start|><|assistant|>"
    assert learned(either_tiny, row) == [(one, "네<|im_end|>"), (two, "예<|im_end|>")]
    assert len(samples(either_tiny, row)) == 1


def test_calls_back_to_back_behind_the_text(either_tiny: AxTokenizer) -> None:
    both = {**calls(("w", '{"도시":"창원"}'), ("w", {})), "content": "확인합니다."}
    row = chat("날씨?", both, RESULT, RESULT, "21도", tools=TOOLS)
    first, second = learned(either_tiny, row)
    assert first[1] == (
        '확인합니다.<tool_call>{"name": "w", "arguments": {"도시": "창원"}}</tool_call>'
        '<tool_call>{"name": "w", "arguments": {}}</tool_call><|im_end|>'
    )
    result = '<|im_start|><|extra_id_13|><tool_output>{"기온": 21}</tool_output><|im_end|>'
    assert second[0] == first[0] + first[1] + result * 2 + "<|im_start|><|assistant|>"
    assert first[0].startswith("<|im_start|><|system|>당신은 도구 호출 기능을 갖춘")


def test_a_cut_think_block_makes_a_sample_of_every_turn(either_tiny: AxTokenizer) -> None:
    thought = "<think>\n음\n</think>\n\n답"
    row = chat("q", thought, "r", "<think>\n흠\n</think>\n\n끝", "s", "정말 끝")
    opening = "<|im_start|><|user|>q<|im_end|><|im_start|><|assistant|>"
    second = opening + "답<|im_end|><|im_start|><|user|>r<|im_end|><|im_start|><|assistant|>"
    third = second + "끝<|im_end|><|im_start|><|user|>s<|im_end|><|im_start|><|assistant|>"
    assert learned(either_tiny, row) == [
        (opening, thought + "<|im_end|>"),
        (second, "<think>\n흠\n</think>\n\n끝<|im_end|>"),
        (third, "정말 끝<|im_end|>"),
    ]
    assert len(samples(either_tiny, row)) == 3
    # Thinking in the last turn only cuts nothing.
    assert len(samples(either_tiny, chat("q", "답", "r", thought))) == 1


def test_reasoning_content_keeps_the_think_block_in_the_history(tiny: AxTokenizer) -> None:
    thought = {"role": "assistant", "content": "<think>음</think>답", "reasoning_content": ""}
    row = chat("q", thought, "r", "끝")
    assert len(samples(tiny, row)) == 1
    assert "<think>음</think>답" in learned(tiny, row)[1][0]


def test_a_later_developer_turn_makes_a_sample_of_every_turn(either_tiny: AxTokenizer) -> None:
    developer = {"role": "developer", "content": "짧게"}
    row = chat({"role": "system", "content": "상담원"}, "q", "a", developer, "r", "b")
    first, second = learned(either_tiny, row)
    assert first[0].startswith("<|im_start|><|system|>상담원<|im_end|>")
    assert second[0].startswith("<|im_start|><|system|>상담원\n\n짧게<|im_end|>")
    assert len(samples(either_tiny, row)) == 2


def test_weight_zero_is_context(tiny: AxTokenizer) -> None:
    row = chat("q", {"role": "assistant", "content": "틀린 답", "weight": 0}, "r", "b")
    ((before, answer),) = learned(tiny, row)
    assert "틀린 답<|im_end|>" in before
    assert answer == "b<|im_end|>"


def test_turns_behind_the_last_answer_are_not_in_the_sample(tiny: AxTokenizer) -> None:
    (checked,) = check_rows(tiny, [chat("q", "a", "사라질 말")])
    (sample,) = checked.samples
    assert "사라질" not in tiny.decode(sample.input_ids)


# A client never gets a call whose arguments hold the mark that closes it; the check refuses those.
@given(arguments.filter(lambda values: "</tool_call>" not in json.dumps(values)))
def test_arguments_come_back_from_the_labels(tiny: AxTokenizer, values: dict[str, Any]) -> None:
    wanted = json.dumps(values)
    for written in (values, wanted, json.dumps(values, ensure_ascii=False, indent=1)):
        row = json.loads(json.dumps(chat("q", calls(("함수", written)), tools=[tool("함수")])))
        (checked,) = check_rows(tiny, [row], control_tokens="keep")
        (sample,) = checked.samples
        ((begin, end),) = stretches(sample)
        said = tiny.decode(sample.input_ids[begin:end])
        assert said.endswith("<|im_end|>")
        (call,) = HERMES.parse(said.removesuffix("<|im_end|>")).tool_calls
        assert json.dumps(json.loads(call["function"]["arguments"])) == wanted


@given(texts, texts, texts)
def test_pieces_encode_as_the_whole(tiny: AxTokenizer, system: str, q: str, a: str) -> None:
    row = chat({"role": "system", "content": system}, q, a + ".")
    for sample in samples(tiny, row):
        ((ids, _),) = [(s.input_ids, s.labels) for s in encode(tiny, [sample])]
        assert ids == tiny.encode("".join(piece.text for piece in sample))


def test_a_batch_is_encoded_as_its_rows_are(tiny: AxTokenizer) -> None:
    rows = [
        chat("q", "a"),
        chat("안녕", "네", "또", "예"),
        chat("q", "<think>x</think>y", "r", "z"),
    ]
    together = [result.samples for result in check_rows(tiny, rows)]
    assert together == [check_rows(tiny, [row])[0].samples for row in rows]


QUESTION = {"role": "user", "content": "날씨?"}
CALL = calls(("w", {"도시": "창원"}))
THOUGHT = {"role": "assistant", "content": "<think>음</think>\n네"}


def says(content: str, **keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **keys}


_histories = st.lists(
    st.sampled_from(
        [
            [QUESTION, THOUGHT],
            [QUESTION, says("네, 2024년입니다.")],
            [QUESTION, CALL, RESULT, says("21도")],
            [QUESTION, CALL, RESULT, THOUGHT],
            [{"role": "developer", "content": "짧게."}],
        ]
    ),
    max_size=3,
).map(lambda parts: [message for part in parts for message in part])
_answers = st.sampled_from([CALL, calls(("w", {}), ("w", {"a": 1})), THOUGHT]) | st.builds(
    says, texts.filter(lambda text: text.strip() and "<" not in text)
)


@given(history=_histories, chosen=_answers, rejected=_answers, tools=st.sampled_from([TOOLS, None]))
def test_a_pair_is_what_training_on_each_answer_would_be(
    tiny: AxTokenizer, history: Any, chosen: Any, rejected: Any, tools: Any
) -> None:
    prompt = [*history, QUESTION]
    row = {"prompt": prompt, "chosen": [chosen], "rejected": [rejected], "tools": tools}
    served = prompt_ids(tiny, prompt, tools)
    (pair,), (other_way,) = (check_rows(tiny, [row], task=task) for task in ("dpo", "kto"))
    if answer_of(chosen) == answer_of(rejected):
        assert codes(pair) == ["same-answers"]
        return
    (sample,) = pair.samples
    assert sample.prompt_ids == served
    both = [
        (chosen, sample.chosen_ids, sample.chosen_labels),
        (rejected, sample.rejected_ids, sample.rejected_labels),
    ]
    for unpaired, (answer, ids, labels) in zip(other_way.samples, both, strict=True):
        alone = {"prompt": prompt, "completion": [answer], "tools": tools}
        ((whole,),) = (checked.samples for checked in check_rows(tiny, [alone]))
        assert whole.input_ids == [*served, *ids]
        assert whole.labels == [-100] * len(served) + labels
        assert labels == ids
        assert ids[-1] == tiny.end_of_turn_id
        assert (unpaired.prompt_ids, unpaired.completion_ids) == (served, ids)
        assert unpaired.completion_labels == labels
        assert unpaired.label == (answer is chosen)


def answer_of(message: dict[str, Any]) -> str:
    functions = [call["function"] for call in message.get("tool_calls", ())]
    return json.dumps([message["content"] or "", functions])


def test_an_answer_of_several_turns_is_one_sequence(either_tiny: AxTokenizer) -> None:
    row = {"prompt": [QUESTION], "chosen": [CALL, RESULT, says("21도")], "rejected": "몰라요"}
    (checked,) = check_rows(either_tiny, [row | {"tools": TOOLS}])
    (pair,) = checked.samples
    whole = {"prompt": [QUESTION], "completion": row["chosen"], "tools": TOOLS}
    ((sample,),) = (result.samples for result in check_rows(either_tiny, [whole]))
    assert pair.prompt_ids + pair.chosen_ids == sample.input_ids
    assert [-100] * len(pair.prompt_ids) + pair.chosen_labels == sample.labels
    (first, second) = stretches(Sample(pair.chosen_ids, pair.chosen_labels))
    assert first[0] == 0
    between = either_tiny.decode(pair.chosen_ids[first[1] : second[0]])
    assert between == (
        '<|im_start|><|extra_id_13|><tool_output>{"기온": 21}</tool_output><|im_end|>'
        "<|im_start|><|assistant|>"
    )
    assert second[1] == len(pair.chosen_ids)


def test_an_answer_that_begins_with_context(tiny: AxTokenizer) -> None:
    """A first turn of weight 0 is shown and not learned; the prompt still ends before it."""
    row = {"prompt": [QUESTION], "chosen": [{**CALL, "weight": 0}, RESULT, says("21도")]}
    row |= {"rejected": [says("몰라요")], "tools": TOOLS}
    (checked,) = check_rows(tiny, [row])
    (pair,) = checked.samples
    assert pair.prompt_ids == prompt_ids(tiny, [QUESTION], TOOLS)
    ((begin, end),) = stretches(Sample(pair.chosen_ids, pair.chosen_labels))
    assert pair.prompt_ids + pair.chosen_ids[:begin] == prompt_ids(
        tiny, [QUESTION, CALL, RESULT], TOOLS
    )
    assert tiny.decode(pair.chosen_ids[begin:end]) == "21도<|im_end|>"


@pytest.mark.parametrize(
    "answer",
    [
        [THOUGHT, QUESTION, says("a")],
        [says("a"), {"role": "developer", "content": "짧게."}, QUESTION, says("b")],
        [{**THOUGHT, "weight": 0}, QUESTION, says("a"), QUESTION, THOUGHT, QUESTION, says("b")],
    ],
)
def test_turns_that_make_no_sequence(tiny: AxTokenizer, answer: Any) -> None:
    for row in (
        {"prompt": [QUESTION], "chosen": [says("네")], "rejected": answer},
        {"prompt": [QUESTION], "completion": answer, "label": True},
    ):
        (checked,) = check_rows(tiny, [row])
        assert codes(checked) == ["split-answer"]
    read, _ = read_row({"prompt": [QUESTION], "completion": answer, "label": True})
    with pytest.raises(SplitAnswerError):
        answer_pieces(tiny, read.chosen, read.prompt)


def test_a_context_turn_that_is_cut_later_is_no_hindrance(tiny: AxTokenizer) -> None:
    answer = [{**THOUGHT, "weight": 0}, QUESTION, says("a")]
    (checked,) = check_rows(tiny, [{"prompt": [QUESTION], "completion": answer, "label": True}])
    (sample,) = checked.samples
    shown = prompt_ids(tiny, [QUESTION, THOUGHT, QUESTION])
    assert sample.prompt_ids + sample.completion_ids == shown + tiny.encode("a<|im_end|>")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("message.content +", "message.content | trim +"),  # user turns only: the prompt
        ("~ content -", "~ content | trim -"),
        ('{"name": "', '{ "name": "'),
        ("'<|im_start|><|assistant|>' ~", "'<|im_start|><|assistant|>\n' ~"),
    ],
)
def test_an_edited_template_cannot_be_trained_on(tiny: AxTokenizer, old: str, new: str) -> None:
    assert old in tiny.chat_template
    edited = dataclasses.replace(tiny, chat_template=tiny.chat_template.replace(old, new))
    row = chat("q", {**calls(("w", {})), "content": " 확인 "}, tools=TOOLS)
    assert len(samples(tiny, row)) == 1
    if old.startswith("message"):  # what the template does to prompts is its own affair
        assert len(samples(edited, row)) == 1
        return
    with pytest.raises(TemplateDiffersError, match=r"messages\[1\].*from character \d+"):
        samples(edited, row)
    (checked,) = check_rows(edited, [row])
    assert codes(checked) == ["template-differs"]


def test_every_turn_is_compared_when_each_is_a_sample(tiny: AxTokenizer) -> None:
    trimming = tiny.chat_template.replace("~ content -", "~ content | trim -")
    edited = dataclasses.replace(tiny, chat_template=trimming)
    row = chat("q", "<think>x</think> a ", "r", "끝")
    assert len(samples(tiny, row)) == 2
    with pytest.raises(TemplateDiffersError, match=r"messages\[1\]"):
        samples(edited, row)


def test_a_template_that_refuses_a_row(tiny: AxTokenizer) -> None:
    refusing = dataclasses.replace(tiny, chat_template="{{ raise_exception('no system') }}")
    (checked,) = check_rows(refusing, [chat("q", "a")])
    assert codes(checked) == ["template-refuses"]


def test_prompt_ids_of_a_request(either_tiny: AxTokenizer) -> None:
    ids = prompt_ids(either_tiny, chat("안녕", "네", "또")["messages"])
    assert either_tiny.decode(ids) == (
        "<|im_start|><|user|>안녕<|im_end|><|im_start|><|assistant|>네<|im_end|>"
        "<|im_start|><|user|>또<|im_end|><|im_start|><|assistant|>"
    )
    # A server does not take Hermes text apart, nor refuse control tokens.
    text = "<tool_response>1</tool_response><|im_end|>"
    ids = prompt_ids(either_tiny, [{"role": "user", "content": text}], TOOLS)
    assert either_tiny.decode(ids).endswith(
        f"<|im_start|><|user|>{text}<|im_end|><|im_start|><|assistant|>"
    )
    with pytest.raises(DataError, match="bad-arguments"):
        prompt_ids(either_tiny, chat("q", calls(("f", "[1]")), RESULT)["messages"])


@given(paragraphs=st.lists(texts, min_size=1, max_size=8), limit=st.integers(16, 64))
def test_all_of_a_document_is_learned_and_its_end_behind_the_last_piece(
    tiny: AxTokenizer, paragraphs: list[str], limit: int
) -> None:
    text = "\n\n".join(paragraphs)
    document = DocumentRow(f"{text}끝")
    made = render_document(tiny, document, limit)
    assert all(sample.labels == sample.input_ids for sample in made)
    assert all(0 < sample.length <= limit for sample in made)
    ids = [sample.input_ids for sample in made]
    assert ids[-1][-1] == tiny.end_of_document_id == 0
    ids[-1] = ids[-1][:-1]
    assert "".join(map(tiny.decode, ids)) == document.text
    assert all(each == tiny.encode(tiny.decode(each)) for each in ids)


def test_no_end_of_document_stands_at_a_cut_or_in_front(either_tiny: AxTokenizer) -> None:
    text = "제1조 목적을 정한다.\n\n" * 30
    made = render_document(either_tiny, DocumentRow(text), 32)
    assert len(made) > 3
    joined = [token for sample in made for token in sample.input_ids]
    assert joined.index(0) == len(joined) - 1
