"""How far the answers of weights in 4 bit are from those of the 16-bit ones they were made from.

Both say, in float32 and a layer at a time, what comes after every token of rows that the run held
out. Of that: the divergence KL(16 bit ‖ 4 bit), how often the likeliest token of an answer is the
same, and the perplexity of the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from axtune.data.samples import IGNORED, Sample
from axtune.verify.certificate import Check
from axtune.verify.layerwise import Layerwise

# What A.X models in 4 bit are expected to keep within, and from where on it is a fault.
EXPECTED_KL, MOST_KL = 0.05, 0.1
EXPECTED_TOP1, EXPECTED_PERPLEXITY = 0.97, 1.03

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


def judge(found: Agreement, name: str, most_kl: float = MOST_KL) -> Check:
    """The check of a certificate.

    Args:
        found: What was measured.
        name: What the weights were held against.
        most_kl: From which on it fails, in nats a token.
    """
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
        f"({found.positions:,} tokens, {found.answers:,} of answers)"
    )
    if not found.kl <= most_kl:  # also where it is not a number
        remedy = (
            f"More than {most_kl} nats. Calibrate on rows that are like what it is asked "
            "(--calibrate), on more of them (--rows), or with smaller groups (--group 64); or "
            "serve it in fp8."
        )
        return Check("4 bit", name, "fail", text, remedy, figures)
    if found.kl > EXPECTED_KL or found.top1 < EXPECTED_TOP1 or found.perplexity > EXPECTED_PERPLEXITY:
        remedy = (
            f"A.X models are expected within {EXPECTED_KL} nats, {EXPECTED_TOP1:.0%} and "
            f"{EXPECTED_PERPLEXITY} times. Ask it your questions (axtune eval), or make it again "
            "with more rows (--rows) or smaller groups (--group 64)."
        )
        return Check("4 bit", name, "warn", text, remedy, figures)
    return Check("4 bit", name, "pass", text, "", figures)
