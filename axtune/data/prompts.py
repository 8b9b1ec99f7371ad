"""What stands before an answer: a question, an instruction, a history, a system prompt."""

from __future__ import annotations

from typing import Any

from axtune.data.cells import is_transcript, placed, says, speaker_of, text_of, text_or_turns
from axtune.data.labels import as_context
from axtune.data.messages import Placed
from axtune.errors import Problem

# The names of a question and of an answer, in the order in which they are looked for.
QUESTIONS = ("prompt", "query", "question", "input")
ANSWERS = ("completion", "response", "answer", "output")
# Keys that hold a whole conversation as turns of other tools.
CONVERSATIONS = ("conversations", "conversation")
SYSTEMS = ("system", "system_prompt", "systemPrompt", "system_message", "systemMessage")
# Who says what in a list of exchanges, as ms-swift, Capybara and others write it.
_ASKS = ("human", "user", "input", "query", "question", "prompt", "instruction", "tool")
_ANSWERS = ("assistant", "gpt", "bot", "output", "response", "answer")
_NO_GREETING = 10  # characters of a prompt that no answer begins with by chance
_NO_INPUT = ("<noinput>", "<no input>")  # stanford_alpaca, self-instruct


def take_system(fields: dict[str, Any], problems: list[Problem]) -> Placed | None:
    """Take the turn that a key ``system`` or ``system_prompt`` stands for.

    Args:
        fields: The row's cells that are not null; what is read is taken out.
        problems: Appended to.
    """
    for key in SYSTEMS:
        if not says(fields.get(key)):
            continue
        content = fields.pop(key)
        if not isinstance(content, (str, list)):
            problems.append(Problem("bad-content", f"{key}: expected a text."))
            return None
        return key, {"role": "system", "content": content}
    return None


def with_system(
    system: Placed | None, turns: list[Placed], problems: list[Problem]
) -> list[Placed]:
    """Turns behind the row's system prompt, which may also stand there already."""
    if system is None:
        return turns
    if not turns or speaker_of(turns[0][1]) != "system":
        return [system, *turns]
    place, first = turns[0]
    if text_of(first) != system[1]["content"]:
        message = (
            f"{system[0]} and {place} are different system prompts; a server shows the one that "
            "the client sends. Remove one of the two."
        )
        problems.append(Problem("two-systems", message))
    return turns


def take_conversation(fields: dict[str, Any], key: str, problems: list[Problem]) -> list[Placed]:
    """Take the turns of a list.

    An exchange of question and answer in it is two turns; ``conversations`` of plain texts are the
    user's and the assistant's in turn, as LIMA writes them.
    """
    said = placed(fields.pop(key, None), key, problems)
    if key in CONVERSATIONS and all(isinstance(item, str) for _, item in said):
        roles = ("user", "assistant")
        return [(at, {"role": roles[n % 2], "content": text}) for n, (at, text) in enumerate(said)]
    turns: list[Placed] = []
    for place, item in said:
        if both := _exchange(place, item):
            turns += both
        else:
            turns.append((place, item))
    return turns


def _exchange(place: str, item: Any) -> list[Placed]:
    """The turns of an object such as ``{"human": …, "assistant": …}``; none of another.

    XTuner's may have a ``system`` before them. What it has besides belongs to the answer.
    """
    if not isinstance(item, dict) or "type" in item or speaker_of(item) is not None:
        return []
    questions, answers = ([key for key in keys if key in item] for keys in (_ASKS, _ANSWERS))
    if len(questions) != 1 or len(answers) != 1:
        return []
    ask, answer = questions[0], answers[0]
    rest = {key: item[key] for key in item if key not in ("system", ask, answer)}
    asked = {"role": "tool" if ask == "tool" else "user", "content": item[ask]}
    answered = {"role": "assistant", "content": item[answer], **rest}
    turns = [(f"{place}.{ask}", asked), (f"{place}.{answer}", answered)]
    if says(item.get("system")):
        turns.insert(0, (f"{place}.system", {"role": "system", "content": item["system"]}))
    return turns


def asks(fields: dict[str, Any]) -> bool:
    """Whether any key of a prompt says something."""
    keys = (*QUESTIONS, "instruction", "messages", *CONVERSATIONS)
    return any(says(fields.get(key)) for key in keys)


def take_prompt(fields: dict[str, Any], problems: list[Problem]) -> list[Placed] | None:
    """Take what stands before an answer.

    ``instruction`` with ``input``; or one of `QUESTIONS`, a text, messages, or OpenAI's object of
    messages and tools; or else ``conversations`` or ``messages``. ``history`` stands before a text.

    Args:
        fields: The row's cells that are not null; what is read is taken out, and an object's
            ``tools`` put in.
        problems: Appended to.

    Returns:
        None when the row has none of these.
    """
    key = next((key for key in QUESTIONS if says(fields.get(key))), None)
    instructed = says(fields.get("instruction")) and key != "prompt"
    if instructed or ("instruction" in fields and key is None):
        return _take_instruction(fields, problems)
    if key is None:
        for key in ("messages", *CONVERSATIONS):
            if says(fields.get(key)):
                return take_conversation(fields, key, problems)
        key = next((key for key in QUESTIONS if key in fields), None)
    if key is None:
        return None
    value = text_or_turns(fields.pop(key), key, problems)
    if isinstance(value, dict) and "messages" in value:
        if says(value.get("tools")):
            fields["tools"] = value["tools"]
        return _as_context(placed(value["messages"], f"{key}.messages", problems))
    if isinstance(value, str):
        history = _take_history(fields, problems)
        return [*history, (key, {"role": "user", "content": _input(value)})]
    if isinstance(value, dict):
        return [(key, value)]
    if value is None or not _is_list(value, key, problems):
        return []
    return _as_context(placed(value, key, problems))


