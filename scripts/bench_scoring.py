#!/usr/bin/env python
"""Are calls right where the benchmarks' own code says so?

Answers, right ones and ones that are wrong in some way, are made to every question of BFCL that has
a right answer (its categories in Python that need no execution), and to every call turn of
FunctionChat-Bench; then each is judged by the benchmark's own code and by axtune.

Neither package is installed. BFCL: ``pip download --no-deps bfcl-eval==2026.3.23``, and unzip the
wheel. FunctionChat-Bench: a clone of github.com/kakao/FunctionChat-Bench.

    python scripts/bench_scoring.py --bfcl UNPACKED --functionchat CLONE
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from measuring import SHARED

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.benchmarks import (  # the tests judge the same answers
    Judged,
    bfcl_checker,
    functionchat_match,
    judge_bfcl,
    judge_functionchat,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bfcl", type=Path, help="the unpacked package bfcl-eval")
    parser.add_argument("--functionchat", type=Path, help="a clone of FunctionChat-Bench")
    parser.add_argument(
        "--files",
        type=Path,
        default=SHARED / "functionchat",
        help="a folder with FunctionChat-Bench's files",
    )
    parser.add_argument("--each", type=int, default=1, help="3: every third question of BFCL")
    options = parser.parse_args()
    if options.bfcl:
        with bfcl_checker(options.bfcl) as checker:
            verdicts = judge_bfcl(options.bfcl / "bfcl_eval/data", checker, each=options.each)
            show("BFCL", verdicts)
    if options.functionchat:
        with functionchat_match(options.functionchat) as match:
            files = sorted(options.files.glob("*.jsonl"))
            show("FunctionChat-Bench", judge_functionchat(files, match))


def show(name: str, verdicts: Iterable[Judged]) -> None:
    """Print how many answers there were, and where the two part, by what was done to the answer."""
    found = Counter(verdicts)
    right = sum(count for one, count in found.items() if one.theirs)
    differ = Counter({one: count for one, count in found.items() if one.theirs != one.ours})
    total = found.total()
    print(
        f"{name}: {total:,} answers, {right:,} right and {total - right:,} wrong by its own code; "
        f"{differ.total():,} judged otherwise ({differ.total() / total:.2%})"
    )
    for one, count in differ.most_common():
        print(f"  {count:6,}  {one.what}: {'right' if one.ours else 'wrong'} by axtune alone")
    if any(one.published is not None for one in found):
        apart = sum(count for one, count in found.items() if one.theirs != one.published)
        print(f"  {apart:6,}  are judged otherwise by the figure `published`")


if __name__ == "__main__":
    main()
