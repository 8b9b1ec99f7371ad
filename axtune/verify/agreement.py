"""How far the answers of weights in 4 bit are from those of the 16-bit ones they were made from.

Both say, in float32 and a layer at a time, what comes after every token of rows that the run held
out. Of that: the divergence KL(16 bit ‖ 4 bit), how often the likeliest token of an answer is the
same, and the perplexity of the answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.provenance import base_digests, differing_files
from axtune.checkpoint.record import Record, file_sha256
from axtune.checkpoint.saved_adapter import WEIGHTS
from axtune.data.samples import IGNORED, Sample, as_served
from axtune.data.statistics import RowResult
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.int4 import GROUPS, WEAK_BENEATH_ADAPTERS, stated_group
from axtune.verify.certificate import FOUR_BIT, Check
from axtune.verify.layerwise import Layerwise

# What A.X models in 4 bit are expected to keep within, and from where on it is a fault.
EXPECTED_KL, MOST_KL = 0.05, 0.1
EXPECTED_TOP1, EXPECTED_PERPLEXITY = 0.97, 1.03

# Of all rows, padding included: with A.X 4.0 Light on two cores some twenty minutes.
_CPU_TOKENS, _GPU_TOKENS = 4096, 32_768

_MERGE_FIRST = (
    "Where it answers worse than it should, export the run itself in 4 bit: its adapter is merged "
    "before the weights are rounded."
)

_POSITIONS = 512  # whose logits are in memory at once: two rows of 100,000 numbers for each


@dataclass(frozen=True)
class Agreement:
    """How near two models are on some rows.

    Attributes:
        kl: Mean over all positions of the divergence of the next token's distributions, in nats.
        answers_kl: The same of the tokens of answers.
        top1: Of the tokens of answers, the share whose likeliest token is the same.
        perplexity: That of the answers under the second, as a multiple of that under the first.
        positions: How many.
        answers: How many of them are followed by a token of an answer.
    """

    kl: float
    answers_kl: float
    top1: float
    perplexity: float
    positions: int
    answers: int


def agreement(reference: Layerwise, served: Layerwise, samples: Sequence[Sample]) -> Agreement:
    """Hold a model against another.

    Args:
        reference: In 16 bit.
        served: In 4 bit.
        samples: With their labels; all go through a layer together.
    """
    sequences = [sample.input_ids for sample in samples]
    # What a position is followed by, where that is of an answer.
    following = torch.tensor([id for s in samples for id in (*s.labels[1:], IGNORED)])
    first, second = reference.states(sequences), served.states(sequences)
    kls, same, nats = [], [], []
    for start in range(0, len(first), _POSITIONS):
        part = slice(start, start + _POSITIONS)
        left = torch.log_softmax(reference.logits(first[part]), dim=-1)
        right = torch.log_softmax(served.logits(second[part]), dim=-1)
        same.append((left.argmax(dim=-1) == right.argmax(dim=-1)).cpu())
        wanted = following[part].clamp(min=0).to(left.device).unsqueeze(1)
        nats.append((left.gather(1, wanted) - right.gather(1, wanted)).squeeze(1).cpu())
        kls.append(left.exp().mul_(left.sub_(right)).sum(dim=-1).cpu())
    answers = following != IGNORED
    kl = torch.cat(kls)
    return Agreement(
        kl=float(kl.mean()),
        answers_kl=float(kl[answers].mean()),
        top1=float(torch.cat(same)[answers].float().mean()),
        perplexity=math.exp(float(torch.cat(nats)[answers].mean())),
        positions=len(kl),
        answers=int(answers.sum()),
    )


def against_16_bit(
    checkpoint: Checkpoint,
    base: Checkpoint | None,
    adapter: Path | None,
    rows: Iterable[RowResult],
    which: str,
    most_kl: float = MOST_KL,
) -> Iterator[Check]:
    """What 4 bit costs: a folder against the 16-bit weights that it was made from.

    Args:
        checkpoint: In 4 bit.
        base: In 16 bit; None where it is not known.
        adapter: That is merged into the folder, or served beside it; None for none.
        rows: To compare on; so many of the first of them are taken as are computed in minutes.
        which: What rows these are, in words.
        most_kl: From which on it fails, in nats a token.

    Raises:
        AxtuneError: When the weights cannot be read.
    """
    made = how_made(checkpoint.folder)
    beside = adapter is not None and made.get("adapters") == []
    name = "adapter over it" if beside else "16-bit base + adapter" if adapter else "16-bit base"
    if reason := incomparable(made, base, adapter):
        yield Check(FOUR_BIT, name, "skip", reason)
        return
    assert base is not None
    if made and adapter and not beside and made["adapters"] != [file_sha256(adapter / WEIGHTS)]:
        found = "it was made with another adapter than the one given"
        yield Check(FOUR_BIT, name, "fail", found, "Give the run that it was exported from.")
        return
    try:
        samples = _some(rows)
    except AxtuneError:
        reason = "how far it is from 16 bit was not measured: the rows of its run cannot be read"
        yield Check(FOUR_BIT, name, "skip", f"{reason}; give others with --data FILE")
        return
    if not samples:
        found = "no rows to compare on; give --data FILE"
        if which:
            found = f"none of the {which} can be used; axtune data check FILE says why"
        yield Check(FOUR_BIT, name, "skip", found)
        return
    better = how_to_lose_less(made, checkpoint.config)
    which = f"{len(samples)} {which}"
    vocabulary = int(checkpoint.config["vocab_size"])
    reference = Layerwise(base, adapter, vocabulary=vocabulary)
    served = Layerwise(checkpoint, adapter if beside else None)
    yield _judged(agreement(reference, served, samples), name, which, most_kl, better)
    if beside:
        alone = agreement(Layerwise(base), Layerwise(checkpoint), samples)
        yield _judged(alone, "without the adapter", which, most_kl, better)
        yield Check(FOUR_BIT, "weakness", "warn", WEAK_BENEATH_ADAPTERS, _MERGE_FIRST)


def how_made(folder: Path) -> dict[str, Any]:
    """What the record of a folder in 4 bit says of it; nothing where axtune did not make it."""
    record = Record.read(folder)
    found = record.facts.get("four_bit") if record else None
    return found if isinstance(found, dict) else {}


def recorded_base(folder: Path) -> Checkpoint | None:
    """The 16-bit base that the record of a folder in 4 bit names, where it is still the same."""
    with suppress(CheckpointError):
        made = how_made(folder).get("base", {})
        # On this machine: 15 GB that nobody asked for are not fetched.
        found = locate.find(str(made.get("name")), revision=made.get("commit"), local=True)
        if not differing_files(made.get("digests", {}), base_digests(found.folder)):
            return found
    return None


def how_to_lose_less(made: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What would bring a folder in 4 bit nearer to 16 bit: options of axtune export.

    Args:
        made: Of `how_made`.
        config: The folder's ``config.json``.
    """
    ways = ["on more rows (--rows)", "on rows that are more like what it is asked (--calibrate)"]
    if made.get("method") == "rtn":
        ways = ["calibrated on rows (without --fast)"]
    group = stated_group(config)
    if finer := next((size for size in GROUPS if size < group), None):
        ways.append(f"in smaller groups (--group {finer})")
    return f"{', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else ways[0]