def _as_context(turns: list[Placed]) -> list[Placed]:
    """Turns of a prompt, of which none is labelled unless it says so itself."""
    return [(place, as_context(turn)) for place, turn in turns]


def _take_instruction(fields: dict[str, Any], problems: list[Problem]) -> list[Placed]:
    turns = _take_history(fields, problems)
    parts = []
    for key in ("instruction", "input"):
        value = fields.pop(key, "")
        if not says(value):
            continue
        if not isinstance(value, str):
            problems.append(Problem("bad-content", f"{key}: expected a text."))
            return turns
        parts.append(_input(value))
    content = "\n".join(filter(None, parts))
    return [*turns, ("instruction", {"role": "user", "content": content})]


def _input(text: str) -> str:
    """A question, or nothing where Alpaca says that there is none."""
    return "" if text.strip().lower() in _NO_INPUT else text


def _take_history(fields: dict[str, Any], problems: list[Problem]) -> list[Placed]:
    """Take earlier turns: pairs of question and answer, exchanges, or messages."""
    if not says(fields.get("history")):
        return []
    turns: list[Placed] = []
    for place, item in placed(fields.pop("history"), "history", problems):
        if isinstance(item, list) and len(item) == 2:
            turns.append((f"{place}[0]", {"role": "user", "content": item[0]}))
            turns.append((f"{place}[1]", {"role": "assistant", "content": item[1]}))
        elif both := _exchange(place, item):
            turns += both
        elif speaker_of(item) is not None:
            turns.append((place, item))
        else:
            message = f"{place}: expected a pair of question and answer."
            problems.append(Problem("bad-messages", message))
    return turns


def repeats_prompt(prompt: list[Placed], answers: dict[str, list[Placed]]) -> Problem | None:
    """The warning that answers begin with what they answer.

    Some tools keep prompt and answer in one text beside the prompt. Where it is shown before the
    answer already, the model would learn to say it again.

    Args:
        prompt: What stands before the answers.
        answers: The turns of each, by their keys.
    """
    asked = text_of(prompt[-1][1]) if prompt else None
    if not isinstance(asked, str) or not asked.strip() or not answers:
        return None
    if not all(turns and _begins_with(text_of(turns[0][1]), asked) for turns in answers.values()):
        return None
    message = (
        f"{' and '.join(answers)}: the answer begins with the whole prompt, which stands before it "
        "already, and the model would learn to repeat it; remove it there."
    )
    return Problem("repeats-prompt", message, "warning")


def _begins_with(answer: Any, prompt: str) -> bool:
    """Whether an answer is a prompt and more; a greeting may begin as its answer does."""
    if not isinstance(answer, str):
        return False
    said, prompt = answer.lstrip(), prompt.strip()
    rest = said[len(prompt) :]
    own_line = rest[:1] in ("\n", "\r") or len(prompt) >= _NO_GREETING
    return said.startswith(prompt) and bool(rest.strip()) and own_line


def behind_transcript(fields: dict[str, Any], answer: list[Placed]) -> list[Placed]:
    """An answer without the spaces that stood between it and ``Assistant:`` (hh-rlhf).

    Args:
        fields: The row's cells that are not null, the prompt's among them.
        answer: Its turns.
    """
    asked = next((fields[key] for key in QUESTIONS if says(fields.get(key))), None)
    if not is_transcript(asked):
        return answer
    return [
        (
            place,
            {**turn, "content": text.strip()} if isinstance(text := text_of(turn), str) else turn,
        )
        for place, turn in answer
    ]


def take_answer(fields: dict[str, Any], key: str, problems: list[Problem]) -> list[Placed]:
    """Take an answer: a text, a message, or messages; no turns when it says nothing."""
    value = text_or_turns(fields.pop(key, None), key, problems)
    if not says(value):
        return []
    if isinstance(value, str) or _is_parts(value):
        return [(key, {"role": "assistant", "content": value})]
    if isinstance(value, dict):
        return [(key, value)]
    return placed(value, key, problems) if _is_list(value, key, problems) else []


def _is_list(value: Any, key: str, problems: list[Problem]) -> bool:
    if not isinstance(value, list):
        message = f"{key}: expected a text or messages; write numbers and JSON data as a text."
        problems.append(Problem("bad-content", message))
    return isinstance(value, list)


def _is_parts(value: Any) -> bool:
    """Whether a list is one turn's content, in parts."""
    return isinstance(value, list) and all(
        isinstance(part, dict) and "type" in part and speaker_of(part) is None for part in value
    )
