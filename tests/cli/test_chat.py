"""`axtune chat`: one message is answered, and what cannot be opened is said."""

from __future__ import annotations

from pathlib import Path

from support.commands import axtune_in_process
from support.tiny import LIBRARY_WARNINGS

pytestmark = LIBRARY_WARNINGS


def test_one_message_is_answered(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text("[]", encoding="utf-8")
    asked = ["chat", "tiny-ax-3.1", "--message", "안녕하세요", "--max-new-tokens", "4"]
    done = axtune_in_process(*asked, "--system", "짧게", "--tools", str(tools))
    assert done.status == 0
    assert done.out.strip()


def test_wrong_words_are_said() -> None:
    unknown = axtune_in_process("chat", "no-such-model", "--message", "안녕")
    assert (unknown.status, unknown.out) == (1, "")
    assert "no model no-such-model" in unknown.err
    for words in (["--max-new-tokens", "0"], ["--temperature", "-1"]):
        assert axtune_in_process("chat", "tiny-ax-3.1", *words).status == 2
