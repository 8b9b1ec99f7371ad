"""Rows as the model sees them, and the account, on a terminal and in a log file."""

from __future__ import annotations

import io

from rich.console import Console
from support.rows import calls, chat, check_rows, tool

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.data.preview import sample_text, show_account, show_row
from axtune.data.statistics import StatsBuilder


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100, highlight=False), out


def test_learned_text_is_marked(tiny: AxTokenizer) -> None:
    (checked,) = check_rows(tiny, [chat("안녕", "네", "또", "예")])
    text = sample_text(tiny, checked.samples[0])
    assert text.plain == (
        "<|im_start|><|user|>안녕<|im_end|>\n<|im_start|><|assistant|>⟦네<|im_end|>⟧\n"
        "<|im_start|><|user|>또<|im_end|>\n<|im_start|><|assistant|>⟦예<|im_end|>⟧"
    )
    green = [text.plain[s.start : s.end] for s in text.spans if str(s.style) == "green"]
    assert green == ["네", "예"]
    # Without the marks and the line breaks, it is what the model sees.
    unmarked = text.plain.replace("⟦", "").replace("⟧", "").replace("\n", "")
    assert unmarked == tiny.decode(checked.samples[0].input_ids)


def test_rows_and_refusals(tiny: AxTokenizer) -> None:
    screen, out = console()
    for checked in check_rows(tiny, [chat("q", "<think>x</think>y", "r", "b"), {}]):
        show_row(screen, tiny, checked)
    shown = out.getvalue()
    assert "rows.jsonl:1 sample 1 of 2" in shown
    assert "rows.jsonl:1 sample 2 of 2" in shown
    assert "⟦<think>x</think>y<|im_end|>⟧" in shown
    (refusal,) = (line for line in shown.splitlines() if "rows.jsonl:2: unknown-shape: " in line)
    assert refusal.endswith("data_templates/README.md.")  # a line for each, as from data check


def test_data_cannot_steer_the_terminal_or_the_markup(tiny: AxTokenizer) -> None:
    screen, out = console()
    (checked,) = check_rows(tiny, [chat("\x1b[2J\x1b]0;t\x07", "[bold]굵게[/bold] [/] :smile:")])
    show_row(screen, tiny, checked)
    assert "\x1b" not in out.getvalue()
    assert "[bold]굵게[/bold] [/] :smile:" in out.getvalue()


def test_account_table(tiny: AxTokenizer) -> None:
    ledger = StatsBuilder()
    for checked in check_rows(tiny, [chat("q", "a"), chat("q", "a"), {}, chat("q")]):
        ledger.add(checked)
    screen, out = console()
    account = ledger.account()
    show_account(screen, account)
    numbers = {line.split()[0]: line.split()[1:] for line in out.getvalue().splitlines()}
    assert numbers["rows"][0] == "4"
    assert numbers["used"][0] == numbers["refused"][0] == "2"
    assert numbers["unknown-shape"][0] == numbers["no-assistant"][0] == "1"
    assert numbers["duplicate"][0] == numbers["warnings"][0] == "1"
    assert numbers["tokens"][0] == str(account.tokens)
    share = account.labelled_tokens / account.tokens
    assert numbers["labelled"] == [str(account.labelled_tokens), f"{share:.1%}"]
    screen, out = console()
    show_account(screen, StatsBuilder().account())
    assert "labelled" in out.getvalue()


def test_the_table_says_what_was_dropped_and_from_where(tiny: AxTokenizer) -> None:
    ledger = StatsBuilder()
    for checked in check_rows(tiny, [chat("q", "a"), chat("q", "a")], near_duplicates="drop"):
        ledger.add(checked)
    screen, out = console()
    show_account(screen, ledger.account())
    lines = [line.split()[:2] for line in out.getvalue().splitlines()]
    assert lines[:4] == [["rows", "2"], ["used", "1"], ["refused", "0"], ["dropped", "1"]]
    assert lines.count(["duplicate", "1"]) == 2
    assert ["rows.jsonl"] in lines


def test_both_answers_are_told_apart(tiny: AxTokenizer) -> None:
    said = {"role": "assistant", "content": "네"}
    several = [calls(("w", {})), {"role": "tool", "content": "맑음"}, said]
    row = {"prompt": "안녕", "chosen": several, "rejected": "몰라", "tools": [tool("w")]}
    labelled = {"prompt": "안녕", "completion": "몰라", "label": False}
    pair, wanted, unwanted = check_rows(tiny, [row, labelled | {"label": True}, labelled])
    text = sample_text(tiny, pair.samples[0])
    prompt, answers = text.plain.split("\n+ ")
    assert prompt.endswith("<|user|>안녕<|im_end|>\n<|im_start|><|assistant|>")
    assert "⟦" not in prompt
    assert answers == (
        '⟦<tool_call>{"name": "w", "arguments": {}}</tool_call><|im_end|>⟧'
        "\n<|im_start|><|extra_id_13|><tool_output>맑음</tool_output><|im_end|>"
        "\n<|im_start|><|assistant|>⟦네<|im_end|>⟧\n- ⟦몰라<|im_end|>⟧"
    )
    coloured = {(text.plain[s.start : s.end], str(s.style)) for s in text.spans}
    assert coloured >= {("네", "green"), ("몰라", "red")}
    assert not {said for said, style in coloured if style in ("green", "red")} & {"안녕", "맑음"}
    assert sample_text(tiny, unwanted.samples[0]).plain.endswith("\n- ⟦몰라<|im_end|>⟧")
    assert sample_text(tiny, wanted.samples[0]).plain.endswith("\n+ ⟦몰라<|im_end|>⟧")
    screen, out = console()
    show_row(screen, tiny, pair)
    show_row(screen, tiny, unwanted)
    sample, answer = pair.samples[0], unwanted.samples[0]
    chosen = len(sample.chosen_ids) - sample.chosen_labels.count(-100)
    assert (
        f"rows.jsonl:1 · prompt of {len(sample.prompt_ids)} tokens, {chosen} and "
        f"{len(sample.rejected_ids)} labelled"
    ) in out.getvalue()
    assert f"{len(answer.completion_ids)} labelled, label false" in out.getvalue()


def test_account_of_preferences(tiny: AxTokenizer) -> None:
    ledger = StatsBuilder()
    rows = [{"prompt": "q", "chosen": "네 " * n, "rejected": "몰라"} for n in range(1, 4)]
    for checked in check_rows(tiny, rows):
        ledger.add(checked)
    account = ledger.account()
    screen, out = console()
    show_account(screen, account)
    numbers = {line.split()[0]: line.split()[1:] for line in out.getvalue().splitlines()}
    share = account.prompt_tokens / account.tokens
    assert numbers["prompts"][:2] == [str(account.prompt_tokens), f"{share:.1%},"]
    assert numbers["chosen"] == [str(account.answers["chosen"]["tokens"]), "in", "3", "answers"]
    assert numbers["rejected"][0] == str(account.answers["rejected"]["tokens"])


def test_a_document_is_shown_piece_by_piece(tiny: AxTokenizer) -> None:
    screen, out = console()
    row = {"text": "제1조 목적\n\n제2조 범위를 정하는 규정이다.\n\n제3조 끝."}
    for checked in check_rows(tiny, [row], max_length=16):
        show_row(screen, tiny, checked)
    shown = out.getvalue()
    assert "rows.jsonl:1 sample 1 of " in shown
    assert "⟦제1조 목적" in shown
    assert "끝.<|endoftext|>⟧" in shown
