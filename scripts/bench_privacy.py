"""Personal data, measured: recall and precision by kind, speed, and the slowest hostile text.

    python scripts/bench_privacy.py
    python scripts/bench_privacy.py --data ../shared/domain/pii_sample.jsonl

Without a file the texts are invented (tests/support/personal.py): numbers with valid checksums in
sentences, forms, tables, logs, JSON and calls, and look-alikes between them, in two halves of
different labels and frames. A file has a line for each text, with `text` and `spans` as
[begin, end, kind]. Times are of the processor, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from axtune.privacy.find import find
from axtune.privacy.scrub import Scrubber

HERE = Path(__file__).resolve().parent
HOSTILE = {
    "digits": "1",
    "digits and spaces": "1 ",
    "digits and dashes": "1-",
    "telephones": "010-1234-5678 ",
    "accounts": "계좌 110-123-456789 ",
    "rows of a table": "a,110-123-456789\n",
    "lists of JSON": "[1101234567890,",
    "passports": "passport m12345678 ",
    "labels": "주 민 등 록 번 ",
    "particles": "계좌은은은은은은은은은은은은은은은은1234567890 ",
    "backslashes": "\\",
    "escapes": "\\u0031",
    "zero width": "\u200b1",
    "syllables": "공일공",
}
Text = tuple[str, list[tuple[int, int, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="JSONL with text and spans")
    parser.add_argument("--count", type=int, default=6000, help="texts invented for each half")
    options = parser.parse_args()
    sets = {str(options.data): read(options.data)} if options.data else invented(options.count)
    for name, texts in sets.items():
        print(f"\n{name}: {len(texts):,} texts")
        show_score(texts)
        show_speed(texts)
    print("\n200,000 hostile characters, masked:")
    for name, unit in HOSTILE.items():
        print(f"  {name:20} {seconds_of([(unit * 200_000)[:200_000]]):.2f} s")


def read(file: Path) -> list[Text]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(row["text"], [(a, b, kind) for a, b, kind in row["spans"]]) for row in rows]


def invented(count: int) -> dict[str, list[Text]]:
    sys.path.insert(0, str(HERE.parent / "tests"))
    from support.personal import cases

    return {
        f"half {half}": [(case.text, list(case.spans)) for case in cases(half, count)]
        for half in (0, 1)
    }


def show_score(texts: Sequence[Text]) -> None:
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    excess: Counter[str] = Counter()
    hit = 0
    for text, spans in texts:
        wanted, got = set(spans), {tuple(one) for one in find(text)}
        right.update(kind for *_, kind in wanted & got)
        missed.update(kind for *_, kind in wanted - got)
        excess.update(str(kind) for *_, kind in got - wanted)
        hit += not wanted and bool(got)
    print(f"  {'kind':18} {'there':>6} {'recall':>7} {'precision':>9}")
    for kind in [*sorted(right | missed | excess), ""]:
        good, bad, more = (
            count[kind] if kind else count.total() for count in (right, missed, excess)
        )
        recall, precision = good / max(good + bad, 1), good / max(good + more, 1)
        print(f"  {kind or 'all':18} {good + bad:6,} {recall:7.2%} {precision:9.2%}")
    print(f"  look-alikes hit: {hit} of {sum(not spans for _, spans in texts):,}")


def show_speed(texts: Sequence[Text]) -> None:
    lines = [text for text, _ in texts]
    lines *= 1 + 1_000_000 // sum(map(len, lines))
    size = sum(len(line.encode()) for line in lines) / 1e6
    print(f"  {size:.1f} MB, masked: {seconds_of(lines) / size:.2f} s/MB")


def seconds_of(texts: Sequence[str]) -> float:
    scrubber = Scrubber()
    begin = time.process_time()
    for text in texts:
        scrubber.scrub(text)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
