"""The page: one file that asks for nothing, escapes what it shows, and holds no data by itself."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.reported import CANARY, certified, evaluated, run_folder

from axtune.checkpoint.run_dir import EVALUATION
from axtune.errors import AxtuneError
from axtune.evaluate.results import read_result
from axtune.report.page import refresh, write_report

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """What an HTML file holds: tags with their attributes, ids, text; every tag closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.code: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[Any]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.code[self._open[-1]] = data
        else:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def ids(self) -> set[str]:
        return {attrs["id"] for _, attrs in self.tags if "id" in attrs}

    def count(self, tag: str, name: str = "") -> int:
        return sum(
            one == tag and (not name or name in (attrs.get("class") or "").split())
            for one, attrs in self.tags
        )


def page_of(*runs: Path, **options: Any) -> Page:
    out = runs[0].parent / "page.html"
    return Page(write_report(runs, out, **options).read_text(encoding="utf-8"))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return certified(evaluated(run_folder(tmp_path)))


def test_the_page_says_what_the_intervals_go_by(whole: Path) -> None:
    said = "questions are of 40 conversations, which the intervals go by"
    assert said not in page_of(whole).words
    found = read_result(whole / EVALUATION)
    first, *others = found.measured
    replace(found, measured=[replace(first, clusters=40), *others]).write(whole / EVALUATION)
    assert f"149 {said}" in page_of(whole).words


def test_one_run(whole: Path) -> None:
    page = page_of(whole)
    assert page.ids() == {
        "summary", "evaluation", "curves", "data", "plan", "certificates", "again"
    }  # fmt: skip
    for shown in (
        "Supervised fine-tuning of tiny-ax-4.0",
        "control-token",
        "near-duplicate",
        "118 MB 131 MB",
        "cannot be told with n = 20",
        "20.0% → 70.0%",
        "32 requests",
        "wrong-value",
        "lora:",
        "transformers",
        f"axtune train {whole}/recipe.yaml",
        "holds no row and no answer",
    ):
        assert shown in page.words, shown
    assert page.count("figure", "chart") == 4
    assert page.count("svg", "best") == 2
    assert page.count("svg", "whisker") == 2
    assert page.count("rect", "bar") == 5


def test_it_lies_in_the_run_for_its_owner_alone(whole: Path) -> None:
    file = write_report([whole])
    assert file == whole / "report.html"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_several_runs_are_compared(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    other = run_folder(tmp_path, name="other", training={"learning_rate": 1e-3})
    assert write_report([whole, other]) == Path("report.html")
    page = Page(Path("report.html").read_text(encoding="utf-8"))
    assert {"summary", "differences", "evaluation", "curves", "run-1", "run-2"} <= page.ids()
    assert "2 runs compared" in page.words
    assert "training.learning_rate 0.005 0.001" in page.words
    assert "Loss, held out" in page.words
    assert "Before and after" in page.words


def test_it_asks_for_nothing_and_its_policy_forbids_the_rest(whole: Path) -> None:
    page = page_of(whole, with_examples=True)
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form", "a")
        assert not {"src", "href", "style", "xlink:href"} & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
    (policy,) = [a["content"] for t, a in page.tags if "http-equiv" in a and t == "meta"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.code[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
        assert not re.search(r"https?:|@import|url\(", page.code[kind])


def test_no_answer_is_shown_unless_asked_for(whole: Path) -> None:
    assert "카나리아" not in write_report([whole]).read_text(encoding="utf-8")
    page = page_of(whole, with_examples=True)
    assert CANARY in page.words
    assert page.count("article", "example") == 3
    assert page.count("ins") >= 3
    assert page.count("del") >= 3
    assert page.count("script") == 1
    assert "holds no row" not in page.words


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, name="a<b>&'\"run")
    manifest = folder / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"rows.jsonl"', '"<img src=x>.jsonl"'), encoding="utf-8")
    page = page_of(folder)
    assert "<img src=x>.jsonl" in page.words
    assert "a<b>&'\"run" in page.words
    assert page.count("img") == 0


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / "metrics.jsonl").unlink()
    (folder / "manifest.json").write_text('{"status": "running"}', encoding="utf-8")
    page = page_of(folder)
    assert "running" in page.words
    assert page.ids() == {"summary", "again"}


def test_an_evaluation_without_another_model(tmp_path: Path) -> None:
    page = page_of(evaluated(run_folder(tmp_path), against=None))
    assert "70.0% (62.0% to 77.0%)" in page.words
    assert "difference" not in page.words


def test_where_it_cannot_be_written(whole: Path) -> None:
    with pytest.raises(AxtuneError, match="cannot be written"):
        write_report([whole], whole / "nowhere" / "page.html")


def test_an_evaluation_refreshes_the_page_of_its_own_run(whole: Path, tmp_path: Path) -> None:
    assert refresh(whole / "evaluation") == whole / "report.html"
    assert refresh(tmp_path / "evaluation" / "base") is None
    assert refresh(whole / "elsewhere") is None