def incomparable(
    made: Mapping[str, Any], base: Checkpoint | None, adapter: Path | None
) -> str | None:
    """Why a folder in 4 bit cannot be held against its 16-bit weights; None where it can.

    Args:
        made: Of `how_made`.
        base: In 16 bit; None where it is not known.
        adapter: That is given; None for none.
    """
    if base is None:
        return "no 16-bit weights to compare with; give --adapter RUN, or --against BASE"
    if made.get("adapters") and adapter is None:
        return "an adapter is merged into it; give its run: --adapter RUN"
    return None


def unmeasured(
    checks: Sequence[Check], most_kl: float | None, least_agreement: float | None
) -> Iterator[Check]:
    """Failures of bounds that somebody asks for and that nothing was measured against.

    Args:
        checks: All that were made.
        most_kl: In nats a token; None where nobody asks for a bound.
        least_agreement: A share of questions, or None.
    """
    own = [check for check in checks if check.part == FOUR_BIT]
    bounds = [("--max-kl", "kl_nats", most_kl), ("--min-agreement", "same", least_agreement)]
    for option, figure, bound in bounds:
        if bound is None or any(figure in check.figures for check in own):
            continue
        # Questions have a check of their own, behind those of rows, where it came to that.
        order = reversed(own) if figure == "same" else own
        why = next((check.found for check in order if not check.figures), None)
        if why is None and any(check.status == "fail" for check in checks):
            why = "it did not come to that, see what failed above"
        found = f"nothing was measured that {bound} could be held against: "
        found += why or "the checkpoint is not in 4 bit"
        yield Check(FOUR_BIT, option, "fail", found, f"See to that, or leave {option} out.")


def _some(rows: Iterable[RowResult]) -> list[Sample]:
    """The first rows, so many that a machine computes them in minutes, padded to the longest."""
    room = _GPU_TOKENS if torch.cuda.is_available() else _CPU_TOKENS
    found: list[Sample] = []
    longest = 0
    for row in rows:
        for sample in map(as_served, row.samples):
            if max(longest, sample.length) * (len(found) + 1) > room:
                if found:
                    return found
                continue
            found.append(sample)
            longest = max(longest, sample.length)
    return found


def _judged(found: Agreement, name: str, which: str, most_kl: float, better: str) -> Check:
    figures = {
        "kl_nats": found.kl,
        "kl_nats_answers": found.answers_kl,
        "top1_answers": found.top1,
        "perplexity_ratio": found.perplexity,
        "positions": float(found.positions),
        "answer_tokens": float(found.answers),
    }
    text = (
        f"KL {found.kl:.3f} nats a token, {found.answers_kl:.3f} in answers; likeliest token of "
        f"answers the same in {found.top1:.1%}, their perplexity {found.perplexity:.3f} times "
        f"({which}: {found.positions:,} tokens, {found.answers:,} of answers)"
    )
    if not found.kl <= most_kl:  # also where it is not a number
        remedy = f"More than {most_kl} nats. Export it again {better}; or serve it in fp8."
        return Check(FOUR_BIT, name, "fail", text, remedy, figures)
    if (
        found.kl > EXPECTED_KL
        or found.top1 < EXPECTED_TOP1
        or found.perplexity > EXPECTED_PERPLEXITY
    ):
        remedy = (
            f"A.X models are expected within {EXPECTED_KL} nats, {EXPECTED_TOP1:.0%} and "
            f"{EXPECTED_PERPLEXITY} times. Ask it your questions (axtune eval), or export it again "
            f"{better}."
        )
        return Check(FOUR_BIT, name, "warn", text, remedy, figures)
    return Check(FOUR_BIT, name, "pass", text, "", figures)
