"""Documents to text, measured: pages a minute of `axtune data import`, beside markitdown.

    python scripts/bench_import.py
    python scripts/bench_import.py --markitdown /path/to/other/venv/bin/python

The documents are made here: PDFs in one and in two columns, with heads, feet and tables, and
DOCX, HWPX, XLSX, PPTX and HTML of the same text. Only PDFs have pages that can be counted the same
way for both; of the others it prints documents. markitdown lives in an environment of its own
(`pip install 'markitdown[pdf,docx,pptx,xlsx]'`), and gets as many processes; it reads no HWPX. How
much of the text comes out whole is printed beside the speed: a paragraph of the source counts when
it stands in the output unbroken, white space aside.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests"))

from support.documents import PdfPage, pdf, wrapped  # noqa: E402
from tiny_corpus import SENTENCES, fill, world  # noqa: E402

# What runs in markitdown's environment: the texts of files, as JSON lines.
PEER = """
import json, sys
from concurrent.futures import ProcessPoolExecutor
from markitdown import MarkItDown
reader = None
def read(file):
    global reader
    reader = reader or MarkItDown(enable_plugins=False)
    try:
        return reader.convert(file).text_content
    except Exception:
        return ""
if __name__ == "__main__":
    with ProcessPoolExecutor(int(sys.argv[1])) as pool:
        for text in pool.map(read, sys.argv[2:], chunksize=4):
            print(json.dumps(text))
"""
ROWS = [
    ["구분", "대상", "일수"],
    ["결혼", "본인", "5일"],
    ["출산", "배우자", "20일"],
    ["사망", "부모", "5일"],
]


def paragraph(rng: random.Random) -> str:
    """Several sentences of the tiny models' corpus."""
    slots = world(rng)
    return " ".join(fill(rng, rng.choice(SENTENCES), slots) for _ in range(rng.randint(4, 9)))


def make_pdf(text: list[str], columns: int) -> bytes:
    """Pages of A4 in columns, a table on each, with a head, a foot and a number."""
    letters = 46 if columns == 1 else 22
    lines = [line for one in text for line in [*wrapped(one, letters), ""]]
    height = 42
    pages = []
    while lines:
        page = PdfPage().write(50, 812, "가상통신 사규집", 8).write(50, 25, "대외비", 8)
        page.write(520, 25, f"{len(pages) + 1} 쪽", 8)
        for column in range(columns):
            part, lines = lines[:height], lines[height:]
            for index, line in enumerate(part):
                if line:
                    page.write(50 + 260 * column, 780 - 15 * index, line)
        page.table(50, 140, [120, 120, 120], ROWS)
        pages.append(page)
    return pdf(pages, "사규집")


def make_docx(text: list[str]) -> bytes:
    """Paragraphs and a table."""
    import docx

    document = docx.Document()
    for one in text:
        document.add_paragraph(one)
    table = document.add_table(len(ROWS), len(ROWS[0]))
    for row, cells in zip(table.rows, ROWS, strict=True):
        for cell, said in zip(row.cells, cells, strict=True):
            cell.text = said
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def make_hwpx(text: list[str]) -> bytes:
    """Paragraphs."""
    import hwpx

    document = hwpx.HwpxDocument.new()
    for one in text:
        document.add_paragraph(one)
    file = io.BytesIO()
    document.save_to_stream(file)
    return file.getvalue()


def make_pptx(text: list[str]) -> bytes:
    """A slide for each paragraph."""
    import pptx

    show = pptx.Presentation()
    for number, one in enumerate(text, 1):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = f"{number}. 목적"
        slide.placeholders[1].text = one
    file = io.BytesIO()
    show.save(file)
    return file.getvalue()


def make_xlsx(text: list[str]) -> bytes:
    """A row for each paragraph."""
    import xlsxwriter

    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as workbook:
        sheet = workbook.add_worksheet("목록")
        for number, one in enumerate(text):
            sheet.write_row(number, 0, [number + 1, one])
    return file.getvalue()


def make_html(text: list[str]) -> bytes:
    """An article with what frames it."""
    body = "".join(f"<p>{one}</p>" for one in text)
    menu = "<nav><ul><li><a href=/1>홈</a></li><li><a href=/2>게시판</a></li></ul></nav>"
    html = (
        f"<html><head><title>공지</title></head><body>{menu}<article>{body}</article></body></html>"
    )
    return html.encode()


MAKERS: Mapping[str, Callable[[list[str]], bytes]] = {
    "one.pdf": lambda text: make_pdf(text, 1),
    "two.pdf": lambda text: make_pdf(text, 2),
    "docx": make_docx,
    "hwpx": make_hwpx,
    "xlsx": make_xlsx,
    "pptx": make_pptx,
    "html": make_html,
}


def whole(sources: list[list[str]], texts: list[str]) -> float:
    """The share of paragraphs that stand unbroken in the text of their document."""
    found = total = 0
    for paragraphs, text in zip(sources, texts, strict=True):
        flat = re.sub(r"\s+", "", text)
        found += sum(re.sub(r"\s+", "", one) in flat for one in paragraphs)
        total += len(paragraphs)
    return found / total


def axtune(files: list[Path], out: Path, workers: int) -> tuple[float, list[str], int]:
    """Seconds, texts in the order of the files, and pages."""
    command = [sys.executable, "-m", "axtune", "data", "import", *map(str, files)]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(out), "--workers", str(workers), "--json"],
        check=True, capture_output=True, cwd=HERE.parent,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return seconds, [row["text"] for row in rows], sum(row["meta"]["pages"] or 0 for row in rows)


def markitdown(python: str, files: list[Path], workers: int) -> tuple[float, list[str]]:
    """Seconds, and texts in the order of the files."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(PEER)
        script.flush()
        start = time.perf_counter()
        done = subprocess.run(
            [python, script.name, str(workers), *map(str, files)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return seconds, [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Make the documents, read them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--documents", type=int, default=40, help="of each kind")
    parser.add_argument("--paragraphs", type=int, default=60, help="in each document")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--markitdown", help="the Python of an environment that has it")
    options = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| kind | tool | seconds | documents a minute | pages a minute | whole |")
        print("|---|---|---|---|---|---|")
        for kind, make in MAKERS.items():
            files, sources = [], []
            for number in range(options.documents):
                sources.append([paragraph(rng) for _ in range(options.paragraphs)])
                files.append(folder / f"{number:03}.{kind}")
                files[-1].write_bytes(make(sources[-1]))
            seconds, texts, pages = axtune(files, folder / f"{kind}.jsonl", options.workers)
            pages = pages if kind.endswith("pdf") else 0
            show(kind, "axtune", seconds, len(files), pages, whole(sources, texts))
            if options.markitdown and kind != "hwpx":
                seconds, texts = markitdown(options.markitdown, files, options.workers)
                show(kind, "markitdown", seconds, len(files), pages, whole(sources, texts))


def show(kind: str, tool: str, seconds: float, documents: int, pages: int, share: float) -> None:
    """Print a line of the table."""
    minute = 60 / seconds
    paged = f"{pages * minute:,.0f}" if pages else ""
    print(
        f"| {kind} | {tool} | {seconds:.1f} | {documents * minute:,.0f} | {paged} | {share:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
