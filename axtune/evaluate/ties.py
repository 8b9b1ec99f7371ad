"""Where two backends of the same weights part, and whether that is a tie.

Both compute the same sums in another order. Greedy answers then differ only where the best two
tokens are nearer to each other than rounding is, and from there on they are answers to two prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

from axtune.evaluate.answers import Kept

# Logits are some tens, so that rounding moves them by some epsilons; float32 sums of thousands of
# products move by more than its own.
_EPSILONS, _LEAST = 32, 1e-3


def ties_of(left: Sequence[Kept], right: Sequence[Kept], epsilon: float) -> dict[str, float]:
    """Compare answers token by token.

    Args:
        left: Of one backend.
        right: Of the other, to the same questions; one of the two has margins.
        epsilon: Of the coarser of the two.

    Returns:
        As `axtune.evaluate.results.Result.ties` has it; answers whose tokens a server does not
        tell are not compared.
    """
    bound = max(_EPSILONS * epsilon, _LEAST)
    compared, leads = 0, []
    for one, other in zip(left, right, strict=True):
        if not one.ids or not other.ids:
            continue
        compared += 1
        if one.ids != other.ids:
            leads.append(_lead_where_they_part(one, other))
    return {
        "compared": compared,
        "differ": len(leads),
        "at_a_tie": sum(lead <= bound for lead in leads),
        "widest": max(leads, default=0.0),
        "bound": bound,
    }


def _lead_where_they_part(one: Kept, other: Kept) -> float:
    place = next(
        (n for n, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b),
        min(len(one.ids), len(other.ids)),
    )
    leads = [kept.margins[place] for kept in (one, other) if len(kept.margins) > place]
    return min(leads, default=float("inf"))
