"""Questions and answers from documents: drafted, checked, and written as rows to be read.

Of each passage one request drafts pairs. Each pair that says nothing wrong by itself is asked again
with the passage alone, and stays where the second answer says the same. What is refused is counted
by its reason.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from axtune.checkpoint.atomic import fsync, written_whole
from axtune.checkpoint.leftovers import private_files
from axtune.drafting.agreement import differ, overlap
from axtune.drafting.journal import Journal, Outcome, opened
from axtune.drafting.near import near_duplicates
from axtune.drafting.passages import Passage, read_passages
from axtune.drafting.prompts import (
    CHECK_SCHEMA,
    PROMPT_VERSION,
    check_prompt,
    draft_prompt,
    draft_schema,
)
from axtune.drafting.replies import Pair, read_check, read_pairs
from axtune.drafting.server import Asking, TooLongError, UnwillingError
from axtune.drafting.sieve import refused
from axtune.errors import AxtuneError
from axtune.privacy.scrub import Scrubber
from axtune.verify.vllm import Served

_PAIR_TOKENS = 400  # that a question and its answer may take
_CHECK_TOKENS = 300
_GOES_ON = "What was drafted is kept: then give the same command again, and it goes on."


@dataclass(frozen=True, slots=True)
class Options:
    """How drafts are made.

    Attributes:
        questions: Pairs of a passage, at most.
        passage_length: Characters of a passage.
        at_once: Requests at the same time; no draft depends on it.
        seed: Sent with each request.
    """

    questions: int = 2
    passage_length: int = 1500
    at_once: int = 8
    seed: int = 42


@dataclass(slots=True)
class Report:
    """What became of a corpus.

    Attributes:
        documents: Read.
        passages: That were asked of, now or before.
        present: Of those, before.
        left_out: Passages that were not asked of, by reason.
        failed: Passages of which no pair could be read, by reason, with their places.
        drafted: Pairs.
        refused: Pairs that are not kept, by reason.
        kept: Pairs that were written.
        masked: Personal data masked in the documents, by kind.
    """

    documents: int = 0
    passages: int = 0
    present: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)
    drafted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    masked: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, outcome: Outcome) -> None:
        """Count what came of a passage."""
        self.drafted += outcome.drafted
        self.kept += len(outcome.kept)
        self.refused += outcome.refused
        if outcome.failed:
            self.failed.setdefault(outcome.failed, []).append(place)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "documents": self.documents,
            "passages": self.passages,
            "passages_present": self.present,
            "passages_left_out": dict(self.left_out.most_common()),
            "passages_failed": self.failed,
            "pairs_drafted": self.drafted,
            "pairs_refused": dict(self.refused.most_common()),
            "pairs_kept": self.kept,
            "personal_data": dict(sorted(self.masked.items())),
        }


Progress = Callable[[int, int, Report], None]


def draft(
    files: Sequence[Path],
    served: Served,
    out: Path,
    options: Options,
    scrubber: Scrubber,
    progress: Progress | None = None,
) -> Report:
    """Write pairs that are drafted from documents as conversations, each marked as a draft.

    Args:
        files: Of a corpus.
        served: Who drafts.
        out: JSONL to write, whole or not at all, for its owner's eyes.
        options: How.
        scrubber: Finds personal data.
        progress: Called with passages done, passages in all, and the report so far.

    Returns:
        What became of all; with no pair kept nothing is written.

    Raises:
        AxtuneError: When the corpus is none, `out` cannot be written, or the server does not do
            what it is asked.
    """
    found = read_passages(files, options.passage_length, scrubber)
    facts = {
        "model": served.model,
        "prompt_version": PROMPT_VERSION,
        "questions": options.questions,
        "passage_length": options.passage_length,
        "seed": options.seed,
    }
    report = Report(found.documents, len(found.asked), left_out=found.left_out, masked=found.masked)
    with opened(out, facts) as journal:
        waiting = []
        for passage in found.asked:
            if outcome := journal.outcomes.get(passage.key):
                report.present += 1
                report.add(passage.place, outcome)
            else:
                waiting.append(passage)
        asking = Asking(served, options.seed)
        done = report.present
        for passage, outcome in _asked(asking, waiting, options, scrubber):
            journal.add(passage.key, outcome)
            report.add(passage.place, outcome)
            done += 1
            if progress is not None:
                progress(done, len(found.asked), report)
        rows = _rows(found.asked, journal, facts, report)
        if rows:
            _write(rows, out)
        journal.path.unlink()
    return report


def _asked(
    asking: Asking, passages: Sequence[Passage], options: Options, scrubber: Scrubber
) -> Iterator[tuple[Passage, Outcome]]:
    """What comes of each passage, in no order."""

    def ask(passage: Passage) -> Outcome:
        return draft_passage(asking, passage, options.questions, scrubber)

    waiting = list(passages)
    try:
        # One after another until the server has shown whether it takes a schema.
        while waiting and asking.structured is None:
            yield waiting[0], ask(waiting.pop(0))
        yield from _at_once(ask, waiting, options.at_once)
    except AxtuneError as error:
        raise AxtuneError(error.found, f"{error.remedy} {_GOES_ON}".strip()) from None


def _at_once(
    ask: Callable[[Passage], Outcome], passages: Sequence[Passage], threads: int
) -> Iterator[tuple[Passage, Outcome]]:
    """What comes of passages, several at the same time.

    The threads of `concurrent.futures` are waited for when Ctrl-C ends the process, and a server
    may take minutes for an answer; these are not.
    """
    todo: SimpleQueue[Passage] = SimpleQueue()
    done: SimpleQueue[tuple[Passage, Outcome | Exception]] = SimpleQueue()
    stopped = threading.Event()
    for passage in passages:
        todo.put(passage)

    def work() -> None:
        while not stopped.is_set():
            try:
                passage = todo.get_nowait()
            except Empty:
                return
            try:
                done.put((passage, ask(passage)))
            except Exception as error:
                stopped.set()
                done.put((passage, error))

    for _ in range(min(threads, len(passages))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in passages:
            passage, outcome = done.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield passage, outcome
    finally:
        stopped.set()


def draft_passage(asking: Asking, passage: Passage, questions: int, scrubber: Scrubber) -> Outcome:
    """Ask for the pairs of a passage, and check each.

    Args:
        asking: The server.
        passage: To be asked of.
        questions: How many pairs at most.
        scrubber: Finds personal data.

    Raises:
        AxtuneError: When the server does not answer, or refuses every request.
    """
    try:
        reply = asking.ask(
            draft_prompt(passage.text, passage.title, questions),
            draft_schema(questions),
            _PAIR_TOKENS * questions,
        )
    except TooLongError:
        return Outcome(failed="too-long")
    except UnwillingError:
        if asking.structured is None:  # it has taken nothing yet
            raise
        return Outcome(failed="server-refused")
    drafted = read_pairs(reply.content, reply.finish_reason)
    outcome = Outcome(len(drafted.pairs) + drafted.malformed, failed=drafted.failed)
    if drafted.malformed:
        outcome.refused["malformed"] = drafted.malformed
    for number, pair in enumerate(drafted.pairs):
        reason = "surplus" if number >= questions else refused(pair, passage.text, scrubber)
        checked = ""
        if not reason:
            reason, checked = _check(asking, passage, pair)
        if reason:
            outcome.refused[reason] += 1
        else:
            shared = round(overlap(pair.answer, checked), 2)
            outcome.kept.append(
                {
                    "question": pair.question,
                    "answer": pair.answer,
                    "checked": checked,
                    "overlap": shared,
                }
            )
    return outcome


def _check(asking: Asking, passage: Passage, pair: Pair) -> tuple[str, str]:
    """Why a pair is refused by the server's second answer, or nothing; and that answer."""
    prompt = check_prompt(passage.text, passage.title, pair.question)
    try:
        reply = asking.ask(prompt, CHECK_SCHEMA, _CHECK_TOKENS)
    except (TooLongError, UnwillingError):
        return "check-refused", ""
    answer = read_check(reply.content, reply.finish_reason)
    if answer is None:
        return "check-unreadable", ""
    if not answer:
        return "unanswerable", ""
    return ("answers-differ" if differ(pair.answer, answer) else ""), answer


def _rows(
    passages: Sequence[Passage], journal: Journal, facts: dict[str, Any], report: Report
) -> list[dict[str, Any]]:
    """The rows of the pairs that ask nothing twice, in the order of their passages."""
    kept = [(passage, pair) for passage in passages for pair in journal.outcomes[passage.key].kept]
    rows = []
    for (passage, pair), earlier in zip(
        kept, near_duplicates([pair["question"] for _, pair in kept]), strict=True
    ):
        if earlier is not None:
            report.refused["near-duplicate"] += 1
            report.kept -= 1
            continue
        messages = [
            {"role": "user", "content": pair["question"]},
            {"role": "assistant", "content": pair["answer"]},
        ]
        made = {name: facts[name] for name in ("model", "prompt_version", "seed")}
        checked = {"checked_answer": pair["checked"], "overlap": pair["overlap"]}
        meta = {"draft": True, **passage.to_meta(), **made, **checked}
        rows.append({"messages": messages, "meta": meta})
    return rows


def _write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with private_files(), written_whole(out) as part:
        with part.open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        fsync(part)
    fsync(out.parent)
