"""What README.md and the pages of docs/ show is what the commands and the schema say."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rows import ROOT
from typer.core import TyperGroup
from typer.main import get_command

from axtune.cli import app
from axtune.config.loader import load
from axtune.config.stages import load_stages

READMES = ["README.md", "README.ko.md"]
PAGES = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").glob("*.md"))
ENGLISH = [page for page in [*READMES, *PAGES] if not page.endswith(".ko.md")]
# A command as a page shows it: a line of an indented block.
COMMAND = re.compile(r"(?m)^ {4}((?:axtune|accelerate launch) .+)$")
MADE_FROM = {"--quant-type <nf4|fp4>": "commands", "| `data.max_length` | whole number": "recipes"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def cog_check(folder: Path, *pages: str) -> subprocess.CompletedProcess[str]:
    """Whether the pages of a folder hold the lists that would be written today."""
    return subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "-I", str(ROOT / "scripts"), *pages],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_lists_are_up_to_date() -> None:
    done = cog_check(ROOT, *PAGES)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\ncog -r -I scripts docs/*.md"


def test_a_list_that_is_out_of_date_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    pages = {
        f"docs/{made}{of}.md": shown for shown, made in MADE_FROM.items() for of in ("", ".ko")
    }
    for page, shown in pages.items():
        text = text_of(page)
        assert text.count(shown) == 1
        (tmp_path / page).write_text(text.replace(shown, "old"), encoding="utf-8")
    done = cog_check(tmp_path, *pages)
    assert done.returncode != 0
    assert [page for page in pages if f"{page}  (changed)" not in done.stdout] == []


def test_files_that_the_pages_name_exist() -> None:
    named = [
        name
        for page in (*READMES, *PAGES)
        for name in re.findall(
            r"(?<![\w/])(?:recipes|scripts|data_templates|tests|docs)/[\w./-]*\w", text_of(page)
        )
    ]
    assert len(named) > 100
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", READMES)
def test_readme_is_short(page: str) -> None:
    assert text_of(page).count("\n") < 150


@pytest.mark.parametrize("page", ENGLISH)
def test_the_korean_page_shows_the_same(page: str) -> None:
    """The Korean page has the sections, commands, and tables of the same keys and figures."""
    english, korean = text_of(page), text_of(page.replace(".md", ".ko.md"))
    shown = [r"(?m)^#+ ", r"(?m)^    .+$", r"(?m)^```(?s:.*?)^```", r"(?m)^(?:\|.*\||- .*)$"]
    for kind in shown:
        ours, theirs = (
            [_without_words(part) for part in re.findall(kind, text)] for text in (english, korean)
        )
        assert ours == theirs
    assert re.findall(shown[0], english)


def _without_words(shown: str) -> list[str]:
    """Of a row or an item what is no language's: code and figures; anything else as it stands."""
    if not shown.startswith(("|", "- ")):
        return [shown]
    return sorted(re.findall(r"`[^`]+`|(?<=\| )\d[\d.,]*(?: MB)?(?= \|)", shown))


