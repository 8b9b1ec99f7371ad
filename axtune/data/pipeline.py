"""The one pass over the data: every row read, checked, rendered, encoded and accounted for.

`axtune data check`, `axtune data render`, `axtune data preview` and training share it, so that what
a check says is what a run does.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from axtune.checkpoint.atomic import written_whole
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.config.objective import Objective, RowKind, objective_of, tasks
from axtune.config.recipe import Data, Task
from axtune.data.conversation import Conversation
from axtune.data.documents import TEXT, DocumentRow
from axtune.data.overlap_gate import OverlapGate, overlap_gate
from axtune.data.parse import AnyRow, PreferenceRow, read_row
from axtune.data.privacy_gate import PrivacyGate, broken_by_masks, refusal, same_when_masked
from axtune.data.readers import read_rows
from axtune.data.render import (
    Span,
    SplitAnswerError,
    TemplateDiffersError,
    answer_pieces,
    encode,
    pieces,
    render_document,
    turns_of,
)
from axtune.data.row_labels import held_out_split
from axtune.data.row_text import RowText, row_text
from axtune.data.rows import Row
from axtune.data.samples import IGNORED, AnySample, PairSample, Sample, UnpairedSample
from axtune.data.sources import files_of
from axtune.data.statistics import DatasetStats, RowResult, StatsBuilder
from axtune.data.validate import check as check_conversation
from axtune.data.validate import text_problems
from axtune.errors import AxtuneError, CheckpointError, DataError, Fault, Problem

_BATCH = 256  # rows encoded together: enough to keep every core busy, little to hold
_NO_WORD = re.compile(r"[\W_]+")


def check_rows(files: Iterable[Path], tokenizer: AxTokenizer, data: Data) -> Iterator[RowResult]:
    """Read, check, render and encode every row of some files, in order, as a stream.

    Args:
        files: As `axtune.data.sources.files_of` finds them.
        tokenizer: The checkpoint's.
        data: The options of a recipe's data section; its paths are not looked at.

    Yields:
        One `RowResult` for each row.
    """
    return RowChecker(tokenizer, data, overlaps=overlap_gate(data), training=True).stream(files)


def check(
    files: str | Sequence[str], model: str | AxTokenizer, **options: Any
) -> tuple[DatasetStats, list[Fault]]:
    """Check files as ``axtune data check`` does, from Python.

    Args:
        files: One path or several: files, folders, globs, or ``hf:owner/name``.
        model: Whose tokenizer and template; a name, or a tokenizer already loaded.
        options: Keys of a recipe's data section, such as ``max_length=8192``.

    Returns:
        Where every row went, and every fault.

    Raises:
        AxtuneError: When a path, the model, or an option is wrong.
    """
    tokenizer = load_tokenizer(model, learning=True) if isinstance(model, str) else model
    paths = [files] if isinstance(files, str) else list(files)
    data = data_options(paths, **{"max_length": tokenizer.context, **options})
    ledger, faults = StatsBuilder(), []
    found = [path for source in data.train for path in files_of(source)]
    for checked in check_rows(found, tokenizer, data):
        ledger.add(checked)
        faults += checked.faults
    return ledger.account(), faults


def render_row(row: dict[str, Any], tokenizer: AxTokenizer, **options: Any) -> list[AnySample]:
    """Token ids and labels of one row, from Python.

    Args:
        row: In any shape that a data file may have.
        tokenizer: From `axtune.load_tokenizer`.
        options: Keys of a recipe's data section.

    Returns:
        The row's samples: of a document or a conversation `Sample`, of a preference `PairSample` or
        `UnpairedSample`.

    Raises:
        DataError: When the row is refused, with every fault.
    """
    data = data_options(["row"], **{"max_length": tokenizer.context, **options})
    (checked,) = RowChecker(tokenizer, data).check([Row("row", 0, row)])
    if checked.refused:
        raise DataError("The row cannot be trained on.", checked.faults)
    return checked.samples


def write_rendered(rows: Iterable[RowResult], out: Path) -> int:
    """Write each row's samples as JSONL: ``{"line": n, "samples": […]}`` or ``{…, "error": …}``.

    The file appears whole or not at all.

    Args:
        rows: From `check_rows`.
        out: The file to write.

    Returns:
        How many rows were refused.

    Raises:
        AxtuneError: When the file cannot be written.
    """
    refused = 0
    try:
        if out.exists() and not out.is_file():
            raise AxtuneError(
                f"{out} cannot be written: it is no plain file.", "Give the name of a new file."
            )
        with written_whole(out) as part, part.open("w", encoding="utf-8") as stream:
            for checked in rows:
                line: dict[str, Any] = {"line": checked.line}
                if checked.refused:
                    refused += 1
                    errors = [f for f in checked.faults if f.severity == "error"]
                    line["error"] = "; ".join(f"{f.code}: {f.message}" for f in errors)
                else:
                    line["samples"] = [asdict(sample) for sample in checked.samples]
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise AxtuneError(
            f"{out} cannot be written: {error.strerror}.", "Give a file that you may write to."
        ) from None
    return refused


class Written(NamedTuple):
    """A row's text before it is encoded.

    Attributes:
        parts: The pieces of each stretch that is encoded by itself: a conversation's samples, or a
            preference's prompt and its answers; none of a document, whose samples are there.
        answers: Which answers there are, ``chosen`` or ``rejected``; none of a conversation.
        taught: The conversation, or the one of the first answer, where it is asked for.
        said: What the row says, before personal data are masked, where overlaps are sought.
    """

    parts: list[list[Span]]
    answers: tuple[str, ...] = ()
    taught: Conversation | None = None
    said: RowText | None = None


class RowChecker:
    """The checks of one pass over the data; it remembers what it has seen, for duplicates.

    Args:
        tokenizer: The checkpoint's.
        data: The options of a recipe's data section; its paths are not looked at.
        task: What the rows are to train; None takes each row for what it is.
        with_turns: Whether results have their learned turns, and so hold their conversations.
        piece_length: Tokens that documents are cut to; None as ``data.max_length`` says.
        overlaps: Finds rows that repeat another or a held-out item; None where none is sought.
        training: Whether the rows are to be trained on, so that one that says of itself that it is
            held out for tests is refused.
    """

    def __init__(
        self,
        tokenizer: AxTokenizer,
        data: Data,
        task: Task | None = None,
        *,
        with_turns: bool = False,
        piece_length: int | None = None,
        overlaps: OverlapGate | None = None,
        training: bool = False,
    ) -> None:
        self.training = training
        self.with_turns = with_turns
        # More than its context a model never reads at once.
        self.piece_length = min(piece_length or data.max_length, tokenizer.context)
        self.overlaps = overlaps
        self.tokenizer = tokenizer
        self.data = data
        self.objective = objective_of(task) if task else None
        self.control = None
        if data.control_tokens == "refuse":
            tokens = sorted(tokenizer.control_tokens)
            self.control = re.compile("|".join(map(re.escape, tokens)))
        self.gate = PrivacyGate(data, tokenizer) if data.privacy != "off" else None
        self.seen: set[int] = set()
        self.seen_nearly: set[int] = set()

    def stream(self, files: Iterable[Path]) -> Iterator[RowResult]:
        """Check files row by row, holding one batch at a time."""
        limit = int(self.data.max_line_mb * 1e6)
        rows = chain.from_iterable(read_rows(file, max_line_bytes=limit) for file in files)
        while batch := list(islice(rows, _BATCH)):
            yield from self.check(batch)

    def check(self, rows: Sequence[Row]) -> list[RowResult]:
        """Check a batch of rows; the tokenizer sees it as a whole."""
        checked = []
        sound: list[tuple[RowResult, Written]] = []
        for row in rows:
            result = RowResult(row.file, row.line)
            checked.append(result)
            if row.fault:
                result.faults.append(row.fault)
                continue
            if row.warning:
                result.faults.append(row.warning)
            if written := self._write(row, result):
                sound.append((result, written))
        encoded = iter(encode(self.tokenizer, [part for _, text in sound for part in text.parts]))
        for result, written in sound:
            if not written.parts:
                continue
            result.samples = self._samples(written, *islice(encoded, len(written.parts)))
            if written.taught:
                first = result.samples[:1] if written.answers else result.samples
                result.turns += turns_of(written.taught, first)
            self._fit(result)
        if self.overlaps:
            self.overlaps.judge(
                [(row, text.said) for row, text in sound if text.said and not row.refused]
            )
        return checked

    def _write(self, row: Row, result: RowResult) -> Written | None:
        """The text of a row, None when it is refused or done; faults go to the result."""

        def fault(problem: Problem) -> None:
            result.faults.append(Fault(row.file, row.line, *problem))

        try:
            return self._write_sound(row, result, fault)
        except UnicodeEncodeError:  # an escape in JSON text that is itself a string of the row
            message = "an escape such as \\ud83d is half of a surrogate pair; remove it."
            fault(Problem("lone-surrogate", message))
        except RecursionError:
            fault(Problem("too-deep", "values are nested too deeply; remove some levels."))
        return None

    def _write_sound(
        self, row: Row, result: RowResult, fault: Callable[[Problem], None]
    ) -> Written | None:
        read, problems = read_row(row.value, row_format=self.data.format, nfc=self.data.nfc)
        said = None
        if read is not None:
            whole = all(problem.severity == "warning" for problem in problems)
            said = row_text(read) if self.overlaps and whole else None
            if self.gate and whole:
                read, found = self._through_gate(self.gate, read, result)
                problems += found
            problems += text_problems(read, self.control, nfd=not self.data.nfc)
            if whole and not result.personal_data:
                read, found = check_conversation(read)
                problems += found
            problems += _wrong_task(self.objective, read)
            problems += _unread_draft(row.value)
            if self.training:
                problems += _held_out(row.value)
        for problem in problems:
            fault(problem)
        if read is None or result.refused:
            return None
        try:
            if isinstance(read, DocumentRow):
                self._render_document(read, result, fault)
                written = Written([])
            elif isinstance(read, Conversation):
                written = self._write_conversation(read, result, fault)
            else:
                written = self._write_preference(read, result, fault)
            return written._replace(said=said)
        except TemplateDiffersError as error:
            fault(Problem("template-differs", error.found))
        except CheckpointError as error:
            fault(Problem("template-refuses", error.found))
        except SplitAnswerError as error:
            fault(Problem("split-answer", f"{error.found} {error.remedy}"))
        return None

    def _through_gate(
        self, gate: PrivacyGate, read: AnyRow, result: RowResult
    ) -> tuple[AnyRow, list[Problem]]:
        """A row without personal data, checked where it held some."""
        try:
            masked, result.personal_data = gate.masked(read)
        except AxtuneError as error:  # a pattern of the user's own that takes too long
            place = f"{result.file}:{result.line}"
            raise AxtuneError(f"{place}: {error.found}", error.remedy) from None
        if not result.personal_data:
            return read, []
        if self.data.privacy == "refuse":
            checked, found = check_conversation(read)
            return checked, [refusal(result.personal_data), *found]
        _, before = check_conversation(read)
        checked, after = check_conversation(masked)
        return checked, [*broken_by_masks(before, after), *same_when_masked(masked)]

    def _render_document(
        self, document: DocumentRow, result: RowResult, fault: Callable[[Problem], None]
    ) -> None:
        """The samples of a document; how it is cut tells how long they are, so it is encoded."""
        exact = _hash(f"{TEXT}\0{document.text}")
        result.key = _hash(f"{TEXT}\0{_letters(document.text)}")
        self._told_before("document", exact, result.key, fault)
        result.document = True
        result.samples += render_document(self.tokenizer, document, self.piece_length)

    def _told_before(
        self, what: str, exact: int, nearly: int, fault: Callable[[Problem], None]
    ) -> None:
        """Warn of what a row further up says as well."""
        if exact in self.seen:
            fault(Problem("duplicate", f"the same {what} appears earlier.", "warning"))
        elif nearly in self.seen_nearly:
            message = f"except for case, spaces and punctuation, the same {what} appears earlier."
            fault(Problem("near-duplicate", message, "warning"))
        self.seen.add(exact)
        self.seen_nearly.add(nearly)

    def _write_conversation(
        self, conversation: Conversation, result: RowResult, fault: Callable[[Problem], None]
    ) -> Written:
        samples = pieces(self.tokenizer, conversation)
        exact = _hash("".join(piece.text for sample in samples for piece in sample))
        result.key = _hash(_near_text(conversation))
        self._told_before("conversation", exact, result.key, fault)
        return Written(samples, taught=conversation if self.with_turns else None)

    def _write_preference(
        self, preference: PreferenceRow, result: RowResult, fault: Callable[[Problem], None]
    ) -> Written:
        cut = {
            name: answer_pieces(self.tokenizer, conversation, preference.prompt)
            for name, conversation in preference.answers
        }
        (prompt, _), *_ = cut.values()
        answers = {name: answer for name, (_, answer) in cut.items()}
        for problem in self._judged_before(preference, prompt, answers, result):
            fault(problem)
        taught = preference.learned if self.with_turns else None
        return Written([[prompt], *answers.values()], tuple(answers), taught)

    def _judged_before(
        self,
        preference: PreferenceRow,
        prompt: Span,
        answers: dict[str, list[Span]],
        result: RowResult,
    ) -> Iterator[Problem]:
        """What the rows further up say about a preference; preferences of a prompt share a key."""
        said = {name: "".join(piece.text for piece in answer) for name, answer in answers.items()}
        exact, contrary = (
            _hash("\0".join((prompt.text, said.get(good, ""), said.get(bad, ""))))
            for good, bad in (("chosen", "rejected"), ("rejected", "chosen"))
        )
        conversations = [conversation for _, conversation in preference.answers]
        nearly = _hash("\1".join((*answers, *map(_near_text, conversations))))
        result.key = _hash(_near_text(conversations[0], preference.prompt))
        if exact in self.seen:
            yield Problem("duplicate", "the same preference appears earlier.", "warning")
        elif contrary in self.seen:
            message = "an earlier row says the opposite of the same prompt and answers."
            yield Problem("contradiction", message, "warning")
        elif nearly in self.seen_nearly:
            message = (
                "except for case, spaces and punctuation, the same preference appears earlier."
            )
            yield Problem("near-duplicate", message, "warning")
        self.seen.add(exact)
        self.seen_nearly.add(nearly)

    def _samples(self, written: Written, first: Sample, *others: Sample) -> list[AnySample]:
        """The samples of a row's encoded parts."""
        if not written.answers:
            return [first, *others]
        one_by_one = self.objective is not None and self.objective.learns_from == "judged"
        if len(others) == 2 and not one_by_one:
            ids, labels = zip(*((each.input_ids, each.labels) for each in others), strict=True)
            return [PairSample(first.input_ids, *ids, *labels)]
        return [
            UnpairedSample(first.input_ids, each.input_ids, each.labels, name == "chosen")
            for name, each in zip(written.answers, others, strict=True)
        ]

    def _fit(self, result: RowResult) -> None:
        """Hold the samples against max_length."""
        limit = self.data.max_length
        longest = max((sample.length for sample in result.samples), default=0)
        if longest <= limit:
            return
        place = (result.file, result.line)
        whole = [sample for sample in result.samples if isinstance(sample, Sample)]
        if not self.data.truncate or not whole:
            # Answers are judged as a whole: of one that is cut, nobody has said what it is worth.
            message = f"{longest} tokens, and max_length is {limit}; raise data.max_length"
            message += (
                ", shorten the row, or set data.truncate: true." if whole else " or shorten it."
            )
            result.faults.append(Fault(*place, "too-long", message))
            result.samples.clear()
            result.turns.clear()
            return
        for sample in whole:
            del sample.input_ids[limit:], sample.labels[limit:]
        result.turns = [turn for turn in result.turns if turn.end <= limit]
        # An answer that has been cut is learned up to the cut; a prompt alone teaches nothing.
        result.samples = [s for s in whole if s.labels.count(IGNORED) < len(s.labels)]
        if result.samples:
            message = f"{longest} tokens, cut at max_length {limit}."
            result.faults.append(Fault(*place, "truncated", message, "warning"))
        else:
            message = f"no labelled token is left of {longest} tokens after the cut at {limit}."
            result.faults.append(Fault(*place, "nothing-to-learn", message))


