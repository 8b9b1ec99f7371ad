"""The page in a real browser: no request, no error, no sideways scrolling, values on hover."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.reported import certified, evaluated, run_folder

from axtune.report.page import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: bash scripts/setup_chromium.sh installs it"
    ),
]

# What keeps the browser itself from looking for anything in the network.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of one run with everything, and one that compares two."""
    folder = tmp_path_factory.mktemp("runs")
    run = certified(evaluated(run_folder(folder)))
    other = evaluated(run_folder(folder, name="a-rather-long-name-of-another-run", lora={"r": 8}))
    return {
        "one": write_report([run], folder / "one.html", with_examples=True),
        "two": write_report([run, other], folder / "two.html"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280, 1600])
@pytest.mark.parametrize("which", ["one", "two"])
def test_it_opens(
    browser: Any, pages: dict[str, Path], which: str, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[which].as_uri())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert said == []
    assert asked == [pages[which].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, shown.strip("rgb()").split(","))) < 384) == (scheme == "dark")
    assert page.locator(".chart .plot polyline").count() > 4
    assert page.locator(".whisker circle").first.is_visible()
    context.close()


def test_values_are_shown_where_the_pointer_is(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(pages["one"].as_uri())
    chart = page.locator(".chart").first
    plot, value = chart.locator(".plot"), chart.locator(".value")
    assert chart.locator(".step").inner_text() == "at the end"
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] * 29 / 39, "y": 40})
    assert chart.locator(".step").inner_text() == "step 30"
    assert value.all_inner_texts() == ["0.1333", "1.000"]
    assert [chart.locator(".at").nth(n).is_visible() for n in (0, 1)] == [True, True]
    page.mouse.move(5, 5)
    assert chart.locator(".step").inner_text() == "at the end"
    page.close()


def test_values_are_read_with_the_keyboard_and_by_touch(
    browser: Any, pages: dict[str, Path]
) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 900}, has_touch=True)
    page = context.new_page()
    page.goto(pages["one"].as_uri())
    chart = page.locator(".chart").first
    chart.locator(".plot").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert chart.locator(".step").inner_text() == "step 2"
    assert chart.locator(".value").all_inner_texts() == ["2.000", "–"]
    page.keyboard.press("Escape")
    assert chart.locator(".step").inner_text() == "at the end"
    other = page.locator(".chart").nth(1)
    other.locator(".plot").tap(position={"x": 2, "y": 40})
    assert other.locator(".step").inner_text() == "step 10"
    context.close()