@pytest.mark.parametrize("page", ENGLISH)
def test_the_commands_that_a_page_shows_are_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command is parsed as the program does, every recipe loaded with its overrides."""
    _user_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in map(shlex.split, COMMAND.findall(text_of(page))):
        if words[0] == "axtune":
            _parse(words[1:])
        recipe = [number for number, word in enumerate(words) if word in RECIPES]
        if recipe and words[1] in ("launch", "train", "plan"):
            overrides = [word for word in words[recipe[0] + 1 :] if re.match(r"[\w.]+=", word)]
            if words[recipe[0]] in OF_STAGES:
                load_stages(words[recipe[0]], overrides)
            else:
                load(words[recipe[0]], overrides, check_paths=False)


RECIPES = {f"recipes/{file.name}" for file in (ROOT / "recipes").glob("*.yaml")}
OF_STAGES = {name for name in RECIPES if re.search(r"(?m)^stages:", text_of(name))}


def _user_folder(folder: Path) -> None:
    """A folder in which a user types the commands: the recipes as they lie, and data."""
    for name in ("recipes", "data_templates"):
        (folder / name).symlink_to(ROOT / name)
    owned = {"my_chats": "chat", "my_eval": "chat_eval", "corpus": "documents"}
    for name, like in owned.items():
        shutil.copy(ROOT / f"data_templates/{like}.jsonl", folder / f"{name}.jsonl")
    shutil.copy(ROOT / "data_templates/security_guide.md", folder / "held_out.md")


def _parse(words: list[str]) -> None:
    """Read a command line down to its command; typer raises what it does not know."""
    command: Any = get_command(app)
    context: Any = None
    while isinstance(command, TyperGroup):
        context = command.make_context("axtune", list(words), parent=context)
        _, found, words = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        command = found
    command.make_context("axtune", list(words), parent=context)


@pytest.mark.parametrize("wrong", ["axtune data chekc a", "axtune eval runs/mine --againts base"])
def test_a_command_that_is_none_is_found(wrong: str) -> None:
    with pytest.raises(Exception, match=r"No such (command|option)"):
        _parse(wrong.split()[1:])


def offline_commands() -> list[str]:
    """Commands of the pages that read rows with an embedded model, and so run anywhere."""
    shown = (command for page in ENGLISH for command in COMMAND.findall(text_of(page)))
    return [command for command in shown if re.match("axtune data .*tiny-ax", command)]


def test_the_commands_over_embedded_models_run(tmp_path: Path) -> None:
    commands = offline_commands()
    assert len(commands) > 4
    _user_folder(tmp_path)
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_python_that_a_page_shows_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"(?s)```python\n(.*?)```", text_of("docs/index.md"))
    _user_folder(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code.replace("num_train_epochs=1", "max_steps=2")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout
    assert (tmp_path / "runs/python/adapter").is_dir()


def said() -> list[str]:
    """Every text in axtune's source; … stands for what is put in."""
    texts = []
    for file in (ROOT / "axtune").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                texts.append("".join(map(str, parts)))
    return texts


def test_the_messages_of_the_troubleshooting_page_are_said() -> None:
    texts = said()
    quoted = re.findall(r"(?m)^### `(.*)`$", text_of("docs/troubleshooting.md"))
    assert len(quoted) > 35
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
        assert any(re.search("(?s:.*)".join(parts), text) for text in texts), message
    assert quoted == re.findall(r"(?m)^### `(.*)`$", text_of("docs/troubleshooting.ko.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("no mkdocs here: pip install -e '.[docs]' installs it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_in_both_languages(site: Path) -> None:
    for page in PAGES:
        name = Path(page).name.removesuffix(".md")
        built = site / (f"ko/{name[:-3]}.html" if name.endswith(".ko") else f"{name}.html")
        assert built.is_file()


def _asked(text: str) -> Iterator[str]:
    """What a page or a style sheet loads from elsewhere when it is opened."""
    loads = r"<(?:script|link|img|iframe|source|audio|video|object|embed)\b[^>]*"
    for tag in re.findall(loads, text):
        if 'rel="alternate"' not in tag and 'rel="canonical"' not in tag:
            yield from re.findall(r"""(?:src|href|data)=["']?((?:https?:)?//[^"'\s>]+)""", tag)
    yield from re.findall(r"""(?:url\(|@import )["']?((?:https?:)?//[^"')\s]+)""", text)


def test_what_is_built_asks_nothing_of_a_network(site: Path) -> None:
    files = [file for end in ("html", "css") for file in site.rglob(f"*.{end}")]
    assert len(files) > len(PAGES)
    for file in files:
        assert list(_asked(file.read_text(encoding="utf-8"))) == [], file
    found = '<script src="https://a.b/c.js"></script><style>@import "//a.b/d.css"</style>'
    assert list(_asked(found)) == ["https://a.b/c.js", "//a.b/d.css"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
@pytest.mark.parametrize(("page", "word"), [("index", "quantise"), ("ko/index", "양자화")])
def test_a_page_is_searched_where_it_is_opened_as_a_file(site: Path, page: str, word: str) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=quiet)
        opened, asked = browser.new_page(viewport={"width": 400, "height": 900}), []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"{(site / page).as_uri()}.html")
        assert opened.evaluate("document.documentElement.scrollWidth") <= 400
        opened.set_viewport_size({"width": 1280, "height": 900})
        opened.click(".md-search__input")
        opened.keyboard.type(word)
        opened.keyboard.press("End")  # Hangul comes without a key, and a key starts the search
        opened.wait_for_selector(".md-search-result__item")
        browser.close()
    assert [url for url in asked if url.startswith(("http:", "https:", "ws:"))] == []