def _kind_of(read: AnyRow) -> RowKind:
    if isinstance(read, PreferenceRow):
        return "pair" if len(read.answers) == 2 else "judged"
    return "document" if isinstance(read, DocumentRow) else "conversation"


def _wrong_task(objective: Objective | None, read: AnyRow) -> list[Problem]:
    """The problem of a row that is not of the kind that an objective learns from."""
    kind = _kind_of(read)
    if objective is None or kind in objective.accepts:
        return []
    task, (other, *_) = f"task: {objective.name}", tasks(lambda one: one.learns_from == kind)
    if kind == "document":
        message = f"{task} learns answers, and the row is a document; task: {other} learns it."
    elif kind == "conversation":
        wanted = "chosen and rejected" + (", or a label" if "judged" in objective.accepts else "")
        message = f"{task} needs {wanted}, and the row has one answer; task: {other} learns it."
    elif objective.judges:
        message = f"{task} compares two answers, and the row has one; task: {other} takes it."
    else:
        message = (
            f"{task} learns every answer, and the row judges them; task: {other} learns from that "
            "(or name in data.format the shape of the conversation that is to be learned)."
        )
    return [Problem("wrong-task", message)]


def _unread_draft(value: Any) -> list[Problem]:
    """The warning that ``axtune data ask`` has written a row and nobody has read it yet."""
    meta = value.get("meta")
    at = [
        place
        for place, holder in (("draft", value), ("meta.draft", meta))
        if isinstance(holder, dict) and holder.get("draft") is True
    ]
    message = "a model drafted the row; read it, and remove {}, or leave the row out."
    return [Problem("draft", message.format(place), "warning") for place in at[:1]]


def _held_out(value: Any) -> list[Problem]:
    """The problem of a row that says itself that it is of a split for tests."""
    if (key := held_out_split(value)) is None:
        return []
    message = (
        f"{key}: the row says that it is held out for validation or tests; leave it out of "
        "data.train (data.eval takes it), or remove the key."
    )
    return [Problem("held-out", message)]


def _near_text(conversation: Conversation, end: int | None = None) -> str:
    """What near duplicates share: every letter and digit, without case, spaces, punctuation."""
    said: list[str] = [tool["function"]["name"] for tool in conversation.tools or ()]
    for message in conversation.messages[:end]:
        said.append(message["role"])
        said.append(_letters(message["content"]))
        for call in message.get("tool_calls", ()):
            said.append(json.dumps(call["function"], sort_keys=True))
    return "\0".join(said)


def _letters(text: str) -> str:
    return _NO_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
